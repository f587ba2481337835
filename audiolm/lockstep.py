"""Many live sessions in step: a whole tick of every slot at once, with the bookkeeping in arrays instead of objects.

What :class:`audiolm.session.Session` does with runners and an engine, a session at a time, is done here for all slots
of one device: who listens, who goes on, who stalls is two masks a tick. The results are the same: with the same number
of slots, types and device each slot's tokens and sound are those of a Session of the same seed, to the bit, whatever
its neighbours do; only the watermark differs, in its rounding. Sessions of modes ``continue``, ``duet`` and ``dream``
are served; sound comes through a door before (:class:`audiolm.door.Door`), and stages are of pattern ``depth``, without
guidance.

The bookkeeping rests on what a ``depth`` pattern makes true. After each tick the fine stage has taken all rows before
the next tick; the coarse stage has taken those that the semantic tokens allow, two for each, L tokens behind; and
whatever waits for a coarse row was heard. So numbers of ticks and semantic rows say all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from audiolm.compute.device import find_device
from audiolm.compute.fused import Kernels
from audiolm.compute.marks import Marks
from audiolm.compute.placed import Placed, Types
from audiolm.compute.tick import (
    COARSE,
    COLUMNS,
    EARS,
    FORCED,
    LISTENS,
    NOW,
    ON,
    ROW,
    SEED,
    SLOT,
    START,
    TAKES,
    TickProgram,
)
from audiolm.engine import below, prepare_thread
from audiolm.errors import EngineError, InputError
from audiolm.parts import STAGES, Parts
from audiolm.sampler import Sampling
from audiolm.streaming import State, check_slot, load_slot, save_slot

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
MOST_SLOTS = 1 << 14


@dataclass(frozen=True)
class Ticked:
    """A tick of all slots; what stands in slots that took none means nothing.

    Attributes:
        sound: ``[slots, 640]`` float32.
        codes: ``[slots, 2, levels]`` int64, what it was decoded from.
        position: ``[slots]`` int64, of the first sample, on each session's clock.
        generated: ``[slots]`` bool; False for what was heard.
    """

    sound: Floats
    codes: Ints
    position: Ints
    generated: Mask


class Lockstep:
    """See the module's text.

    Args:
        parts: the model.
        slots: sessions at most.
        device: where; ``cuda``, or ``cpu`` for tests.
        types: of the stages' weights and caches.
        burst: slots that catch up side by side when sessions begin to generate. None: all slots take every round, so
            that bits are those of :class:`audiolm.engine.Engine`. A few (16) is many times faster where sessions take
            turns at different times; a session's bits are still independent of its neighbours'.
        truncates: whether top-k and top-p may be asked for; default: whether the model's own sampling does.
        graphs: capture CUDA graphs.
        kernels: what replaces torch's operations; None: Triton's where they are.
        watermark: whether what is generated is marked, see :mod:`audiolm.watermark`.

    Raises:
        EngineError: no such device, a model that cannot be stepped so, or numbers out of range.
    """

    def __init__(
        self,
        parts: Parts,
        slots: int,
        device: str | torch.device = "cpu",
        *,
        types: Types | None = None,
        burst: int | None = None,
        truncates: bool | None = None,
        graphs: bool = True,
        kernels: Kernels | None = None,
        watermark: bool = True,
    ) -> None:
        _check(parts, slots, burst)
        self.parts, self.slots, self.burst = parts, slots, burst
        self.truncates = any(_truncates(how) for how in parts.sampling.values()) if truncates is None else truncates
        placed = Placed(parts, find_device(device), types, kernels)
        prepare_thread()
        with torch.inference_mode():
            self.program = TickProgram(placed, slots, burst=burst, truncates=self.truncates, graphs=graphs)
            self._marks, self.watermark = Marks(slots, placed.device), watermark
        self._sampling = {name: [parts.sampling[name]] * slots for name in STAGES}
        self._open = np.zeros(slots, np.bool_)
        self._now, self._row, self._start = (np.zeros(slots, np.int64) for _ in range(3))
        self._count = np.zeros(slots, np.int64)  # ticks that the ears have taken
        self._fed = np.zeros((slots, parts.lookahead + 1), np.int64)  # numbers of the last of them
        self._seeds = np.zeros(slots, np.uint64)

    # -- slots --

    @property
    def free(self) -> int:
        """How many slots are not taken."""
        return int(self.slots - self._open.sum())

    def open(self, seed: int = 0, *, start: int = 0, sampling: Mapping[str, Sampling] | None = None) -> int:
        """Begin a session in the lowest free slot.

        Args:
            seed: of the noise, 0 to 2**64 - 1.
            start: the clock's origin in ticks.
            sampling: by stage, instead of the model's.

        Raises:
            EngineError: all slots are taken, or sampling that this engine was not made for.
            InputError: a seed or start out of range.
        """
        if not 0 <= seed < 1 << 64 or not 0 <= start <= 1 << 48:
            raise InputError(f"a session has a seed below 2**64 and a start up to 2**48, got {seed} and {start}")
        for name, how in (sampling or {}).items():
            self._check_sampling(name, how)
        if self._open.all():
            raise EngineError(f"all {self.slots} slots are taken; close a session or make more slots", slots=self.slots)
        slot = int(np.flatnonzero(~self._open)[0])
        self._open[slot] = True
        self.reset(slot)
        self._seeds[slot] = seed
        self._now[slot] = self._row[slot] = self._start[slot] = start
        for name, how in (sampling or {}).items():
            self.set_sampling(slot, name, how)
        return slot

    def close(self, slot: int) -> None:
        """Hand a slot back.

        Raises:
            EngineError: it is not open.
        """
        self._check_open(slot)
        self._open[slot] = False

    @torch.inference_mode()
    def reset(self, slot: int) -> None:
        """Begin the session of a slot anew: same seed, fresh states, the clock at zero.

        Raises:
            EngineError: it is not open.
        """
        self._check_open(slot)
        self.program.reset(slot)
        self._marks.reset(slot)
        for name, how in self.parts.sampling.items():
            if self._sampling[name][slot] != how:
                self.set_sampling(slot, name, how)
        for counter in (self._now, self._row, self._start, self._count, self._fed):
            counter[slot] = 0

    @torch.inference_mode()
    def set_sampling(self, slot: int, name: str, how: Sampling) -> None:
        """Change how stage ``name`` samples in ``slot``.

        Raises:
            EngineError: the slot is not open, the stage unknown, or the sampling not what this engine was made for.
        """
        self._check_open(slot)
        self._check_sampling(name, how)
        self._sampling[name][slot] = how
        self.program.set_sampling(slot, name, how)

    def _check_sampling(self, name: str, how: Sampling) -> None:
        if name not in STAGES:
            raise EngineError(f"unknown stage {name!r}; stages: {', '.join(STAGES)}", stage=name)
        if how.guidance != 1:
            raise EngineError(f"guidance {how.guidance:g} came; in lock-step there is none, use audiolm.engine.Engine")
        if _truncates(how) and not self.truncates:
            raise EngineError("top-k or top-p came to an engine made without; make it with truncates=True", stage=name)

    def _check_open(self, slot: int) -> None:
        if not 0 <= slot < self.slots or not self._open[slot]:
            raise EngineError(f"slot {slot} is not open; slots come from open()", slot=slot)

    # -- a tick --

    @torch.inference_mode()
    def tick(
        self,
        heard: Mask,
        made: Mask,
        audio: Floats | None = None,
        *,
        codes: Ints | None = None,
        semantic: Ints | None = None,
    ) -> Ticked:
        """Take one tick in every slot that hears, generates or both; the others stall, to the bit.

        Args:
            heard: ``[slots]``: the ears take a tick of sound. The stages are forced on it unless ``made``.
            made: ``[slots]``: the stages generate. With ``heard``: a duet's pause, which the ears follow.
            audio: ``[slots, 640]`` float32, read where ``heard``.
            codes: ``[slots, 2, levels]`` int64, with ``semantic`` instead of ``audio``: what an encoder elsewhere made
                of it.
            semantic: ``[slots]`` int64, from a tokenizer elsewhere, as late as this model's (-1 for those before).

        Raises:
            InputError: arrays of other shapes or types, or nothing to hear.
            EngineError: a slot that is not open.
        """
        prepare_thread()
        self._check_masks(heard, made)
        program, rounds, forced = self.program, *self._plan(heard, made)
        orders = self._orders(heard, made, rounds, forced)
        program.orders.send(orders)
        if heard.any():
            self._listen(audio, codes, semantic)
        self._catch_up(orders, rounds, forced)
        (program.go_on if rounds.any() else program.speak)()
        self._pass_on(any_made=bool(made.any()))
        position, on = self._now * self.parts.tick, heard | made
        self._row += rounds
        self._now += on
        sound, tokens = program.read()
        return Ticked(sound, tokens, position, made.copy())

    def _pass_on(self, *, any_made: bool) -> None:
        """Mark what was generated, where it lies."""
        orders = self.program.orders.there
        on = orders[:, ON] != 0
        marked = on & (orders[:, LISTENS] == 0) if any_made and self.watermark else None
        self._marks.step(self.program.out.there[:, : self.parts.tick], on, marked)

    def _check_masks(self, heard: Mask, made: Mask) -> None:
        for name, mask in (("heard", heard), ("made", made)):
            if not isinstance(mask, np.ndarray) or mask.shape != (self.slots,) or mask.dtype != np.bool_:
                raise InputError(f"{name} is a mask, bool [{self.slots}]; got {getattr(mask, 'dtype', type(mask))}")
        closed = np.flatnonzero((heard | made) & ~self._open)
        if len(closed):
            raise EngineError(f"slot {closed[0]} is not open; slots come from open()", slot=int(closed[0]))

    def _plan(self, heard: Mask, made: Mask) -> tuple[Ints, Mask]:
        """Rounds that each slot takes, and whether the first is forced on a heard token; feeds the ears' clock."""
        self._fed[heard] = np.concatenate((self._fed[heard, 1:], self._now[heard, None]), 1)
        self._count += heard
        # The token that the ears complete now is of the tick they took `lookahead` ticks before. One whose row has
        # passed is late and left out.
        forced = heard & (self._count > self.parts.lookahead) & (self._fed[:, 0] == self._row)
        until = self._now + 1 + self.program.ahead
        return np.where(made, until - self._row, np.where(forced, 1, 0)), forced

    def _orders(self, heard: Mask, made: Mask, rounds: Ints, forced: Mask) -> Ints:
        """What each slot does in its last round, and in the rest of the tick."""
        orders = np.empty((self.slots, len(COLUMNS)), np.int64)
        orders[:, SLOT], orders[:, SEED] = np.arange(self.slots), self._seeds.view(np.int64)
        orders[:, START], orders[:, NOW] = self._start, self._now
        orders[:, EARS], orders[:, LISTENS], orders[:, ON] = heard, heard & ~made, heard | made
        self._set_round(orders, self._row + np.maximum(rounds - 1, 0), rounds > 0, forced & (rounds == 1))
        return orders

    def _set_round(self, orders: Ints, row: Ints, takes: Mask, forced: Mask) -> None:
        orders[:, ROW], orders[:, TAKES], orders[:, FORCED] = row, takes, forced
        orders[:, COARSE] = takes & (row >= orders[:, START] + self.program.ahead)

    def _listen(self, audio: Floats | None, codes: Ints | None, semantic: Ints | None) -> None:
        program = self.program
        if codes is None or semantic is None:
            shape = (self.slots, self.parts.tick)
            if audio is None or audio.shape != shape or audio.dtype != np.float32:
                raise InputError(
                    f"slots that hear need audio, float32 {list(shape)}, or codes and semantic tokens; "
                    f"got {None if audio is None else (audio.dtype, list(audio.shape))}"
                )
            program.sound_in.send(audio)
            program.hear()
            return
        program.tokens_in.send(np.concatenate((semantic[:, None], codes.reshape(self.slots, -1)), 1))
        program.take_heard()

    def _catch_up(self, orders: Ints, rounds: Ints, forced: Mask) -> None:
        """The rounds before the last, in batches of ``burst`` slots that begin to generate."""
        late = np.flatnonzero(rounds > 1)
        size = self.burst or self.slots
        for first in range(0, len(late), size):
            slots = late[first : first + size]
            if self.burst is None:
                batch = np.arange(self.slots)
            else:  # fill up with slots that do nothing: they must be other slots, since all are written
                rest = np.setdiff1d(np.arange(min(self.slots, 2 * size)), slots)
                batch = np.concatenate((slots, rest[: size - len(slots)]))
            few, left = orders[batch].copy(), np.where(np.isin(batch, slots), rounds[batch] - 1, 0)
            for i in range(int(left.max())):
                self._set_round(few, self._row[batch] + i, i < left, forced[batch] & (i == 0))
                self.program.few.send(few)
                self.program.catch_up()

    # -- snapshots --

    @torch.inference_mode()
    def save(self, slot: int) -> dict[str, np.ndarray[Any, Any]]:
        """The whole session as arrays; :meth:`load` goes on exactly, in any slot of any process.

        Raises:
            EngineError: the slot is not open.
        """
        self._check_open(slot)
        saved: dict[str, np.ndarray[Any, Any]] = {
            f"{part}.{key}": value
            for part, state in self._states().items()
            for key, value in save_slot(state, slot).items()
        }
        for name in STAGES:
            how = self._sampling[name][slot]
            saved[f"sampling.{name}"] = np.array([how.temperature, how.top_k, how.top_p, how.guidance])
        clock = np.array([self._now[slot], self._row[slot], self._start[slot], self._count[slot]])
        return saved | {
            "clock": clock,
            "fed": self._fed[slot].copy(),
            "seed": self._seeds[slot : slot + 1].copy(),
        }

    @torch.inference_mode()
    def load(self, slot: int, saved: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Take back what :meth:`save` gave, seed included: all of it, or nothing when it does not fit.

        Raises:
            EngineError: the snapshot is of another model or damaged, or the slot is not open.
        """
        self._check_open(slot)
        states = self._states()
        given = {part: below(saved, f"{part}.") for part in states}
        try:
            for part, state in states.items():
                check_slot(state, slot, given[part])
            now, row, start, count = (int(value) for value in saved["clock"])
            sampling = {name: saved[f"sampling.{name}"].tolist() for name in STAGES}
            self._fed[slot], self._seeds[slot] = saved["fed"], saved["seed"][0]
        except (KeyError, IndexError, ValueError) as error:
            raise EngineError(f"the snapshot does not fit this model: {error}") from error
        for part, state in states.items():
            load_slot(state, slot, given[part])
        for name, (temperature, top_k, top_p, guidance) in sampling.items():
            self.set_sampling(slot, name, Sampling(temperature, int(top_k), top_p, guidance))
        self._now[slot], self._row[slot], self._start[slot], self._count[slot] = now, row, start, count

    def _states(self) -> dict[str, State]:
        return {**self.program.states, "waiting": {"tokens": self.program.waiting}, "marks": self._marks.state}


def _truncates(how: Sampling) -> bool:
    return how.top_k > 0 or how.top_p < 1


def _check(parts: Parts, slots: int, burst: int | None) -> None:
    if isinstance(slots, bool) or not isinstance(slots, int) or not 1 <= slots <= MOST_SLOTS:
        raise EngineError(f"lock-step has 1 to {MOST_SLOTS} slots, got {slots!r}")
    if burst is not None and not 1 <= burst <= slots:
        raise EngineError(f"burst is a number of slots from 1 to {slots}, or None for all; got {burst!r}")
    for name, stage in parts.stages.items():
        if stage.spec.pattern != "depth" or stage.spec.levels < 1:
            raise EngineError(
                f"stage {name!r} is of pattern {stage.spec.pattern!r}; lock-step takes 'depth' only: "
                "use audiolm.engine.Engine",
                stage=name,
            )
        if parts.sampling[name].guidance != 1:
            raise EngineError(f"the model guides its stage {name!r}; in lock-step there is no guidance", stage=name)
