"""What a stage is trained on: crops of token files, and what is fed back in place of their truth.

A crop is about two windows long, so that the sliding mask is exercised; streams that are shorter are joined, with the
start token in between. Live, what is fed back is not always the truth, so neither is it here: levels are masked from
some level on (fine levels are shed under load), conditioning is dropped now and then (the acoustic-only baseline and
guidance), short gaps are masked (lost frames), and a few tokens are replaced at random (against exposure bias).
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from audiolm.stage import StageSpec
from audiolm.train.tokens import Tokens

TICKS = 25  # a second
LONGEST_GAP = 5  # ticks; live, a longer one resets the stages


class Corruption(Protocol):
    """How often what happens; a :class:`audiolm.train.stages.StageRecipe` is one."""

    @property
    def cond_dropout(self) -> float:
        """Share of crops without conditioning."""

    @property
    def level_dropout(self) -> float:
        """Share of crops whose levels are masked from a random one on."""

    @property
    def noise(self) -> float:
        """Share of tokens that are replaced at random."""

    @property
    def gaps(self) -> float:
        """Share of ticks that are lost, in gaps."""


class StageData:
    """Rows for one stage out of token crops of ``crop`` seconds.

    Raises:
        InputError: no clip is long enough.
    """

    def __init__(self, tokens: Tokens, spec: StageSpec, coarse_levels: int, crop: float, seed: int) -> None:
        self.tokens, self.spec, self.split = tokens, spec, coarse_levels
        self.ticks = max(1, int(crop * TICKS))
        self.rng = np.random.default_rng(seed)
        tokens.check_crop(self.ticks + spec.ahead)
        sizes = tokens.index[:, 1].numpy()
        self._usable = np.flatnonzero(sizes > spec.ahead)
        self._bounds = np.cumsum(sizes[self._usable] / sizes[self._usable].sum())

    def batch(self, size: int) -> tuple[Tensor, Tensor | None]:
        """Frames to be predicted ``[B, T, levels]`` and conditioning ``[B, T, cond_levels]``, aligned to the rows.

        Of clips that are long enough, every place of them equally likely.
        """
        items = [self._rows(*self.tokens.crop(self.ticks + self.spec.ahead, self.rng)) for _ in range(size)]
        return _stacked(items)

    def joined(self, size: int) -> tuple[Tensor, Tensor | None, Tensor]:
        """Like :meth:`batch` but of all clips, short ones joined; and where a clip ends, bool ``[B, T]``.

        True is the last frame of a clip that another one follows: the start token is fed back in its place.
        """
        pieces = [self._joined() for _ in range(size)]
        frames, cond = _stacked([(piece.frames, piece.cond) for piece in pieces])
        return frames, cond, torch.stack([piece.ends for piece in pieces])

    def _joined(self) -> "Crop":
        """One crop: of a single clip where it is long enough, else of as many as it takes."""
        rows: list[tuple[Tensor, Tensor | None]] = []
        left = self.ticks
        while left > 0:
            acoustic, semantic = self._piece(left, first=not rows)
            left -= len(semantic) - self.spec.ahead
            rows.append(self._rows(acoustic, semantic))
        ends = [torch.arange(len(frames)) == len(frames) - 1 for frames, _ in rows]
        ends[-1] = torch.zeros_like(ends[-1])
        cond = [c for _, c in rows if c is not None]
        return Crop(torch.cat([f for f, _ in rows]), torch.cat(cond) if cond else None, torch.cat(ends))

    def _piece(self, ticks: int, *, first: bool) -> tuple[Tensor, Tensor]:
        """Up to ``ticks`` usable ticks of a clip drawn by its length; a ``first`` one is from a random place of it."""
        at = np.searchsorted(self._bounds, self.rng.random(), side="right")
        start, size = self.tokens.index[self._usable[min(int(at), len(self._usable) - 1)]].tolist()
        wanted = ticks + self.spec.ahead
        room = size - wanted if size >= wanted else (size - self.spec.ahead - 1) // 2
        start, end = start + (int(self.rng.integers(room + 1)) if first else 0), start + size
        end = min(start + wanted, end)
        return self.tokens.acoustic[2 * start : 2 * end].long(), self.tokens.semantic[start:end].long()

    def _rows(self, acoustic: Tensor, semantic: Tensor) -> tuple[Tensor, Tensor | None]:
        """The rows of ``ahead`` ticks fewer than these."""
        spec = self.spec
        if spec.name == "semantic":
            return semantic[:, None], None
        frames = 2 * (len(semantic) - spec.ahead)
        if spec.name == "coarse":
            aligned = semantic[spec.ahead :].repeat_interleave(2)[:frames, None]
            return acoustic[:frames, : self.split], aligned
        return acoustic[:frames, self.split : self.split + spec.levels], acoustic[:frames, : self.split]


@dataclass(frozen=True)
class Crop:
    """Frames ``[T, levels]``, their conditioning ``[T, cond_levels]`` and where a clip ends ``[T]``."""

    frames: Tensor
    cond: Tensor | None
    ends: Tensor = field(repr=False)


def _stacked(items: list[tuple[Tensor, Tensor | None]]) -> tuple[Tensor, Tensor | None]:
    cond = None if items[0][1] is None else torch.stack([c for _, c in items if c is not None])
    return torch.stack([frames for frames, _ in items]), cond


def corrupt(tokens: Tensor, spec: StageSpec, recipe: Corruption, generator: torch.Generator) -> Tensor:
    """What is fed back in place of the truth, ``[B, T, levels]``.

    Random tokens here and there, and in some crops the mask token for the levels from a random one on.
    """
    feed = tokens
    if recipe.noise:
        wrong = torch.randint(spec.cardinality, tokens.shape, generator=generator)
        feed = torch.where(torch.rand(tokens.shape, generator=generator) < recipe.noise, wrong, feed)
    if recipe.level_dropout and spec.levels > 1:
        batch = len(tokens)
        first = torch.randint(1, spec.levels, (batch,), generator=generator)
        hit = torch.rand(batch, generator=generator) < recipe.level_dropout
        masked = (torch.arange(spec.levels) >= first[:, None]) & hit[:, None]
        feed = torch.where(masked[:, None], spec.mask_token, feed)
    return feed


def drop_conditioning(cond: Tensor | None, spec: StageSpec, share: float, generator: torch.Generator) -> Tensor | None:
    """Replace the conditioning of whole crops by the mask token."""
    if cond is None or not share:
        return cond
    hit = torch.rand(len(cond), generator=generator) < share
    return torch.where(hit[:, None, None], spec.cond_mask, cond)


def gap_mask(batch: int, ticks: int, share: float, generator: torch.Generator) -> Tensor:
    """Bool ``[batch, ticks]``: gaps of 1 to 5 ticks that cover about ``share`` of them."""
    begins = torch.rand(batch, ticks, generator=generator) < 2 * share / (1 + LONGEST_GAP)
    lengths = torch.randint(1, LONGEST_GAP + 1, (batch, ticks), generator=generator) * begins
    since = torch.arange(ticks)
    ends = torch.cummax(torch.where(begins, since + lengths, 0), 1).values
    return since < ends


def lose(
    feed: Tensor, cond: Tensor | None, spec: StageSpec, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """Put the mask token where frames are lost: in what is fed back, in the conditioning, or in both.

    A third of the crops each, since live the streams of a stage may come from different machines. Where both are lost
    it is one moment of sound: conditioning is read ``ahead`` tokens early, so its gap lies as many rows before.
    """
    if not share:
        return feed, cond
    per, (batch, rows) = spec.rate // TICKS, feed.shape[:2]
    ticks = -(-rows // per) + spec.ahead
    lost = gap_mask(batch, ticks, share, generator)
    which = torch.randint(3, (batch, 1, 1), generator=generator) if cond is not None else torch.zeros(batch, 1, 1)
    feed = torch.where(_frames(lost, per, rows) & (which != 1), spec.mask_token, feed)
    if cond is not None:
        cond = torch.where(_frames(lost[:, spec.ahead :], per, rows) & (which != 0), spec.cond_mask, cond)
    return feed, cond


def _frames(ticks: Tensor, per: int, rows: int) -> Tensor:
    """``[B, ticks]`` to ``[B, rows, 1]`` with ``per`` rows a tick."""
    return ticks.repeat_interleave(per, 1)[:, :rows, None]
