"""A plain chain of `asyncio.Queue` as a peer of its own: the floor of what a graph on an event loop costs."""

import argparse
import asyncio
import platform

from benchmarks.peers.talk import Prepared, serve
from benchmarks.peers.workers.paced import MANY, NODES, figures, queue_hop, queue_waits


def make(chosen: argparse.Namespace) -> Prepared:
    """The chain, measured like every graph."""

    async def measure() -> dict[str, float]:
        reference, hop = await queue_hop(chosen.tiny), await queue_hop(chosen.tiny)
        return figures(reference, hop, await queue_hop(chosen.tiny, MANY), await queue_waits(chosen.tiny))

    return Prepared(f"Python {platform.python_version()}", lambda: asyncio.run(measure()), {"nodes": NODES})


def main() -> int:
    """Speak to the command."""
    return serve(make)


if __name__ == "__main__":
    raise SystemExit(main())
