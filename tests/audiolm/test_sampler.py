"""Sampling: the exact distribution, its truncations and extremes, and noise that depends on its counter alone."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from audiolm.errors import InputError
from audiolm.sampler import Sampling, SamplingTensors, _truncate, check_range, guide, sample, uniforms

LOGITS = torch.tensor([0.5, -1.0, 2.0, 0.0, 1.0, -3.0])
GRID = np.linspace(0.0005, 0.9995, 1000)


def draw(u, logits=LOGITS, **settings):
    """Tokens for many uniforms in one slot's settings."""
    many = SamplingTensors([Sampling(**settings)] * len(u))
    return sample(logits.expand(len(u), -1), torch.tensor(np.asarray(u), dtype=torch.float32), many).numpy()


def inverse(u, probabilities):
    """The reference: the first token at which the cumulative distribution reaches u."""
    return np.searchsorted(np.cumsum(probabilities / probabilities.sum()), u, side="left")


def softmax(logits):
    e = np.exp(np.asarray(logits, np.float64) - np.max(logits))
    return e / e.sum()


def agree(tokens, u, probabilities):
    """Equal to the reference wherever u is not within rounding of a boundary."""
    edges = np.cumsum(probabilities / probabilities.sum())
    clear = np.abs(np.subtract.outer(u, edges)).min(1) > 1e-5
    assert clear.mean() > 0.98
    assert (tokens == inverse(u, probabilities))[clear].all()


@pytest.mark.parametrize("temperature", [0.3, 0.6, 1.0, 2.0])
def test_inverts_the_cumulative_distribution(temperature):
    agree(draw(GRID, temperature=temperature), GRID, softmax(LOGITS.numpy() / temperature))


@pytest.mark.parametrize("k", [1, 2, 4, 6, 100])
def test_top_k(k):
    p = softmax(LOGITS.numpy())
    kept = np.where(np.argsort(np.argsort(-p)) < k, p, 0)
    agree(draw(GRID, top_k=k), GRID, kept)


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.8, 0.95, 1.0])
def test_top_p(top_p):
    p = softmax(LOGITS.numpy())
    order = np.argsort(-p)
    before = np.concatenate(([0], np.cumsum(p[order])[:-1]))
    kept = np.zeros_like(p)
    kept[order[before < top_p]] = p[order[before < top_p]]
    agree(draw(GRID, top_p=top_p), GRID, kept)


def test_top_p_counts_within_top_k():
    p = softmax(LOGITS.numpy())
    order = np.argsort(-p)[:2]
    share = p[order[0]] / p[order].sum()
    assert set(draw(GRID, top_k=2, top_p=share - 0.01)) == {order[0]}
    assert set(draw(GRID, top_k=2, top_p=share + 0.01)) == set(order)


def test_temperature_0_is_argmax_even_for_huge_logits():
    assert set(draw(GRID, temperature=0.0)) == {2}
    assert set(draw(GRID, LOGITS * 1e30, temperature=0.0, top_k=3, top_p=0.5)) == {2}


@pytest.mark.parametrize("settings", [{}, {"top_k": 2}, {"top_p": 0.5}, {"temperature": 0.01}])
def test_extreme_uniforms_never_reach_what_cannot_be(settings):
    masked = torch.tensor([float("-inf"), 1.0, 3.0, 2.0, float("-inf")])
    u = [2.0**-24, 0.5, 1 - 2.0**-24]
    tokens = draw(u, masked, **settings)
    assert set(tokens) <= {1, 2, 3}
    if not settings:
        assert tokens.tolist() == [1, 2, 3]


@given(st.integers(0, 2**32), st.integers(1, 2000), st.sampled_from([2.0**-24, 0.5, 1 - 2.0**-24]))
def test_any_vocabulary_gives_a_token_of_it(seed, size, u):
    logits = torch.from_numpy(np.random.default_rng(seed).normal(0, 10, size).astype(np.float32))
    assert 0 <= draw([u], logits)[0] < size


