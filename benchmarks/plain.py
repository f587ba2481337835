"""The peer of our decode step: the plainest Transformer loop with a static cache that one would write in torch.

One token in, logits out; no sinks, no ring, no slots, no conditioning. It has the shapes of ours: pre-norm blocks with
LayerNorm, GELU of four times the width, heads of 64, keys and values of a fixed length that a mask by position bounds.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PlainBlock(nn.Module):
    """Attention over a cache of fixed length, then a feed-forward layer."""

    def __init__(self, width: int, heads: int, length: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)
        self.keys = torch.zeros(1, heads, length, width // heads)
        self.values = torch.zeros(1, heads, length, width // heads)

    def forward(self, x: Tensor, at: Tensor, mask: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """``[1, 1, width] -> [1, 1, width]``."""
        q, k, v = (part.view(1, 1, self.heads, -1).transpose(1, 2) for part in self.qkv(self.before(x)).chunk(3, -1))
        self.keys.index_copy_(2, at, turned(k, cos, sin))
        self.values.index_copy_(2, at, v)
        seen = F.scaled_dot_product_attention(turned(q, cos, sin), self.keys, self.values, attn_mask=mask)
        x = x + self.out(seen.transpose(1, 2).reshape(x.shape))
        return x + self.down(F.gelu(self.up(self.between(x)), approximate="tanh"))  # type: ignore[no-any-return]


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of the whole head."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class PlainDecoder(nn.Module):
    """A decoder-only language model, batch 1, with tables for mask and rotation."""

    cos: Tensor
    sin: Tensor
    causal: Tensor

    def __init__(self, layers: int, width: int, length: int, vocabulary: int) -> None:
        super().__init__()
        heads = width // 64
        self.tokens = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(PlainBlock(width, heads, length) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        angle = torch.outer(torch.arange(length).double(), 10000.0 ** (-torch.arange(32).double() / 32))
        self.register_buffer("cos", angle.cos().float())
        self.register_buffer("sin", angle.sin().float())
        self.register_buffer("causal", torch.full((length, length), float("-inf")).triu(1))

    def forward(self, token: Tensor, at: Tensor) -> Tensor:
        """Token ``[1, 1]`` at position ``[1]`` -> logits ``[1, 1, vocabulary]``."""
        x = self.tokens(token)
        mask, cos, sin = self.causal[at], self.cos[at], self.sin[at]
        for block in self.blocks:
            x = block(x, at, mask, cos, sin)
        return self.head(self.norm(x))  # type: ignore[no-any-return]
