"""pipecat: twenty processors that hand a frame on. A hop is counted between the first and the last of them."""

import argparse
import asyncio
import importlib.metadata
import time
from dataclasses import dataclass
from typing import Any

from loguru import logger
from pipecat.frames.frames import DataFrame, EndFrame, Frame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.filters.identity_filter import IdentityFilter
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

from benchmarks.peers.talk import Prepared, serve
from benchmarks.peers.workers.paced import BURST, FRAMES, MANY, NODES, PERIOD, figures, queue_hop


@dataclass
class Tokens(DataFrame):  # type: ignore[misc]
    """A frame of some bytes."""

    payload: bytes = bytes(48)


class Mark(FrameProcessor):  # type: ignore[misc]
    """Counts frames of ours, notes when the first (`first`) or latest came, in CPU and wall time, and hands them on."""

    def __init__(self, *, first: bool = False) -> None:
        super().__init__()
        self.first, self.seen, self.cpu, self.wall = first, 0, 0.0, 0.0
        self.came = asyncio.Event()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Note and pass."""
        await super().process_frame(frame, direction)
        if isinstance(frame, Tokens):
            if not (self.first and self.seen):
                self.cpu, self.wall = time.thread_time(), time.perf_counter()
            self.seen += 1
            self.came.set()
        await self.push_frame(frame, direction)


async def measure(tiny: bool) -> dict[str, float]:
    """A pipeline from start to end, with a burst and then a paced stream in it."""
    reference = await queue_hop(tiny)
    first, last = Mark(first=True), Mark()
    pipeline = Pipeline([first, *(IdentityFilter() for _ in range(NODES - 1)), last])
    worker = PipelineWorker(pipeline, enable_rtvi=False, enable_turn_tracking=False, idle_timeout_secs=None)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    hop = await hops(worker, first, last, 3 if tiny else BURST, 1)
    many = await hops(worker, first, last, 3 if tiny else BURST // MANY, MANY)
    waits = []
    for _ in range(3 if tiny else FRAMES):
        await asyncio.sleep(PERIOD)
        begin = time.perf_counter()
        await send(worker, last, 1)
        waits.append(last.wall - begin)
    await worker.queue_frame(EndFrame())
    await running
    return figures(reference, hop, many, waits)


async def hops(worker: Any, first: Mark, last: Mark, count: int, frames: int) -> float:
    """CPU seconds a hop of a frame: from when the first of them enters to when the last leaves."""
    spent = 0.0
    for _ in range(count):
        first.seen = last.seen = 0
        await send(worker, last, frames)
        spent += last.cpu - first.cpu
    return spent / count / frames / NODES


async def send(worker: Any, last: Mark, frames: int) -> None:
    """Frames through, all at once."""
    last.seen = 0
    last.came.clear()
    for _ in range(frames):
        await worker.queue_frame(Tokens())
    while last.seen < frames:
        last.came.clear()
        await asyncio.wait_for(last.came.wait(), 10)


def make(chosen: argparse.Namespace) -> Prepared:
    """Quiet, and a new pipeline for each round."""
    logger.remove()
    version = importlib.metadata.version("pipecat-ai")
    return Prepared(version, lambda: asyncio.run(measure(chosen.tiny)), {"nodes": NODES})


def main() -> int:
    """Speak to the command."""
    return serve(make)


if __name__ == "__main__":
    raise SystemExit(main())
