"""The depth Transformer: a frame's codebooks, one after the other, from one temporal state.

It is the RQ-Transformer (arXiv 2203.01941). It knows nothing of time.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DepthBlock(nn.Module):
    """Pre-norm causal block over the levels of a frame."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def _feed(self, x: Tensor) -> Tensor:
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """``[N, levels, width]``, causal."""
        q, k, v = (
            self.qkv(self.norm1(x)).view(*x.shape[:2], 3, self.heads, self.head_width).permute(2, 0, 3, 1, 4).unbind(0)
        )
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self._feed(x + self.out(seen.transpose(1, 2).reshape(x.shape)))

    def step(self, x: Tensor, cache: Tensor, level: int) -> Tensor:
        """``[B, width]`` at ``level``.

        ``cache`` ``[2, B, heads, levels, head_width]`` is written at that level and read up to it.
        """
        qkv = self.qkv(self.norm1(x)).view(len(x), 3, self.heads, self.head_width)
        cache[:, :, :, level] = qkv[:, 1:].transpose(0, 1)
        keys, values = cache[:, :, :, : level + 1].unbind(0)
        seen = F.scaled_dot_product_attention(qkv[:, 0, :, None], keys, values)
        return self._feed(x + self.out(seen.reshape(x.shape)))


class DepthTransformer(nn.Module):
    """Levels of a frame given the temporal state ``[B, context]``; one head a level."""

    def __init__(self, context: int, levels: int, cardinality: int, *, layers: int, width: int, heads: int) -> None:
        super().__init__()
        self.levels, self.width = levels, width
        self.inputs = nn.Linear(context, width, bias=False)
        self.tokens = nn.ModuleList(nn.Embedding(cardinality + 2, width) for _ in range(levels - 1))
        for table in self.tokens:
            nn.init.normal_(table.weight, std=0.5)  # type: ignore[arg-type]
        self.place = nn.Parameter(torch.randn(levels, width) * 0.02)
        self.blocks = nn.ModuleList(DepthBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleList(nn.Linear(width, cardinality, bias=False) for _ in range(levels))

    def forward(self, h: Tensor, tokens: Tensor) -> Tensor:
        """Logits ``[B, T, levels, cardinality]`` of ``tokens`` ``[B, T, levels]`` given ``h`` ``[B, T, context]``."""
        before = [table(tokens[..., q]) for q, table in enumerate(self.tokens)]
        x = self.inputs(h)[:, :, None] + self.place
        x = x + F.pad(torch.stack(before, 2), (0, 0, 1, 0))
        y = x.flatten(0, 1)
        for block in self.blocks:
            y = block(y)
        y = self.norm(y).view(x.shape)
        return torch.stack([head(y[:, :, q]) for q, head in enumerate(self.heads)], 2)

    def emit(
        self, h: Tensor, pick: Callable[[Tensor, int], Tensor], rows: int = 1, levels: int | None = None
    ) -> Tensor:
        """Emit a frame ``[B, levels]`` from ``h`` ``[B * rows, context]``, or its first ``levels``.

        ``pick(logits [B * rows, cardinality], level)`` chooses each level's tokens ``[B]``.
        """
        base = self.inputs(h)
        heads: int = self.blocks[0].heads  # type: ignore[assignment]
        caches = base.new_empty(len(self.blocks), 2, len(h), heads, self.levels, self.width // heads)
        chosen: list[Tensor] = []
        for q, head in enumerate(self.heads[:levels]):
            x = base + self.place[q]
            if q:
                last = chosen[-1] if rows == 1 else chosen[-1].repeat_interleave(rows)
                x = x + self.tokens[q - 1](last)
            for block, cache in zip(self.blocks, caches, strict=True):
                x = block.step(x, cache, q)  # type: ignore[operator]
            chosen.append(pick(head(self.norm(x)), q))
        return torch.stack(chosen, -1)
