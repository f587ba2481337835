"""Key and pace of music, by plain short-time spectra: pitch-class profiles and onsets. Sounds are float32 at 16 kHz."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from audiolm.train.data import RATE
from audiolm.train.shards import Array

PITCH_WINDOW, PITCH_HOP = 4096, 1024
LOWEST, HIGHEST = 80.0, 2000.0  # Hz: below, neighbouring notes share a bin; above, overtones have the word
ONSET_WINDOW, ONSET_HOP = 1024, 160
FLOOR_DB, FASTEST, REACH = -60.0, 0.05, 0.1
RISE = 0.08
FAR = 1 << 30


def spectra(sound: Array, window: int, hop: int) -> Array:
    """Magnitudes ``[frames, bins]`` under a Hann window; a full-scale sine peaks at 1."""
    padded = np.pad(sound.astype(np.float64), (0, max(0, window - len(sound))))
    frames = sliding_window_view(padded, window)[::hop] * np.hanning(window)
    return np.abs(np.fft.rfft(frames, axis=1)) * (4 / window)


def pitch_classes(sound: Array) -> Array:
    """Share of each pitch class, C first, ``[12]``; all zero where no tone is heard.

    Spectral peaks between 80 and 2000 Hz, each at the frequency of the parabola through its three bins, each counted by
    its magnitude at its nearest pitch class (A = 440 Hz).
    """
    found = spectra(sound, PITCH_WINDOW, PITCH_HOP)
    middle, left, right = found[:, 1:-1], found[:, :-2], found[:, 2:]
    peak = (middle > left) & (middle >= right) & (middle > 10 ** (FLOOR_DB / 20))
    bend = np.where(peak, left - 2 * middle + right, -1.0)
    at = np.arange(1, found.shape[1] - 1) + 0.5 * (left - right) / np.minimum(bend, -1e-12)
    pitch = at * RATE / PITCH_WINDOW
    peak &= (pitch >= LOWEST) & (pitch <= HIGHEST)
    number = np.round(69 + 12 * np.log2(pitch[peak] / 440.0)).astype(np.int64) % 12
    profile = np.bincount(number, weights=middle[peak], minlength=12)
    return np.asarray(profile / max(float(profile.sum()), 1e-12))


def pitch_agreement(a: Array, b: Array) -> float:
    """Correlation of two pitch-class profiles, -1 to 1, as keys are compared (Krumhansl 1990); 0 if one is empty."""
    x, y = a - a.mean(), b - b.mean()
    size = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / size if size > 1e-12 else 0.0


def onsets(sound: Array) -> Array:
    """Times of onsets in seconds: peaks of the rise of the log spectrum, half-wave rectified (Bello et al. 2005).

    A peak counts when it is the highest within 50 ms and stands above the median of its surroundings of 0.2 s by a
    mean rise of 0.08 neper a bin.
    """
    level = np.log(np.maximum(spectra(sound, ONSET_WINDOW, ONSET_HOP)[:, : ONSET_WINDOW // 4], 10 ** (FLOOR_DB / 20)))
    late = 3  # frames, 30 ms: a rise through the window is gathered
    rise = np.maximum(level[late:] - level[:-late], 0).mean(1)
    if len(rise) < 2:
        return np.zeros(0)
    near, wide = round(FASTEST * RATE / ONSET_HOP), round(REACH * RATE / ONSET_HOP)
    highest = sliding_window_view(np.pad(rise, near, constant_values=-1.0), 2 * near + 1).max(1)
    usual = np.median(sliding_window_view(np.pad(rise, wide, mode="edge"), 2 * wide + 1), axis=1)
    found = np.flatnonzero((rise == highest) & (rise > usual + RISE))
    apart = np.diff(found, prepend=-FAR) > near  # of equal neighbours the first
    middle = ONSET_WINDOW / 2 + late * ONSET_HOP / 2  # of the two windows that are compared
    return np.asarray((found[apart] * ONSET_HOP + middle) / RATE)


def onset_density(sound: Array) -> float:
    """Onsets a second."""
    return len(onsets(sound)) / (len(sound) / RATE) if len(sound) else 0.0


def pace_difference(a: float, b: float) -> float:
    """How far two onset densities are apart, in octaves: 0 is the same pace, 1 twice as fast."""
    return abs(float(np.log2((a + 0.25) / (b + 0.25))))
