"""A stopped run goes on to the same numbers; what it cannot go on from, it says; a fault leaves a good state."""

import json
import logging
import signal

import numpy as np
import pytest
import torch
from material import made_tokens
from safetensors import safe_open
from torch import nn

from audiolm.errors import InputError
from audiolm.train import checkpoint
from audiolm.train.loop import AverageWeights, Learner, Run, StoppedError, TrainingError, read_tensors
from audiolm.train.stages import StageRecipe, train_stage

SPLIT = 2
RECIPE = StageRecipe(minutes=1000, batch=2, crop=1.6, rate=5e-3, steps=10, depth_share=0.5, dropout=0.1, gaps=0.1)


class Toy:
    """A run of a linear model on noise from a numpy generator, which a resumed run must draw on."""

    def __init__(self, out, *, steps=8, minutes=None, stop_at=None, poison_at=None, **kwargs):
        torch.manual_seed(0)
        self.out, self.kwargs = out, {"steps": steps, "every": 0.0, **kwargs}
        self.minutes, self.stop_at, self.poison_at = minutes, stop_at, poison_at
        self.model, self.rng = nn.Linear(4, 1), np.random.default_rng(1)
        self.generator = torch.Generator().manual_seed(2)
        self.losses, self.exports = [], []

    def train(self):
        with Run(self.out, "toy", self.minutes, **self.kwargs) as run:
            self.run = run
            average = AverageWeights(self.model, 0.9)
            learner = Learner(run, self.model.parameters(), 0.1, betas=(0.9, 0.99), average=average)
            parts = {"model": self.model, "learner": learner, "average": average}
            self.resumed = run.resume(
                parts | {"rng": self.rng, "generator": self.generator},
                export=lambda: self.exports.append(run.step),
            )
            for _ in run:
                self.step(run, learner)
        self.average = average
        return self

    def step(self, run, learner):
        x = torch.from_numpy(self.rng.standard_normal((3, 4)).astype(np.float32))
        x = x + torch.rand(3, 4, generator=self.generator) + torch.rand(3, 4)
        x = x * float("nan") if run.step == self.poison_at else x
        loss = self.model(run.share(x)).square().mean()
        self.losses.append(float(loss.detach()))
        learner.step(loss, {"loss": self.losses[-1]})
        if run.step == self.stop_at:
            signal.raise_signal(signal.SIGTERM)


def rows(out, name="toy"):
    return [json.loads(line) for line in (out / f"{name}.jsonl").read_text().splitlines()]


def stopped(out, **kwargs):
    toy = Toy(out, **kwargs)
    with pytest.raises(StoppedError, match="run the same command to go on"):
        toy.train()
    return toy


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path):
    whole = Toy(tmp_path / "whole").train()
    first = stopped(tmp_path / "parts", stop_at=3)
    second = Toy(tmp_path / "parts").train()
    assert not whole.resumed
    assert second.resumed
    assert first.losses + second.losses == whole.losses
    assert torch.equal(second.model.weight, whole.model.weight)
    assert torch.equal(second.average.values["weight"], whole.average.values["weight"])
    assert first.exports == [3]
    assert second.exports == [8]
    assert [row["step"] for row in rows(tmp_path / "parts")] == list(range(1, 9))
    assert [row["loss"] for row in rows(tmp_path / "parts")] == [row["loss"] for row in rows(tmp_path / "whole")]


@pytest.mark.parametrize("name", ["semantic", "coarse", "fine"])
def test_a_stopped_stage_goes_on_to_the_same_bits(specs, tmp_path, monkeypatch, name):
    tokens, seen, stop = made_tokens(3, 80), [], {"at": 0}
    tick = Run.tick

    def spy(run, losses):
        tick(run, losses)
        seen.append(losses["nll"])
        if run.step == stop["at"]:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Run, "tick", spy)
    whole = train_stage(specs[name], tokens, tokens, tmp_path / "whole", RECIPE, coarse_levels=SPLIT)
    straight, stop["at"] = seen.copy(), 4
    seen.clear()
    with pytest.raises(StoppedError):
        train_stage(specs[name], tokens, tokens, tmp_path / "parts", RECIPE, coarse_levels=SPLIT)
    assert len(seen) == 4
    stop["at"] = 0
    parts = train_stage(specs[name], tokens, tokens, tmp_path / "parts", RECIPE, coarse_levels=SPLIT)
    assert seen == straight
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))


def test_a_finished_run_does_nothing_until_it_is_given_more(tmp_path, caplog):
    caplog.set_level(logging.INFO, "audiolm.train")
    Toy(tmp_path).train()
    before = (tmp_path / "toy.state.safetensors").read_bytes()
    again = Toy(tmp_path).train()
    assert again.run.finished
    assert again.losses == again.exports == []
    assert "finished before, at step 8" in caplog.text
    assert "give more minutes or steps" in caplog.text
    assert (tmp_path / "toy.state.safetensors").read_bytes() == before
    more = Toy(tmp_path, steps=10).train()
    assert len(more.losses) == 2
    assert rows(tmp_path)[-1]["step"] == 10


def test_restart_and_other_weights_begin_anew(tmp_path, caplog):
    caplog.set_level(logging.INFO, "audiolm.train")
    first = Toy(tmp_path).train()
    assert Toy(tmp_path, restart=True).train().losses == first.losses
    assert [row["step"] for row in rows(tmp_path)] == list(range(1, 9))  # a log of its own
    fresh = stopped(tmp_path, weights_from="other.safetensors", stop_at=2)
    assert not fresh.resumed
    assert "starts afresh from other.safetensors" in caplog.text
    assert Toy(tmp_path, weights_from="other.safetensors").train().resumed  # the same command goes on


