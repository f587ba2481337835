"""Stages and their depth Transformer: steps equal the teacher-forced whole in every pattern; guidance; hour 24."""

import numpy as np
import pytest
import torch
from contract import verify_contract
from sounds import tiny

from audiolm import stage as stage_module
from audiolm.depth import DepthTransformer
from audiolm.errors import ConfigError
from audiolm.sampler import Sampling, SamplingTensors, sample
from audiolm.stage import Stage, StageSpec, skew
from audiolm.streaming import StreamingModule, assign

PATTERNS = ("depth", "delay", "flat")
DAY = 24 * 3600 * 50
SIZES = {
    "layers": 2,
    "width": 32,
    "heads": 2,
    "depth_layers": 2,
    "depth_width": 16,
    "depth_heads": 2,
    "feed_forward": 2,
}


def make(pattern, levels=3, window=9, cond_levels=2):
    torch.manual_seed(0)
    spec = StageSpec(
        "test", 1, 50, levels, 16, cond_levels, 8 if cond_levels else 0, window=window, pattern=pattern, **SIZES
    )
    return Stage(spec).eval().requires_grad_(requires_grad=False)


def row_tokens(rows, slots=3, levels=3, seed=1):
    """Tokens and conditioning side by side `[slots, 1, levels + 2]`."""
    rng = torch.Generator().manual_seed(seed)
    tokens = [torch.randint(0, 16, (slots, 1, levels), generator=rng) for _ in range(rows)]
    return [torch.cat((t, torch.randint(0, 9, (slots, 1, 2), generator=rng)), 2) for t in tokens]


class Probe(StreamingModule):
    """A stage as a streaming module from rows of (tokens, conditioning) to their logits."""

    frame_size, rate_in, rate_out = 1, 50.0, 50.0

    def __init__(self, stage, start=0):
        super().__init__()
        self.stage, self.start = stage, start

    def forward(self, x):
        n = self.stage.spec.levels
        return self.stage(x[..., :n], x[..., n:], self.start)

    def init_state(self, slots):
        return {**self.stage.init_state(slots), "n": torch.zeros(slots, dtype=torch.int64)}

    def step(self, x, state, active=None):
        n, slots, seen = self.stage.spec.levels, len(x), []

        def spy(logits, u, settings):
            seen.append(logits.clone())
            return sample(logits, u, settings)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stage_module, "sample", spy)
            tokens = self.stage.step(
                x[:, 0, n:],
                x[:, 0, :n],
                torch.ones(slots, n, dtype=torch.bool),
                torch.full((slots, n), 0.5),
                settings=SamplingTensors([Sampling()] * slots),
                state={key: value for key, value in state.items() if key != "n"},
                positions=state["n"].numpy() + self.start,
                active=None if active is None else active.numpy(),
            )
        assert torch.equal(tokens, x[:, 0, :n])
        assign(state, "n", state["n"] + 1, active)
        return torch.stack(seen, 1)[:, None]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_contract_over_more_than_twice_the_window(pattern):
    verify_contract(Probe(make(pattern)), row_tokens(24))


