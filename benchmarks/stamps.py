"""Instruments that several benchmarks share: a clock and a sink that note instants, and memory as it is now."""

import asyncio
import contextlib
import multiprocessing
import time
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.common import one_thread
from benchmarks.whole_graph import write_prompt
from streamer import Frame, Graph, Registry, Running, Session, SessionInfo, Sink
from streamer.nodes.clock import ClockSource

T = TypeVar("T")
SETTLED = 25  # ticks of a continuation that are not counted: what waited during the prompt is made in one burst
LEAD = 0.08  # seconds that a speaker keeps in hand (its `prime_ms`)


@dataclass
class Stamps:
    """Instants of one session on the clock of `time.perf_counter`: tick number k given, tick k of new sound come.

    `every(k)` is called when tick k of new sound has come.
    """

    given: list[float] = field(default_factory=list)
    came: list[float] = field(default_factory=list)
    every: Callable[[int], None] | None = None

    def latencies(self) -> list[float]:
        """Milliseconds from each tick's permission to its sound, once the prompt's end is worked off."""
        pairs = zip(self.given, self.came, strict=False)
        return [1e3 * (came - given) for given, came in list(pairs)[SETTLED:]]

    def underruns(self) -> tuple[int, float]:
        """How often a speaker that plays each tick `LEAD` after its permission would run dry, and ms of silence."""
        count, silence = 0, 0.0
        for latency in self.latencies():
            late = latency - 1e3 * LEAD - silence
            if late > 0:
                count, silence = count + 1, silence + late
        return count, silence


class StampedClock(ClockSource):
    """The clock, noting when it gave each tick."""

    type_name = "stamped_clock"

    async def frames(self, ctx: SessionInfo) -> AsyncIterator[Frame]:
        """The ticks of one session."""
        async for frame in super().frames(ctx):
            ctx.extra["stamps"].given.append(time.perf_counter())
            yield frame


class Ear(Sink):
    """Takes sound, keeps none of it, and notes when new sound came."""

    type_name = "ear"
    accepts = ("audio",)

    async def write(self, frame: Frame, ctx: SessionInfo, input: str) -> None:  # noqa: A002
        """Note the instant."""
        _ = input
        stamps: Stamps = ctx.extra["stamps"]
        if frame.payload and frame.generated:
            stamps.came.append(time.perf_counter())
            if stamps.every is not None:
                stamps.every(len(stamps.came))


def graph(
    folder: Path, bundle: str, *, prompt: float, seconds: float, paced: bool, engine: str | None = None, slots: int = 1
) -> Graph:
    """`continue_file` with a prompt of so many seconds, the clock and the sink above; a session needs `session()`."""
    path = folder / f"prompt{prompt:g}.wav"
    if not path.exists():
        write_prompt(path, prompt)
    registry = Registry.with_builtins()
    for kind in (StampedClock, Ear):
        registry.add(kind)
    overrides = [
        f"bundle={bundle}",
        f"session.seconds={seconds}",
        "session.seed=1",
        f"nodes.input.path={path}",
        f"nodes.clock={{type: stamped_clock, realtime: {str(paced).lower()}}}",
        f"nodes.input.realtime={str(paced).lower()}",
        "nodes.output=ear",
        *([f"engine={engine}"] if engine else []),
    ]
    return Graph.load("continue_file", registry, overrides=overrides, slots=slots)


def session(made: Graph, stamps: Stamps, name: str = "one") -> Session:
    """A session that notes its instants in `stamps`."""
    return Session(made, id=name, extra={"stamps": stamps})


async def together(made: Graph, sessions: Iterable[Session], beside: Callable[[], Any] | None = None) -> None:
    """Run sessions side by side to their end; `beside` makes a coroutine that runs as long."""
    async with Running(made) as running:
        watch = asyncio.create_task(beside(), name="beside") if beside is not None else None
        try:
            await running.run(*sessions)
        finally:
            if watch is not None:
                watch.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watch


def alone(work: Callable[..., T], *arguments: Any) -> T:
    """The same from a new process, so that memory tells of nothing that ran before."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=one_thread) as pool:
        return pool.submit(work, *arguments).result()


def resident_mb() -> float:
    """Memory of this process that is in use now, in MB (2**20); 0 where the system does not say."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf8").splitlines() if status.is_file() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), 0.0)
