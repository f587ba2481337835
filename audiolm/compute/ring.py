"""Ring attention on an accelerator: one new position a step; positions, masks and angles are made where the caches are.

The twin of :meth:`audiolm.attention.Ring.begin` and of what the layers do with it. Nothing goes back to the host, so a
step can be captured in a CUDA graph, and a step may take a few slots only, named by ``rows``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from audiolm.attention import Ring, RingStep, TemporalTransformer, frequencies, rotate
from audiolm.streaming import State


@dataclass
class At(RingStep):
    """What every layer of one step shares, in tensors on the device.

    Attributes:
        rows: int64 ``[B]``, the slot of each row of the step; they differ, in the inactive rows too.
        whole: the rows are all slots in their order.
        active: bool ``[B]``, rows that write.
    """

    active: Tensor
    rows: Tensor
    whole: bool


# Queries, keys and values of one position, [B, 3, heads, width] and not yet rotated, with the caches they go into,
# [slots, heads, entries, width]; what the queries see comes back, [B, heads, width].
Attend = Callable[[Tensor, Tensor, Tensor, At], Tensor]


def radians(ring: Ring, device: torch.device) -> Tensor:
    """Radians a position of each pair of a head, float64."""
    return torch.from_numpy(np.array(frequencies(ring.head_width // 4))).to(device)


def begin(
    ring: Ring,
    held: Tensor,
    positions: Tensor,
    active: Tensor,
    *,
    rows: Tensor | None,
    radians: Tensor,
    dtype: torch.dtype,
) -> At:
    """Enter ``positions`` ``[B]`` into ``held`` ``[slots, entries]`` (in place) and return what the layers need."""
    index = ring.sinks + positions % ring.window
    at = torch.arange(len(positions), device=held.device) if rows is None else rows.contiguous()
    held[at, index] = torch.where(active, positions, held[at, index])
    seen = (held if rows is None else held[at]) > (positions - ring.window)[:, None]
    bias = torch.zeros(seen.shape, dtype=dtype, device=held.device).masked_fill(~seen, float("-inf"))
    angle = torch.remainder(positions.double()[:, None] * radians, 2 * np.pi)[:, None, None]
    cos, sin = angle.cos().float(), angle.sin().float()
    return At(index, bias[:, None, None], cos, sin, active, rows=at, whole=rows is None)


def store(cache: Tensor, new: Tensor, at: At) -> None:
    """Write ``new`` ``[B, heads, width]`` into ``cache`` ``[slots, heads, entries, width]`` in the active rows."""
    cache[at.rows, :, at.index] = torch.where(
        at.active[:, None, None], new.to(cache.dtype), cache[at.rows, :, at.index]
    )


def attend(qkv: Tensor, keys: Tensor, values: Tensor, at: At) -> Tensor:
    """Attention by torch: over the caches as they lie, or over a copy of a few slots."""
    q, k = rotate(qkv[:, :2], at.cos, at.sin).unbind(1)
    store(keys, k, at)
    store(values, qkv[:, 2], at)
    if not at.whole:
        keys, values = keys[at.rows], values[at.rows]
    seen = F.scaled_dot_product_attention(q[:, :, None].to(keys.dtype), keys, values, attn_mask=at.bias)
    return seen[:, :, 0]


def through(temporal: TemporalTransformer, x: Tensor, state: State, at: At, attend: Attend = attend) -> Tensor:
    """``[B, width] -> [B, width]``: one position through all blocks."""
    for i, block in temporal.layers():
        attention = block.attention
        qkv = attention.qkv(block.norm1(x)).view(len(x), 3, attention.heads, attention.head_width)
        seen = attend(qkv, state[f"k.{i}"], state[f"v.{i}"], at)
        x = block.feed(x + attention.out(seen.to(x.dtype).reshape(x.shape)))
    return temporal.norm(x)  # type: ignore[no-any-return]
