"""What a stage does at each position of one session: forced where something was heard, sampled where nothing was.

A :class:`StageRunner` is the bookkeeping of one stage of one session. Heard tokens and conditioning come in with
their frame numbers, rows for the engine come out, and finished frames come back. It lines streams up by position,
never by arrival, so the same code serves ``AudioLM.stream``, where everything happens in one loop, and the nodes of a
graph, where tokens arrive when they like. It knows nothing of tensors, models or threads.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from audiolm.errors import EngineError, InputError
from audiolm.sampler import uniforms
from audiolm.stage import StageSpec

Tokens = npt.NDArray[np.int64]
FOREVER = 1 << 60
# Frames that a runner holds at most: half a minute at 50 Hz. Whoever feeds it looks at `full` first, so this is a
# guard, not a policy.
CAPACITY = 1500


@dataclass(frozen=True)
class Row:
    """One row for the engine.

    Attributes:
        position: number of the row.
        cond: ``[cond_levels]``, None for a stage without conditioning.
        forced: ``[levels]``, read where ``is_forced`` ``[levels]``.
        u: ``[levels]`` uniforms, None where all is forced.
    """

    position: int
    cond: Tokens | None
    forced: Tokens
    is_forced: npt.NDArray[np.bool_]
    u: npt.NDArray[np.float32] | None

    @property
    def sampling(self) -> bool:
        """Whether any level is to be sampled."""
        return self.u is not None


@dataclass(frozen=True)
class Emitted:
    """A finished frame ``[levels]`` and whether any of it was generated."""

    frame: int
    tokens: Tokens
    generated: bool


class RowEngine(Protocol):
    """What runners need of an engine."""

    def rows(self, name: str, rows: Mapping[int, Row]) -> dict[int, Tokens]:
        """Take one row in each named slot of stage ``name``."""


class StageRunner:
    """The rows of one stage of one session.

    Args:
        spec: the stage.
        seed: of the session's noise.
        ratio: rows per conditioning token (2 for coarse: 50 Hz rows, 25 Hz semantic tokens).
        conditioned: wait for conditioning; without, the stage runs on the mask token (the acoustic-only baseline).
        start: number of the first frame.
    """

    def __init__(self, spec: StageSpec, seed: int, *, ratio: int = 1, conditioned: bool = True, start: int = 0) -> None:
        self.spec, self.seed, self.ratio = spec, seed, ratio
        self.conditioned = conditioned and spec.cond_levels > 0
        self.origin = self.start = self.row = start
        self.open_until = start - spec.span  # nothing may be sampled yet, not even what a delay pattern begins early
        self.late = 0
        self._all = np.ones(spec.levels, np.bool_)
        self._sampled = 0
        self.sample_levels(spec.levels)
        self._heard: dict[int, Tokens] = {}
        self._cond: dict[int, Tokens] = {}
        self._rows: deque[tuple[Tokens, npt.NDArray[np.bool_]]] = deque(maxlen=spec.span + 1)

    # -- in --

    def hear(self, frame: int, tokens: Sequence[int] | Tokens) -> None:
        """Force ``tokens`` ``[levels]`` at ``frame``; the mask token stands for one that is lost.

        A frame whose row has passed is counted as late and left out.

        Raises:
            InputError: another number of tokens, tokens out of range, or a frame that is absurdly far ahead.
            EngineError: too many frames wait.
        """
        row = self._checked(frame - self.row, frame, tokens, self.spec.levels, self.spec.mask_token)
        if frame < self.row:
            self.late += 1
        else:
            self._store(self._heard, frame, row)

    def give(self, index: int, tokens: Sequence[int] | Tokens) -> None:
        """Hand over conditioning token ``index`` ``[cond_levels]``; one that no row will read any more is left out.

        Raises:
            InputError: another number of tokens, tokens out of range, or an index that is absurdly far ahead.
            EngineError: too many tokens wait.
        """
        row = self._checked(index - self._needed, index, tokens, self.spec.cond_levels, self.spec.cond_mask)
        if self.conditioned and index >= self._needed:
            self._store(self._cond, index, row)

    def sample_until(self, frame: int) -> None:
        """Allow every frame before ``frame`` that was not heard to be sampled."""
        self.open_until = max(self.open_until, frame)

    def sample_levels(self, levels: int) -> None:
        """From the next row on, sample the first ``levels`` of a frame that was not heard; the others are mask tokens.

        A step then costs less, and what is fed back is what level dropout has trained.

        Raises:
            EngineError: none of the levels, or more than there are.
        """
        n = self.spec.levels
        if not 1 <= levels <= n:
            raise EngineError(f"stage {self.spec.name!r} samples 1 to {n} levels, got {levels}")
        if levels == self._sampled:
            return
        self._sampled = levels
        self._left_out = np.arange(n) >= levels
        self._free = np.where(self._left_out, self.spec.mask_token, 0)

    def restart(self, frame: int) -> None:
        """Forget what waits and go on at ``frame`` as a stream that begins there; the stage's state must be fresh, too.

        For a stage that has stood still for a while. The noise goes on.
        """
        self.start = self.row = frame
        self._heard.clear()
        self._cond.clear()
        self._rows.clear()

    @property
    def _needed(self) -> int:
        """The conditioning token that the next row reads."""
        return self.row // self.ratio + self.spec.ahead

    def _checked(self, ahead: int, frame: int, tokens: Sequence[int] | Tokens, levels: int, mask: int) -> Tokens:
        row = np.asarray(tokens, np.int64).reshape(-1)
        if not levels or len(row) != levels:
            raise InputError(
                f"stage {self.spec.name!r} takes {levels} tokens a frame, got {len(row)} at frame {frame}", frame=frame
            )
        if not 0 <= row.min() <= row.max() <= mask:
            raise InputError(
                f"stage {self.spec.name!r} takes tokens from 0 to {mask - 1}, or {mask} for a lost one; "
                f"got {row.tolist()} at frame {frame}",
                frame=frame,
            )
        if ahead >= CAPACITY:
            raise InputError(
                f"frame {frame} is {ahead} ahead of row {self.row} of stage {self.spec.name!r}; "
                f"expected less than {CAPACITY}, so its position is wrong or a long piece is missing",
                frame=frame,
            )
        return row

    def _store(self, held: dict[int, Tokens], index: int, row: Tokens) -> None:
        if len(held) >= CAPACITY:
            raise EngineError(
                f"stage {self.spec.name!r} holds {CAPACITY} frames that wait for row {self.row}; "
                "what it waits for does not come"
            )
        held[index] = row

    @property
    def heard_ahead(self) -> int:
        """Heard frames that wait for their row."""
        return len(self._heard)

    @property
    def cond_ahead(self) -> int:
        """Conditioning tokens that wait for their row."""
        return len(self._cond)

    # -- out --

    def next_row(self) -> Row | None:
        """The next row, or None while something that it needs is not there yet."""
        cond = self._conditioning()
        if cond is None and self.conditioned:
            return None
        known = self._skewed() if self.spec.span else self._whole()
        if known is None:
            return None
        forced, is_forced = known
        u = None
        if not is_forced.all():
            u = uniforms(self.seed, self.spec.index, self.row - self.origin, self.spec.levels)
        return Row(self.row, cond, forced, is_forced, u)

    def _whole(self) -> tuple[Tokens, npt.NDArray[np.bool_]] | None:
        """What is forced of a row that is one frame: all of it, or what is not to be sampled."""
        heard = self._heard.get(self.row)
        if heard is None and self.row >= self.open_until:
            return None
        return (self._free, self._left_out) if heard is None else (heard, self._all)

    def _skewed(self) -> tuple[Tokens, npt.NDArray[np.bool_]] | None:
        """What is forced of a row whose levels are of as many frames."""
        spec = self.spec
        forced = np.full(spec.levels, spec.start_token, np.int64)
        is_forced = np.ones(spec.levels, np.bool_)
        for level in range(spec.levels):
            frame = self.row - level
            if frame < self.start:
                continue
            heard = self._heard.get(frame)
            if heard is not None:
                forced[level] = heard[level]
            elif frame < self.open_until + spec.span:
                forced[level], is_forced[level] = self._free[level], self._left_out[level]
            else:
                return None
        return forced, is_forced

    def _conditioning(self) -> Tokens | None:
        if not self.spec.cond_levels:
            return None
        if not self.conditioned:
            return np.full(self.spec.cond_levels, self.spec.cond_mask, np.int64)
        return self._cond.get(self._needed)

    def deliver(self, row: Row, tokens: Tokens) -> list[Emitted]:
        """Take the engine's tokens ``[levels]`` for ``row``; returns the frame that is complete now, if any."""
        spec, read = self.spec, self._needed
        self.row += 1
        if self._needed > read:
            self._cond.pop(read, None)
        self._rows.append((tokens, row.is_forced))
        done = row.position - spec.span
        self._heard.pop(done, None)
        if done < self.start:
            return []
        if not spec.span:
            return [Emitted(done, tokens, row.sampling)]
        picks = [self._rows[level] for level in range(spec.levels)]
        frame = np.asarray([tokens[level] for level, (tokens, _) in enumerate(picks)], np.int64)
        generated = not all(mask[level] for level, (_, mask) in enumerate(picks))
        return [Emitted(done, frame, generated)]

    # -- snapshots --

    def save(self) -> dict[str, Any]:
        """Everything but spec and seed, as integers and arrays."""
        return {
            "row": self.row,
            "start": self.start,
            "origin": self.origin,
            "open_until": self.open_until,
            "late": self.late,
            "heard": _table(self._heard, self.spec.levels),
            "cond": _table(self._cond, self.spec.cond_levels),
            "rows": _stacked([np.concatenate((tokens, forced)) for tokens, forced in self._rows], 2 * self.spec.levels),
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Take back what :meth:`save` gave.

        Raises:
            EngineError: something is missing or of another stage; nothing has changed.
        """
        n, m = self.spec.levels, self.spec.cond_levels
        try:
            row, start, until, late = (int(saved[key]) for key in ("row", "start", "open_until", "late"))
            origin = int(saved.get("origin", start))
            tables = [np.asarray(saved[key], np.int64).reshape(-1, size) for key, size in _widths(n, m).items()]
        except (KeyError, TypeError, ValueError) as error:
            raise EngineError(f"the saved rows of stage {self.spec.name!r} do not fit: {error}") from error
        heard, cond, rows = tables
        self.row, self.start, self.origin, self.open_until, self.late = row, start, origin, until, late
        self._heard = {int(r[0]): r[1:] for r in heard}
        self._cond = {int(r[0]): r[1:] for r in cond}
        self._rows = deque(((r[:n], r[n:].astype(np.bool_)) for r in rows), maxlen=self.spec.span + 1)


def _widths(levels: int, cond_levels: int) -> dict[str, int]:
    """Columns of the saved tables."""
    return {"heard": levels + 1, "cond": cond_levels + 1, "rows": 2 * levels}


def _table(held: Mapping[int, Tokens], width: int) -> Tokens:
    """Frames as rows of (number, tokens)."""
    return _stacked([np.asarray((index, *tokens)) for index, tokens in held.items()], width + 1)


def _stacked(rows: list[npt.NDArray[Any]], width: int) -> Tokens:
    return np.asarray(rows, np.int64).reshape(-1, width)


def drive(engine: RowEngine, name: str, runners: Iterable[tuple[int, StageRunner]]) -> dict[int, list[Emitted]]:
    """Run every row that is possible now, in all given slots side by side: a masked burst, one row a slot at a time.

    A runner without conditioning must not be open for ever, or this goes on for as long.
    """
    pairs = list(runners)
    out: dict[int, list[Emitted]] = {slot: [] for slot, _ in pairs}
    while True:
        rows = {slot: row for slot, runner in pairs if (row := runner.next_row()) is not None}
        if not rows:
            return out
        tokens = engine.rows(name, rows)
        for slot, runner in pairs:
            if slot in rows:
                out[slot] += runner.deliver(rows[slot], tokens[slot])
