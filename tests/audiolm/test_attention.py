"""The ring: windows, sinks and positions without end."""

import numpy as np
import pytest
import torch
from contract import verify_contract
from torch.nn import functional as F

from audiolm.attention import EMPTY, Ring, TemporalTransformer, rotary, rotate, window_mask
from audiolm.errors import ConfigError
from audiolm.streaming import StreamingModule, assign

DAY = 24 * 3600 * 50


class Probe(StreamingModule):
    """A temporal Transformer that counts its own positions."""

    frame_size, rate_in, rate_out = 1, 50.0, 50.0

    def __init__(self, window=7, sinks=2, layers=2):
        super().__init__()
        torch.manual_seed(0)
        self.net = TemporalTransformer(layers, 16, 2, window=window, sinks=sinks, feed_forward=32)

    def forward(self, x):
        return self.net(x)

    def init_state(self, slots):
        return {**self.net.init_state(slots), "n": torch.zeros(slots, dtype=torch.int64)}

    def step(self, x, state, active=None):
        own = {key: value for key, value in state.items() if key != "n"}
        y = self.net.step(x[:, 0], own, state["n"].numpy().copy(), None if active is None else active.numpy())
        assign(state, "n", state["n"] + 1, active)
        return y[:, None]


def pieces(steps, slots=3):
    rng = torch.Generator().manual_seed(1)
    return [torch.randn(slots, 1, 16, generator=rng) for _ in range(steps)]


@pytest.mark.parametrize("sinks", [0, 2])
def test_contract_over_more_than_twice_the_window(sinks):
    verify_contract(Probe(sinks=sinks), pieces(24), extremes=[torch.zeros(3, 1, 16), torch.full((3, 1, 16), 100.0)])


@torch.inference_mode()
def test_what_left_the_window_is_forgotten():
    net, x = Probe(layers=1), torch.cat(pieces(20), 1)
    changed = x.clone()
    changed[:, :13] = torch.randn(3, 13, 16, generator=torch.Generator().manual_seed(5))
    assert torch.allclose(net(changed)[:, 19], net(x)[:, 19], atol=1e-6)
    assert not torch.allclose(net(changed)[:, 18], net(x)[:, 18], atol=1e-3)


@torch.inference_mode()
def test_hour_24_looks_like_second_0():
    net, x = Probe().net, torch.cat(pieces(20, 1), 1)
    early, late = net.init_state(1), net.init_state(1)
    for t in range(20):
        a = net.step(x[:, t], early, np.array([t]))
        b = net.step(x[:, t], late, np.array([t + DAY]))
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)
    torch.testing.assert_close(net(x, DAY), net(x), atol=1e-4, rtol=0)


@torch.inference_mode()
def test_one_slot_equals_many():
    net, x = Probe(), pieces(20)
    one, many = net.init_state(1), net.init_state(3)
    for piece in x:
        torch.testing.assert_close(net.step(piece[1:2], one), net.step(piece, many)[1:2], atol=1e-5, rtol=0)


@torch.inference_mode()
def test_nan_in_an_idle_slot_harms_nobody_later():
    """What an idle slot computes is thrown away; none of it may enter its cache."""
    net = Probe(sinks=0)
    state, x = net.init_state(2), pieces(4, 2)
    poisoned = x[0].clone()
    poisoned[1] = float("nan")
    net.step(poisoned, state, torch.tensor([True, False]))
    clean = net.init_state(2)
    for piece in x[1:]:
        assert torch.equal(net.step(piece, state)[1], net.step(piece, clean)[1])


def test_rotation_is_relative_and_keeps_lengths():
    torch.manual_seed(0)
    q, k = torch.randn(1, 8), torch.randn(1, 8)

    def score(i, j):
        (ci, si), (cj, sj) = rotary(np.array([i]), 8), rotary(np.array([j]), 8)
        return float((rotate(q, ci, si) * rotate(k, cj, sj)).sum())

    assert score(5, 3) == pytest.approx(score(105, 103), abs=1e-5)
    assert score(5, 3) == pytest.approx(score(DAY + 5, DAY + 3), abs=1e-5)
    assert score(5, 3) != pytest.approx(score(5, 4), abs=1e-3)
    assert float(rotate(q, *rotary(np.array([77]), 8)).norm()) == pytest.approx(float(q.norm()), abs=1e-5)


def test_the_ring_holds_the_last_positions():
    ring = Ring(4, 1, 2, 8)
    held = ring.init_positions(2)
    assert held.tolist() == [[-EMPTY, *[EMPTY] * 4]] * 2
    for t in range(6):
        step = ring.begin(held, np.array([t, 100]), np.array([True, t == 2]))
    assert sorted(held[0, 1:].tolist()) == [2, 3, 4, 5]
    assert sorted(held[1, 1:].tolist()) == [EMPTY, EMPTY, EMPTY, 100]
    assert (step.bias[0] == 0).sum() == 5
    assert (step.bias[1] == 0).sum() == 2


def test_mask_is_sinks_and_window():
    mask = window_mask(5, 2, 1)
    assert mask.int().tolist() == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 0, 1, 1, 0, 0],
        [1, 0, 0, 1, 1, 0],
        [1, 0, 0, 0, 1, 1],
    ]


def test_a_sink_is_seen_by_all_and_has_no_position():
    attention = Probe().net.blocks[0].attention
    keys, values = attention._sinks()
    assert keys.shape == values.shape == (2, 2, 8)
    assert (keys[..., :4] == 0).all()  # the half that is rotated
    assert torch.equal(F.pad(attention.sink_keys, (4, 0)), keys)


@pytest.mark.parametrize("sizes", [(0, 1, 2, 8), (4, -1, 2, 8), (4, 1, 2, 6), (4, 1, 2, 0)])
def test_rings_that_cannot_be_are_refused(sizes):
    with pytest.raises(ConfigError, match="ring"):
        Ring(*sizes)
