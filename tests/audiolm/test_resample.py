"""Resampling is the same whatever the chunking, keeps time, and says what rates it takes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiolm.errors import InputError
from audiolm.resample import Resampler


def tone(rate, seconds=0.5, hertz=440.0):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def run(resampler, pieces):
    blocks = [block for piece in pieces for block in resampler.push(piece)] + resampler.finish()
    return np.concatenate([np.zeros(0, np.float32), *blocks])


@settings(max_examples=30)
@given(st.sampled_from([8000, 11025, 22050, 44100, 48000]), st.lists(st.integers(0, 3000), max_size=12))
def test_any_chunking_is_equal_to_the_bit(rate, sizes):
    samples = tone(rate)
    pieces = np.split(samples, np.minimum(np.cumsum(sizes, dtype=int), len(samples)))
    np.testing.assert_array_equal(run(Resampler(rate), pieces), run(Resampler(rate), [samples]))


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 24000, 44100, 48000, 96000])
def test_time_and_level_are_kept(rate):
    got = run(Resampler(rate), [tone(rate)])
    expected = tone(16000)
    assert abs(len(got) - len(expected)) <= 1
    np.testing.assert_allclose(got[800:7200], expected[800:7200], atol=2e-3)


def test_equal_rates_pass_untouched():
    samples = tone(16000)
    np.testing.assert_array_equal(run(Resampler(16000), [samples]), samples)


@pytest.mark.parametrize("rate", [0, -16000, 999, 10**9])
def test_absurd_rates_are_refused(rate):
    with pytest.raises(InputError, match="expected 1000 to 768000"):
        Resampler(rate)
    with pytest.raises(InputError, match="the output"):
        Resampler(16000, rate)
