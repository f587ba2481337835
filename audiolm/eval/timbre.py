"""How a sound is coloured on the whole: its mean cepstrum, and how far two are apart. Knows no notes and no words."""

import numpy as np
import torch

from audiolm.eval.mfcc import mfcc
from audiolm.train.shards import Array

CEPSTRA = 13


def timbre(sound: Array) -> Array:
    """Mean cepstra 1 to 12 of float32 ``[samples]`` at 16 kHz; the level, cepstrum 0, is left out."""
    found = mfcc(torch.from_numpy(np.ascontiguousarray(sound, np.float32)), cepstra=CEPSTRA)
    return np.asarray(found[:, 1:CEPSTRA].mean(0), np.float64)


def timbre_distance(a: Array, b: Array) -> float:
    """Root of the mean squared difference of two mean cepstra; 0 is the same colour."""
    return float(np.sqrt(np.mean(np.square(a - b))))
