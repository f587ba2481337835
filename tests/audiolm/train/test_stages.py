"""Training rows against live rows: the same tokens, the same conditioning, the same logits; then the loss itself."""

import json

import numpy as np
import pytest
import torch
from material import in_pattern, made_tokens

from audiolm import stage as stage_module
from audiolm.errors import InputError
from audiolm.runner import StageRunner, drive
from audiolm.sampler import Sampling, SamplingTensors
from audiolm.stage import Stage, StageSpec, skew
from audiolm.train.loop import TrainingError, load_weights
from audiolm.train.stages import (
    StageData,
    StageRecipe,
    corrupt,
    drop_conditioning,
    evaluate,
    gap_mask,
    lose,
    residual_dropout,
    stage_loss,
    train_stage,
)

SPLIT = 2
GRID = [(name, pattern) for name in ("semantic", "coarse", "fine") for pattern in ("depth", "delay", "flat")]


class Teacher:
    """A live engine for one session: steps the stage and keeps each row and its logits."""

    def __init__(self, stage, monkeypatch):
        self.stage, self.state, self.seen, self.logits = stage, stage.init_state(1), [], []
        monkeypatch.setattr(stage_module, "sample", self._spy)

    def _spy(self, logits, u, _):
        self.logits[-1].append(logits.clone())
        return torch.zeros(len(u), dtype=torch.int64)

    @torch.inference_mode()
    def rows(self, _, rows):
        row = rows[0]
        self.seen.append(row)
        self.logits.append([])
        n = self.stage.spec.levels
        tokens = self.stage.step(
            None if row.cond is None else torch.from_numpy(row.cond)[None],
            torch.from_numpy(row.forced)[None],
            torch.from_numpy(row.is_forced)[None],
            torch.full((1, n), 0.5),
            settings=SamplingTensors([Sampling(1.0)]),
            state=self.state,
            positions=np.array([row.position]),
        )
        return {0: tokens[0].numpy()}


