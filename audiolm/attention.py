"""Causal attention over a ring of cached keys and values: one new position a step, for ever.

A ring holds the last ``window`` positions and a few learned sinks (StreamingLLM, arXiv 2309.17453), key and value
pairs without a position that every query may look at. Shapes never change, so the cost of a step does not grow. The
parallel ``forward`` applies the same mask to a whole crop.

Rotary embedding (arXiv 2104.09864) turns the first half of each head only; a sink's key is zero there, so the sinks
need no second product and stay free of position. Angles are position (int64) times frequency (float64), reduced
modulo 2 pi and only then float32, so hour 24 looks like second 30.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm.errors import ConfigError
from audiolm.streaming import State

EMPTY = -(1 << 62)
BASE = 10000.0
HOST = torch.device("cpu")
SHORTEST_PIECE = 64  # queries; shorter pieces cost more calls than they save keys
SEEN_OR_NOT = (np.float32(0), np.float32(-np.inf))


@cache
def frequencies(pairs: int) -> npt.NDArray[np.float64]:
    """Radians a position of ``pairs`` rotated pairs, ``[pairs]``."""
    made = BASE ** (-np.arange(pairs, dtype=np.float64) / pairs)
    made.flags.writeable = False
    return made


def angles(positions: npt.NDArray[np.int64], width: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Cosines and sines ``[N, width / 4]`` for int64 positions ``[N]``, for half of a head."""
    angle = np.remainder(positions.astype(np.float64)[:, None] * frequencies(width // 4), 2 * np.pi)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def rotary(positions: npt.NDArray[np.int64], width: int) -> tuple[Tensor, Tensor]:
    """The same as tensors."""
    cos, sin = angles(positions, width)
    return torch.from_numpy(cos), torch.from_numpy(sin)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the first half of the last dimension; ``cos`` and ``sin`` broadcast over heads."""
    pairs = cos.shape[-1]
    a, b, rest = x[..., :pairs], x[..., pairs : 2 * pairs], x[..., 2 * pairs :]
    return torch.cat((a * cos - b * sin, a * sin + b * cos, rest), -1)


@dataclass
class RingStep:
    """What every layer of one step shares: where to write, what may be seen, how to rotate."""

    index: Tensor  # int64 [B], entry of the ring that the new position takes
    bias: Tensor  # float32 [B, 1, 1, entries], 0 where a key may be seen and -inf elsewhere
    cos: Tensor  # float32 [B, 1, 1, width / 4], for queries and keys of all heads
    sin: Tensor
    active: Tensor | None  # bool [B], slots that write; None means all


class Ring:
    """Layout of a ring: ``sinks`` entries, then ``window`` positions.

    Raises:
        ConfigError: sizes that leave nothing to look at or do not divide.
    """

    def __init__(self, window: int, sinks: int, heads: int, head_width: int) -> None:
        self.window, self.sinks, self.heads, self.head_width = window, sinks, heads, head_width
        self.entries = sinks + window
        if window < 1 or sinks < 0 or head_width < 4 or head_width % 4:
            raise ConfigError(
                f"a ring of window {window}, {sinks} sinks and heads of {head_width} cannot be; "
                "expected at least 1, at least 0, and a multiple of 4"
            )

    def init_positions(self, slots: int) -> Tensor:
        """The position held by each entry ``[slots, entries]``; sinks count as always present, the rest as empty.

        On the host, wherever the caches are: positions come from there.
        """
        held = torch.full((slots, self.entries), EMPTY, dtype=torch.int64)
        held[:, : self.sinks] = -EMPTY
        return held

    def enter(
        self, table: npt.NDArray[np.int64], positions: npt.NDArray[np.int64], active: npt.NDArray[np.bool_] | None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Enter ``positions`` ``[B]`` into ``table`` ``[B, entries]``: the entries that they take, and who sees what.

        Returns:
            index ``[B]``, and bias ``[B, entries]``: 0 where a key may be seen and -inf elsewhere.
        """
        rows, index = np.arange(len(positions)), self.sinks + positions % self.window
        if active is None:
            table[rows, index] = positions
        else:
            table[rows[active], index[active]] = positions[active]
        return index, np.where(table > (positions - self.window)[:, None], *SEEN_OR_NOT)

    def begin(
        self,
        held: Tensor,
        positions: npt.NDArray[np.int64],
        active: npt.NDArray[np.bool_] | None,
        device: torch.device = HOST,
    ) -> RingStep:
        """Enter ``positions`` ``[B]`` into ``held`` (in place) and return what the layers need, on ``device``.

        Done once a step, on the host's numbers and with numpy: so many small steps would cost torch three times that.
        """
        index, bias = self.enter(held.numpy(), positions, active)
        cos, sin = rotary(positions, self.head_width)
        return RingStep(
            index=torch.from_numpy(index).to(device),
            bias=torch.from_numpy(bias[:, None, None]).to(device),
            cos=cos[:, None, None].to(device),
            sin=sin[:, None, None].to(device),
            active=None if active is None else torch.from_numpy(active).to(device),
        )


def write(cache: Tensor, new: Tensor, at: RingStep) -> None:
    """Write ``new`` ``[B, heads, width]`` into ``cache`` ``[B, heads, entries, width]`` in the active slots."""
    if at.active is None and len(new) == 1:
        cache.index_copy_(2, at.index, new.transpose(0, 1)[None])
        return
    rows = torch.arange(len(new), device=new.device)
    if at.active is not None:
        new = torch.where(at.active[:, None, None], new, cache[rows, :, at.index])
    cache[rows, :, at.index] = new


class RingAttention(nn.Module):
    """Multi-head self-attention with a ring cache.

    State: ``k`` and ``v``, each ``[slots, heads, entries, head_width]``.
    """

    def __init__(self, width: int, heads: int, window: int, sinks: int) -> None:
        super().__init__()
        self.width, self.heads, self.head_width = width, heads, width // heads
        self.ring = Ring(window, sinks, heads, self.head_width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        half = self.head_width // 2
        self.sink_keys = nn.Parameter(torch.randn(heads, sinks, self.head_width - half) * 0.02)
        self.sink_values = nn.Parameter(torch.randn(heads, sinks, self.head_width) * 0.02)

    def _sinks(self) -> tuple[Tensor, Tensor]:
        return F.pad(self.sink_keys, (self.head_width // 2, 0)), self.sink_values

    def init_state(self, slots: int) -> State:
        """Fresh streams: sinks in place, the rest zero."""
        shape = (slots, self.heads, self.ring.entries, self.head_width)
        state = {
            "k": self.qkv.weight.new_zeros(shape, dtype=torch.float32),
            "v": self.qkv.weight.new_zeros(shape, dtype=torch.float32),
        }
        keys, values = self._sinks()
        state["k"][:, :, : self.ring.sinks] = keys.detach().float()
        state["v"][:, :, : self.ring.sinks] = values.detach().float()
        return state

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(x).view(*x.shape[:-1], 3, self.heads, self.head_width).unbind(-3)
        return q, k, v

    def step(self, x: Tensor, state: State, at: RingStep) -> Tensor:
        """``[B, width] -> [B, width]``, writing one position into the cache."""
        qkv = self.qkv(x).view(len(x), 3, self.heads, self.head_width)
        q, k = rotate(qkv[:, :2], at.cos, at.sin).unbind(1)
        keys, values = state["k"], state["v"]
        write(keys, k, at)
        write(values, qkv[:, 2], at)
        seen = F.scaled_dot_product_attention(q[:, :, None], keys, values, attn_mask=at.bias)
        return self.out(seen.reshape(len(x), self.width))  # type: ignore[no-any-return]

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """``[B, T, width] -> [B, T, width]``; ``mask`` bool ``[T, sinks + T]`` from :func:`window_mask`."""
        q, k, v = (part.transpose(1, 2) for part in self._split(x))
        keys, values = (part.expand(len(x), -1, -1, -1) for part in self._sinks())
        k = torch.cat((keys.to(k.dtype), rotate(k, cos, sin)), 2)
        v = torch.cat((values.to(v.dtype), v), 2)
        seen = self._attend(rotate(q, cos, sin), k, v, mask)
        return self.out(seen.transpose(1, 2).reshape(x.shape))  # type: ignore[no-any-return]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Attention of a crop by pieces of queries, each over the keys that its window reaches.

        Of a crop of two windows most keys are masked; computing them all takes 1.8 times as long.
        """
        sinks, length, out = self.ring.sinks, q.shape[2], []
        piece = max(SHORTEST_PIECE, self.ring.window // 3)
        for start in range(0, length, piece):
            end, first = min(start + piece, length), max(0, start - self.ring.window + 1)
            near = slice(sinks + first, sinks + end)
            keys, values, seen = (
                torch.cat((whole[..., :sinks, :], whole[..., near, :]), -2) if first else whole[..., : near.stop, :]
                for whole in (k, v, mask[start:end].T)
            )
            out.append(F.scaled_dot_product_attention(q[:, :, start:end], keys, values, attn_mask=seen.T))
        return out[0] if len(out) == 1 else torch.cat(out, 2)


def window_mask(length: int, window: int, sinks: int, device: torch.device | None = None) -> Tensor:
    """Bool ``[length, sinks + length]``: position ``i`` sees the sinks and ``i - window + 1 .. i``."""
    t = torch.arange(length, device=device)
    near = (t[None] <= t[:, None]) & (t[None] > t[:, None] - window)
    return F.pad(near, (sinks, 0), value=True)


class Block(nn.Module):
    """Pre-norm Transformer block: ring attention and a GELU feed-forward layer."""

    def __init__(self, width: int, heads: int, *, window: int, sinks: int, feed_forward: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = RingAttention(width, heads, window, sinks)
        self.up = nn.Linear(width, feed_forward, bias=False)
        self.down = nn.Linear(feed_forward, width, bias=False)

    def feed(self, x: Tensor) -> Tensor:
        """Add the feed-forward layer's share, ``[..., width]``."""
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))  # type: ignore[no-any-return]

    def step(self, x: Tensor, state: State, at: RingStep) -> Tensor:
        """``[B, width] -> [B, width]``, one position."""
        return self.feed(x + self.attention.step(self.norm1(x), state, at))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """``[B, T, width] -> [B, T, width]``, a crop."""
        return self.feed(x + self.attention(self.norm1(x), cos, sin, mask))


class TemporalTransformer(nn.Module):
    """Blocks over time that share one ring layout. State: ``held`` and ``k.i``, ``v.i`` for each layer ``i``."""

    def __init__(self, layers: int, width: int, heads: int, *, window: int, sinks: int, feed_forward: int) -> None:
        super().__init__()
        self.window, self.sinks = window, sinks
        self.blocks = nn.ModuleList(
            Block(width, heads, window=window, sinks=sinks, feed_forward=feed_forward) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.ring = Ring(window, sinks, heads, width // heads)

    def layers(self) -> Iterator[tuple[int, Block]]:
        """The blocks with their numbers."""
        return ((i, block) for i, block in enumerate(self.blocks) if isinstance(block, Block))

    def init_state(self, slots: int) -> State:
        """Fresh streams."""
        state: State = {"held": self.ring.init_positions(slots)}
        for i, block in self.layers():
            state |= {f"{key}.{i}": value for key, value in block.attention.init_state(slots).items()}
        return state

    def step(
        self, x: Tensor, state: State, positions: npt.NDArray[np.int64], active: npt.NDArray[np.bool_] | None = None
    ) -> Tensor:
        """``[B, width] -> [B, width]``, one position each."""
        at = self.ring.begin(state["held"], positions, active, x.device)
        for i, block in self.layers():
            x = block.step(x, {"k": state[f"k.{i}"], "v": state[f"v.{i}"]}, at)
        return self.norm(x)  # type: ignore[no-any-return]

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """``[B, T, width] -> [B, T, width]`` for positions ``start ..``."""
        length = x.shape[1]
        cos, sin = rotary(np.arange(start, start + length, dtype=np.int64), self.ring.head_width)
        cos, sin = cos.to(x.device, x.dtype), sin.to(x.device, x.dtype)
        mask = window_mask(length, self.window, self.sinks, x.device)
        for block in self.blocks:
            x = block(x, cos, sin, mask)
        return self.norm(x)  # type: ignore[no-any-return]
