"""What the graph costs: a hop inside a lane, and six empty nodes end to end with every edge packed.

The peer is a chain of `asyncio.Queue` and a task a node, as one would write it without this project; it packs nothing
and keeps everything on the event loop. The lane's chain hops in the lane's own turn, without the loop.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from statistics import median
from typing import Any

import numpy as np

from benchmarks.common import Result, Work, interleave, percentile, ratio, run
from streamer import Frame, Graph, Node, Registry, Session, SessionInfo, Sink, Source
from streamer import run as run_graph
from streamer.lane import Lane

LONG = 20  # nodes of the chain whose hops are counted
NODES = 6
HOP_GOAL, PACKED_GOAL = 2.0, 0.25
TOKENS = np.arange(24).reshape(2, 12)


class Feed(Source):
    """Stacks of tokens, one every `period` seconds; notes when each one left."""

    type_name = "feed"
    emits = ("fine",)

    async def frames(self, ctx: SessionInfo) -> AsyncIterator[Frame]:
        """As many as `ctx.extra` says."""
        for i in range(ctx.extra["count"]):
            await asyncio.sleep(ctx.extra["period"])
            ctx.extra["left"].append(time.perf_counter())
            yield Frame.of("fine", TOKENS, position=640 * i, session=ctx.id, seq=i)
        yield Frame.end("fine", position=640 * ctx.extra["count"], session=ctx.id)


class Pass(Node):
    """Hands its frame on."""

    type_name = "pass"
    accepts = ("fine",)
    emits = ("fine",)

    def step(self, frame: Frame, state: object, input: str) -> Iterable[Frame]:  # noqa: A002
        """The same frame."""
        _ = state, input
        return (frame,)


class Arrivals(Sink):
    """Notes when each frame came."""

    type_name = "arrivals"
    accepts = ("fine",)

    async def write(self, frame: Frame, ctx: SessionInfo, input: str) -> None:  # noqa: A002
        """Note the time."""
        _ = input
        if frame.payload:
            ctx.extra["came"].append(time.perf_counter())


def results(tiny: bool = False) -> Iterator[Result]:
    """The hop, then the six nodes."""
    yield hop(bursts=3 if tiny else 80, calls=3 if tiny else 50)
    yield six_nodes(rounds=2 if tiny else 8, count=5 if tiny else 80, period=0.0005 if tiny else 0.002)


def graph(nodes: int, *, packed: bool) -> Graph:
    """A chain of empty nodes in one lane."""
    registry = Registry()
    for kind in (Feed, Pass, Arrivals):
        registry.add(kind)
    names = [f"n{i}" for i in range(nodes)]
    text = (
        f"packed: {str(packed).lower()}\n"
        f"nodes: {{feed: feed, arrivals: arrivals, {', '.join(f'{name}: pass' for name in names)}}}\n"
        f"edges: ['feed -> {' -> '.join(names)} -> arrivals']\n"
    )
    return Graph.parse(text, registry).build()


def hop(bursts: int, calls: int) -> Result:
    """Microseconds a hop: one frame through a lane of twenty nodes, and through twenty queues and tasks."""
    lane, chain = lane_work(LONG), QueueChain(LONG)
    try:
        times = interleave({"queues": chain.burst, "lane": lane}, bursts=bursts, calls=calls)
    finally:
        chain.close()
    ours, peer = times["lane"], times["queues"]
    return Result(
        "graph_hop.lane", 1e6 * ours.cpu_s / LONG, "us", 1e6 * peer.cpu_s / LONG, "asyncio.Queue and a task a node",
        ratio(ours.cpu, peer.cpu), HOP_GOAL, len(ours.cpu), {"nodes": LONG, "wall_us": 1e6 * ours.wall_s / LONG},
    )  # fmt: skip


def lane_work(nodes: int, frames: int = 1) -> Work:
    """One call sends so many frames through a lane."""
    made = graph(nodes, packed=False)
    session = Session(made)
    session.prepare()
    lane = Lane("main", made.plan.lanes["main"])
    lane.join(session.cells)
    session.open_cells(lane.order)
    first, last = session.ports["feed -> n0.fine"], session.ports[f"n{nodes - 1} -> arrivals.fine"]
    frame = Frame.of("fine", TOKENS, position=0)

    def work() -> None:
        for _ in range(frames):
            first.put(frame)
        lane.turn()
        last.queue.clear()

    return work


class QueueChain:
    """Tasks that take from one queue and put into the next, on a loop of its own."""

    def __init__(self, nodes: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.queues: list[asyncio.Queue[Frame]] = [asyncio.Queue(16) for _ in range(nodes + 1)]
        self.tasks = [
            self.loop.create_task(self._pass(a, b)) for a, b in zip(self.queues, self.queues[1:], strict=False)
        ]
        self.frame = Frame.of("fine", TOKENS, position=0)

    async def _pass(self, source: asyncio.Queue[Frame], target: asyncio.Queue[Frame]) -> None:
        while True:
            await target.put(await source.get())

    async def _through(self) -> None:
        await self.queues[0].put(self.frame)
        await self.queues[-1].get()

    def burst(self) -> None:
        """One frame through the chain."""
        self.loop.run_until_complete(self._through())

    async def paced(self, count: int, period: float) -> list[float]:
        """Seconds from the first queue to the last of each of `count` frames."""
        waits = []
        for _ in range(count):
            await asyncio.sleep(period)
            begin = time.perf_counter()
            await self._through()
            waits.append(time.perf_counter() - begin)
        return waits

    def close(self) -> None:
        """End the tasks and the loop."""
        for task in self.tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*self.tasks, return_exceptions=True))
        self.loop.close()


def six_nodes(rounds: int, count: int, period: float) -> Result:
    """Milliseconds end to end, paced, with every edge packed; beside the same without packing, and the queues."""
    packed, plain, chain = graph(NODES, packed=True), graph(NODES, packed=False), QueueChain(NODES)
    waits: dict[str, list[list[float]]] = {"packed": [], "plain": [], "queues": []}
    paths: dict[str, Callable[[], Coroutine[Any, Any, Sequence[float]]]] = {
        "packed": lambda: through(packed, count, period),
        "plain": lambda: through(plain, count, period),
        "queues": lambda: chain.paced(count, period),
    }
    try:
        for _ in range(rounds):
            for name, path in paths.items():
                waits[name].append([1e3 * wait for wait in chain.loop.run_until_complete(path())])
    finally:
        chain.close()
    medians = {name: [median(each) for each in many] for name, many in waits.items()}
    every = [wait for each in waits["packed"] for wait in each]
    return Result(
        "graph_hop.six_nodes_packed", median(every), "ms", median(medians["queues"]),
        "six asyncio.Queue tasks, nothing packed", ratio(medians["packed"], medians["queues"]), PACKED_GOAL, len(every),
        {"p10": percentile(every, 0.1), "p99": percentile(every, 0.99), "p50_unpacked": median(medians["plain"])},
    )  # fmt: skip


async def through(made: Graph, count: int, period: float) -> list[float]:
    """Seconds from source to sink of each frame."""
    left: list[float] = []
    came: list[float] = []
    extra = {"count": count, "period": period, "left": left, "came": came}
    await run_graph(made, Session(made, extra=extra))
    return [b - a for a, b in zip(left, came, strict=True)]


def main() -> int:
    """Print the figures."""
    return run(results)


if __name__ == "__main__":
    raise SystemExit(main())
