"""What a stage does at each position of one session: forced where something was heard, sampled where nothing was.

A :class:`StageRunner` is the bookkeeping of one stage of one session. Heard tokens and conditioning come in with their frame numbers,
rows for the engine come out, and finished frames come back. It lines streams up by position, never by arrival, so the same code serves
``AudioLM.stream``, where everything happens in one loop, and the nodes of a graph, where tokens arrive when they like. It knows nothing
of tensors, models or threads.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from audiolm.errors import EngineError
from audiolm.sampler import uniforms
from audiolm.stage import StageSpec

Tokens = npt.NDArray[np.int64]
FOREVER = 1 << 60
# Frames that a runner holds at most: half a minute at 50 Hz. Whoever feeds it looks at `full` first, so this is a guard, not a policy.
CAPACITY = 1500


@dataclass(frozen=True)
class Row:
    """One row for the engine: position, conditioning ``[cond_levels]``, forced tokens and their mask ``[levels]``, uniforms ``[levels]``."""

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
        self.start = self.row = start
        self.open_until = start
        self.late = 0
        self._heard: dict[int, Tokens] = {}
        self._cond: dict[int, Tokens] = {}
        self._rows: deque[tuple[Tokens, npt.NDArray[np.bool_]]] = deque(maxlen=spec.span + 1)

    # -- in ------------------------------------------------------------------------------------------------------------------------

    def hear(self, frame: int, tokens: Sequence[int] | Tokens) -> None:
        """Force ``tokens`` ``[levels]`` at ``frame``. A frame whose row has passed is counted as late and left out."""
        if frame < self.row:
            self.late += 1
            return
        self._store(self._heard, frame, tokens, self.spec.levels)

    def give(self, index: int, tokens: Sequence[int] | Tokens) -> None:
        """Hand over conditioning token ``index`` ``[cond_levels]``."""
        self._store(self._cond, index, tokens, self.spec.cond_levels)

    def sample_until(self, frame: int) -> None:
        """Allow every frame before ``frame`` that was not heard to be sampled."""
        self.open_until = max(self.open_until, frame)

    def _store(self, held: dict[int, Tokens], index: int, tokens: Sequence[int] | Tokens, levels: int) -> None:
        row = np.asarray(tokens, np.int64).reshape(-1)
        if len(row) != levels:
            raise EngineError(f"stage {self.spec.name!r} takes {levels} tokens a frame, got {len(row)} at frame {index}")
        if len(held) >= CAPACITY:
            raise EngineError(
                f"stage {self.spec.name!r} holds {CAPACITY} frames that wait for row {self.row}; its conditioning does not keep up"
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

    # -- out -----------------------------------------------------------------------------------------------------------------------

    def next_row(self) -> Row | None:
        """The next row, or None while something that it needs is not there yet."""
        spec, row = self.spec, self.row
        cond = self._conditioning(row)
        if cond is None and self.conditioned:
            return None
        forced = np.full(spec.levels, spec.start_token, np.int64)
        is_forced = np.ones(spec.levels, np.bool_)
        for level in range(spec.levels):
            frame = row - (level if spec.span else 0)
            if frame < self.start:
                continue
            heard = self._heard.get(frame)
            if heard is not None:
                forced[level] = heard[level]
            elif frame < self.open_until + spec.span:
                forced[level], is_forced[level] = 0, False
            else:
                return None
        u = None if is_forced.all() else uniforms(self.seed, spec.index, row - self.start, spec.levels)
        return Row(row, cond, forced, is_forced, u)

    def _conditioning(self, row: int) -> Tokens | None:
        if not self.spec.cond_levels:
            return None
        if not self.conditioned:
            return np.full(self.spec.cond_levels, self.spec.cond_mask, np.int64)
        return self._cond.get(row // self.ratio + self.spec.ahead)

    def deliver(self, row: Row, tokens: Tokens) -> list[Emitted]:
        """Take the engine's tokens ``[levels]`` for ``row``; returns the frame that is complete now, if any."""
        spec = self.spec
        self.row += 1
        self._rows.append((tokens, row.is_forced))
        done = row.position - spec.span
        oldest = row.position // self.ratio + spec.ahead
        for index in [index for index in self._cond if index < oldest or (self.row // self.ratio + spec.ahead > index)]:
            del self._cond[index]
        self._heard.pop(done, None)
        if done < self.start:
            return []
        picks = [self._rows[level if spec.span else 0] for level in range(spec.levels)]
        frame = np.asarray([tokens[level] for level, (tokens, _) in enumerate(picks)], np.int64)
        generated = not all(mask[level] for level, (_, mask) in enumerate(picks))
        return [Emitted(done, frame, generated)]

    # -- snapshots -----------------------------------------------------------------------------------------------------------------

    def save(self) -> dict[str, Any]:
        """Everything but spec and seed, as integers and arrays."""
        return {
            "row": self.row,
            "start": self.start,
            "open_until": self.open_until,
            "late": self.late,
            "heard": _table(self._heard, self.spec.levels),
            "cond": _table(self._cond, self.spec.cond_levels),
            "rows": np.asarray([np.concatenate((t, m.astype(np.int64))) for t, m in self._rows], np.int64).reshape(-1, 2 * self.spec.levels),
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Take back what :meth:`save` gave."""
        self.row, self.start = int(saved["row"]), int(saved["start"])
        self.open_until, self.late = int(saved["open_until"]), int(saved["late"])
        self._heard = {int(r[0]): np.asarray(r[1:], np.int64) for r in saved["heard"]}
        self._cond = {int(r[0]): np.asarray(r[1:], np.int64) for r in saved["cond"]}
        n = self.spec.levels
        self._rows = deque(((np.asarray(r[:n]), np.asarray(r[n:], np.bool_)) for r in saved["rows"]), maxlen=self.spec.span + 1)


def _table(held: Mapping[int, Tokens], width: int) -> Tokens:
    """Frames as rows of (number, tokens)."""
    return np.asarray([(index, *tokens) for index, tokens in held.items()], np.int64).reshape(-1, width + 1)


def drive(engine: RowEngine, name: str, runners: Iterable[tuple[int, StageRunner]]) -> dict[int, list[Emitted]]:
    """Run every row that is possible now, in all given slots side by side: a masked burst, one row a slot at a time."""
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
