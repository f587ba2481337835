"""Augmentation: what speed and filters do to tones, and that shares are kept."""

import numpy as np
import pytest

from audiolm.errors import ConfigError
from audiolm.train.augment import RATE, Augment, at_speed, equalized, peak, random_filters, resampled, shelf, smooth


def tone(hertz, samples=16000):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(samples) / RATE)).astype(np.float32)


def loudest(sound):
    """Frequency of the highest peak, in Hz."""
    return float(np.argmax(np.abs(np.fft.rfft(sound * np.hanning(len(sound))))) * RATE / len(sound))


def gain_db(filters, hertz):
    """Measured on a tone, away from the onset."""
    sound = tone(hertz)
    return 20 * np.log10(equalized(sound, [filters])[4000:12000].std() / sound[4000:12000].std())


@pytest.mark.parametrize("speed", [0.9, 0.97, 1.1])
def test_speed_moves_pitch_and_keeps_length_and_level(speed):
    sound = at_speed(lambda length, _: tone(1000, length), 16000, speed, np.random.default_rng(0))
    assert sound.shape == (16000,)
    assert sound.dtype == np.float32
    assert abs(loudest(sound) - 1000 * speed) < 2
    ideal = tone(1000 * speed, 16000 + 3200)
    best = max(float(np.dot(sound, ideal[k : k + 16000])) for k in range(40))
    assert best > 0.99 * float(np.dot(sound, sound))
    assert abs(sound.std() / tone(1000).std() - 1) < 0.01


def test_what_would_fold_is_cut():
    assert np.abs(resampled(tone(7800, 17600), 16000)[800:-800]).max() < 0.02  # at 1.1 it would be 8580 Hz
    assert np.abs(resampled(tone(7000, 17600), 16000)[800:-800]).max() > 0.45


def test_shelves_and_peaks_have_their_gains():
    assert gain_db(shelf(300, 6, high=False), 50) == pytest.approx(6, abs=0.3)
    assert gain_db(shelf(300, 6, high=False), 3000) == pytest.approx(0, abs=0.3)
    assert gain_db(shelf(3000, -6, high=True), 7500) == pytest.approx(-6, abs=0.3)
    assert gain_db(shelf(3000, -6, high=True), 200) == pytest.approx(0, abs=0.3)
    assert gain_db(peak(1000, 5, 1.0), 1000) == pytest.approx(5, abs=0.1)
    assert gain_db(peak(1000, 5, 1.0), 60) == pytest.approx(0, abs=0.3)


def test_a_filter_is_the_recursion_it_stands_for():
    b, a = peak(700, 6, 0.7)
    sound, out = np.random.default_rng(0).standard_normal(400).astype(np.float32), np.zeros(402)
    padded = np.concatenate([np.zeros(2), sound])
    for n in range(2, 402):
        fed = b[0] * padded[n] + b[1] * padded[n - 1] + b[2] * padded[n - 2]
        out[n] = (fed - a[1] * out[n - 1] - a[2] * out[n - 2]) / a[0]
    np.testing.assert_allclose(equalized(sound, [(b, a)]), out[2:], atol=1e-4)


def test_random_filters_are_gentle():
    rng = np.random.default_rng(0)
    for _ in range(20):
        sound = np.random.default_rng(1).standard_normal(8000).astype(np.float32)
        changed = equalized(sound, random_filters(rng, 6.0))
        bands = np.abs(np.fft.rfft(changed)) / np.abs(np.fft.rfft(sound))
        assert 10 ** (-20 / 20) < np.median(bands) < 10 ** (20 / 20)
        assert np.isfinite(changed).all()


def test_shares_are_kept():
    rng, asked, augment = np.random.default_rng(0), [], Augment(speed=0.5, equalize=0.25)
    sound = np.random.default_rng(1).standard_normal(9000).astype(np.float32)

    def crop(length, _):
        asked.append(length)
        return np.resize(sound, length)

    same = [np.array_equal(augment.draw(crop, 4000, rng), sound[:4000]) for _ in range(400)]
    assert 0.4 < np.mean([length != 4000 for length in asked]) < 0.55
    assert 0.3 < np.mean(same) < 0.45  # neither: 0.375, and a speed of exactly one
    assert len(set(asked)) <= 22
    assert all(np.array_equal(Augment().draw(crop, 4000, rng), sound[:4000]) for _ in range(3))


@pytest.mark.parametrize("wrong", [{"speed": 1.5}, {"equalize": -0.1}, {"speed_range": 0.5}, {"equalize_db": np.nan}])
def test_settings_of_no_sense(wrong):
    with pytest.raises(ConfigError, match="expected 0 to"):
        Augment(**wrong)


def test_lengths_of_the_fft_have_small_factors():
    assert [smooth(n) for n in (1, 7, 11, 101, 961600)] == [1, 8, 12, 108, 972000]
