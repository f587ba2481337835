"""Endless: neither memory nor the time of a step grows while a session goes on.

By default 3 simulated minutes are held against the first, since a tick of the tiny model takes about 5 ms; half an hour
is run by `TEST_MINUTES=30 pytest tests/integration/test_memory.py`, in about five minutes. Resident memory is held to
1 %, the number of live Python objects likewise, which sees a leak of a few bytes a tick; processor time, which a busy
machine disturbs, by the best of many windows.
"""

import gc
import itertools
import os
import time

import graphs
import psutil
import pytest

from audiolm.bundle import save_bundle
from audiolm.tiny import tiny_parts
from streamer import Graph, Session, Sink, run

MINUTES = float(os.environ.get("TEST_MINUTES", "3"))
MINUTE = 1500  # ticks
WINDOW = 75
TEXT = """
nodes: {clock: clock, semantic: semantic, coarse: coarse, fine: fine, decoder: decoder, output: gauge}
edges: [clock -> semantic -> coarse -> fine -> decoder -> output]
session: {mode: dream}
"""


class Gauge(Sink):
    """Every `WINDOW` ticks: resident bytes, live objects, processor time."""

    type_name = "gauge"
    accepts = ("audio",)

    async def write(self, frame, ctx, into):
        count = ctx.extra["count"] = ctx.extra["count"] + 1
        if count % WINDOW == 0:
            cpu = time.process_time()
            gc.collect()
            ctx.extra["seen"].append((psutil.Process().memory_info().rss, len(gc.get_objects()), cpu))


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_neither_memory_nor_step_time_grows(tmp_path):
    parts = tiny_parts(3, width=16, depth_width=16, heads=1, depth_heads=1)
    bundle = save_bundle(parts, tmp_path / "bundle", card="A random model for tests.\n")
    registry = graphs.registry()
    registry.add(Gauge)
    seen = []
    given = [f"bundle={bundle}", f"session.seconds={MINUTES * 60}"]
    with Graph.parse(TEXT, registry, overrides=given) as graph:
        await run(graph, Session(graph, extra={"count": 0, "seen": seen}))
    first, last = MINUTE // WINDOW - 1, len(seen) - 1
    assert last == round(MINUTES * MINUTE) // WINDOW - 1
    rss, objects, cpu = zip(*seen, strict=True)
    assert rss[last] <= 1.01 * rss[first], "resident memory grew"
    assert objects[last] <= 1.01 * objects[first], "objects pile up"
    steps = [b - a for a, b in itertools.pairwise(cpu)]
    assert min(steps[-15:]) <= 1.3 * min(steps[: first + 1]), "a step costs more than it did"
