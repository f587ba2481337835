"""Philox 4x64-10 in one kernel: the words of :func:`audiolm.sampler.philox`."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 128


@triton.jit
def _uniform(word):
    return ((word >> 41).to(tl.float32) + 0.5) * 1.1920928955078125e-07


@triton.jit(do_not_specialize=["count"])
def philox_kernel(
    seeds, positions, keys, counters, draw, out, count, DRAWS: tl.constexpr, BLOCKS: tl.constexpr, BLOCK: tl.constexpr
):
    """Uniforms ``[B, BLOCKS, 4]`` of ``count = B * BLOCKS`` blocks."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    on = at < count
    slot, block = at // BLOCKS, at % BLOCKS
    key0 = tl.load(seeds + slot, mask=on, other=0).to(tl.uint64, bitcast=True)
    key1 = tl.load(keys + block, mask=on, other=0).to(tl.uint64, bitcast=True)
    c0 = tl.load(counters + block, mask=on, other=0).to(tl.uint64, bitcast=True)
    which = tl.load(draw + block, mask=on, other=0)
    c1 = tl.load(positions + slot * DRAWS + which, mask=on, other=0).to(tl.uint64, bitcast=True)
    c2, c3 = tl.zeros_like(c0), tl.zeros_like(c0)
    m0, m1 = tl.full([BLOCK], 0xD2E7470EE14C6C93, tl.uint64), tl.full([BLOCK], 0xCA5A826395121157, tl.uint64)
    b0, b1 = tl.full([BLOCK], 0x9E3779B97F4A7C15, tl.uint64), tl.full([BLOCK], 0xBB67AE8584CAA73B, tl.uint64)
    for _ in tl.static_range(10):
        high0, low0, high2, low2 = tl.umulhi(c0, m0), c0 * m0, tl.umulhi(c2, m1), c2 * m1
        c0, c1, c2, c3 = high2 ^ c1 ^ key0, low2, high0 ^ c3 ^ key1, low0
        key0 += b0
        key1 += b1
    base = out + at * 4
    tl.store(base, _uniform(c0), mask=on)
    tl.store(base + 1, _uniform(c1), mask=on)
    tl.store(base + 2, _uniform(c2), mask=on)
    tl.store(base + 3, _uniform(c3), mask=on)


def uniforms(seeds: Tensor, positions: Tensor, keys: Tensor, counters: Tensor, draw: Tensor) -> Tensor:
    """Uniforms ``[B, blocks, 4]`` float32.

    For seeds ``[B]`` and positions ``[B, draws]``; of each block its stage ``keys``, number ``counters`` and ``draw``.
    """
    blocks, count = len(keys), len(seeds) * len(keys)
    out = torch.empty((len(seeds), blocks, 4), dtype=torch.float32, device=seeds.device)
    philox_kernel[(triton.cdiv(count, BLOCK),)](
        seeds.contiguous(), positions.contiguous(), keys, counters, draw, out, count, positions.shape[1], blocks, BLOCK
    )
    return out
