"""The key of a pitch-class profile, and how far two keys are apart. Knows nothing of sound.

Profiles are those of :func:`audiolm.eval.music.pitch_classes`.
"""

from dataclasses import dataclass

import numpy as np

from audiolm.eval.music import pitch_agreement
from audiolm.train.shards import Array

# How well each pitch class fits a key, from its tonic up: the probe-tone ratings of Krumhansl and Kessler (1982).
MAJOR = np.array([6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88])
MINOR = np.array([6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17])
NAMES = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
FARTHEST = 6


@dataclass(frozen=True)
class Key:
    """A tonic, as a pitch class with C = 0, and a mode."""

    tonic: int
    minor: bool

    @property
    def fifth(self) -> int:
        """Its place on the circle of fifths, C = 0, G = 1; a minor key is where its relative major is."""
        return 7 * (self.tonic + 3 * self.minor) % 12

    def __str__(self) -> str:
        return f"{NAMES[self.tonic]} {'minor' if self.minor else 'major'}"


def key_of(profile: Array) -> Key | None:
    """The key of 24 whose ratings correlate best with a profile ``[12]`` (Krumhansl 1990); None for an empty one."""
    if not profile.any():
        return None
    keys = [Key(tonic, minor) for tonic in range(12) for minor in (False, True)]
    return max(keys, key=lambda key: pitch_agreement(np.roll(MINOR if key.minor else MAJOR, key.tonic), profile))


def key_distance(a: Key | None, b: Key | None) -> float:
    """Steps between two keys on the circle of fifths, 0 to 6; 6 where one has none. Two drawn keys are 3 apart."""
    if a is None or b is None:
        return float(FARTHEST)
    apart = abs(a.fifth - b.fifth)
    return float(min(apart, 12 - apart))
