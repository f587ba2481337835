"""What is heard in music by plain short-time spectra: pitch classes, the range of notes, onsets.

Sounds are float32 at 16 kHz. What key or tempo they make is for :mod:`audiolm.eval.keys` and :mod:`audiolm.eval.tempo`.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from audiolm.train.data import RATE
from audiolm.train.shards import Array

PITCH_WINDOW, PITCH_HOP = 4096, 1024
LOWEST, HIGHEST = 80.0, 2000.0  # Hz: below, neighbouring notes share a bin; above, overtones have the word
ONSET_WINDOW, ONSET_HOP = 1024, 160
FLOOR_DB, FASTEST, REACH = -60.0, 0.05, 0.1
RISE, LATE = 0.08, 3  # neper a bin; frames of 10 ms
FAR = 1 << 30
OVERTONES = (2, 3, 4, 5)
STRAY = 0.05  # of the magnitude at either end of a range is left out


def spectra(sound: Array, window: int, hop: int) -> Array:
    """Magnitudes ``[frames, bins]`` under a Hann window; a full-scale sine peaks at 1."""
    padded = np.pad(sound.astype(np.float64), (0, max(0, window - len(sound))))
    frames = sliding_window_view(padded, window)[::hop] * np.hanning(window)
    return np.abs(np.fft.rfft(frames, axis=1)) * (4 / window)


def _peaks(found: Array) -> tuple[Array, Array]:
    """Which of the inner bins of ``[frames, bins]`` are peaks between 80 and 2000 Hz, and their frequencies.

    Each is at the frequency of the parabola through its three bins; above -60 dB of a full-scale sine.
    """
    middle, left, right = found[:, 1:-1], found[:, :-2], found[:, 2:]
    peak = (middle > left) & (middle >= right) & (middle > 10 ** (FLOOR_DB / 20))
    bend = np.where(peak, left - 2 * middle + right, -1.0)
    at = np.arange(1, found.shape[1] - 1) + 0.5 * (left - right) / np.minimum(bend, -1e-12)
    pitch = at * RATE / PITCH_WINDOW
    return peak & (pitch >= LOWEST) & (pitch <= HIGHEST), pitch


def midi(pitch: Array) -> Array:
    """Frequencies in Hz as numbers of semitones, A = 440 Hz is 69."""
    return np.asarray(69 + 12 * np.log2(pitch / 440.0))


def pitch_classes(sound: Array) -> Array:
    """Share of each pitch class, C first, ``[12]``; all zero where no tone is heard.

    Spectral peaks between 80 and 2000 Hz, each counted by its magnitude at its nearest pitch class (A = 440 Hz).
    """
    found = spectra(sound, PITCH_WINDOW, PITCH_HOP)
    peak, pitch = _peaks(found)
    number = np.round(midi(pitch[peak])).astype(np.int64) % 12
    profile = np.bincount(number, weights=found[:, 1:-1][peak], minlength=12)
    return np.asarray(profile / max(float(profile.sum()), 1e-12))


def note_range(sound: Array) -> tuple[float, float] | None:
    """The lowest and the highest strong note, in semitones (A = 440 Hz is 69); None where no tone is heard.

    Spectral peaks as in :func:`pitch_classes` without overtones (a peak is one if at a half, a third, a quarter or a
    fifth of its frequency the spectrum is at least half as strong), rounded to notes. Notes are dropped from either end
    until they carry 5 % of the magnitude there.
    """
    found = spectra(sound, PITCH_WINDOW, PITCH_HOP)
    peak, pitch = _peaks(found)
    frame, at = np.nonzero(peak)
    size, pitch = found[frame, at + 1], pitch[peak]
    for part in OVERTONES:
        below = np.round((pitch / part) * PITCH_WINDOW / RATE).astype(np.int64)
        there = np.max([found[frame, below + step] for step in (-1, 0, 1)], axis=0) if len(frame) else size
        size = np.where(there >= 0.5 * size, 0.0, size)
    weights = np.bincount(np.round(midi(pitch)).astype(np.int64), weights=size, minlength=128)
    if not weights.sum() > 0:
        return None
    share = np.cumsum(weights) / weights.sum()
    low = np.searchsorted(share, STRAY, side="right")
    high = np.searchsorted(share, 1 - STRAY)
    return float(low), float(max(low, high))


def range_overlap(a: tuple[float, float] | None, b: tuple[float, float] | None) -> float:
    """Semitones that two ranges share, of those that either has: 1 for equal ones, 0 for apart ones or for none."""
    if a is None or b is None:
        return 0.0
    shared = min(a[1], b[1]) - max(a[0], b[0]) + 1
    return max(0.0, shared) / (max(a[1], b[1]) - min(a[0], b[0]) + 1)


def pitch_agreement(a: Array, b: Array) -> float:
    """Correlation of two pitch-class profiles, -1 to 1, as keys are compared (Krumhansl 1990); 0 if one is empty."""
    x, y = a - a.mean(), b - b.mean()
    size = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / size if size > 1e-12 else 0.0


def rises(sound: Array) -> Array:
    """How much the log spectrum rises, ``[frames]`` at 100 a second: the mean of what rises, in neper a bin.

    Frame ``i`` compares the windows of 64 ms that begin 10 ms x ``i`` and 30 ms later: a rise through the window is
    gathered.
    """
    level = np.log(np.maximum(spectra(sound, ONSET_WINDOW, ONSET_HOP)[:, : ONSET_WINDOW // 4], 10 ** (FLOOR_DB / 20)))
    return np.asarray(np.maximum(level[LATE:] - level[:-LATE], 0).mean(1))


def onsets(sound: Array) -> Array:
    """Times of onsets in seconds: peaks of the rise of the log spectrum, half-wave rectified (Bello et al. 2005).

    A peak counts when it is the highest within 50 ms and stands above the median of its surroundings of 0.2 s by a
    mean rise of 0.08 neper a bin.
    """
    rise = rises(sound)
    if len(rise) < 2:
        return np.zeros(0)
    near, wide = round(FASTEST * RATE / ONSET_HOP), round(REACH * RATE / ONSET_HOP)
    highest = sliding_window_view(np.pad(rise, near, constant_values=-1.0), 2 * near + 1).max(1)
    usual = np.median(sliding_window_view(np.pad(rise, wide, mode="edge"), 2 * wide + 1), axis=1)
    found = np.flatnonzero((rise == highest) & (rise > usual + RISE))
    apart = np.diff(found, prepend=-FAR) > near  # of equal neighbours the first
    middle = ONSET_WINDOW / 2 + LATE * ONSET_HOP / 2  # of the two windows that are compared
    return np.asarray((found[apart] * ONSET_HOP + middle) / RATE)


def onset_density(sound: Array) -> float:
    """Onsets a second."""
    return len(onsets(sound)) / (len(sound) / RATE) if len(sound) else 0.0


def pace_difference(a: float, b: float) -> float:
    """How far two onset densities are apart, in octaves: 0 is the same pace, 1 twice as fast."""
    return abs(float(np.log2((a + 0.25) / (b + 0.25))))
