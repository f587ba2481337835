"""Prosody of tones, glides and pulses, whose pitch, range and rate are known."""

import numpy as np
import pytest
from heard import RATE, speech

from audiolm.eval.prosody import Prosody, f0, peak_rate, prosody, prosody_difference

TIME = np.arange(3 * RATE) / RATE
NOISE = (0.05 * np.random.default_rng(0).standard_normal(3 * RATE)).astype(np.float32)


def voice(pitch, overtones=6):
    """Harmonics of a pitch, one for all samples or one a sample."""
    turn = 2 * np.pi * np.cumsum(np.broadcast_to(pitch, TIME.shape)) / RATE
    return (0.05 * sum(np.sin(k * turn) / k for k in range(1, overtones + 2))).astype(np.float32)


@pytest.mark.parametrize("pitch", [70, 110, 220.5, 400])
@pytest.mark.parametrize("overtones", [0, 6])
def test_a_tone_has_its_pitch_throughout(pitch, overtones):
    found = f0(voice(pitch, overtones))
    assert np.isfinite(found).all()
    assert np.abs(found / pitch - 1).max() < 2e-3


def test_a_glide_has_its_range_and_middle():
    found = prosody(voice(120 * 2 ** (TIME / 3)))
    assert found.pitch == pytest.approx(12 * np.log2(120) + 6, abs=0.2)
    assert found.spread == pytest.approx(0.8 * 12, abs=0.4)  # of an octave, from the 10th to the 90th percentile
    assert found.voiced == 1


def test_noise_and_silence_have_no_pitch():
    for sound in (NOISE, np.zeros(RATE, np.float32), np.zeros(0, np.float32)):
        found = prosody(sound)
        assert np.isnan(found.pitch)
        assert found.voiced == 0
    assert prosody(np.zeros(RATE, np.float32)).rate == 0


def test_half_a_tone_is_half_voiced():
    half = np.where(TIME < 1.5, voice(150), NOISE).astype(np.float32)
    assert prosody(half).voiced == pytest.approx(0.5, abs=0.03)


def test_pitch_is_heard_through_noise():
    noisy = voice(150) + 0.1 * NOISE
    assert np.nanmedian(f0(noisy)) == pytest.approx(150, rel=0.01)
    assert np.isfinite(f0(noisy)).mean() > 0.9


@pytest.mark.parametrize("rate", [2, 3, 5, 7])
def test_pulses_have_their_rate(rate):
    pulses = 0.1 * np.sin(2 * np.pi * 500 * TIME) * np.clip(np.sin(2 * np.pi * rate * TIME), 0, 1)
    assert peak_rate(pulses.astype(np.float32)) == pytest.approx(rate)
    assert peak_rate((0.1 * pulses).astype(np.float32)) == pytest.approx(rate)


def test_a_buzzing_voice_has_its_pitch_and_syllables():
    for who in range(3):
        found = prosody(speech(3, who))
        assert found.pitch == pytest.approx(12 * np.log2(95 + 55 * who), abs=0.05)
        assert found.rate == pytest.approx(3.1, abs=0.4)


def test_differences_are_in_semitones_shares_and_octaves():
    one, other = Prosody(84.0, 5.0, 0.5, 3.75), Prosody(87.0, 4.0, 0.7, 1.75)
    assert prosody_difference(one, one) == {"f0": 0, "f0_range": 0, "voiced": 0, "rate": 0}
    assert prosody_difference(one, other) == pytest.approx({"f0": 3, "f0_range": 1, "voiced": 0.2, "rate": 1})
    assert np.isnan(prosody_difference(one, Prosody(np.nan, np.nan, 0.0, 0.0))["f0"])


def test_pitch_is_that_of_librosa():
    librosa = pytest.importorskip("librosa")
    glide = voice(120 * 2 ** (TIME / 3)) + 0.02 * NOISE
    ours = f0(glide)
    theirs = librosa.yin(glide, fmin=60, fmax=500, sr=RATE, frame_length=1024, hop_length=160, center=False)
    apart = 12 * np.abs(np.log2(ours[: len(theirs)] / theirs[: len(ours)]))
    assert np.nanmedian(apart) < 0.05
    assert np.nanmax(apart) < 0.5
