"""All levels of a frame in one kernel: a block of slots goes through the depth Transformer and samples, level by level.

The sums over blocks stay in registers, weights stream in from the cache of the chip, keys and values of a frame's
levels and the logits of a level go through small buffers. See :mod:`audiolm.compute.depth_kernel`.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from audiolm.compute.depth_kernel import Frame, PackedDepth

SLOTS = 16  # slots that a program takes: the least that matrix units take
CHUNK = 32  # columns of a matrix that are multiplied together
WARPS = 8


@triton.jit
def _norm(x, norms, cols, wide, W: tl.constexpr):
    """LayerNorm of ``[SLOTS, WP]`` whose columns beyond ``W`` are zero."""
    mean = tl.sum(x, 1) / W
    centred = tl.where(wide[None, :], x - mean[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 1) / W + 1e-5)
    weight = tl.load(norms + cols, mask=wide, other=0.0)
    bias = tl.load(norms + W + cols, mask=wide, other=0.0)
    return centred * scale[:, None] * weight[None, :] + bias[None, :]


@triton.jit
def _attend(
    n,
    qkv,
    out,
    cache,
    rows,
    live,
    cols,
    wide,
    level,
    slots,
    W: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    LEVELS: tl.constexpr,
    LP: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Attention over the levels of a frame; ``cache`` ``[2, LEVELS, slots, W]`` of this layer."""
    steps = tl.arange(0, LP)
    side = LEVELS * slots * W
    total = tl.zeros_like(n).to(tl.float32)
    for head in range(HEADS):
        lanes = head * WIDTH + tl.arange(0, WIDTH)
        at = qkv + cols[:, None] * (3 * W) + lanes[None, :]
        q = tl.dot(n, tl.load(at, mask=wide[:, None], other=0.0), input_precision=EXACT)
        k = tl.dot(n, tl.load(at + W, mask=wide[:, None], other=0.0), input_precision=EXACT)
        v = tl.dot(n, tl.load(at + 2 * W, mask=wide[:, None], other=0.0), input_precision=EXACT)
        k, v = k.to(n.dtype), v.to(n.dtype)
        here = cache + (level * slots + rows[:, None]) * W + lanes[None, :]
        tl.store(here, k, mask=live[:, None])
        tl.store(here + side, v, mask=live[:, None])
        q = q * (1.0 / tl.sqrt(WIDTH * 1.0))
        own = tl.sum(q * k.to(tl.float32), 1)
        past = cache + (steps[:, None, None] * slots + rows[None, :, None]) * W + lanes[None, None, :]
        seen = (steps < level)[:, None, None] & live[None, :, None]
        score = tl.sum(tl.load(past, mask=seen, other=0.0).to(tl.float32) * q[None, :, :], 2)
        score = tl.where((steps < level)[:, None], score, -float("inf"))
        most = tl.maximum(tl.max(score, 0), own)
        weight, mine = tl.exp(score - most[None, :]), tl.exp(own - most)
        value = tl.sum(tl.load(past + side, mask=seen, other=0.0).to(tl.float32) * weight[:, :, None], 0)
        value = (value + mine[:, None] * v.to(tl.float32)) / (tl.sum(weight, 0) + mine)[:, None]
        mix = tl.load(out + lanes[:, None] * W + cols[None, :], mask=wide[None, :], other=0.0)
        total += tl.dot(value.to(n.dtype), mix, input_precision=EXACT)
    return total


@triton.jit
def _feed(n, up, down, cols, wide, W: tl.constexpr, CHUNK: tl.constexpr, EXACT: tl.constexpr):
    """The feed-forward layer, a chunk of its hidden units at a time."""
    total = tl.zeros_like(n).to(tl.float32)
    for first in range(0, 4 * W, CHUNK):
        lanes = first + tl.arange(0, CHUNK)
        at = up + cols[:, None] * (4 * W) + lanes[None, :]
        x = tl.dot(n, tl.load(at, mask=wide[:, None], other=0.0), input_precision=EXACT)
        # GELU with a tanh, which is 2 sigmoid(2 y) - 1.
        x = x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
        back = tl.load(down + lanes[:, None] * W + cols[None, :], mask=wide[None, :], other=0.0)
        total += tl.dot(x.to(n.dtype), back, input_precision=EXACT)
    return total


@triton.jit
def _draw(logits, u, divisor, greedy, rows, live, CARD: tl.constexpr, CP: tl.constexpr):
    """A token of each row of ``logits`` ``[slots, CARD]``, by inverting the cumulative distribution."""
    codes = tl.arange(0, CP)
    inside = (codes < CARD)[None, :] & live[:, None]
    at = logits + rows[:, None] * CARD + codes[None, :]
    raw = tl.load(at, mask=inside, other=-float("inf"))
    raw = tl.where(live[:, None], raw, 0.0)
    scaled = raw / divisor[:, None]
    mass = tl.exp(scaled - tl.max(scaled, 1)[:, None])
    cumulative = tl.cumsum(mass / tl.sum(mass, 1)[:, None], 1)
    last = tl.max(cumulative, 1)
    drawn = tl.sum(((cumulative < (u * last)[:, None]) & (codes < CARD)[None, :]).to(tl.int32), 1)
    drawn = tl.minimum(drawn, CARD - 1)
    return tl.where(greedy, tl.argmax(raw, 1).to(tl.int32), drawn)


