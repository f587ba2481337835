"""The watermark of generated sound: an equalizer that moves by one decibel in a pattern of its own.

Every 20 ms the level of each of 32 bands from 200 to 6600 Hz is raised or lowered by :data:`DEPTH_DB`; which of the
two is decided by a fixed table of pseudo-random signs that repeats every 2.56 s. Nothing is added where there is
silence, no sample is held back, and what is heard stays as it was: only :meth:`Marker.mark` changes anything. The mark
is in levels and not in the wave, so a codec that keeps the levels keeps it, whatever it does to phases.

:func:`find` looks for the pattern at any offset, so in any cut. Its ``false_alarm`` is a bound that assumes nothing of
the sound: for a sum of fixed numbers under random signs, ``P(sum > z * norm) <= exp(-z**2 / 2)`` (Hoeffding 1963),
times the number of sums that were looked at.

The table is in this file, so whoever wants to take the mark out can: it says where sound comes from among those who do
not hide it. This module knows nothing of models, sessions or files.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from audiolm.errors import InputError

Sound = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

RATE, TICK = 16000, 640
KEY = "audiolm 1"
DEPTH_DB = 1.0
CELL = 320  # samples for which the levels stand
RAMP = 64  # samples in which they come and go within a cell: at its ends the sound is untouched
LOWEST, WIDTH, BANDS = 200.0, 200.0, 32
CELLS = 128  # of a period
TAPS = 256  # of a cell's filter
PAST = TAPS - 1
SIZE = 1024  # of the transforms that filter a tick: at least PAST + TICK, and what wraps falls on the past

LIMIT = 1e-6  # false alarms a sound that are put up with
HOP = 80  # samples between the offsets that are tried
WINDOW = 400  # samples that a level is measured on
SUB = CELL // HOP
SPAN, STEP = 2000, 1000  # frames of a stretch that is looked at, and from one to the next: 10 s every 5 s
RATES = (0.0, -0.001, 0.001, -0.002, 0.002)  # how much faster or slower a clock may have been
CONTRAST = (-0.1, -0.4, 1.0, -0.4, -0.1)  # a cell against those around it in time
USUAL_DB = 4.0  # differences far above it are events of the sound and count less
QUIET = 2.5e-7  # of the mean power; levels below it say nothing
SHORTEST = 8  # cells


@dataclass(frozen=True)
class Found:
    """What :func:`find` has found.

    Attributes:
        present: whether the sound carries the mark: ``false_alarm`` is at most :data:`LIMIT`.
        score: of the best place, in standard deviations of a sound without it.
        false_alarm: bound for the probability that a sound without the mark has such a score anywhere.
        start, end: seconds of the stretch with the best score, about 10 s or all of a shorter sound.
        share: of such stretches, every 5 s, that carry the mark by themselves.
    """

    present: bool
    score: float
    false_alarm: float
    start: float
    end: float
    share: float


@cache
def signs(key: str = KEY) -> Floats:
    """The independent signs of a key, ``[64, 16]``, each for two cells by two bands."""
    bits = np.frombuffer(hashlib.shake_256(key.encode()).digest(CELLS * BANDS // 32), np.uint8)
    return np.where(np.unpackbits(bits), 1.0, -1.0).reshape(CELLS // 2, BANDS // 2)


def pattern(key: str = KEY) -> Floats:
    """Whether a band is raised or lowered in a cell, ``[128, 32]``.

    A sign stands for a checkerboard of 2 x 2, since sound changes slowly over time and over bands: what is a difference
    of neighbours both ways is mostly the mark.
    """
    return np.kron(signs(key), np.array([[1.0, -1.0], [-1.0, 1.0]]))


@cache
def filters(key: str = KEY) -> npt.NDArray[np.complex128]:
    """What each cell adds to the sound, as spectra ``[128, 513]``: its equalizer less the identity.

    The equalizer is of minimum phase (by its cepstrum, Oppenheim and Schafer), so it raises and lowers levels without
    a delay.
    """
    size = 2 * SIZE
    at = np.fft.rfftfreq(size, 1 / RATE)
    band = np.floor((at - LOWEST) / WIDTH)
    shape = np.stack([np.convolve(band == i, np.hanning(9) / np.hanning(9).sum(), "same") for i in range(BANDS)])
    wanted = np.fft.irfft(pattern(key) @ shape * (DEPTH_DB * np.log(10) / 20), size, axis=1)
    wanted[:, 1:SIZE] *= 2
    wanted[:, SIZE + 1 :] = 0
    taps = np.fft.irfft(np.exp(np.fft.rfft(wanted, axis=1)), size, axis=1)[:, :TAPS]
    taps[:, -RAMP:] *= _fall()
    taps[:, 0] -= 1
    return np.fft.rfft(taps, SIZE, axis=1)


def _fall() -> Floats:
    return 0.5 + 0.5 * np.cos(np.pi * (np.arange(RAMP) + 0.5) / RAMP)


@cache
def envelope() -> Floats:
    """How much of the equalizer there is along a cell, ``[320]``, from nothing to all and back."""
    return np.concatenate((_fall()[::-1], np.ones(CELL - 2 * RAMP), _fall()))


class Marker:
    """Marks one stream tick by tick, without delay: same ticks, same result.

    Args:
        key: decides the pattern; :func:`find` must be given the same.
    """

    def __init__(self, key: str = KEY) -> None:
        self._filters = filters(key)
        self._past = np.zeros(PAST, np.float32)
        self._cell = 0

    def mark(self, tick: Sound) -> Sound:
        """The marked tick, float32 ``[640]``; the one that came is left as it is."""
        spectrum = np.fft.rfft(np.concatenate((self._past, tick)).astype(np.float64), SIZE)
        cells = self._filters[self._cell : self._cell + TICK // CELL]
        added = np.fft.irfft(spectrum * cells, SIZE, axis=1)[:, PAST : PAST + TICK]
        marked = tick.astype(np.float64)
        for i in range(TICK // CELL):
            marked[i * CELL : (i + 1) * CELL] += envelope() * added[i, i * CELL : (i + 1) * CELL]
        self.hear(tick)
        return marked.astype(np.float32)

    def pass_on(self, tick: Sound, *, mark: bool) -> Sound:
        """The tick as it is to be heard: marked, or as it came."""
        if mark:
            return self.mark(tick)
        self.hear(tick)
        return tick

    def hear(self, tick: Sound) -> None:
        """Let a tick ``[640]`` pass that is not to be marked; the next marked one follows on it."""
        self._past = tick[-PAST:].astype(np.float32)
        self._cell = (self._cell + TICK // CELL) % CELLS

    def save(self) -> dict[str, Any]:
        """The state, as an array and a number."""
        return {"past": self._past.copy(), "cell": self._cell}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Take back what :meth:`save` gave.

        Raises:
            KeyError: something is missing.
            InputError: it does not fit.
        """
        past, cell = np.asarray(saved["past"], np.float32), int(saved["cell"])
        if past.shape != (PAST,) or not 0 <= cell < CELLS or cell % (TICK // CELL):
            raise InputError(f"the state of a watermark is [{PAST}] and an even cell below {CELLS}; got {cell}")
        self._past, self._cell = past.copy(), cell


def find(sound: Sound, *, key: str = KEY) -> Found:
    """Whether a sound, or a part of it, carries the mark; in any cut, at any gain.

    Args:
        sound: float32 ``[samples]``, mono at 16 kHz. Less than 2 s are seldom enough.
        key: what it was marked by.

    Raises:
        InputError: not mono float, or not finite.
    """
    if not isinstance(sound, np.ndarray) or sound.ndim != 1 or sound.dtype.kind != "f":
        shape = f"{sound.dtype} {list(sound.shape)}" if isinstance(sound, np.ndarray) else type(sound).__name__
        raise InputError(f"the watermark is looked for in mono sound, float [samples] at 16 kHz; got {shape}")
    if not np.isfinite(sound).all():
        raise InputError("the watermark cannot be looked for in sound with NaN or infinite samples; clean it first")
    levels = _levels(sound)
    starts = [0, *range(STEP, len(levels) - SPAN + STEP, STEP)] if len(levels) >= SHORTEST * SUB else []
    scores = [_score(levels[start : start + SPAN], signs(key)) for start in starts]
    if not scores:
        return Found(present=False, score=0.0, false_alarm=1.0, start=0.0, end=len(sound) / RATE, share=0.0)
    best = int(np.argmax(scores))
    wrong = _false_alarm(scores[best], len(scores))
    end = min(starts[best] + SPAN, len(levels)) * HOP
    share = float(np.mean([_false_alarm(score, len(scores)) <= LIMIT for score in scores]))
    return Found(wrong <= LIMIT, scores[best], wrong, starts[best] * HOP / RATE, end / RATE, share)


def _false_alarm(score: float, stretches: int) -> float:
    tried = CELLS * SUB * len(RATES) * stretches
    return float(min(1.0, tried * np.exp(-(max(score, 0.0) ** 2) / 2)))


def _levels(sound: Sound, block: int = 4096) -> Floats:
    """Levels in dB every 80 samples, each even band less the odd one above it: ``[frames, 16]``."""
    count = max(0, (len(sound) - WINDOW) // HOP + 1)
    if not count:
        return np.zeros((0, BANDS // 2))
    frames = np.lib.stride_tricks.sliding_window_view(sound, WINDOW)[::HOP]
    power = np.concatenate([_powers(frames[at : at + block]) for at in range(0, count, block)])
    least = QUIET * float(power.sum(1).mean()) + 1e-20
    level = 10 * np.log10(power + least)
    return np.asarray(level[:, 0::2] - level[:, 1::2])


def _powers(frames: npt.NDArray[Any]) -> Floats:
    """Power in each band ``[frames, 32]``."""
    window = np.hanning(WINDOW + 1)[:-1]
    at = np.fft.rfftfreq(WINDOW, 1 / RATE)
    bands = np.floor((at - LOWEST) / WIDTH)[:, None] == np.arange(BANDS)
    return np.asarray(np.square(np.abs(np.fft.rfft(frames * window, axis=1))) @ bands.astype(np.float64))


def _score(levels: Floats, table: Floats) -> float:
    """The best correlation of a stretch with the signs over all offsets and rates, in standard deviations."""
    best = 0.0
    for rate in RATES:
        at = np.rint(np.arange(len(levels)) * (1 + rate)).astype(np.int64)
        at = at[at < len(levels)]
        at = at[: len(at) // SUB * SUB]
        best = max(best, _correlation(_evidence(levels[at].reshape(-1, SUB, BANDS // 2)), table))
    return best


def _evidence(levels: Floats) -> Floats:
    """What each cell says, ``[cells, 4, 16]``: its difference to its neighbours, bounded, seen from every cell in it.

    The score ``d / (1 + (d / s)**2)`` is that of a heavy-tailed (Cauchy) noise of scale ``s``.
    """
    difference = sum(weight * _moved(levels, i - 2) for i, weight in enumerate(CONTRAST))
    bounded = np.asarray(difference / (1 + np.square(difference / USUAL_DB)))
    bounded[:2] = bounded[-2:] = 0  # whose neighbours are not known
    return np.asarray(sum(weight * _moved(bounded, 2 - i) for i, weight in enumerate(CONTRAST)))


def _moved(values: Floats, by: int) -> Floats:
    """``values[i + by]`` at ``i``, 0 beyond the ends."""
    moved = np.zeros_like(values)
    if by >= 0:
        moved[: len(values) - by] = values[by:]
    else:
        moved[-by:] = values[:by]
    return moved


def _correlation(evidence: Floats, table: Floats) -> float:
    """The highest sum of evidence under the signs over its norm, at any offset, periods laid upon each other."""
    padded = np.concatenate((evidence, np.zeros((-len(evidence) % CELLS, *evidence.shape[1:]))))
    folded = padded.reshape(-1, CELLS, *evidence.shape[1:]).sum(0)
    spectrum, best = np.fft.rfft(table, axis=0)[:, None], 0.0
    for odd in (0, 1):  # where the pairs of cells begin
        pairs = np.roll(folded, -odd, 0)
        pairs = pairs[0::2] - pairs[1::2]
        sums = np.fft.irfft((np.fft.rfft(pairs, axis=0).conj() * spectrum).sum(2), CELLS // 2, axis=0)
        norms = np.sqrt(np.square(pairs).sum((0, 2)))
        best = max(best, float((sums / np.maximum(norms, 1e-9)).max()))
    return best
