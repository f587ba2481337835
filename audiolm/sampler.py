"""Sampling as a pure function of logits and uniforms, and where the uniforms come from.

The noise is counter-based (Philox, Salmon et al. 2011, through numpy): the draw for a token depends on seed, stage, position and level
and on nothing else, so a continuation is the same streamed or not, alone or among other slots, before and after a restore.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from audiolm.errors import InputError


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
        if isinstance(self.top_k, bool) or not isinstance(self.top_k, int) or self.top_k < 0:
            raise InputError(f"top_k must be a whole number of 0 (off) or more, got {self.top_k!r}")


def check_range(name: str, value: object, low: float, high: float, *, open_low: bool = False) -> None:
    """Refuse what is not a finite number in ``[low, high]`` (``(low, high]`` when ``open_low``)."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not low <= value <= high or (open_low and value == low):  # type: ignore[operator]
        raise InputError(f"{name} must be a number from {low:g} to {high:g}{' (above the lower bound)' if open_low else ''}, got {value!r}")


class SamplingTensors:
    """The settings of several slots as tensors ``[B]``, made once when they change so that a step costs nothing extra."""

    def __init__(self, settings: list[Sampling], device: torch.device | None = None) -> None:
        self.temperature = torch.tensor([s.temperature for s in settings], device=device)[:, None]
        self.greedy = self.temperature[:, 0] <= 0
        self.any_greedy = any(s.temperature <= 0 for s in settings)
        self.any_top_k = any(s.top_k for s in settings)
        self.any_top_p = any(s.top_p < 1 for s in settings)
        self.top_k = torch.tensor([s.top_k or 1 << 30 for s in settings], device=device)[:, None]
        self.top_p = torch.tensor([s.top_p for s in settings], device=device)[:, None]
        self.guidance = torch.tensor([s.guidance for s in settings], device=device)[:, None]


def guide(logits: Tensor, guidance: Tensor) -> Tensor:
    """Classifier-free guidance on rows ``[B * 2, V]`` (with and without conditioning, interleaved) -> ``[B, V]``."""
    given, free = logits.view(-1, 2, logits.shape[-1]).unbind(1)
    return free + guidance * (given - free)


def sample(logits: Tensor, u: Tensor, settings: SamplingTensors) -> Tensor:
    """Draw one token a row by inverting the cumulative distribution.

    Args:
        logits: ``[B, V]`` float32.
        u: ``[B]`` uniforms in (0, 1).

    Returns:
        ``[B]`` int64. Nothing here waits for the device.
    """
    scaled = logits / settings.temperature.clamp_min(1e-6)
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
        keep = keep & (before < settings.top_p)
    lowest = ordered.masked_fill(~keep, float("inf")).amin(-1, keepdim=True)
    return scaled.masked_fill(scaled < lowest, float("-inf"))


def uniforms(seed: int, stage: int, position: int, levels: int) -> npt.NDArray[np.float32]:
    """The uniforms in (0, 1) of one step of one stage, ``[levels]`` float32: Philox keyed by (seed, stage), counted by position."""
    bits = np.random.Philox(key=[seed & (2**64 - 1), stage], counter=[0, position & (2**64 - 1), 0, 0]).random_raw(levels)
    return (((bits >> np.uint64(41)).astype(np.float64) + 0.5) / 2**23).astype(np.float32)
