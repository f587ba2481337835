"""What the graph itself costs: nodes that do nothing, measured."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import numpy as np

from streamer.frame import AUDIO, Frame
from streamer.graph import Graph
from streamer.node import Node, SessionInfo, Sink, Source
from streamer.registry import Registry
from streamer.runtime import run
from streamer.session import Session

TICK: Final = 640
CHAIN: Final = 21  # nodes of the long chain; the short one has one
FRAMES: Final = 2000
PACED: Final = 200  # frames of the latency measurement
PERIOD: Final = 0.004  # seconds between them


class _Feed(Source):
    """Frames of silence, at once or paced; notes when each one left."""

    type_name = "feed"
    emits = (AUDIO,)

    async def frames(self, ctx: SessionInfo) -> AsyncIterator[Frame]:
        """As many as `ctx.extra` says."""
        silence, left = np.zeros(TICK, np.float32), ctx.extra["left"]
        for number in range(ctx.extra["count"]):
            if ctx.extra["period"]:
                await asyncio.sleep(ctx.extra["period"])
            left.append(time.perf_counter())
            yield Frame.of(AUDIO, silence, position=number * TICK, session=ctx.id, seq=number)
        yield Frame.end(AUDIO, position=ctx.extra["count"] * TICK, session=ctx.id)


class _Pass(Node):
    """Hands its frame on."""

    type_name = "pass"
    accepts = (AUDIO,)
    emits = (AUDIO,)

    def step(self, frame: Frame, state: Any, input: str) -> Iterable[Frame]:  # noqa: A002
        """The same frame."""
        _ = state, input
        return (frame,)


class _Count(Sink):
    """Notes when each frame came."""

    type_name = "count"
    accepts = (AUDIO,)

    async def write(self, frame: Frame, ctx: SessionInfo, input: str) -> None:  # noqa: A002
        """Note the time."""
        _ = input
        if frame.payload:
            ctx.extra["came"].append(time.perf_counter())


def measure() -> list[dict[str, Any]]:
    """One record for the cost of a hop inside a lane, one for six empty nodes with every edge packed."""
    short, long = (_through(nodes, FRAMES) for nodes in (1, CHAIN))
    hop_us = 1e6 * (long - short) / (FRAMES * (CHAIN - 1))
    waits = _latencies(6)
    six = {name: round(waits[min(len(waits) - 1, int(share * len(waits)))], 4) for name, share in _SHARES}
    return [
        {"bench": "hop", "what": "one hop inside a lane", "us": round(hop_us, 3)},
        {"bench": "six_packed", "what": "six empty nodes, frames packed on every edge, paced", "ms": six},
    ]


_SHARES: Final = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))


def _through(nodes: int, count: int) -> float:
    """Seconds for `count` frames through a chain, the median of three."""
    return statistics.median(_run(nodes, count, 0.0, packed=False)[1][-1] for _ in range(3))


def _latencies(nodes: int) -> list[float]:
    """Milliseconds from source to sink of each frame, in order of size."""
    left, came = _run(nodes, PACED, PERIOD, packed=True)
    return sorted(1000 * (b - a) for a, b in zip(left, came, strict=True))


def _run(nodes: int, count: int, period: float, *, packed: bool) -> tuple[list[float], list[float]]:
    """Seconds from the first frame at which each one left and came."""
    registry = Registry()
    for kind in (_Feed, _Pass, _Count):
        registry.add(kind)
    names = [f"n{i}" for i in range(nodes)]
    text = "\n".join([
        f"packed: {str(packed).lower()}",
        f"nodes: {{feed: feed, count: count, {', '.join(f'{name}: pass' for name in names)}}}",
        f"edges: [feed -> {' -> '.join(names)} -> count]",
    ])  # fmt: skip
    left: list[float] = []
    came: list[float] = []
    extra = {"count": count, "period": period, "left": left, "came": came}
    with Graph.parse(text, registry) as graph:
        asyncio.run(run(graph, Session(graph, extra=extra)))
    return [at - left[0] for at in left], [at - left[0] for at in came]
