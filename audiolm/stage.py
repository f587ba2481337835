"""One stage of AudioLM: an autoregressive Transformer over frames, for which semantic, coarse and fine are three specs.

A temporal Transformer takes one step a row. Its input is the sum of the embeddings of the row before and of the
conditioning tokens aligned to this row. How a frame's codebooks come out of it is data, ``pattern``:

* ``depth``: a small depth Transformer emits them one by one (RQ-Transformer, arXiv 2203.01941); row = frame.
* ``delay``: parallel heads, level ``q`` lags ``q`` rows behind (MusicGen, arXiv 2306.05284); row ``j`` holds level
  ``q`` of frame ``j - q``.
* ``flat``: one temporal step a token, frame by frame and level by level: the paper's order of codebooks.

Rows are forced (heard), sampled, or mixed. This module knows nothing of sessions, engines or time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm.attention import TemporalTransformer
from audiolm.depth import DepthTransformer
from audiolm.errors import ConfigError
from audiolm.sampler import SamplingTensors, guide, sample
from audiolm.sizes import check_heads, check_sizes
from audiolm.streaming import State, assign

Pattern = Literal["depth", "delay", "flat"]
Pick = Callable[[Tensor, int], Tensor]  # logits [B, cardinality] and level -> tokens [B]
Advance = Callable[[Tensor, Any], Tensor]  # inputs [B, width] and positions [B] -> states


@dataclass(frozen=True)
class StageSpec:
    """What makes a stage.

    Attributes:
        name: semantic, coarse or fine; ``index`` keys its noise.
        rate: frames a second. ``levels`` codebooks of ``cardinality`` a frame are emitted.
        cond_levels: codebooks of conditioning a row, of ``cond_cardinality`` (0: none).
        ahead: L, how many conditioning tokens beyond the aligned one this stage reads.
        window: frames that the temporal Transformer remembers.

    Raises:
        ConfigError: a size that cannot be.
    """

    name: str
    index: int
    rate: int
    levels: int
    cardinality: int
    cond_levels: int = 0
    cond_cardinality: int = 0
    ahead: int = 0
    window: int = 500
    layers: int = 4
    width: int = 256
    heads: int = 4
    feed_forward: int = 4
    sinks: int = 4
    depth_layers: int = 2
    depth_width: int = 256
    depth_heads: int = 4
    pattern: Pattern = "depth"

    def __post_init__(self) -> None:
        check_sizes(
            f"stage {self.name!r}",
            self,
            index=(0, 1 << 16),
            rate=(1, 1000),
            levels=(1, 64),
            cardinality=(2, 1 << 16),
            cond_levels=(0, 64),
            cond_cardinality=(2 if self.cond_levels else 0, 1 << 16),
            ahead=(0, 64),
            window=(1, 1 << 16),
            layers=(1, 64),
            width=(4, 8192),
            heads=(1, 128),
            feed_forward=(1, 16),
            sinks=(0, 64),
            depth_layers=(1, 64),
            depth_width=(4, 8192),
            depth_heads=(1, 128),
        )
        check_heads(f"stage {self.name!r}", self.width, self.heads, 4)
        check_heads(f"stage {self.name!r}, depth", self.depth_width, self.depth_heads)
        if self.pattern not in get_args(Pattern):
            raise ConfigError(f"stage {self.name!r}: pattern is {self.pattern!r}; expected depth, delay or flat")

    @property
    def span(self) -> int:
        """Rows by which the last level of a frame lags behind its first."""
        return self.levels - 1 if self.pattern == "delay" else 0

    @property
    def mask_token(self) -> int:
        """Stands for a token that is missing."""
        return self.cardinality

    @property
    def start_token(self) -> int:
        """Stands for what lies before the stream."""
        return self.cardinality + 1

    @property
    def cond_mask(self) -> int:
        """Stands for conditioning that is missing or dropped."""
        return self.cond_cardinality


class TokenEmbedding(nn.Module):
    """Sum of one table per level: ``[..., levels] int64 -> [..., width]``."""

    offsets: Tensor

    def __init__(self, levels: int, entries: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(levels * entries, width)
        nn.init.normal_(self.table.weight, std=0.5 / levels**0.5)
        self.register_buffer("offsets", torch.arange(levels) * entries, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """``[..., levels]`` int64 ``-> [..., width]``."""
        return self.table(tokens + self.offsets).sum(-2)  # type: ignore[no-any-return]

    def level(self, tokens: Tensor, level: int) -> Tensor:
        """Embed one level alone."""
        return self.table(tokens + self.offsets[level])  # type: ignore[no-any-return]


class Stage(nn.Module):
    """See the module's text. Weights are shared by all slots; the state is explicit."""

    def __init__(self, spec: StageSpec) -> None:
        super().__init__()
        self.spec = spec
        self.tokens = TokenEmbedding(spec.levels, spec.cardinality + 2, spec.width)
        self.conditioning = (
            TokenEmbedding(spec.cond_levels, spec.cond_cardinality + 1, spec.width) if spec.cond_levels else None
        )
        steps = spec.levels if spec.pattern == "flat" else 1
        self.temporal = TemporalTransformer(
            spec.layers,
            spec.width,
            spec.heads,
            window=spec.window * steps,
            sinks=spec.sinks,
            feed_forward=spec.feed_forward * spec.width,
        )
        if spec.pattern == "flat":
            self.place = nn.Embedding(spec.levels, spec.width)
        if spec.pattern == "depth" and spec.levels > 1:
            self.depth: DepthTransformer | None = DepthTransformer(
                spec.width,
                spec.levels,
                spec.cardinality,
                layers=spec.depth_layers,
                width=spec.depth_width,
                heads=spec.depth_heads,
            )
        else:
            self.depth = None
            self.heads = nn.ModuleList(nn.Linear(spec.width, spec.cardinality, bias=False) for _ in range(spec.levels))

    # -- streaming --

    def init_state(self, slots: int, guided: bool = False) -> State:
        """State of ``slots`` fresh streams; ``guided`` keeps a second cache row a slot for classifier-free guidance."""
        rows = 2 if guided else 1
        flat = self.temporal.init_state(slots * rows)
        state = {key: value.view(slots, rows, *value.shape[1:]) for key, value in flat.items()}
        state["last"] = torch.full(
            (slots, self.spec.levels), self.spec.start_token, dtype=torch.int64, device=self.tokens.offsets.device
        )
        return state

    def step(
        self,
        cond: Tensor | None,
        forced: Tensor,
        is_forced: Tensor,
        u: Tensor,
        *,
        settings: SamplingTensors,
        state: State,
        positions: npt.NDArray[np.int64],
        active: npt.NDArray[np.bool_] | None = None,
        levels: int | None = None,
    ) -> Tensor:
        """Take one row in every active slot.

        Args:
            cond: ``[B, cond_levels]`` int64, None when the stage has no conditioning.
            forced: ``[B, levels]`` int64, read where ``is_forced``.
            is_forced: ``[B, levels]`` bool.
            u: ``[B, levels]`` uniforms.
            settings: how each slot samples.
            state: of :meth:`init_state`, changed in place.
            positions: ``[B]`` row numbers, on the host.
            active: ``[B]`` bool on the host; None means all. The others keep their state to the bit.
            levels: promises that behind the first so many levels every token of every active slot is forced, so
                that those need not be emitted. None: all may be sampled.

        Returns:
            ``[B, levels]`` int64: the row's tokens.
        """
        guided = state["held"].shape[1] == 2
        pick = picker(forced, is_forced, u, settings, guided)

        def advance(x: Tensor, at: npt.NDArray[np.int64]) -> Tensor:
            return self._advance(self.conditioned(x, cond, guided), state, at, active)

        tokens = self.make_row(forced, pick, state["last"], advance, positions=positions, levels=levels, guided=guided)
        assign(state, "last", tokens, None if active is None else torch.from_numpy(active).to(tokens.device))
        return tokens

    def make_row(
        self,
        forced: Tensor,
        pick: Pick,
        last: Tensor,
        advance: Advance,
        *,
        positions: Any,
        levels: int | None = None,
        guided: bool = False,
    ) -> Tensor:
        """The tokens of a row ``[B, levels]``, for whoever keeps the state.

        ``advance(inputs, positions)`` takes a temporal step, ``pick`` chooses tokens, ``last`` is the row before;
        ``positions`` are numbers wherever ``advance`` wants them. The others are as in :meth:`step`.
        """
        levels = self.spec.levels if levels is None else levels
        if self.spec.pattern == "flat":
            return self._flat_step(forced, pick, last, advance, positions=positions, levels=levels)
        h = advance(self.tokens(last), positions)
        tokens = self._emit(h, pick, 2 if guided else 1, levels) if levels else forced
        return torch.cat((tokens, forced[:, levels:]), 1) if 0 < levels < self.spec.levels else tokens

    def _emit(self, h: Tensor, pick: Pick, rows: int, levels: int) -> Tensor:
        """The first ``levels`` of a row of ``depth`` or ``delay`` from its temporal state."""
        if self.depth is not None:
            return self.depth.emit(h, pick, rows, levels)
        return torch.stack([pick(head(h), q) for q, head in enumerate(self.heads[:levels])], -1)

    def _flat_step(
        self, forced: Tensor, pick: Pick, last: Tensor, advance: Advance, *, positions: Any, levels: int
    ) -> Tensor:
        """A frame of ``flat``: one temporal step a level, of which the first ``levels`` may be sampled."""
        n = self.spec.levels
        tokens = [last[:, n - 1]]
        for q in range(n):
            h = advance(self.tokens.level(tokens[-1], (q - 1) % n) + self.place.weight[q], positions * n + q)
            tokens.append(pick(self.heads[q](h), q) if q < levels else forced[:, q])
        return torch.stack(tokens[1:], -1)

    def conditioned(self, x: Tensor, cond: Tensor | None, guided: bool) -> Tensor:
        """Add the conditioning; with guidance every slot becomes two rows, the second without conditioning."""
        x = x.repeat_interleave(2, 0) if guided else x
        if self.conditioning is None or cond is None:
            return x
        if guided:
            cond = torch.stack((cond, torch.full_like(cond, self.spec.cond_mask)), 1).flatten(0, 1)
        out: Tensor = x + self.conditioning(cond)
        return out

    def _advance(
        self, x: Tensor, state: State, positions: npt.NDArray[np.int64], active: npt.NDArray[np.bool_] | None
    ) -> Tensor:
        """One temporal step of all rows; the state's two leading dimensions are seen as one."""
        rows = state["held"].shape[1]
        flat = {key: value.view(-1, *value.shape[2:]) for key, value in state.items() if key != "last"}
        if rows == 1:
            return self.temporal.step(x, flat, positions, active)
        return self.temporal.step(x, flat, positions.repeat(rows), None if active is None else active.repeat(rows))

    # -- training --

    def forward(self, tokens: Tensor, cond: Tensor | None = None, start: int = 0, feed: Tensor | None = None) -> Tensor:
        """Teacher-forced logits of a crop.

        Args:
            tokens: ``[B, T, levels]`` int64 rows to be predicted (already skewed for ``delay``, see :func:`skew`).
            cond: ``[B, T, cond_levels]`` int64 conditioning, aligned to the rows.
            start: number of the crop's first row.
            feed: what is fed back instead of ``tokens`` (level dropout, token noise); same shape.

        Returns:
            ``[B, T, levels, cardinality]``.
        """
        spec = self.spec
        feed = tokens if feed is None else feed
        if spec.pattern == "flat":
            return self._forward_flat(feed, cond, start)
        h = self.context(feed, cond, start)
        if self.depth is None:
            return torch.stack([head(h) for head in self.heads], 2)
        return self.depth(h, tokens)  # type: ignore[no-any-return]

    def context(self, feed: Tensor, cond: Tensor | None = None, start: int = 0) -> Tensor:
        """The temporal states ``[B, T, width]`` that the rows are predicted from (``depth`` and ``delay``)."""
        x = self.tokens(F.pad(feed[:, :-1], (0, 0, 1, 0), value=self.spec.start_token))
        if self.conditioning is not None:
            x = x + self.conditioning(cond)
        out: Tensor = self.temporal(x, start)
        return out

    def _forward_flat(self, feed: Tensor, cond: Tensor | None, start: int) -> Tensor:
        spec = self.spec
        batch, length, n = feed.shape
        each = torch.stack([self.tokens.level(feed[..., q], q) for q in range(n)], 2).flatten(1, 2)
        first = self.tokens.level(torch.full((batch, 1), spec.start_token, device=feed.device), n - 1)
        x = torch.cat((first, each[:, :-1]), 1).view(batch, length, n, -1) + self.place.weight
        if self.conditioning is not None:
            x = x + self.conditioning(cond)[:, :, None]
        h = self.temporal(x.flatten(1, 2), start * n).view(batch, length, n, -1)
        return torch.stack([head(h[:, :, q]) for q, head in enumerate(self.heads)], 2)


def picker(forced: Tensor, is_forced: Tensor, u: Tensor, settings: SamplingTensors, guided: bool) -> Pick:
    """The choice of one level's tokens ``[B]`` from its logits, forced where heard."""

    def pick(logits: Tensor, q: int) -> Tensor:
        logits = logits.float()
        drawn = sample(guide(logits, settings.guidance) if guided else logits, u[:, q], settings)
        return torch.where(is_forced[:, q], forced[:, q], drawn)

    return pick


def skew(tokens: Tensor, start: int) -> Tensor:
    """Frames ``[B, T, n]`` to rows of ``delay`` ``[B, T, n]``: row ``j`` holds level ``q`` of frame ``j - q``."""
    levels = [F.pad(tokens[:, : tokens.shape[1] - q, q], (q, 0), value=start) for q in range(tokens.shape[2])]
    return torch.stack(levels, -1)