def test_neighbours_do_not_touch_a_row():
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(0, 3, (4, 1024)).astype(np.float32))
    u = torch.from_numpy(rng.uniform(0.01, 0.99, 4).astype(np.float32))
    u[0] = 1 - 2.0**-24
    plain = sample(logits, u, SamplingTensors([Sampling(0.8)] * 4))
    others = [Sampling(0.0), Sampling(1.3, top_k=3), Sampling(2.0, top_p=0.4)]
    mixed = sample(logits, u, SamplingTensors([Sampling(0.8), *others]))
    assert mixed[0] == plain[0]
    assert mixed[1] == logits[1].argmax()


def test_a_row_that_keeps_all_loses_nothing_to_rounding_when_its_neighbour_truncates():
    scaled = torch.tensor([[40.0, 1.0, 0.0], [2.0, 1.0, 0.0]])  # the first token's mass rounds to 1
    kept = _truncate(scaled, SamplingTensors([Sampling(), Sampling(top_p=0.5)]))
    assert torch.equal(kept[0], scaled[0])
    assert kept[1].isinf().tolist() == [False, True, True]


def test_guidance_1_is_exactly_the_conditioned_row_and_0_the_free_one():
    logits = torch.randn(6, 50, generator=torch.Generator().manual_seed(0)) * 10
    scale = torch.tensor([[1.0], [0.0], [3.0]])
    mixed = guide(logits, scale)
    assert torch.equal(mixed[0], logits[0])
    assert torch.equal(mixed[1], logits[3])
    torch.testing.assert_close(mixed[2], logits[5] + 3 * (logits[4] - logits[5]))


# -- noise --


def reference(seed, stage, position, levels):
    """The same from numpy's own Philox."""
    key, counter = np.array([seed, stage], np.uint64), np.array([0, position, 0, 0], np.uint64)
    bits = np.random.Philox(key=key, counter=counter).random_raw(levels)
    return (((bits >> np.uint64(41)).astype(np.float64) + 0.5) / 2**23).astype(np.float32)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2), st.integers(0, 2**62), st.integers(1, 12))
def test_uniforms_are_philox_keyed_by_seed_and_stage_and_counted_by_position(seed, stage, position, levels):
    assert np.array_equal(uniforms(seed, stage, position, levels), reference(seed, stage, position, levels))


def test_uniforms_depend_on_nothing_else():
    first = uniforms(7, 1, 100, 4)
    np.random.seed(3)  # noqa: NPY002 - to show that the global generators do not matter
    torch.manual_seed(3)
    uniforms(7, 1, 99, 4)
    assert np.array_equal(uniforms(7, 1, 100, 4), first)
    assert np.array_equal(uniforms(7, 1, 100, 2), first[:2])
    others = [uniforms(8, 1, 100, 4), uniforms(7, 2, 100, 4), uniforms(7, 1, 101, 4)]
    assert all(not np.array_equal(other, first) for other in others)


def test_uniforms_lie_inside_0_and_1_and_are_even():
    u = np.concatenate([uniforms(0, 0, position, 12) for position in range(2000)])
    assert u.dtype == np.float32
    assert u.min() > 0
    assert u.max() < 1
    counts = np.histogram(u, 16, (0, 1))[0]
    assert abs(counts - len(u) / 16).max() < 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"temperature": "hot"},
        {"temperature": True},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"top_k": 1.5},
        {"top_k": True},
        {"top_k": 10**30},
        {"guidance": -1.0},
        {"guidance": 1e9},
    ],
)
def test_settings_out_of_range_are_refused_by_name(wrong):
    (name,) = wrong
    with pytest.raises(InputError, match=name):
        Sampling(**wrong)


def test_numbers_of_numpy_are_numbers():
    assert Sampling(np.float32(0.5), top_k=np.int64(3)).top_k == 3
    assert check_range("x", np.float64(0.5), 0, 1) == 0.5
    with pytest.raises(InputError, match="above 0"):
        check_range("x", 0, 0, 1, open_low=True)
