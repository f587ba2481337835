"""A bad night in a minute: the line to the broker breaks again and again, and nothing is lost, and nothing grows."""

import asyncio
import gc
import os
import threading

import psutil
import pytest
from bad_line import BadLine
from graphs_over_topics import STRICT_IN, STRICT_OUT, numbers, play, reader, session, until, writer

from streamer.nodes.mqtt import client as client_module

CUTS = int(os.environ.get("TEST_CUTS", "150"))  # thousands for a whole night: TEST_CUTS=5000
FRAMES = 4 * CUTS


@pytest.mark.slow
@pytest.mark.timeout(60 + 2 * CUTS)
async def test_a_night_of_broken_connections(make_broker, monkeypatch):
    monkeypatch.setattr(client_module, "FIRST_PAUSE", 0.005)
    monkeypatch.setattr(client_module, "LONGEST_PAUSE", 0.02)
    broker = make_broker()
    async with BadLine(broker) as line:
        write, read = writer(line, out=STRICT_OUT, say="pause: 0.01"), reader(line, how=STRICT_IN)
        said, heard = session(write, ticks=FRAMES), session(read)
        got = heard.info.extra["got"]
        async with asyncio.timeout(50 + 2 * CUTS), asyncio.TaskGroup() as group:
            group.create_task(play(read, heard))
            sending = group.create_task(play(write, said))
            await until(lambda: len(got) > 5)
            breaking = group.create_task(break_it(line, got))
            await sending
            breaking.cancel()
        assert numbers(got) == list(range(FRAMES))
        assert line.cuts >= CUTS // 2
        assert line.made >= line.cuts
        print(f"{line.cuts} cuts, {line.made} connections, {FRAMES} frames")  # noqa: T201 - for a long night


async def break_it(line, got):
    """Cut as soon as something has come through since the last cut; look that nothing grows with the cuts."""
    process, sizes = psutil.Process(), []
    while True:
        seen = len(got)
        await until(lambda seen=seen: len(got) > seen, 60)
        await asyncio.sleep(0.02)
        line.cut()
        if line.cuts in (20, CUTS // 2 - 1):
            gc.collect()
            sizes.append((process.num_fds(), threading.active_count(), len(asyncio.all_tasks())))
            assert all(late <= early + 12 for early, late in zip(sizes[0], sizes[-1], strict=True)), sizes
