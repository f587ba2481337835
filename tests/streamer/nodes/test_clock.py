import asyncio

import pytest

from streamer import ConfigError, Graph, Session, run
from streamer.config import parse
from streamer.node import Build, SessionInfo
from streamer.nodes.clock import ClockSettings, ClockSource


async def ticks(ctx=None, **settings):
    clock = ClockSource(ClockSettings(**settings), Build("clock"))
    return [frame async for frame in clock.frames(ctx or SessionInfo(seconds=1.0))]


async def test_one_tick_per_step_the_last_with_last():
    found = await ticks(seconds=2.0)
    assert [f.position for f in found] == [i * 640 for i in range(50)]
    assert [f.last for f in found] == [False] * 49 + [True]
    assert all(f.samples == 640 and f.kind == "tick" and not f.payload for f in found)


async def test_the_session_says_how_long_when_the_settings_do_not():
    assert len(await ticks()) == 25


async def test_less_than_half_a_tick_only_ends():
    (end,) = await ticks(seconds=0.01)
    assert (end.last, end.samples) == (True, 0)


async def test_another_tick():
    found = await ticks(seconds=0.8, tick_samples=1280)
    assert [f.position for f in found] == [i * 1280 for i in range(10)]


async def test_realtime_is_paced():
    loop = asyncio.get_running_loop()
    before = loop.time()
    await ticks(seconds=0.12, realtime=True)
    assert loop.time() - before >= 0.079


@pytest.mark.parametrize("seconds", ["-1", "0", ".inf", ".nan", "x", "1e9"])
def test_absurd_lengths_are_refused(registry, seconds):
    text = f"nodes: {{c: {{type: clock, seconds: {seconds}}}, r: {{type: record, path: x}}}}\nedges: [c -> r]"
    with pytest.raises(ConfigError, match=r"nodes\.c\.seconds"):
        Graph.load(parse(text), registry)


async def test_an_endless_clock_stops(registry, tmp_path):
    text = f"session: {{seconds: null}}\nnodes: {{c: clock, r: {{type: record, path: {tmp_path}/x}}}}\nedges: [c -> r]"
    graph = Graph.load(parse(text), registry)
    session = Session(graph)
    task = asyncio.create_task(run(graph, session))
    await asyncio.sleep(0.02)
    session.stop()
    await task
    assert (tmp_path / "x").stat().st_size > 100
