"""Losses and distances between sounds."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from audiolm.features import mel_filters


@lru_cache
def _bank(n_fft: int, mels: int, rate: int) -> Tensor:
    return mel_filters(n_fft, mels, rate)


def log_mel(audio: Tensor, n_fft: int, mels: int, rate: int = 16000) -> Tensor:
    """``[B, T] -> [B, frames, mels]``: log magnitude mel spectrogram, hop ``n_fft / 4``."""
    window = torch.hann_window(n_fft, device=audio.device)
    spec = torch.stft(audio, n_fft, n_fft // 4, window=window, return_complex=True).abs()
    return (spec.transpose(1, 2) @ _bank(n_fft, mels, rate).to(audio.device)).clamp_min(1e-5).log()


def mel_distance(real: Tensor, fake: Tensor, sizes: Sequence[int] = (64, 128, 256, 512, 1024, 2048)) -> Tensor:
    """Mean absolute log-mel difference over several resolutions (as in the Descript Audio Codec, arXiv 2306.06546)."""
    total = torch.zeros((), device=real.device)
    for size in sizes:
        mels = max(5, min(80, size // 8))
        total = total + (log_mel(real, size, mels) - log_mel(fake, size, mels)).abs().mean()
    return total / len(sizes)


def waveform_distance(real: Tensor, fake: Tensor) -> Tensor:
    """Mean absolute difference relative to each item's mean level, so that quiet sound counts as much as loud."""
    level = real.abs().mean(-1, keepdim=True).clamp_min(1e-3)
    return ((real - fake).abs() / level).mean()


def bin_weights(bins: int, rate: int = 16000) -> Tensor:
    """Weight of each bin of a spectrum, ``[bins]``, mean about one.

    It falls as the mel scale does, ``1 / (700 + f)``, so that the many bins of the highest octave do not decide alone;
    the floor keeps them in.
    """
    density = 1 / (700 + torch.linspace(0, rate / 2, bins))
    return (density / density.mean()).clamp_min(0.3)


def spectrum_distance(real_log: Tensor, fake_log: Tensor, real: Tensor, fake: Tensor, weights: Tensor) -> Tensor:
    """Mean absolute difference of spectra ``[B, spectra, bins]``: of their logarithms and of their power 0.3.

    The logarithm minds what is quiet, the power law, about that of loudness, what is loud.
    """
    loud = real.clamp_min(1e-5) ** 0.3 - fake.clamp_min(1e-5) ** 0.3
    return (((real_log - fake_log).abs() + loud.abs()) * weights).mean()


def mel_spectrum_distance(real: Tensor, fake: Tensor, filters: Tensor) -> Tensor:
    """Mean absolute log10 difference of mel band levels of magnitudes ``[B, spectra, bins]``.

    Distances bin by bin have their least at the median, which for noise is too low a level; bands keep its energy.
    """
    bands = [((m.square() @ filters) + 1e-3).log10() * 0.5 for m in (real, fake)]
    return (bands[0] - bands[1]).abs().mean()
