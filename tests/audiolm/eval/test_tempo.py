"""Tempi of click tracks and notes."""

import numpy as np
import pytest
from heard import RATE, notes

from audiolm.eval.tempo import tempo, tempo_difference


def clicks(beats, seconds=6):
    """Bursts of noise, so many a minute."""
    burst = 0.3 * np.exp(-np.arange(800) / 150) * np.random.default_rng(1).standard_normal(800)
    out = np.zeros(int(seconds * RATE) + len(burst))
    for at in np.arange(0, seconds, 60 / beats):
        out[int(at * RATE) : int(at * RATE) + len(burst)] += burst
    return out[: int(seconds * RATE)].astype(np.float32)


@pytest.mark.parametrize("beats", [50, 60, 75, 90, 100, 120, 133, 150])
@pytest.mark.parametrize("seconds", [3, 6])
def test_clicks_have_their_tempo(beats, seconds):
    assert tempo(clicks(beats, seconds)) == pytest.approx(beats, rel=0.01)


def test_fast_clicks_have_theirs_but_for_an_octave():
    assert tempo_difference(tempo(clicks(200)), 200) < 0.01
    assert tempo_difference(tempo(notes((60, 64, 67), 6, 4)), 240) < 0.02


@pytest.mark.parametrize("length", [0, 100, RATE, 3 * RATE])
def test_silence_and_a_held_tone_have_none(length):
    assert tempo(np.zeros(length, np.float32)) is None
    assert tempo((0.1 * np.sin(2 * np.pi * 440 * np.arange(length) / RATE)).astype(np.float32)) is None


def test_tempi_are_apart_by_folded_octaves():
    assert tempo_difference(120, 120) == tempo_difference(60, 120) == tempo_difference(240, 60) == 0
    assert tempo_difference(120, 120 * 2**0.5) == pytest.approx(0.5)
    assert tempo_difference(100, 110) == pytest.approx(np.log2(1.1))
    assert tempo_difference(None, 90) == tempo_difference(90, None) == 0.5


def test_two_tempi_by_chance_are_a_quarter_apart():
    drawn = 2 ** np.random.default_rng(0).uniform(0, 5, (4000, 2))
    assert np.mean([tempo_difference(*both) for both in drawn]) == pytest.approx(0.25, abs=0.01)