@pytest.mark.parametrize("pattern", PATTERNS)
@torch.inference_mode()
def test_logits_of_hour_24_are_those_of_a_fresh_stream(pattern):
    stage, x = make(pattern), row_tokens(24)
    late = Probe(stage, DAY)
    a, b = Probe(stage).init_state(3), late.init_state(3)
    for piece in x:
        torch.testing.assert_close(late.step(piece, b), Probe(stage).step(piece, a), atol=1e-4, rtol=0)
    torch.testing.assert_close(late(torch.cat(x, 1)), Probe(stage)(torch.cat(x, 1)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("name", ["semantic", "coarse", "fine"])
@torch.inference_mode()
def test_the_three_stages_of_a_model_agree_with_themselves(pattern, name):
    stage = tiny(pattern).parts.stages[name]
    spec, rows = stage.spec, 2 * stage.spec.window + 10
    rng = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, spec.cardinality, (1, rows, spec.levels), generator=rng)
    cond = torch.randint(0, max(1, spec.cond_cardinality), (1, rows, spec.cond_levels), generator=rng)
    probe = Probe(stage)
    x = torch.cat((tokens, cond), 2)
    state = probe.init_state(1)
    steps = torch.cat([probe.step(x[:, t : t + 1], state) for t in range(rows)], 1)
    torch.testing.assert_close(steps, probe(x), atol=1e-4, rtol=0)


@pytest.mark.parametrize("pattern", PATTERNS)
@torch.inference_mode()
def test_forced_without_sampling_leaves_the_same_state(pattern):
    stage, x = make(pattern), row_tokens(12)
    probe, a, b = Probe(stage), Probe(stage).init_state(3), stage.init_state(3)
    for t, piece in enumerate(x):
        probe.step(piece, a)
        stage.step(
            piece[:, 0, 3:],
            piece[:, 0, :3],
            torch.ones(3, 3, dtype=torch.bool),
            torch.zeros(3, 3),
            settings=SamplingTensors([Sampling()] * 3),
            state=b,
            positions=np.full(3, t),
            levels=0,
        )
    assert all(torch.equal(a[key], b[key]) for key in b)


def run(stage, sampling, *, guided=False, cond=None, rows=12, forced=2, u_seed=0):
    """Tokens `[rows, levels]` of one slot: a few rows forced, the rest sampled."""
    spec, state = stage.spec, stage.init_state(1, guided)
    rng = np.random.default_rng(u_seed)
    out = []
    for t in range(rows):
        u = torch.from_numpy(rng.uniform(0.01, 0.99, (1, spec.levels)).astype(np.float32))
        given = torch.full((1, spec.cond_levels), t % 8 if cond is None else cond)
        mask = torch.full((1, spec.levels), t < forced)
        out.append(
            stage.step(
                given,
                torch.full((1, spec.levels), t % 16),
                mask,
                u,
                settings=SamplingTensors([sampling]),
                state=state,
                positions=np.array([t]),
            )[0]
        )
    return torch.stack(out), state


@pytest.mark.parametrize("pattern", PATTERNS)
@torch.inference_mode()
def test_guidance_0_is_unconditional_and_1_is_no_guidance(pattern):
    stage = make(pattern)
    free, _ = run(stage, Sampling(guidance=7.0), guided=True, cond=stage.spec.cond_mask)
    assert torch.equal(run(stage, Sampling(guidance=0.0), guided=True)[0], free)
    plain, state = run(stage, Sampling())
    same, doubled = run(stage, Sampling(guidance=1.0), guided=True)
    assert torch.equal(plain, same)
    assert not torch.equal(plain, free)
    assert not torch.equal(run(stage, Sampling(guidance=3.0), guided=True)[0], plain)
    assert state["held"].shape[:2] == (1, 1)
    assert doubled["held"].shape[:2] == (1, 2)  # one cache row with conditioning and one without
    assert doubled["k.0"].shape[:2] == (1, 2)


@torch.inference_mode()
def test_guidance_mixes_the_logits_of_the_two_rows():
    stage, seen = make("depth"), []

    def spy(logits, u, settings):
        seen.append(logits.clone())
        return sample(logits, u, settings)

    def first(sampling, **how):
        seen.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stage_module, "sample", spy)
            run(stage, sampling, rows=1, forced=1, **how)
        return seen[0]

    given, free = first(Sampling()), first(Sampling(), cond=stage.spec.cond_mask)
    torch.testing.assert_close(
        first(Sampling(guidance=2.5), guided=True), free + 2.5 * (given - free), atol=1e-4, rtol=1e-4
    )


@torch.inference_mode()
def test_a_missing_token_is_a_token_like_any_other():
    stage = make("depth")
    x = row_tokens(6)
    x[2][..., :3] = stage.spec.mask_token
    probe = Probe(stage)
    state = probe.init_state(3)
    steps = torch.cat([probe.step(piece, state) for piece in x], 1)
    assert bool(steps.isfinite().all())
    torch.testing.assert_close(steps, probe(torch.cat(x, 1)), atol=1e-4, rtol=0)


def test_feed_is_what_the_next_rows_see():
    stage = make("depth")
    x = torch.cat(row_tokens(5), 1)
    tokens, cond = x[..., :3], x[..., 3:]
    fed = tokens.clone()
    fed[:, 1] = stage.spec.mask_token
    a, b = stage(tokens, cond), stage(tokens, cond, feed=fed)
    torch.testing.assert_close(a[:, :2], b[:, :2])
    assert not torch.allclose(a[:, 2], b[:, 2])


def test_depth_emits_what_its_forward_predicts():
    torch.manual_seed(0)
    depth, h = DepthTransformer(8, 4, 5, layers=2, width=16, heads=2).eval(), torch.randn(3, 8)
    with torch.inference_mode():
        greedy = depth.emit(h, lambda logits, level: logits.argmax(-1))
        logits = depth(h[:, None], greedy[:, None])[:, 0]
    assert torch.equal(logits.argmax(-1), greedy)


def test_depth_levels_see_only_those_before_them():
    torch.manual_seed(0)
    depth, h = DepthTransformer(8, 4, 5, layers=2, width=16, heads=2).eval(), torch.randn(1, 1, 8)
    tokens = torch.tensor([[[1, 2, 3, 4]]])
    changed = torch.tensor([[[1, 2, 0, 4]]])
    a, b = depth(h, tokens), depth(h, changed)
    assert torch.equal(a[:, :, :3], b[:, :, :3])
    assert not torch.allclose(a[:, :, 3], b[:, :, 3])


def test_skew_moves_level_q_by_q_rows():
    tokens = torch.tensor([[[1, 10, 100], [2, 20, 200], [3, 30, 300]]])
    assert skew(tokens, 99).tolist() == [[[1, 99, 99], [2, 10, 99], [3, 20, 100]]]


def test_spec_names_its_special_tokens():
    spec = StageSpec("coarse", 1, 50, 4, 1024, 1, 512)
    assert (spec.mask_token, spec.start_token, spec.cond_mask) == (1024, 1025, 512)
    assert spec.span == 0
    assert StageSpec("coarse", 1, 50, 4, 1024, pattern="delay").span == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 30},
        {"heads": 0},
        {"layers": 10**6},
        {"window": 0},
        {"window": 10**9},
        {"pattern": "swirl"},
        {"levels": True},
        {"ahead": -1},
        {"depth_width": 33},
    ],
)
def test_sizes_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError, match=r"stage 'x'"):
        StageSpec("x", 0, 50, **{"levels": 2, "cardinality": 16, **wrong})
