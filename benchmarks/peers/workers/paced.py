"""The chain of `asyncio.Queue` and a task a node, and the figures that every graph gives. Standard library alone."""

import asyncio
import time
from collections.abc import Iterable
from typing import Self

from benchmarks.common import percentile

NODES, PERIOD = 20, 0.04
MANY = 8  # frames under way at once, where a hop is also counted with company
FRAMES = 150  # six seconds
BURST = 300


class Chain:
    """Tasks that take from one queue and put into the next. One frame at a time; it is an empty object."""

    def __init__(self, nodes: int = NODES) -> None:
        self._queues: list[asyncio.Queue[object]] = [asyncio.Queue(16) for _ in range(nodes + 1)]
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        pairs = zip(self._queues, self._queues[1:], strict=False)
        self._tasks = [asyncio.create_task(self._pass(a, b)) for a, b in pairs]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _pass(self, source: asyncio.Queue[object], target: asyncio.Queue[object]) -> None:
        while True:
            await target.put(await source.get())

    async def through(self, frames: int = 1) -> None:
        """Some frames from the first queue to the last."""
        for _ in range(frames):
            await self._queues[0].put(self)
        for _ in range(frames):
            await self._queues[-1].get()


async def queue_hop(tiny: bool, frames: int = 1) -> float:
    """CPU seconds a hop of a frame, so many of which are under way at once."""
    count = 3 if tiny else BURST
    async with Chain() as chain:
        await chain.through(frames)
        begin = time.thread_time()
        for _ in range(count):
            await chain.through(frames)
        return (time.thread_time() - begin) / count / frames / NODES


async def queue_waits(tiny: bool) -> list[float]:
    """Seconds from end to end of each paced frame."""
    waits = []
    async with Chain() as chain:
        for _ in range(3 if tiny else FRAMES):
            await asyncio.sleep(PERIOD)
            begin = time.perf_counter()
            await chain.through()
            waits.append(time.perf_counter() - begin)
    return waits


def figures(reference: float, hop: float, many: float, waits: Iterable[float]) -> dict[str, float]:
    """What a round of a graph gives, in seconds."""
    waits = list(waits)
    ends = {"p50": percentile(waits, 0.5), "p99": percentile(waits, 0.99)}
    return {"reference": reference, "hop": hop, "many": many, **ends}
