"""Our graph: a hop inside a lane, and twenty empty nodes from source to sink, paced."""

import argparse
import asyncio
import importlib.metadata
import time

from benchmarks.common import Work
from benchmarks.graph_hop import graph, lane_work, through
from benchmarks.peers.talk import Prepared, serve
from benchmarks.peers.workers.paced import BURST, FRAMES, MANY, NODES, PERIOD, figures, queue_hop


def make(chosen: argparse.Namespace) -> Prepared:
    """A lane that is stepped by hand, and a graph that runs."""
    one, many, made = lane_work(NODES), lane_work(NODES, MANY), graph(NODES, packed=False)
    count, frames = (3, 3) if chosen.tiny else (BURST, FRAMES)

    def measure() -> dict[str, float]:
        reference = asyncio.run(queue_hop(chosen.tiny))
        hop, together = hop_of(one, count), hop_of(many, count) / MANY
        return figures(reference, hop, together, asyncio.run(through(made, frames, PERIOD)))

    return Prepared(importlib.metadata.version("audiolm-streamer"), measure, {"nodes": NODES})


def hop_of(work: Work, count: int) -> float:
    """CPU seconds a node and call."""
    work()
    begin = time.thread_time()
    for _ in range(count):
        work()
    return (time.thread_time() - begin) / count / NODES


def main() -> int:
    """Speak to the command."""
    return serve(make)


if __name__ == "__main__":
    raise SystemExit(main())
