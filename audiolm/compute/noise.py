"""The sampler's noise for many slots at once: Philox in 64-bit tensor arithmetic, on any device.

:func:`audiolm.sampler.uniforms` is the definition; what is here gives the same bits for arrays of seeds and positions,
without a step back to the host, so that it can be captured in a CUDA graph. It knows nothing of stages or slots.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from audiolm.sampler import BUMPS

LOW = 0xFFFFFFFF
# Seeds [B], positions [B, draws] and, of each block, its stage, number and draw -> uniforms [B, blocks, 4].
Uniforms = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)


def signed(word: int) -> int:
    """The int64 of the same 64 bits as an unsigned ``word``: tensors have no unsigned arithmetic everywhere."""
    word &= (1 << 64) - 1
    return word - (1 << 64) if word >> 63 else word


class Noise:
    """Uniforms of several draws a slot, each keyed by a stage.

    Args:
        draws: (stage index, levels) of each draw.
        device: where they are made.
        kernel: what makes them; None: tensor arithmetic.
    """

    def __init__(self, draws: Sequence[tuple[int, int]], device: torch.device, kernel: Uniforms | None = None) -> None:
        self._kernel = kernel
        self.levels = [levels for _, levels in draws]
        self.blocks = [-(-levels // 4) for levels in self.levels]
        keys = [stage for (stage, _), blocks in zip(draws, self.blocks, strict=True) for _ in range(blocks)]
        counters = [block + 1 for blocks in self.blocks for block in range(blocks)]
        table = [[signed(key + bump) for key in keys] for _, bump in BUMPS]
        self._keys = torch.tensor(table, dtype=torch.int64, device=device)  # [rounds, blocks]
        self._counters = torch.tensor(counters, dtype=torch.int64, device=device)
        self._draw = torch.repeat_interleave(torch.arange(len(draws)), torch.tensor(self.blocks)).to(device)
        halves = [(m & LOW, m >> 32) for m in MULTIPLIERS]
        self._low, self._high = (torch.tensor(half, device=device)[:, None, None] for half in zip(*halves, strict=True))
        self._multipliers = torch.tensor([signed(m) for m in MULTIPLIERS], device=device)[:, None, None]

    def __call__(self, seeds: Tensor, positions: Tensor) -> list[Tensor]:
        """Uniforms ``[B, levels]`` float32 of each draw, for seeds ``[B]`` (bits) and positions ``[B, draws]``."""
        if self._kernel is None:
            uniforms = self._uniforms(seeds, positions)
        else:
            uniforms = self._kernel(seeds, positions, self._keys[0], self._counters, self._draw)
        parts = torch.split(uniforms, self.blocks, 1)
        return [part.flatten(1)[:, :levels] for part, levels in zip(parts, self.levels, strict=True)]

    def _uniforms(self, seeds: Tensor, positions: Tensor) -> Tensor:
        at = positions[:, self._draw]
        even = torch.stack((self._counters.expand_as(at), torch.zeros_like(at)))  # words 0 and 2 of the counter
        odd = torch.stack((at, torch.zeros_like(at)))  # words 1 and 3
        for key, (bump, _) in zip(self._keys, BUMPS, strict=True):
            keys = torch.stack(((seeds + signed(bump))[:, None].expand_as(at), key.expand_as(at)))
            high, low = self._multiply(even)
            even, odd = high.flip(0) ^ odd ^ keys, low.flip(0)
        words = torch.stack((even[0], odd[0], even[1], odd[1]), -1)  # [B, blocks, 4]
        return (((words >> 41) & 0x7FFFFF).float() + 0.5) * 2.0**-23

    def _multiply(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The upper and the lower 64 bits of the products of both words with their multipliers."""
        low, high = x & LOW, (x >> 32) & LOW
        least, left, right = low * self._low, high * self._low, low * self._high
        carry = ((least >> 32) & LOW) + (left & LOW) + (right & LOW)
        upper = high * self._high + ((left >> 32) & LOW) + ((right >> 32) & LOW) + (carry >> 32)
        return upper, x * self._multipliers
