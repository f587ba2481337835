"""Mel-frequency cepstra with deltas, the features that semantic embeddings must beat."""

import math

import torch
from torch import Tensor

from audiolm.features import mel_filters

RATE = 100.0


def mfcc(audio: Tensor, *, mels: int = 23, cepstra: int = 13, lifter: float = 22.0) -> Tensor:
    """Cepstra, deltas and their deltas ``[T / 160, 3 * cepstra]`` of ``audio`` ``[T]`` at 16 kHz, 100 frames a second.

    As Kaldi makes them by default: 25 ms every 10 ms, pre-emphasis 0.97, mel bands from 20 Hz, liftered; no statistics
    of speaker or utterance.
    """
    padded = torch.nn.functional.pad(audio, (120, 120))  # the middle of frame i is the middle of its 10 ms
    frames = padded.unfold(0, 400, 160)
    frames = frames - frames.mean(1, keepdim=True)
    frames = frames - 0.97 * torch.cat((frames[:, :1], frames[:, :-1]), 1)
    power = torch.fft.rfft(frames * torch.hann_window(400, periodic=False).pow(0.85), 512).abs().square()
    logs = (power @ mel_filters(512, mels, 16000, low=20.0)).clamp_min(1e-10).log()
    static = logs @ _cosines(mels, cepstra) * (1 + lifter / 2 * torch.sin(math.pi * torch.arange(cepstra) / lifter))
    first = deltas(static)
    return torch.cat((static, first, deltas(first)), 1)


def _cosines(mels: int, cepstra: int) -> Tensor:
    """Orthonormal cosine transform ``[mels, cepstra]``."""
    basis = torch.cos(math.pi / mels * (torch.arange(mels)[:, None] + 0.5) * torch.arange(cepstra))
    return basis * torch.where(torch.arange(cepstra) == 0, (1 / mels) ** 0.5, (2 / mels) ** 0.5)


def deltas(x: Tensor) -> Tensor:
    """Slope of ``[frames, dim]`` over two frames to either side (HTK's regression), the ends repeated."""
    padded = torch.cat((x[:1], x[:1], x, x[-1:], x[-1:]))
    return (padded[3:-1] - padded[1:-3] + 2 * (padded[4:] - padded[:-4])) / 10
