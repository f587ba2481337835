"""Sampling as a pure function of logits and uniforms, and where the uniforms come from.

The noise is counter-based (Philox, Salmon et al. 2011): the draw for a token depends on seed, stage,
position and level and on nothing else, so a continuation is the same streamed or not, alone or among other slots,
before and after a restore.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from audiolm.errors import InputError

MOST = 1 << 20  # more than any vocabulary
_WORD = 2**64 - 1
BUMPS = tuple((i * 0x9E3779B97F4A7C15 & _WORD, i * 0xBB67AE8584CAA73B & _WORD) for i in range(10))


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn from logits.

    Attributes:
        temperature: divides the logits; 0 is greedy.
        top_k: keep the k likeliest; 0 keeps all.
        top_p: keep the likeliest that together reach this mass (arXiv 1904.09751); 1 keeps all.
        guidance: classifier-free guidance scale (arXiv 2207.12598); 1 is off and costs nothing.

    Raises:
        InputError: a value is not a number in its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0

    def __post_init__(self) -> None:
        check_range("temperature", self.temperature, 0.0, 10.0)
        check_range("top_p", self.top_p, 0.0, 1.0, open_low=True)
        check_range("guidance", self.guidance, 0.0, 20.0)
        whole = isinstance(self.top_k, (int, np.integer)) and not isinstance(self.top_k, bool)
        if not whole or not 0 <= self.top_k <= MOST:
            raise InputError(
                f"top_k must be a whole number from 0 (off) to {MOST}, got {self.top_k!r}", top_k=self.top_k
            )


def check_range(name: str, value: Any, low: float, high: float, *, open_low: bool = False) -> float:
    """Return ``value`` if it is a finite number in ``[low, high]`` (``(low, high]`` when ``open_low``).

    Raises:
        InputError: it is not.
    """
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not low <= float(value) <= high or (open_low and value == low):
        bound = f"above {low:g} and up to {high:g}" if open_low else f"from {low:g} to {high:g}"
        raise InputError(f"{name} must be a number {bound}, got {value!r}", name=name, value=value)
    return float(value)


class SamplingTensors:
    """The settings of several slots as tensors ``[B, 1]``, made once when they change so that a step costs nothing."""

    def __init__(self, settings: list[Sampling], device: torch.device | None = None) -> None:
        self.temperature = torch.tensor([s.temperature for s in settings], device=device)[:, None]
        self.divisor = self.temperature.clamp_min(1e-6)
        self.greedy = self.temperature[:, 0] <= 0
        self.any_greedy = any(s.temperature <= 0 for s in settings)
        self.any_top_k = any(s.top_k for s in settings)
        self.any_top_p = any(s.top_p < 1 for s in settings)
        self.top_k = torch.tensor([s.top_k or MOST for s in settings], device=device)[:, None]
        self.top_p = torch.tensor([s.top_p for s in settings], device=device)[:, None]
        self.guidance = torch.tensor([s.guidance for s in settings], device=device)[:, None]


def guide(logits: Tensor, guidance: Tensor) -> Tensor:
    """Classifier-free guidance on rows ``[B * 2, V]`` (with and without conditioning, interleaved) -> ``[B, V]``."""
    given, free = logits.view(-1, 2, logits.shape[-1]).unbind(1)
    # A scale of 1 must not round: the slot then samples what it would without guidance.
    return torch.where(guidance == 1, given, free + guidance * (given - free))


def sample(logits: Tensor, u: Tensor, settings: SamplingTensors) -> Tensor:
    """Draw one token a row by inverting the cumulative distribution.

    Args:
        logits: ``[B, V]`` float32.
        u: ``[B]`` uniforms in (0, 1).
        settings: of the ``B`` slots; their rows do not touch each other.

    Returns:
        ``[B]`` int64. Nothing here waits for the device.
    """
    scaled = logits / settings.divisor
    if settings.any_top_k or settings.any_top_p:
        scaled = _truncate(scaled, settings)
    cumulative = torch.softmax(scaled, -1).cumsum(-1)
    token = (cumulative < u[:, None] * cumulative[:, -1:]).sum(-1).clamp_max(logits.shape[-1] - 1)
    return torch.where(settings.greedy, logits.argmax(-1), token) if settings.any_greedy else token


def _truncate(scaled: Tensor, settings: SamplingTensors) -> Tensor:
    ordered = scaled.sort(-1, descending=True).values
    keep = torch.arange(scaled.shape[-1], device=scaled.device) < settings.top_k
    if settings.any_top_p:
        mass = torch.softmax(ordered.masked_fill(~keep, float("-inf")), -1).cumsum(-1)
        before = torch.cat((torch.zeros_like(mass[:, :1]), mass[:, :-1]), -1)
        # A slot that keeps all must not lose what rounding puts beyond 1 because its neighbour truncates.
        keep = keep & ((before < settings.top_p) | (settings.top_p >= 1))
    lowest = ordered.masked_fill(~keep, float("inf")).amin(-1, keepdim=True)
    return scaled.masked_fill(scaled < lowest, float("-inf"))


def uniforms(seed: int, stage: int, position: int, levels: int) -> npt.NDArray[np.float32]:
    """The uniforms in (0, 1) of one step of one stage, ``[levels]`` float32.

    Philox keyed by (seed, stage) and counted by position; 23 bits each, at the middles of their intervals.
    """
    words: list[int] = []
    for block in range(1, -(-levels // 4) + 1):
        words += philox(seed & _WORD, stage, block, position & _WORD)
    return np.array([((word >> 41) + 0.5) * 2.0**-23 for word in words[:levels]], np.float32)


def philox(key0: int, key1: int, c0: int, c1: int) -> tuple[int, int, int, int]:
    """One block of Philox 4x64-10, counter ``(c0, c1, 0, 0)``: four words of 64 bits.

    The same words as ``numpy.random.Philox``, whose object costs five times as much to make as this in a busy process.
    """
    c2 = c3 = 0
    for bump0, bump1 in BUMPS:
        low, high = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (
            (high >> 64) ^ c1 ^ ((key0 + bump0) & _WORD),
            high & _WORD,
            (low >> 64) ^ c3 ^ ((key1 + bump1) & _WORD),
            low & _WORD,
        )
    return c0, c1, c2, c3
