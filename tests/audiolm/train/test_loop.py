"""A run ends by clock, steps or signal; what is not finite or cannot be written leaves the last checkpoint."""

import json
import logging
import re
import signal
import sys

import pytest
import torch
from torch import nn

from audiolm.errors import AudioLMError, InputError
from audiolm.train import checkpoint, journal
from audiolm.train.journal import duration
from audiolm.train.loop import (
    AverageWeights,
    Learner,
    Run,
    StoppedError,
    TrainingError,
    cosine,
    load_weights,
    read_tensors,
    save_weights,
)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def learner(run, weights):
    return Learner(run, weights, 0.1, betas=(0.9, 0.99))


def test_a_run_ends_after_its_steps_and_logs_means(tmp_path, caplog):
    caplog.set_level(logging.INFO, "audiolm.train")
    with Run(tmp_path, "part", 1000, steps=4) as run:
        while not run.done:
            run.tick({"loss": float(run.step)})
    assert run.step == 4
    assert run.progress == 1.0
    assert [(row["step"], row["loss"]) for row in lines(tmp_path / "part.jsonl")] == [(4, 1.5)]
    assert "part" in caplog.text
    assert "step 4: loss 1.5" in caplog.text


def test_a_run_ends_by_the_clock(tmp_path):
    with Run(tmp_path, "part", 1e-6) as run:
        while not run.done:
            run.tick({})
    assert run.progress == 1.0


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_a_length_that_cannot_be_is_refused(tmp_path, minutes):
    with pytest.raises(InputError, match="minutes"):
        Run(tmp_path, "part", minutes)
    with pytest.raises(InputError, match="steps"):
        Run(tmp_path, "part", 1, steps=0)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made a folder"):
        Run(tmp_path / "file" / "out", "part", 1)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_after_its_checkpoint(tmp_path, number, code):
    before, saved = signal.getsignal(number), []

    def loop_with_a_signal():
        with Run(tmp_path, "part", 1000) as run:
            while not run.done:
                run.tick({"loss": 1.0})
                if run.step == 3:
                    signal.raise_signal(number)
                    assert signal.getsignal(number) == before  # the next one ends the program at once
            saved.append(run.step)

    with pytest.raises(StoppedError, match="at step 3; its weights are in") as ended:
        loop_with_a_signal()
    assert saved == [3]
    assert ended.value.exit_code == code
    assert signal.getsignal(number) == before


def test_an_error_goes_through_and_the_handlers_come_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), Run(tmp_path, "part", 1):
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) == before


def test_training_errors_are_ours_and_not_the_input():
    assert issubclass(TrainingError, AudioLMError)
    assert TrainingError("x").exit_code == 1


def test_the_learner_takes_one_step_downhill(tmp_path):
    weight = nn.Parameter(torch.tensor([3.0]))
    with Run(tmp_path, "part", 1000, steps=30) as run:
        steps = learner(run, [weight])
        while not run.done:
            steps.step(weight.square().sum(), {"square": float(weight.detach().square())})
    assert float(weight.detach().abs()) < 2.5
    assert run.step == 30


@pytest.mark.parametrize("kind", ["loss", "gradient", "logged"])
def test_nan_ends_the_run_before_it_reaches_the_weights(tmp_path, kind):
    weight = nn.Parameter(torch.tensor([2.0]))
    run = Run(tmp_path, "part", 1000)
    zero = (weight * 0).sum()
    loss = {"loss": zero / 0, "gradient": zero.sqrt(), "logged": zero}[kind]
    with pytest.raises(TrainingError, match="NaN or infinite at step 0; lower the rate"):
        learner(run, [weight]).step(loss, {"x": float("inf") if kind == "logged" else 0.0})
    assert weight.tolist() == [2.0]
    assert run.step == 0


def test_the_schedule_warms_up_and_ends_at_the_floor():
    rates = [cosine(i / 100, 1.0) for i in range(101)]
    top = rates.index(max(rates))
    assert rates[0] == 0.01
    assert top == 3
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert abs(rates[-1] - 0.02) < 1e-9


