"""Prosody of speech: pitch, its range, voicing and rate. Sounds are float32 at 16 kHz; knows nothing of words.

Pitch is found by YIN (de Cheveigne and Kawahara 2002), the rate by peaks of the level, as de Jong and Wempe (2009)
count syllables.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from audiolm.eval.clips import QUIET_DB
from audiolm.eval.music import spectra
from audiolm.eval.need import need
from audiolm.train.data import RATE
from audiolm.train.shards import Array

HOP = 160  # 10 ms
FRAME, SIZE = 1024, 2048  # samples; of the transform
SHORTEST, LONGEST = RATE // 500, RATE // 60  # periods in samples: 60 to 500 Hz
PERIODIC = 0.3  # cumulative mean normalized difference below which a frame is voiced; breathy speech is above 0.2
BELOW_LOUDEST_DB = 35.0
RUN = 3  # frames: a voiced stretch of less is none
LEAST_VOICED = 10  # frames, 0.1 s
SMOOTH, DIP_DB, FAINT_DB, APART = 11, 2.0, 25.0, 8  # frames, dB, dB below the loudest peak, frames


@dataclass(frozen=True)
class Prosody:
    """What a piece of speech sounds like apart from its words.

    Attributes:
        pitch: median F0, in semitones above 1 Hz; NaN with less than 0.1 s voiced. So is ``spread``.
        spread: from the 10th to the 90th percentile of F0, in semitones.
        voiced: share of frames that are voiced.
        rate: syllable-like peaks of the level, a second.
    """

    pitch: float
    spread: float
    voiced: float
    rate: float


def f0(sound: Array) -> Array:
    """F0 in Hz every 10 ms, ``[frames]``, 60 to 500 Hz, NaN where unvoiced.

    YIN over windows of 64 ms after a box of 0.5 ms: the first period whose normalized difference has a minimum below
    0.3, at the minimum of the parabola through it. Frames 35 dB below the loudest, or below -50 dBFS, are unvoiced, and
    so are voiced stretches of less than 30 ms.
    """
    smooth = np.convolve(sound.astype(np.float64), np.full(8, 1 / 8), "same") if len(sound) else np.zeros(0)
    frames = sliding_window_view(np.pad(smooth, (0, max(0, FRAME - len(smooth)))), FRAME)[::HOP]
    normal = _difference(frames)
    inner = normal[:, 1:-1]
    low = (inner < PERIODIC) & (inner <= normal[:, :-2]) & (inner <= normal[:, 2:])
    low[:, : SHORTEST - 1] = False
    first, rows = low.argmax(1), np.arange(len(low))
    left, middle, right = (normal[rows, first + step] for step in range(3))
    bend = np.maximum(left - 2 * middle + right, 1e-12)
    found = RATE / (first + 1 + 0.5 * np.clip((left - right) / bend, -1, 1))
    return np.where(_lasting(low.any(1) & _loud(frames)), found, np.nan)


def _difference(frames: Array) -> Array:
    """YIN's cumulative mean normalized difference of ``[frames, samples]``, for periods 0 to 267 samples."""
    width = FRAME - LONGEST - 1
    head = np.fft.rfft(frames[:, :width], SIZE)
    shared = np.fft.irfft(np.conj(head) * np.fft.rfft(frames, SIZE), SIZE)[:, : LONGEST + 1]
    energy = np.concatenate((np.zeros((len(frames), 1)), np.cumsum(np.square(frames), 1)), 1)
    power = energy[:, width : width + LONGEST + 1] - energy[:, : LONGEST + 1]
    apart = np.maximum(power[:, :1] + power - 2 * shared, 0.0)
    apart[:, 0] = 0.0
    total = np.cumsum(apart, 1)
    period = np.arange(LONGEST + 1)
    return np.where(total > 0, apart * period / np.maximum(total, 1e-20), 1.0)


def _loud(frames: Array) -> Array:
    level = 10 * np.log10(np.mean(np.square(frames), 1) + 1e-18)
    return np.asarray(level > max(QUIET_DB, float(level.max()) - BELOW_LOUDEST_DB))


def _lasting(voiced: Array) -> Array:
    """Voiced frames that are in a stretch of at least ``RUN``."""
    padded = np.pad(voiced, RUN - 1)
    starts = sliding_window_view(padded, RUN).all(1)
    return np.asarray(sliding_window_view(starts, RUN).any(1))


def peak_rate(sound: Array) -> float:
    """Syllable-like peaks a second: of the level between 300 and 3000 Hz, with dips of 2 dB between them.

    The level is smoothed over 0.1 s; peaks are 80 ms apart and at most 25 dB below the loudest.

    Raises:
        InputError: scipy is not installed.
    """
    if len(sound) < RATE // 4:
        return 0.0
    found = np.square(spectra(np.pad(sound, SIZE // 8), SIZE // 4, HOP)[:, 300 * 512 // RATE : 3000 * 512 // RATE])
    window = np.hanning(SMOOTH + 2)[1:-1]
    level = 10 * np.log10(np.convolve(found.sum(1), window / window.sum(), "same") + 1e-12)
    height = max(float(level.max()) - FAINT_DB, QUIET_DB)
    edged = np.pad(level, 1, constant_values=level.min() - 2 * DIP_DB)  # a peak at the end has its dip outside
    peaks, _ = need("scipy.signal").find_peaks(edged, height=height, prominence=DIP_DB, distance=APART)
    return len(peaks) * RATE / len(sound)


def prosody(sound: Array) -> Prosody:
    """What float32 ``[samples]`` at 16 kHz sound like.

    Raises:
        InputError: scipy is not installed.
    """
    track = f0(sound)
    voiced = track[np.isfinite(track)]
    if len(voiced) < LEAST_VOICED:
        return Prosody(np.nan, np.nan, len(voiced) / len(track), peak_rate(sound))
    low, middle, high = np.percentile(12 * np.log2(voiced), [10, 50, 90])
    return Prosody(float(middle), float(high - low), len(voiced) / len(track), peak_rate(sound))


def prosody_difference(a: Prosody, b: Prosody) -> dict[str, float]:
    """How far two are apart: ``f0`` and ``f0_range`` in semitones, ``voiced`` as a share, ``rate`` in octaves."""
    return {
        "f0": abs(a.pitch - b.pitch),
        "f0_range": abs(a.spread - b.spread),
        "voiced": abs(a.voiced - b.voiced),
        "rate": abs(float(np.log2((a.rate + 0.25) / (b.rate + 0.25)))),
    }
