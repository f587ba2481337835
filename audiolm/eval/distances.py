"""Distances between a sound and its reconstruction, and the lag between them.

All take float32 ``[samples]`` at 16 kHz. PESQ and STOI come from the extra ``eval``.
"""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from audiolm.eval.need import need
from audiolm.train.data import RATE
from audiolm.train.losses import mel_distance
from audiolm.train.shards import Array

SIZES = (512, 1024, 2048)
NOTHING = float("nan")
WORST_PESQ = 1.04


def pesq_wb(real: Array, made: Array) -> float:
    """Wide-band PESQ (ITU-T P.862.2), 1.04 to 4.64; NaN where there is no utterance in ``real``.

    Where there is one in ``real`` and it cannot be found in ``made``, that is the worst there is.
    """
    library = need("pesq")
    nothing = (library.NoUtterancesError, library.BufferTooShortError)
    if not real.any():
        return NOTHING
    try:
        return float(library.pesq(RATE, real, made, "wb"))
    except nothing:
        try:
            library.pesq(RATE, real, real, "wb")
        except nothing:
            return NOTHING
        return WORST_PESQ


def stoi(real: Array, made: Array) -> float:
    """Short-time objective intelligibility (Taal et al. 2011), about 0 to 1; NaN where there is too little sound."""
    import warnings

    library = need("pystoi")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return float(library.stoi(real, made, RATE))
        except (RuntimeWarning, ValueError):  # fewer than 30 frames that are not silent
            return NOTHING


def si_sdr(real: Array, made: Array) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019, arXiv 1811.02508)."""
    x, y = real.astype(np.float64), made.astype(np.float64)
    target = (x @ y) / max(float(x @ x), 1e-12) * x
    return float(10 * np.log10((target @ target + 1e-12) / (np.square(y - target).sum() + 1e-12)))


def log_mel(real: Array, made: Array) -> float:
    """Mean absolute log-mel difference over six resolutions, see :func:`audiolm.train.losses.mel_distance`."""
    return float(mel_distance(_row(real), _row(made)))


def stft_distance(real: Array, made: Array, sizes: Sequence[int] = SIZES) -> float:
    """Multi-resolution STFT distance: spectral convergence and log magnitude, averaged over ``sizes``.

    Equations 4 to 6 of Parallel WaveGAN (Yamamoto et al. 2020, arXiv 1910.11480).
    """
    total = 0.0
    for size in sizes:
        x, y = (_magnitudes(_row(sound), size) for sound in (real, made))
        convergence = torch.linalg.norm(x - y) / torch.linalg.norm(x).clamp_min(1e-9)
        total += float(convergence + (x.log() - y.log()).abs().mean())
    return total / len(sizes)


def _magnitudes(audio: Tensor, size: int) -> Tensor:
    spectrum = torch.stft(audio, size, size // 4, window=_window(size), return_complex=True)
    return spectrum.abs().clamp_min(1e-5)


@cache
def _window(size: int) -> Tensor:
    return torch.hann_window(size)


def _row(sound: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(sound, np.float32))[None]


MEASURES: dict[str, Callable[[Array, Array], float]] = {
    "pesq_wb": pesq_wb,
    "stoi": stoi,
    "si_sdr": si_sdr,
    "log_mel": log_mel,
    "stft": stft_distance,
}


# -- lag --


def correlation(real: Array, made: Array, most: int) -> Array:
    """Cross-correlation at lags ``-most..most`` (positive: ``made`` comes late), of unit-energy sounds."""
    size = 1 << (len(real) + len(made)).bit_length()
    product = np.fft.rfft(made, size) * np.fft.rfft(real, size).conj()
    whole = np.fft.irfft(product, size)
    energy = float(np.linalg.norm(real.astype(np.float64)) * np.linalg.norm(made.astype(np.float64)))
    return np.concatenate((whole[-most:], whole[: most + 1])) / max(energy, 1e-9)


def common_lag(pairs: Sequence[tuple[Array, Array]], most: int, declared: int = 0, margin: float = 0.02) -> int:
    """The lag in samples that fits all ``(real, made)`` pairs best; a codec has one.

    ``declared`` is taken unless another correlates better by ``margin``, so that a poor codec is not shifted by chance.
    """
    total = np.mean([correlation(real, made, most) for real, made in pairs], axis=0)
    best = int(np.argmax(total)) - most
    return best if total[best + most] > total[declared + most] + margin else declared


def aligned(real: Array, made: Array, lag: int) -> tuple[Array, Array]:
    """Both without what the other lacks once ``made`` is moved back by ``lag`` samples."""
    x, y = real[max(0, -lag) :], made[max(0, lag) :]
    size = min(len(x), len(y))
    return x[:size], y[:size]
