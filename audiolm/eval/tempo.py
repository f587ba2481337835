"""The tempo of music: the lag at which its onsets repeat. Sounds are float32 at 16 kHz."""

import numpy as np

from audiolm.eval.music import RISE, rises
from audiolm.train.shards import Array

FRAMES = 100  # a second, of the onset strength
SLOWEST, FASTEST, USUAL = 40.0, 240.0, 120.0  # beats a minute
WEAKEST = 0.1  # of the strength's variance: less is no repetition
FARTHEST = 0.5


def tempo(sound: Array) -> float | None:
    """Beats a minute, 40 to 240; None where nothing repeats.

    The highest peak of the autocorrelation of the onset strength, under a Gaussian over log tempo, one octave wide,
    round 120 (Ellis 2007, "Beat tracking by dynamic programming"). Lags go up to half the sound, so one of less than
    3 s has no slow tempo. Which of two tempi an octave apart is the beat, this does not know.
    """
    strength = rises(sound)
    strength = strength - strength.mean() if len(strength) else strength
    longest = min(round(60 * FRAMES / SLOWEST), len(strength) // 2)
    lags = np.arange(round(60 * FRAMES / FASTEST), longest)
    if len(lags) < 2 or strength.max() < RISE:
        return None
    both = [float(strength[lag:] @ strength[:-lag]) / (len(strength) - lag) for lag in range(lags[0] - 1, longest + 1)]
    echo = np.array(both) / strength.var()
    inner = echo[1:-1]
    peak = (inner >= echo[:-2]) & (inner >= echo[2:]) & (inner > WEAKEST)
    if not peak.any():
        return None
    likely = np.exp(-0.5 * np.square(np.log2(60 * FRAMES / lags / USUAL)))
    best = int(np.argmax(np.where(peak, inner * likely, -1.0)))
    left, middle, right = echo[best : best + 3]
    bend = min(float(left - 2 * middle + right), -1e-12)
    return float(60 * FRAMES / (lags[best] + 0.5 * (left - right) / bend))


def tempo_difference(a: float | None, b: float | None) -> float:
    """Octaves between two tempi, whole octaves not counted: 0 to 0.5; 0.5 where one has none. Drawn: 0.25."""
    if a is None or b is None:
        return FARTHEST
    apart = float(np.log2(a / b))
    return abs(apart - round(apart))
