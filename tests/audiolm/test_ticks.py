"""Any chunking gives the same ticks; what is not one channel of sound is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiolm.errors import InputError
from audiolm.ticks import TICK, TickAssembler, as_samples


def noise(n, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, n).astype(np.float32)


def cut(samples, sizes):
    start = 0
    for size in sizes:
        yield samples[start : start + size]
        start += size
    yield samples[start:]


@given(st.integers(0, 4 * TICK), st.lists(st.integers(0, 900), max_size=20), st.sampled_from(["drop", "pad"]))
def test_any_chunking_gives_the_same_ticks(n, sizes, rest):
    samples = noise(n)
    ticks = TickAssembler()
    got = [tick for piece in cut(samples, sizes) for tick in ticks.push(piece)] + ticks.flush(rest)
    whole = samples[: n // TICK * TICK] if rest == "drop" else np.pad(samples, (0, -n % TICK))
    assert all(tick.shape == (TICK,) and tick.dtype == np.float32 for tick in got)
    np.testing.assert_array_equal(np.concatenate([np.zeros(0, np.float32), *got]), whole)
    assert ticks.held == 0


def test_one_sample_at_a_time():
    samples = noise(TICK + 3)
    ticks = TickAssembler()
    got = [tick for sample in samples for tick in ticks.push(np.array([sample]))]
    assert len(got) == 1
    np.testing.assert_array_equal(got[0], samples[:TICK])
    assert ticks.held == 3


def test_ticks_do_not_alias_what_is_pushed_later():
    buffer = noise(TICK - 1)
    ticks = TickAssembler()
    ticks.push(buffer)
    kept = buffer.copy()
    buffer[:] = 0
    (tick,) = ticks.push(np.ones(1, np.float32))
    np.testing.assert_array_equal(tick[:-1], kept)


def test_int16_is_scaled_and_float64_narrowed():
    np.testing.assert_array_equal(as_samples(np.array([-32768, 0, 16384], np.int16)), [-1, 0, 0.5])
    assert as_samples(np.array([1e300])).dtype == np.float32


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((2, 640), np.float32),
        np.float32(0),
        np.zeros(5, np.int32),
        np.zeros(5, np.complex64),
        np.zeros(5, bool),
        ["a"],
        [1, 2, 3],
        None,
    ],
)
def test_what_is_not_one_channel_of_sound_is_refused(bad):
    ticks = TickAssembler()
    ticks.push(noise(7))
    with pytest.raises(InputError, match="expected"):
        ticks.push(bad)
    assert ticks.held == 7


def test_save_and_load_go_on_where_it_stopped():
    samples = noise(2 * TICK + 9)
    one, two = TickAssembler(), TickAssembler()
    head = one.push(samples[:1000])
    two.load(one.save())
    got = np.concatenate(head + two.push(samples[1000:]))
    np.testing.assert_array_equal(got, samples[: 2 * TICK])
    with pytest.raises(InputError, match="fewer"):
        two.load({"held": np.zeros(TICK, np.float32)})


def test_nonsense_settings():
    with pytest.raises(InputError, match="at least 1"):
        TickAssembler(0)
    with pytest.raises(InputError, match="'drop' or 'pad'"):
        TickAssembler().flush("keep")
