"""Ticks of many sessions, one after the other without a pause: how long each takes, from arrays in to arrays out."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from audiolm.lockstep import Lockstep
from benchmarks.common import percentile
from benchmarks.gpu.bounds import wait

TURN = 125  # ticks that a session listens, and then goes on: 5 s
Mask = npt.NDArray[np.bool_]
WAYS = ("going_on", "turns", "turns_with_ears")


@dataclass(frozen=True)
class Ticks:
    """Milliseconds of each tick, and of the host's share in them."""

    wall: list[float]
    host: list[float]

    def figures(self) -> dict[str, Any]:
        """What they come to."""
        return {
            "p50": percentile(self.wall, 0.5),
            "p99": percentile(self.wall, 0.99),
            "most": max(self.wall),
            "host_p50": percentile(self.host, 0.5),
        }


class Crowd:
    """All slots of an engine, taken, with something to hear.

    Args:
        lockstep: the engine.
        way: `going_on`: all generate. `turns`: each listens for 5 s and goes on for 5 s, begun at different times, so
            that at every tick some begin to go on; heard tokens come in. `turns_with_ears`: sound comes in.
    """

    def __init__(self, lockstep: Lockstep, way: str, seed: int = 0) -> None:
        self.lockstep, self.way, self.at = lockstep, way, 0
        self.rng, slots, parts = np.random.default_rng(seed), lockstep.slots, lockstep.parts
        while lockstep.free:
            lockstep.open(int(self.rng.integers(1 << 62)))
        self.phase = self.rng.integers(0, 2 * TURN, slots)
        self.audio = (self.rng.standard_normal((slots, parts.tick)) * 0.07).astype(np.float32)
        config = parts.codec.config
        self.codes = self.rng.integers(0, config.cardinality, (slots, parts.frames_per_tick, config.levels))
        self.semantic = self.rng.integers(0, parts.stages["semantic"].spec.cardinality, slots)

    def masks(self) -> tuple[Mask, Mask]:
        """Who hears and who generates at this tick."""
        heard = (self.at + self.phase) % (2 * TURN) < TURN
        return (np.zeros_like(heard), np.ones_like(heard)) if self.way == "going_on" else (heard, ~heard)

    def tick(self) -> None:
        """One of all sessions."""
        heard, made = self.masks()
        self.at += 1
        if self.way == "turns_with_ears":
            self.lockstep.tick(heard, made, self.audio)
        else:
            self.lockstep.tick(heard, made, codes=self.codes, semantic=self.semantic)

    def timed(self, budget: float, most: int) -> Ticks:
        """Ticks until `budget` seconds have gone, at most `most`; a dozen before them do not count."""
        for _ in range(12):
            self.tick()
        wall: list[float] = []
        host: list[float] = []
        begun = time.perf_counter()
        while len(wall) < most and (len(wall) < 5 or time.perf_counter() - begun < budget):
            start = time.perf_counter()
            self.tick()
            wall.append(1e3 * (time.perf_counter() - start))
            host.append(1e3 * self._host_share())
        return Ticks(wall, host)

    def _host_share(self) -> float:
        """Seconds of bookkeeping in arrays: done once more, on the side, and nothing of it is kept."""
        engine, (heard, made) = self.lockstep, self.masks()
        kept = engine._fed.copy(), engine._count.copy()  # noqa: SLF001 - a look inside, put back
        start = time.perf_counter()
        rounds, forced = engine._plan(heard, made)  # noqa: SLF001
        engine._orders(heard, made, rounds, forced)  # noqa: SLF001
        taken = time.perf_counter() - start
        engine._fed[:], engine._count[:] = kept  # noqa: SLF001
        return taken


def first_sounds(lockstep: Lockstep, times: int, prompt: int) -> Iterator[float]:
    """Milliseconds from the end of a prompt of `prompt` ticks to the first generated sound; of one session."""
    yes, no = np.array([True]), np.array([False])
    rng = np.random.default_rng(0)
    for _ in range(times):
        slot = lockstep.open(int(rng.integers(1 << 62)))
        for _ in range(prompt):
            lockstep.tick(yes, no, (rng.standard_normal((1, lockstep.parts.tick)) * 0.07).astype(np.float32))
        begun = time.perf_counter()
        lockstep.tick(no, yes)
        yield 1e3 * (time.perf_counter() - begun)
        lockstep.close(slot)


def by_part(lockstep: Lockstep, calls: int) -> dict[str, float]:
    """Milliseconds of each piece, all slots, captured alone; nobody's state changes, since nobody is active."""
    from audiolm.compute.graphs import Captured
    from audiolm.compute.placed import RowInputs

    program, placed = lockstep.program, lockstep.program.placed
    device, slots = placed.device, lockstep.slots
    off, zeros = torch.zeros(slots, dtype=torch.bool, device=device), torch.zeros(slots, device=device).long()
    sound = torch.randn(slots, lockstep.parts.tick, device=device)
    codes = torch.zeros(slots, program.per, program.levels, dtype=torch.int64, device=device)
    pieces: dict[str, Any] = {
        "encoder": lambda: placed.step("encoder", sound, program.states["encoder"], off),
        "tokenizer": lambda: placed.step("tokenizer", sound, program.states["tokenizer"], off),
        "decoder": lambda: placed.step("decoder", codes, program.states["decoder"], off),
        "noise": lambda: program.noise(zeros, program._positions(program.orders.there, last=True)),  # noqa: SLF001
    }
    for name, stage in placed.stages.items():
        spec = stage.spec
        shape = (slots, spec.levels)
        row = RowInputs(
            positions=zeros,
            active=off,
            forced=torch.zeros(shape, dtype=torch.int64, device=device),
            is_forced=torch.zeros(shape, dtype=torch.bool, device=device),
            u=torch.full(shape, 0.5, device=device),
            cond=torch.zeros(slots, spec.cond_levels, dtype=torch.int64, device=device) if spec.cond_levels else None,
        )
        pieces[f"{name}_row"] = lambda name=name, row=row: program._row(name, row)  # noqa: SLF001
    return {name: _piece(call, device, calls, Captured) for name, call in pieces.items()}


@torch.inference_mode()
def _piece(call: Any, device: torch.device, calls: int, captured: Any) -> float:
    def work() -> None:
        call()

    run = captured(work, device)
    run()
    wait(device)
    begun = time.perf_counter()
    for _ in range(calls):
        run()
    wait(device)
    return 1e3 * (time.perf_counter() - begun) / calls