def live(stage, tokens, start, monkeypatch):
    """What a session that hears `tokens` runs, from frame `start` on."""
    spec, engine = stage.spec, Teacher(stage, monkeypatch)
    runner = StageRunner(spec, 0, ratio=2 if spec.name == "coarse" else 1, start=start)
    acoustic, semantic = tokens.acoustic.long().numpy(), tokens.semantic.long().numpy()
    heard = {"semantic": semantic[:, None], "coarse": acoustic[:, :SPLIT], "fine": acoustic[:, SPLIT:]}[spec.name]
    frames = len(heard) if spec.name == "semantic" else 2 * (len(semantic) - spec.ahead)
    for frame in range(frames):
        runner.hear(start + frame, heard[frame])
    if spec.name == "coarse":
        for tick, word in enumerate(semantic):
            runner.give(start // 2 + tick, [word])
    if spec.name == "fine":
        for frame in range(frames):
            runner.give(start + frame, acoustic[frame, :SPLIT])
    drive(engine, spec.name, [(0, runner)])
    return engine


@pytest.mark.parametrize("start", [0, 100_000])
@pytest.mark.parametrize(("name", "pattern"), GRID)
def test_training_rows_are_live_rows(name, pattern, start, specs, monkeypatch):
    """Crops of two windows and more: tokens and conditioning to the bit, logits to rounding."""
    torch.manual_seed(0)
    stage = Stage(in_pattern(specs[name], pattern)).eval()
    spec = stage.spec
    ticks = {"semantic": 120, "coarse": 50, "fine": 24}[name] // (3 if pattern == "flat" else 1)
    tokens = made_tokens(1, ticks + spec.ahead, seed=3)
    frames, cond = StageData(tokens, spec, SPLIT, ticks / 25, 0).batch(1)  # the only crop there is
    engine = live(stage, tokens, start, monkeypatch)
    rows = skew(frames, spec.start_token) if pattern == "delay" else frames
    assert [row.position for row in engine.seen] == list(range(start, start + frames.shape[1]))
    assert np.array_equal(np.stack([row.forced for row in engine.seen]), rows[0])
    assert all(row.is_forced.all() for row in engine.seen)
    if cond is None:
        assert all(row.cond is None for row in engine.seen)
    else:
        assert np.array_equal(np.stack([row.cond for row in engine.seen]), cond[0])
    with torch.inference_mode():
        whole = stage(rows, cond, start, rows)[0]
    steps = torch.stack([torch.cat(levels) for levels in engine.logits])
    torch.testing.assert_close(steps, whole, atol=2e-4, rtol=0)


@pytest.mark.parametrize("ahead", [2, 3])
def test_a_coarse_frame_reads_the_token_ahead_of_its_tick(ahead):
    spec = StageSpec("coarse", 1, 50, SPLIT, 32, 1, 24, ahead)
    data = StageData(made_tokens(2, 60), spec, SPLIT, 1.0, 0)
    frames, cond = data.batch(16)
    assert frames.shape == (16, 50, SPLIT)
    assert cond.shape == (16, 50, 1)
    for clip, aligned in zip(frames, cond, strict=True):
        assert any(fits(clip, aligned, c, t, ahead) for c in range(2) for t in range(60 - 25 - ahead + 1))
        assert not any(fits(clip, aligned, c, t, ahead + 1) for c in range(2) for t in range(60))


def fits(frames, cond, clip, tick, ahead):
    """Whether a crop of the made tokens begins at `tick` of `clip`; 16 and 24 ticks are their periods."""
    wanted = [(100 * clip + tick + f // 2 + ahead) % 24 for f in range(50)]
    return int(frames[0, 0]) == (200 * clip + 2 * tick) % 32 and cond[:, 0].tolist() == wanted


def test_too_long_a_crop_is_refused_before_training(specs, tmp_path):
    tokens = made_tokens(1, 30)
    with pytest.raises(InputError, match="no clip has 52 ticks"):
        train_stage(specs["coarse"], tokens, tokens, tmp_path, StageRecipe(crop=2.0), coarse_levels=SPLIT)


def test_token_noise_and_level_dropout_are_as_frequent_as_asked(specs):
    spec, generator = specs["fine"], torch.Generator().manual_seed(0)
    tokens = torch.zeros(400, 50, spec.levels, dtype=torch.int64)
    noisy = corrupt(tokens, spec, StageRecipe(noise=0.1, level_dropout=0), generator)
    assert abs(float((noisy != 0).float().mean()) - 0.1 * 31 / 32) < 0.01
    assert int(noisy.max()) < spec.cardinality
    masked = corrupt(tokens, spec, StageRecipe(noise=0, level_dropout=0.5), generator) == spec.mask_token
    assert (masked == masked[:, :1]).all()  # of whole crops
    assert not masked[..., 0].any()  # the first level is always there
    assert (masked[..., 1:].int().diff(dim=-1) >= 0).all()  # from some level on
    assert abs(float(masked[:, 0, -1].float().mean()) - 0.5) < 0.1
    untouched = corrupt(tokens, spec, StageRecipe(noise=0, level_dropout=0), generator)
    assert torch.equal(untouched, tokens)


def test_conditioning_is_dropped_for_whole_crops(specs):
    spec, generator = specs["coarse"], torch.Generator().manual_seed(0)
    cond = torch.ones(1000, 6, 1, dtype=torch.int64)
    dropped = drop_conditioning(cond, spec, 0.2, generator) == spec.cond_mask
    assert (dropped == dropped[:, :1]).all()
    assert abs(float(dropped.float().mean()) - 0.2) < 0.05
    assert drop_conditioning(cond, spec, 0.0, generator) is cond
    assert drop_conditioning(None, spec, 0.5, generator) is None


def test_gaps_are_short_and_as_frequent_as_asked():
    lost = gap_mask(200, 400, 0.05, torch.Generator().manual_seed(0))
    assert abs(float(lost.float().mean()) - 0.05) < 0.01
    changes = torch.nn.functional.pad(lost.int(), (1, 1)).diff(dim=1)
    lengths = (changes == -1).nonzero()[:, 1] - (changes == 1).nonzero()[:, 1]
    assert lengths.min() == 1
    assert 5 <= lengths.max() <= 15  # two gaps may meet
    assert float((lengths <= 5).float().mean()) > 0.9
    assert not gap_mask(3, 10, 0.0, torch.Generator()).any()


@pytest.mark.parametrize("name", ["semantic", "coarse", "fine"])
def test_a_lost_tick_is_lost_in_what_is_fed_back_and_in_the_conditioning(specs, name):
    """As live: a lost frame is forced as the mask token, and its conditioning is read `ahead` tokens before."""
    spec, generator = specs[name], torch.Generator().manual_seed(0)
    per, n = spec.rate // 25, 300
    frames = torch.zeros(n, 40 * per, spec.levels, dtype=torch.int64)
    given = torch.zeros(n, 40 * per, spec.cond_levels, dtype=torch.int64) if spec.cond_levels else None
    feed, cond = lose(frames, given, spec, 0.05, generator)
    gone = feed == spec.mask_token
    assert (gone == gone[..., :1]).all()  # all levels of a frame
    assert (gone[:, ::per] == gone[:, per - 1 :: per]).all()  # all frames of a tick
    assert set(feed.unique().tolist()) == {0, spec.mask_token}
    if cond is None:
        return
    out = cond == spec.cond_mask
    assert set(cond.unique().tolist()) == {0, spec.cond_mask}
    fed, read = gone.flatten(1).any(1), out.flatten(1).any(1)
    assert all((kind).any() for kind in (fed & ~read, read & ~fed, fed & read))
    shift, both = spec.ahead * per, fed & read
    assert torch.equal(gone[both, shift:, 0], out[both, : out.shape[1] - shift, 0])
    same, cond = lose(frames, given, spec, 0.0, generator)
    assert same is frames
    assert cond is given


def test_short_clips_are_joined_and_the_joint_is_marked(specs):
    short, long = made_tokens(1, 30), made_tokens(1, 60, seed=1)
    both = type(short)(
        torch.cat((short.acoustic, long.acoustic)),
        torch.cat((short.semantic, long.semantic)),
        torch.tensor([[0, 30], [30, 60]]),
    )
    for name in specs:
        spec = specs[name]
        data = StageData(both, spec, SPLIT, 2.0, 0)
        frames, cond, ends = data.joined(200)
        assert frames.shape == (200, 2 * spec.rate, spec.levels)
        assert cond is None or cond.shape == (200, 2 * spec.rate, spec.cond_levels)
        joints = ends.sum(1)
        assert 0.2 < float((joints > 0).float().mean()) < 0.5  # the short clip is a third of the sound
        assert not ends[:, -1].any()
        step = frames[:, 1:, 0] - frames[:, :-1, 0]
        period = 24 if name == "semantic" else 32
        jumps = (step % period) != 1
        assert torch.equal(jumps & ends[:, :-1], jumps)  # a jump only where it is marked


def test_dropout_is_for_training_only_and_comes_off_again(specs):
    torch.manual_seed(0)
    stage = Stage(specs["coarse"])
    frames, cond = StageData(made_tokens(1, 40), stage.spec, SPLIT, 1.0, 0).batch(2)
    with torch.no_grad(), residual_dropout(stage, 0.5):
        noisy = [stage.train()(frames, cond) for _ in range(2)]
        still = [stage.eval()(frames, cond) for _ in range(2)]
    assert not torch.equal(*noisy)
    assert torch.equal(*still)
    with torch.no_grad():
        assert torch.equal(stage.train()(frames, cond), still[0])


def test_a_run_that_no_longer_gets_better_ends_early(specs, tmp_path):
    tokens = made_tokens(3, 80)
    recipe = StageRecipe(minutes=1000, batch=2, crop=1.6, rate=1.0, steps=500, evaluate_every=0, patience=3)
    train_stage(specs["semantic"], tokens, tokens, tmp_path, recipe)
    rows = [row for row in log(tmp_path / "semantic.jsonl") if "dev_nll" in row]
    assert rows[-1]["step"] < 400
    best = min(range(len(rows)), key=lambda i: rows[i]["dev_nll"])
    assert len(rows) - 1 - best >= 3
    kept = Stage(specs["semantic"])
    load_weights(tmp_path / "semantic.safetensors", kept)
    held = StageData(tokens, specs["semantic"], SPLIT, 1.6, 1)
    assert abs(float(evaluate(kept, held).mean()) - rows[best]["dev_nll"]) < 1e-3


def test_the_loss_is_the_cross_entropy_of_the_logits(specs):
    torch.manual_seed(0)
    stage = Stage(specs["fine"]).eval()
    frames, cond = StageData(made_tokens(1, 30), stage.spec, SPLIT, 1.0, 0).batch(2)
    with torch.no_grad():
        logits = stage(frames, cond, 7).log_softmax(-1)
        wanted = -logits.gather(-1, frames[..., None])[..., 0].mean((0, 1))
        torch.testing.assert_close(stage_loss(stage, frames, cond, 7), wanted)
        part = torch.stack([stage_loss(stage, frames, cond, 7, share=0.2) for _ in range(40)]).mean(0)
    torch.testing.assert_close(part, wanted, atol=0.05, rtol=0)


def test_what_lies_before_a_delayed_level_is_no_target(specs):
    torch.manual_seed(0)
    stage = Stage(in_pattern(specs["fine"], "delay")).eval()
    frames, cond = StageData(made_tokens(1, 30), stage.spec, SPLIT, 0.2, 0).batch(1)
    with torch.no_grad():
        feed = skew(frames, stage.spec.start_token)
        logits = stage(feed, cond, 0, feed).log_softmax(-1)
        loss = stage_loss(stage, frames, cond, 0)
    for q in range(4):  # rows q and later hold the frames of level q
        wanted = -logits[0, q:, q].gather(-1, frames[0, : 10 - q, q, None]).mean()
        torch.testing.assert_close(loss[q], wanted)


RECIPE = StageRecipe(minutes=1000, batch=4, crop=1.6, rate=5e-3, evaluate_every=1000, steps=50)


def log(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(specs, tmp_path_factory):
    out = tmp_path_factory.mktemp("stages")
    tokens = made_tokens(3, 80)
    return out, {name: train_stage(specs[name], tokens, tokens, out, RECIPE, coarse_levels=SPLIT) for name in specs}


@pytest.mark.parametrize("name", ["semantic", "coarse", "fine"])
def test_the_loss_goes_down_on_a_corpus_that_can_be_known(trained, specs, name):
    out, stages = trained
    held = StageData(made_tokens(3, 80), specs[name], SPLIT, 1.6, 1)
    torch.manual_seed(5)
    before, after = evaluate(Stage(specs[name]), held), evaluate(stages[name], held)
    assert float(after.mean()) < 0.6 * float(before.mean())
    last = log(out / f"{name}.jsonl")[-2 if "nll" in log(out / f"{name}.jsonl")[-1] else -1]
    assert abs(last["dev_nll"] - float(after.mean())) < 0.01
    assert {f"dev_{q}" for q in range(specs[name].levels)} <= set(last)


def test_a_run_from_weights_starts_near_the_old_loss_and_keeps_the_best(trained, specs, tmp_path):
    tokens, path = made_tokens(3, 80), trained[0] / "coarse.safetensors"
    recipe = StageRecipe(minutes=1000, batch=2, crop=1.6, rate=0.5, steps=3)  # a rate that ruins it
    train_stage(specs["coarse"], tokens, tokens, tmp_path, recipe, coarse_levels=SPLIT, weights_from=path)
    first, *_, last = [row["dev_nll"] for row in log(tmp_path / "coarse.jsonl") if "dev_nll" in row]
    old = [row["dev_nll"] for row in log(trained[0] / "coarse.jsonl") if "dev_nll" in row][-1]
    assert abs(first - old) < 1e-3
    assert last > first + 0.1
    kept, wanted = Stage(specs["coarse"]), Stage(specs["coarse"])
    load_weights(tmp_path / "coarse.safetensors", kept)
    load_weights(path, wanted)
    assert torch.equal(kept.tokens.table.weight, wanted.tokens.table.weight)


def test_dropped_conditioning_costs_likelihood(trained, specs):
    """The tokens of the made corpus follow from their semantic token, so a stage that reads it knows more."""
    stage = trained[1]["fine"].train()
    held = StageData(made_tokens(3, 80), specs["fine"], SPLIT, 1.6, 1)
    kept, dropped = evaluate(stage, held), evaluate(stage, held, drop=True)
    assert float(dropped.mean()) > float(kept.mean())
    assert stage.training  # it is given back as it was
    assert torch.equal(evaluate(stage, held), kept)  # always the same crops


def test_a_poisoned_stage_ends_in_an_error_and_saves_nothing(specs, tmp_path):
    with torch.no_grad():
        stage = Stage(specs["semantic"])
        stage.tokens.table.weight[0, 0] = float("inf")
    from safetensors.torch import save_file

    save_file(stage.state_dict(), tmp_path / "bad.safetensors")
    tokens = made_tokens(1, 60)
    with pytest.raises(TrainingError, match="dev_nll of semantic became NaN"):
        train_stage(specs["semantic"], tokens, tokens, tmp_path, RECIPE, weights_from=tmp_path / "bad.safetensors")
    assert not (tmp_path / "semantic.safetensors").exists()
