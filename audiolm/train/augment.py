"""Augmentation of crops as they are drawn, for speech: speed and equalization. The level is `crops`' own `gain_db`.

All of it is numpy, so that it runs on a bare training machine, and drawn from the generator of the crops, so that equal
seeds give equal batches.

- **Speed** (Ko et al., Interspeech 2015): played faster or slower by up to a tenth, tempo and pitch together, in steps
  of a hundredth. Resampled in the frequency domain: the spectrum is cut or filled, which is band-limited and of linear
  phase; margins keep the wrap at the ends out of the crop.
- **Equalization**: a low shelf, a peak and a high shelf of random place and gain (biquads of R. Bristow-Johnson's Audio
  EQ Cookbook), applied as one response on the spectrum.

Piano is not augmented here but at the MIDI level, where it is cleaner: render each piece several times in other keys
(up to 6 semitones), tempos (0.85 to 1.15), rooms and tunings, and put the renders into the folder as more files.
Called `piece_0`, `piece_1`, ... they stay on one side of the split (see :mod:`audiolm.train.splits`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from audiolm.errors import ConfigError

Array = np.ndarray[Any, Any]
RATE = 16000
MARGIN = 800  # samples either side that are thrown away: 50 ms
STEP = 0.01  # of the speed: few lengths, so that what a corpus keeps per length stays small


@dataclass(frozen=True)
class Augment:
    """What is done to crops; all off by default.

    ``speed`` and ``equalize`` are the shares of crops that are changed; ``speed_range`` how far the speed goes either
    way, ``equalize_db`` the largest gain of each filter.
    """

    speed: float = 0.0
    equalize: float = 0.0
    speed_range: float = 0.1
    equalize_db: float = 6.0

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        most = {"speed": 1.0, "equalize": 1.0, "speed_range": 0.25, "equalize_db": 18.0}
        for item in fields(self):
            value = getattr(self, item.name)
            if not 0 <= value <= most[item.name]:
                raise ConfigError(f"augment.{item.name} is {value}; expected 0 to {most[item.name]}", value=value)

    def draw(self, crop: Callable[[int, np.random.Generator], Array], length: int, rng: np.random.Generator) -> Array:
        """A crop of ``length`` samples, float32, changed or not; ``crop(length, rng)`` gives what it is made of."""
        speed = self._speed(rng)
        sound = crop(length, rng) if speed == 1.0 else at_speed(crop, length, speed, rng)
        if self.equalize and rng.random() < self.equalize:
            return equalized(sound, random_filters(rng, self.equalize_db))
        return sound

    def _speed(self, rng: np.random.Generator) -> float:
        if not self.speed or rng.random() >= self.speed:
            return 1.0
        most = round(self.speed_range / STEP)
        return 1.0 + STEP * int(rng.integers(-most, most + 1))


def at_speed(
    crop: Callable[[int, np.random.Generator], Array], length: int, speed: float, rng: np.random.Generator
) -> Array:
    """``length`` samples, float32, of a crop that is played ``speed`` times as fast."""
    hundreds = smooth(-(-(length + 2 * MARGIN) // 100))
    sound = crop(hundreds * round(100 * speed), rng)
    return resampled(sound, hundreds * 100)[MARGIN : MARGIN + length]


def smooth(least: int) -> int:
    """The next number without a prime factor above 5: other lengths make the FFT many times slower."""
    n = least
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1


def resampled(sound: Array, length: int) -> Array:
    """``sound`` stretched or squeezed to ``length`` samples, band-limited, float32; the ends wrap round."""
    spectrum = np.fft.rfft(sound)
    kept = np.zeros(length // 2 + 1, complex)
    shared = min(len(kept), len(spectrum))
    kept[:shared] = spectrum[:shared]
    return (np.fft.irfft(kept, length) * (length / len(sound))).astype(np.float32)


def random_filters(rng: np.random.Generator, most_db: float) -> list[tuple[Array, Array]]:
    """A low shelf (80-400 Hz), a peak (300-4000 Hz) and a high shelf (2-6 kHz) of gains up to ``most_db``."""
    gains = rng.uniform(-most_db, most_db, 3)
    return [
        shelf(_log_uniform(rng, 80, 400), float(gains[0]), high=False),
        peak(_log_uniform(rng, 300, 4000), float(gains[1]), float(rng.uniform(0.5, 2.0))),
        shelf(_log_uniform(rng, 2000, 6000), float(gains[2]), high=True),
    ]


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return low * math.exp(math.log(high / low) * rng.random())


def peak(hertz: float, gain_db: float, q: float) -> tuple[Array, Array]:
    """Coefficients ``(b, a)`` of a peaking filter (Audio EQ Cookbook)."""
    amplitude, w = 10 ** (gain_db / 40), 2 * math.pi * hertz / RATE
    alpha = math.sin(w) / (2 * q)
    b = [1 + alpha * amplitude, -2 * math.cos(w), 1 - alpha * amplitude]
    return np.asarray(b), np.asarray([1 + alpha / amplitude, -2 * math.cos(w), 1 - alpha / amplitude])


def shelf(hertz: float, gain_db: float, *, high: bool) -> tuple[Array, Array]:
    """Coefficients ``(b, a)`` of a high or low shelf of slope 1 (Audio EQ Cookbook)."""
    A, w = 10 ** (gain_db / 40), 2 * math.pi * hertz / RATE
    side = -1.0 if high else 1.0  # the cookbook's two shelves differ in these signs
    cos, root = side * math.cos(w), math.sqrt(2 * A) * math.sin(w)
    b = [A * (A + 1 - (A - 1) * cos + root), side * 2 * A * (A - 1 - (A + 1) * cos), A * (A + 1 - (A - 1) * cos - root)]
    a = [A + 1 + (A - 1) * cos + root, side * -2 * (A - 1 + (A + 1) * cos), A + 1 + (A - 1) * cos - root]
    return np.asarray(b), np.asarray(a)


def equalized(sound: Array, filters: list[tuple[Array, Array]]) -> Array:
    """``sound`` float32 ``[n]`` through biquads one after the other; padded, so that nothing wraps round."""
    padded = smooth(len(sound) + MARGIN)
    z = np.exp(-2j * np.pi * np.arange(padded // 2 + 1) / padded)
    response = np.ones_like(z)
    for b, a in filters:
        response *= (b[0] + b[1] * z + b[2] * z * z) / (a[0] + a[1] * z + a[2] * z * z)
    return np.fft.irfft(np.fft.rfft(sound, padded) * response, padded)[: len(sound)].astype(np.float32)
