"""One step of ring attention in one kernel: rotate, write the new key and value, attend. Nothing is copied."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from audiolm.compute.ring import At

BLOCK = 32  # entries that are looked at together


@triton.jit
def ring_kernel(
    qkv,
    keys,
    values,
    index,
    rows,
    active,
    bias,
    cos,
    sin,
    out,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    PAIRS: tl.constexpr,
    ENTRIES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One head of one row. The layouts are those of the callers below."""
    b, h = tl.program_id(0), tl.program_id(1)
    d = tl.arange(0, WIDTH)
    turned = d < 2 * PAIRS
    partner = tl.where(d < PAIRS, d + PAIRS, tl.where(turned, d - PAIRS, d))
    pair = tl.where(d < PAIRS, d, d - PAIRS)
    c = tl.load(cos + b * PAIRS + pair, mask=turned, other=1.0)
    s = tl.load(sin + b * PAIRS + pair, mask=turned, other=0.0) * tl.where(d < PAIRS, -1.0, 1.0)
    mine = qkv + (b * 3 * HEADS + h) * WIDTH
    q = tl.load(mine + d).to(tl.float32) * c + tl.load(mine + partner).to(tl.float32) * s
    mine += HEADS * WIDTH
    k = tl.load(mine + d).to(tl.float32) * c + tl.load(mine + partner).to(tl.float32) * s
    v = tl.load(mine + HEADS * WIDTH + d).to(tl.float32)
    k, v = k.to(keys.dtype.element_ty), v.to(values.dtype.element_ty)
    slot = tl.load(rows + b)
    on, at = tl.load(active + b) != 0, tl.load(index + b)
    ring = (slot * HEADS + h) * ENTRIES * WIDTH
    tl.store(keys + ring + at * WIDTH + d, k, mask=on & (d < WIDTH))
    tl.store(values + ring + at * WIDTH + d, v, mask=on & (d < WIDTH))
    q = q.to(keys.dtype.element_ty).to(tl.float32) * (1.0 / tl.sqrt(WIDTH * 1.0))
    most, total, seen = -float("inf"), 0.0, tl.zeros([WIDTH], tl.float32)
    for first in range(0, ENTRIES, BLOCK):
        e = first + tl.arange(0, BLOCK)
        inside, new = e < ENTRIES, (e == at) & on
        where = ring + e[:, None] * WIDTH + d[None, :]
        key = tl.load(keys + where, mask=inside[:, None], other=0.0)
        key = tl.where(new[:, None], k[None, :], key).to(tl.float32)
        value = tl.load(values + where, mask=inside[:, None], other=0.0)
        value = tl.where(new[:, None], v[None, :], value).to(tl.float32)
        score = tl.sum(key * q[None, :], 1)
        score += tl.load(bias + b * ENTRIES + e, mask=inside, other=-float("inf")).to(tl.float32)
        top = tl.maximum(most, tl.max(score, 0))
        safe = tl.where(top == -float("inf"), 0.0, top)
        weight, fade = tl.exp(score - safe), tl.exp(most - safe)
        total = total * fade + tl.sum(weight, 0)
        seen = seen * fade + tl.sum(weight[:, None] * value, 0)
        most = top
    tl.store(out + (b * HEADS + h) * WIDTH + d, seen / total)


def attend(qkv: Tensor, keys: Tensor, values: Tensor, at: At) -> Tensor:
    """As :func:`audiolm.compute.ring.attend`, in one launch; heads are a power of two wide, at least 16."""
    batch, _, heads, width = qkv.shape
    out = torch.empty((batch, heads, width), dtype=torch.float32, device=qkv.device)
    ring_kernel[(batch, heads)](
        qkv.contiguous(),
        keys,
        values,
        at.index.contiguous(),
        at.rows.contiguous(),
        at.active.to(torch.int8),
        at.bias.contiguous(),
        at.cos.contiguous(),
        at.sin.contiguous(),
        out,
        HEADS=heads,
        WIDTH=width,
        PAIRS=width // 4,
        ENTRIES=keys.shape[2],
        BLOCK=BLOCK,
    )
    return out