def test_elapsed_time_counts_over_calls(tmp_path):
    toy = stopped(tmp_path, steps=None, minutes=10, stop_at=2)
    spent = toy.run.elapsed
    state = read_facts(tmp_path)
    assert 0 < state["seconds"] <= spent
    header = checkpoint.read_state(tmp_path / "toy.state.safetensors")
    header.facts["seconds"] = 9 * 60.0
    checkpoint.write_state(tmp_path / "toy.state.safetensors", header)
    again = stopped(tmp_path, steps=None, minutes=10, stop_at=3)
    assert 0.9 < again.run.progress < 0.95
    header.facts["seconds"] = 10 * 60.0
    checkpoint.write_state(tmp_path / "toy.state.safetensors", header)
    assert Toy(tmp_path, steps=None, minutes=10).train().run.finished


def read_facts(out):
    with safe_open(out / "toy.state.safetensors", "pt") as file:
        return json.loads(file.metadata()["facts"])


def test_a_decision_to_end_is_remembered(tmp_path, caplog):
    class Short(Toy):
        def step(self, run, learner):
            super().step(run, learner)
            if run.step == 2:
                run.finish("enough")

    caplog.set_level(logging.INFO, "audiolm.train")
    assert len(Short(tmp_path).train().losses) == 2
    assert "ends at step 2: enough" in caplog.text
    assert Short(tmp_path).train().losses == []
    assert "finished before, at step 2 (0 s of training): enough" in caplog.text
    assert len(Toy(tmp_path, steps=9).train().losses) == 7


def test_other_settings_are_refused_by_name(tmp_path):
    stopped(tmp_path, settings={"Recipe": {"rate": 0.1, "betas": (0.9, 0.99)}}, stop_at=2)
    with pytest.raises(InputError, match=r"Recipe.rate was 0.1 and is 0.2 now.*--restart.*--from"):
        Toy(tmp_path, settings={"Recipe": {"rate": 0.2, "betas": (0.9, 0.99)}}).train()
    assert Toy(tmp_path, settings={"Recipe": {"rate": 0.1, "betas": (0.9, 0.99)}}).train().resumed


def test_a_state_that_does_not_fit_says_where(tmp_path):
    stopped(tmp_path, stop_at=2)
    wide = Toy(tmp_path)
    wide.model = nn.Linear(5, 1)
    with pytest.raises(InputError, match=r"does not fit this run's model.*--restart"):
        wide.train()
    state = tmp_path / "toy.state.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(InputError, match=r"not a readable state.*--restart"):
        Toy(tmp_path).train()
    checkpoint.save_tensors(state, {"w": torch.zeros(1)})
    with pytest.raises(InputError, match="no state of this version"):
        Toy(tmp_path).train()
    assert not Toy(tmp_path, restart=True).train().resumed


def test_nan_leaves_the_last_good_state(tmp_path):
    with pytest.raises(TrainingError, match="NaN or infinite at step 5"):
        Toy(tmp_path, poison_at=5, save_every=0).train()
    assert read_facts(tmp_path)["step"] == 5
    good = Toy(tmp_path).train()
    assert len(good.losses) == 3
    assert good.losses == Toy(tmp_path / "whole").train().losses[5:]


def test_a_state_with_nan_is_not_written(tmp_path):
    stopped(tmp_path, stop_at=2)
    before = (tmp_path / "toy.state.safetensors").read_bytes()

    class Broken(Toy):
        def step(self, run, learner):
            super().step(run, learner)
            with torch.no_grad():
                self.model.weight.fill_(float("inf"))

    with pytest.raises(TrainingError, match="model/weight holds NaN or infinity"):
        Broken(tmp_path, save_every=0).train()
    assert (tmp_path / "toy.state.safetensors").read_bytes() == before


@pytest.mark.parametrize("where", ["writing", "renaming"])
def test_a_full_disk_or_a_crash_while_writing_leaves_the_last_state(tmp_path, monkeypatch, where):
    stopped(tmp_path, stop_at=2)
    before = (tmp_path / "toy.state.safetensors").read_bytes()

    def full(*args):
        args[1].write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if where == "writing":
            patch.setattr(checkpoint, "save_file", full)
        else:
            patch.setattr(checkpoint.os, "fsync", lambda _: full(None, tmp_path / "toy.state.part"))
        with pytest.raises(TrainingError, match="No space left on device"):
            Toy(tmp_path).train()
    assert (tmp_path / "toy.state.safetensors").read_bytes() == before
    assert not list(tmp_path.glob("*.part"))
    (tmp_path / "toy.state.part").write_bytes(b"a process was killed here")
    assert len(Toy(tmp_path).train().losses) == 6


def test_a_log_that_cannot_be_written_ends_the_run(tmp_path):
    (tmp_path / "toy.jsonl").mkdir()
    with pytest.raises(TrainingError, match=r"toy.jsonl cannot be written.*intact"):
        Toy(tmp_path).train()


def test_no_pickle_is_written(tmp_path):
    Toy(tmp_path).train()
    kept = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert kept == {"toy.jsonl", "toy.state.safetensors"}
    tensors = read_tensors(tmp_path / "toy.state.safetensors")
    assert {"model/weight", "learner/0.exp_avg", "average/weight", "generator/state", "torch/cpu"} <= set(tensors)
