"""Distances on sounds whose distance is known."""

import numpy as np
import pytest
from heard import RATE, notes, speech

from audiolm.eval.distances import MEASURES, aligned, common_lag, log_mel, pesq_wb, si_sdr, stft_distance, stoi

SPEECH = speech(4, 1)
NOISE = np.random.default_rng(0).standard_normal(len(SPEECH)).astype(np.float32)
SILENCE = np.zeros(RATE * 2, np.float32)


def at_snr(db):
    return SPEECH + NOISE * np.float32(np.std(SPEECH) * 10 ** (-db / 20))


def test_a_sound_is_at_no_distance_from_itself():
    assert log_mel(SPEECH, SPEECH) == stft_distance(SPEECH, SPEECH) == 0
    assert si_sdr(SPEECH, SPEECH) > 100


@pytest.mark.parametrize("db", [-5.0, 10.0, 25.0])
def test_si_sdr_is_the_ratio_that_was_made_whatever_the_level(db):
    made = at_snr(db)
    assert si_sdr(SPEECH, made) == pytest.approx(db, abs=0.3)
    assert si_sdr(SPEECH, 0.1 * made) == pytest.approx(si_sdr(SPEECH, made), abs=0.01)


def test_perceived_quality_of_the_sound_itself_is_the_best_there_is():
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    assert pesq_wb(SPEECH, SPEECH) == pytest.approx(4.644, abs=0.01)
    assert stoi(SPEECH, SPEECH) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("name", sorted(MEASURES))
def test_more_noise_is_worse(name):
    if name in ("pesq_wb", "stoi"):
        pytest.importorskip({"pesq_wb": "pesq", "stoi": "pystoi"}[name])
    values = [MEASURES[name](SPEECH, at_snr(db)) for db in (30, 10, -10)]
    assert values == sorted(values, reverse=name in ("pesq_wb", "stoi", "si_sdr"))
    assert len(set(values)) == 3


def test_where_there_is_no_speech_there_is_no_score():
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    assert np.isnan(pesq_wb(SILENCE, SILENCE))
    assert np.isnan(pesq_wb(SILENCE[:100], SILENCE[:100]))
    assert pesq_wb(SPEECH, 1e-6 * NOISE) < 1.2
    assert np.isnan(stoi(SPEECH[:3000], SPEECH[:3000]))


@pytest.mark.parametrize("lag", [0, 1, 240, 560, -17])
def test_the_lag_is_found(lag):
    sounds = [speech(2, who) for who in range(3)] + [notes((60, 64), 2)]
    noisy = [np.roll(s, lag) + 0.3 * s.std() * NOISE[: len(s)] for s in sounds]
    assert common_lag(list(zip(sounds, noisy, strict=True)), 960) == lag


def test_a_declared_lag_stays_where_nothing_speaks_against_it():
    pairs = [(SPEECH, NOISE), (speech(4, 2), NOISE)]
    assert common_lag(pairs, 960, declared=560) == 560
    assert common_lag([(SPEECH, np.roll(SPEECH, 100))], 960, declared=560) == 100


@pytest.mark.parametrize("lag", [0, 100, -100])
def test_aligned_sounds_fit(lag):
    made = np.concatenate((np.zeros(lag, np.float32), SPEECH)) if lag > 0 else SPEECH[-lag:]
    real, moved = aligned(SPEECH, made, lag)
    assert len(real) == len(moved) >= len(SPEECH) - abs(lag)
    assert np.array_equal(real, moved)


@pytest.mark.parametrize("sizes", [(256,), (512, 1024, 2048)])
def test_half_as_loud_is_half_the_convergence_and_the_logarithm_of_two_at_every_size(sizes):
    loud = NOISE.astype(np.float32)
    assert stft_distance(loud, 0.5 * loud, sizes) == pytest.approx(0.5 + np.log(2), abs=1e-3)
