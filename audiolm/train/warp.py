"""Disguises of features for the training of the semantic encoder: another vocal tract, another microphone.

What the encoder hears is disguised, what it must say is not. So it learns what stays the same when the speaker changes.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

KNOTS = 6  # of a random curve over the bands


def warp_mel(mel: Tensor, factors: Tensor, rate: int = 16000) -> Tensor:
    """Log-mel bands ``[B, ..., mels]`` with their frequencies multiplied by ``factors`` ``[B]``.

    Linear between bands of the HTK mel scale; beyond the ends the last band is repeated (vocal tract length
    perturbation: Jaitly and Hinton 2013, but after the filters, where it costs next to nothing).
    """
    mels = mel.shape[-1]
    top = 2595.0 * math.log10(1.0 + rate / 1400.0)
    at = (torch.arange(mels, device=mel.device) + 1) * (top / (mels + 1))
    source = 700.0 * (10.0 ** (at / 2595.0) - 1.0) / factors.to(mel)[:, None]
    place = 2595.0 * (1.0 + source / 700.0).log10() * ((mels + 1) / top) - 1
    low = place.floor().clamp(0, mels - 2)
    share = (place - low).clamp(0, 1)
    matrix = torch.zeros(len(mel), mels, mels, device=mel.device, dtype=mel.dtype)
    matrix.scatter_(1, low.long()[:, None], (1 - share)[:, None])
    matrix.scatter_(1, low.long()[:, None] + 1, share[:, None])
    return (mel.reshape(len(mel), -1, mels) @ matrix).view_as(mel)


def random_curves(items: int, bands: int, spread: float, generator: torch.Generator) -> Tensor:
    """Smooth random curves ``[items, bands]`` of standard deviation ``spread`` at their knots: another microphone."""
    knots = torch.randn(items, 1, KNOTS, generator=generator) * spread
    return F.interpolate(knots, bands, mode="linear", align_corners=True)[:, 0]