@triton.jit(do_not_specialize=["slots"])  # one compilation for any number
def emit_kernel(
    base,
    forced,
    is_forced,
    u,
    divisor,
    greedy,
    tokens,
    caches,
    logits,
    norms,
    qkv,
    out,
    up,
    down,
    heads,
    tables,
    place,
    slots,
    LAYERS: tl.constexpr,
    LEVELS: tl.constexpr,
    HEADS: tl.constexpr,
    W: tl.constexpr,
    WP: tl.constexpr,
    WIDTH: tl.constexpr,
    CARD: tl.constexpr,
    CP: tl.constexpr,
    LP: tl.constexpr,
    SLOTS: tl.constexpr,
    CHUNK: tl.constexpr,
    EXACT: tl.constexpr,
):
    """``SLOTS`` slots through all levels."""
    rows, cols = tl.program_id(0) * SLOTS + tl.arange(0, SLOTS), tl.arange(0, WP)
    live, wide = rows < slots, cols < W
    mask = live[:, None] & wide[None, :]
    start = tl.load(base + rows[:, None] * W + cols[None, :], mask=mask, other=0.0).to(tl.float32)
    divide = tl.load(divisor + rows, mask=live, other=1.0)
    certain = tl.load(greedy + rows, mask=live, other=0) != 0
    token = tl.zeros([SLOTS], tl.int32)
    side = 2 * LEVELS * slots * W
    for level in range(LEVELS):
        x = start + tl.load(place + level * W + cols, mask=wide, other=0.0)[None, :]
        table = tables + (tl.maximum(level - 1, 0) * (CARD + 2) + token[:, None]) * W + cols[None, :]
        x += tl.load(table, mask=mask & (level > 0), other=0.0).to(tl.float32)
        for layer in range(LAYERS):
            n = _norm(x, norms + layer * 4 * W, cols, wide, W).to(qkv.dtype.element_ty)
            x += _attend(
                n,
                qkv + layer * 3 * W * W,
                out + layer * W * W,
                caches + layer * side,
                rows,
                live,
                cols,
                wide,
                level,
                slots,
                W,
                HEADS,
                WIDTH,
                LEVELS,
                LP,
                EXACT,
            )
            n = _norm(x, norms + layer * 4 * W + 2 * W, cols, wide, W).to(qkv.dtype.element_ty)
            x += _feed(n, up + layer * 4 * W * W, down + layer * 4 * W * W, cols, wide, W, CHUNK, EXACT)
        n = _norm(x, norms + LAYERS * 4 * W, cols, wide, W).to(qkv.dtype.element_ty)
        for first in range(0, CARD, CHUNK):
            codes = first + tl.arange(0, CHUNK)
            at = heads + level * W * CARD + cols[:, None] * CARD + codes[None, :]
            inside = (codes < CARD)[None, :]
            y = tl.dot(n, tl.load(at, mask=wide[:, None] & inside, other=0.0), input_precision=EXACT)
            tl.store(logits + rows[:, None] * CARD + codes[None, :], y, mask=live[:, None] & inside)
        tl.debug_barrier()  # the logits are read by other threads than wrote them; so are keys and values
        drawn = _draw(
            logits, tl.load(u + rows * LEVELS + level, mask=live, other=0.5), divide, certain, rows, live, CARD, CP
        )
        given = tl.load(forced + rows * LEVELS + level, mask=live, other=0).to(tl.int32)
        token = tl.where(tl.load(is_forced + rows * LEVELS + level, mask=live, other=1) != 0, given, drawn)
        tl.store(tokens + rows * LEVELS + level, token.to(tl.int64), mask=live)
        tl.debug_barrier()  # before the next level writes where this one still reads


def emit(packed: PackedDepth, frame: Frame) -> Tensor:
    """The tokens ``[B, levels]`` int64 of a frame, as :meth:`PackedDepth.emit` up to rounding."""
    batch, device, p = len(frame.base), frame.base.device, packed
    tokens = torch.empty((batch, p.levels), dtype=torch.int64, device=device)
    caches = torch.empty((p.layers, 2, p.levels, batch, p.width), dtype=p.dtype, device=device)
    logits = torch.empty((batch, p.cardinality), dtype=torch.float32, device=device)
    power = triton.next_power_of_2
    emit_kernel[(triton.cdiv(batch, SLOTS),)](
        frame.base.contiguous(),
        frame.forced.contiguous(),
        frame.is_forced.to(torch.int8).contiguous(),
        frame.u.contiguous(),
        frame.settings.divisor.contiguous(),
        frame.settings.greedy.to(torch.int8),
        tokens,
        caches,
        logits,
        *(p.norms, p.qkv, p.out, p.up, p.down, p.logits, p.tables, p.place),
        batch,
        LAYERS=p.layers,
        LEVELS=p.levels,
        HEADS=p.heads,
        W=p.width,
        WP=power(p.width),
        WIDTH=p.width // p.heads,
        CARD=p.cardinality,
        CP=power(p.cardinality),
        LP=power(p.levels),
        SLOTS=SLOTS,
        CHUNK=CHUNK,
        EXACT="ieee",
        num_warps=WARPS,
    )
    return tokens