def test_checkpoints_are_due_by_the_clock(tmp_path):
    assert not Run(tmp_path, "part", 1, save_every=1000).save_due()
    assert Run(tmp_path, "part", 1, save_every=0).save_due()


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, {"w": torch.ones(2)}, {"steps": 1})
    with pytest.raises(TrainingError, match="w holds NaN"):
        save_weights(path, {"w": torch.tensor([1.0, float("nan")])})
    assert torch.equal(read_tensors(path)["w"], torch.ones(2))


def test_a_full_disk_leaves_the_last_weights(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_weights(path, {"w": torch.ones(2)})

    def full(_, place, __):
        place.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(TrainingError, match="No space left on device"):
        save_weights(path, {"w": torch.zeros(2)})
    assert torch.equal(read_tensors(path)["w"], torch.ones(2))
    assert [each.name for each in tmp_path.iterdir()] == ["w.safetensors"]


def test_weights_that_do_not_fit_say_where(tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(InputError, match="is not there"):
        load_weights(path, nn.Linear(2, 3))
    path.write_bytes(b"not safetensors")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_weights(path, nn.Linear(2, 3))
    save_weights(path, nn.Linear(2, 4).state_dict())
    with pytest.raises(InputError, match=r"bias is \(4,\), expected \(3,\)"):
        load_weights(path, nn.Linear(2, 3))
    wanted = nn.Linear(2, 3)
    save_weights(path, wanted.state_dict())
    given = nn.Linear(2, 3)
    load_weights(path, given)
    assert torch.equal(given.weight, wanted.weight)


def test_the_average_follows_the_weights_and_lends_itself():
    model = nn.Linear(1, 1, bias=False)
    average = AverageWeights(model, decay=0.5)
    with torch.no_grad():
        model.weight.fill_(10.0)
    average.values["weight"].zero_()
    average.update()  # decay (1 + 1) / (10 + 1)
    assert float(average.values["weight"]) == pytest.approx(10 * 9 / 11)
    for _ in range(20):
        average.update()
    before = float(average.values["weight"])
    with torch.no_grad():
        model.weight.fill_(20.0)
    average.update()  # the warm-up is over
    assert float(average.values["weight"]) == pytest.approx((before + 20) / 2)
    with average.applied():
        assert torch.equal(model.weight, average.values["weight"])
    assert model.weight.tolist() == [[20.0]]
    assert torch.equal(average.weights()["weight"], average.values["weight"])
    with pytest.raises(RuntimeError), average.applied():
        raise RuntimeError
    assert model.weight.tolist() == [[20.0]]


def test_a_run_needs_a_length(tmp_path):
    with pytest.raises(InputError, match="give minutes, or steps"):
        Run(tmp_path, "part", None)
    assert Run(tmp_path, "part", None, steps=4).progress == 0


def test_the_line_for_people_says_how_fast_and_how_long(tmp_path, caplog):
    caplog.set_level(logging.INFO, "audiolm.train")
    with Run(tmp_path, "part", 1000, steps=100) as run:
        run.begin -= 50  # so long it has been
        for _ in range(50):
            run.tick({"loss": 1.0})
    assert re.search(r"part: 0.8 of 1000.0 min, 1(\.\d+)? steps/s, (49|50) s left, step 50: loss 1", caplog.text)
    assert lines(tmp_path / "part.jsonl")[0]["steps_per_second"] > 0


@pytest.mark.parametrize(("seconds", "text"), [(3, "3 s"), (600, "10 min"), (7200, "2.0 h")])
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text


def test_tensorboard_gets_the_same_curves(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with Run(tmp_path, "part", 1000, steps=2, every=0.0) as run:
        for _ in run:
            run.tick({"loss": 3.0 - run.step})
    curves = reader.EventAccumulator(str(tmp_path / "tensorboard" / "part")).Reload()
    assert [(e.step, e.value) for e in curves.Scalars("part/loss")] == [(1, 3.0), (2, 2.0)]


def test_without_tensorboard_a_run_says_so_once(tmp_path, caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setattr(journal, "_said", set())
    caplog.set_level(logging.INFO, "audiolm.train")
    with Run(tmp_path, "part", 1000, steps=3, every=0.0) as run:
        for _ in run:
            run.tick({"loss": 1.0})
    assert caplog.text.count("no TensorBoard here") == 1
    assert len(lines(tmp_path / "part.jsonl")) == 3
