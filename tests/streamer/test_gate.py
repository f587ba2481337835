"""Snapshots of sessions that run: who is held, what waits, who goes on; and live sources in a restored session."""

import asyncio
import threading

import numpy as np
import pytest

from streamer import Frame, Graph, Node, Registry, Session, Sink, SnapshotError, Source, run
from streamer.snapshot import loads

LIMIT = 30.0
TICK = 640
TEXT = """
nodes: {mic: taps, quiet: {type: taps}, a: notes, b: notes, out: kept, side: kept}
edges: [mic -> a -> b -> out, quiet -> side]
lanes: {one: [a], two: [b]}
"""


class Taps(Source):
    """A live source whose ticks a test lets out: `ctx.extra[name]` is a queue of numbers, None ends it."""

    type_name = "taps"
    emits = ("audio",)
    live = True

    async def frames(self, ctx):
        at = 0
        while (value := await ctx.extra[self.name].get()) is not None:
            yield Frame.of("audio", np.full(TICK, value, np.float32), position=at * TICK, session=ctx.id, seq=at)
            at += 1
        yield Frame.end("audio", position=at * TICK, session=ctx.id, seq=at)


class Notes(Node):
    """Passes sound on and notes commands; a test may hold its `save` or make it fail."""

    type_name = "notes"
    accepts = ("audio", "control")
    optional = ("control",)
    emits = ("audio",)

    def __init__(self, config, build):
        super().__init__(config, build)
        self.saving, self.may_save = threading.Event(), threading.Event()
        self.may_save.set()
        self.fails = False

    def init_state(self, info):
        return {"commands": [], "ticks": 0}

    def step(self, frame, state, into):
        if frame.kind == "control":
            state["commands"].append(frame.meta["command"])
            return
        state["ticks"] += bool(frame.payload)
        yield frame

    def save(self, state):
        self.saving.set()
        assert self.may_save.wait(LIMIT)
        if self.fails:
            raise TypeError("it is a live thing")
        return {**state, "commands": list(state["commands"])}


class Kept(Sink):
    type_name = "kept"
    accepts = ("audio",)
    live = True

    async def write(self, frame, ctx, into):
        await ctx.extra["got"].put((self.name, frame.position // TICK, frame.seq, float(frame.array[:1].sum())))


@pytest.fixture
def registry():
    made = Registry.with_builtins()
    for kind in (Taps, Notes, Kept):
        made.add(kind)
    return made


def extra():
    return {"mic": asyncio.Queue(), "quiet": asyncio.Queue(), "got": asyncio.Queue()}


class Playing:
    """A session on the graph while it runs; `tick` puts one number in and gives what came out of it."""

    def __init__(self, registry, blob=None):
        self.graph = Graph.parse(TEXT, registry).build()
        self.extra = extra()
        if blob is None:
            self.session = Session(self.graph, extra=self.extra)
        else:
            self.session = Session.restore(self.graph, blob, extra=self.extra)

    async def __aenter__(self):
        self.task = asyncio.create_task(run(self.graph, self.session))
        return self

    async def __aexit__(self, kind, *exc):
        if kind is None and not self.task.done():
            await self.end()
        self.task.cancel()

    async def tick(self, value, name="mic"):
        await self.extra[name].put(value)
        return await self.got()

    async def got(self):
        """What comes out next; raises what ended the session if nothing does any more."""
        got = asyncio.create_task(self.extra["got"].get())
        await asyncio.wait([got, self.task], timeout=LIMIT, return_when=asyncio.FIRST_COMPLETED)
        if not got.done():
            got.cancel()
            await self.task
        return await got

    async def end(self):
        for name in ("mic", "quiet"):
            await self.extra[name].put(None)
        async with asyncio.timeout(LIMIT):
            await self.task

    async def snapshot(self):
        async with asyncio.timeout(LIMIT):
            return await self.session.request_snapshot()


async def test_a_source_that_brings_nothing_holds_up_neither_the_snapshot_nor_the_sound(registry):
    async with Playing(registry) as playing:
        assert await playing.tick(1) == ("out", 0, 0, 1.0)
        saved = loads(await playing.snapshot())
        assert saved["cells"]["a"]["state"]["ticks"] == 1
        assert saved["reached"] == {"mic": TICK, "quiet": 0}
        assert await playing.tick(2) == ("out", 1, 1, 2.0)
        assert await playing.tick(3, "quiet") == ("side", 0, 0, 3.0)
        again = loads(await playing.snapshot())
        assert again["reached"] == {"mic": 2 * TICK, "quiet": TICK}


async def test_what_comes_while_it_is_saved_waits_and_is_not_lost(registry):
    async with Playing(registry) as playing:
        node = playing.graph.nodes["b"]
        await playing.tick(1)
        node.may_save.clear()
        wanted = playing.session.request_snapshot()
        await asyncio.to_thread(node.saving.wait, LIMIT)
        await playing.extra["mic"].put(2)
        for _ in range(20):
            await asyncio.sleep(0)
        assert playing.extra["got"].empty()
        assert not wanted.done()
        node.may_save.set()
        saved = loads(await wanted)
        assert [saved["cells"][name]["state"]["ticks"] for name in "ab"] == [1, 1]
        assert all(not port["frames"] for port in saved["ports"].values())
        assert await playing.got() == ("out", 1, 1, 2.0)


@pytest.mark.parametrize("command", ["mute", "interrupt"])
async def test_a_command_is_in_all_of_a_snapshot_or_in_none_of_it(registry, command):
    async with Playing(registry) as playing:
        node = playing.graph.nodes["b"]
        playing.session.send("early")
        await playing.tick(1)
        node.may_save.clear()
        wanted = playing.session.request_snapshot()
        await asyncio.to_thread(node.saving.wait, LIMIT)
        if command == "interrupt":
            playing.session.interrupt()
        else:
            playing.session.send(command)
        await asyncio.sleep(0.01)
        node.may_save.set()
        saved = loads(await wanted)
        assert [saved["cells"][name]["state"]["commands"] for name in "ab"] == [["early"], ["early"]]
        assert saved["epoch"] == 0
        await playing.tick(2)
        later = loads(await playing.snapshot())
        assert [later["cells"][name]["state"]["commands"] for name in "ab"] == [["early", command]] * 2
        assert later["epoch"] == (command == "interrupt")


async def test_what_cannot_be_saved_is_the_error_of_who_asked(registry):
    async with Playing(registry) as playing:
        await playing.tick(1)
        playing.graph.nodes["a"].fails = True
        with pytest.raises(Exception, match=r"node 'a'.*a live thing"):
            await playing.snapshot()
        assert await playing.tick(2) == ("out", 1, 1, 2.0)
        playing.graph.nodes["a"].fails = False
        assert loads(await playing.snapshot())["reached"]["mic"] == 2 * TICK


async def test_a_sink_that_cannot_be_saved(registry, monkeypatch):
    def broken(self, ctx):
        raise OSError("disk full")

    monkeypatch.setattr(Kept, "save", broken)
    async with Playing(registry) as playing:
        await playing.tick(1)
        with pytest.raises(SnapshotError, match="cannot be saved: OSError: disk full"):
            await playing.snapshot()
        assert await playing.tick(2) == ("out", 1, 1, 2.0)


async def test_a_request_can_be_taken_back(registry):
    async with Playing(registry) as playing:
        await playing.tick(1)
        wanted = playing.session.request_snapshot(2 * TICK)
        await playing.tick(2)
        await playing.extra["mic"].put(3)
        for _ in range(20):
            await asyncio.sleep(0)
        assert playing.extra["got"].empty()
        assert not wanted.done()
        wanted.cancel()
        assert await playing.got() == ("out", 2, 2, 3.0)
        assert loads(await playing.snapshot())["reached"]["mic"] == 3 * TICK


async def test_a_session_that_is_told_to_end_while_it_is_saved(registry):
    async with Playing(registry) as playing:
        await playing.tick(1)
        node = playing.graph.nodes["b"]
        node.may_save.clear()
        wanted = playing.session.request_snapshot()
        await asyncio.to_thread(node.saving.wait, LIMIT)
        playing.session.stop()
        await asyncio.sleep(0)
        node.may_save.set()
        with pytest.raises(SnapshotError, match="told to end"):
            await wanted
        async with asyncio.timeout(LIMIT):
            await playing.task
        assert playing.session.status == "ended"


async def test_a_live_source_of_a_restored_session_begins_at_the_present(registry):
    async with Playing(registry) as playing:
        for value in (1, 2, 3):
            await playing.tick(value)
        await playing.tick(9, "quiet")
        blob = await playing.snapshot()
    async with Playing(registry, blob) as again:
        assert await again.tick(7) == ("out", 3, 3, 7.0), "nothing is skipped, and the clock goes on"
        assert await again.tick(8, "quiet") == ("side", 3, 1, 8.0), "live sources keep together"
        assert loads(await again.snapshot())["reached"] == {"mic": 4 * TICK, "quiet": 4 * TICK}
        third = await again.snapshot()
        await again.end()
        ends = {await again.extra["got"].get() for _ in range(2)}
        assert ends == {("out", 4, 4, 0.0), ("side", 4, 2, 0.0)}
    async with Playing(registry, third) as third:
        assert await third.tick(1) == ("out", 4, 4, 1.0)


async def test_control_that_is_due_at_once_stays_so(registry):
    class Knob(Source):
        type_name = "knob"
        emits = ("control",)
        live = True

        async def frames(self, ctx):
            yield Frame.control("turned")
            yield Frame.control("later", position=5 * TICK)

    registry.add(Knob)
    graph = Graph.parse("nodes: {mic: taps, k: knob, a: notes, out: kept}\nedges: [mic -> a -> out, k -> a]", registry)
    session = Session(graph, extra=extra())
    session.reached = {"mic": 10 * TICK, "k": 0}
    placed = session.placed("k")
    assert [placed(Frame.control("x", position=at)).position for at in (0, 5 * TICK)] == [0, 15 * TICK]


async def test_a_command_for_a_paused_session_waits_for_it(registry):
    async with Playing(registry) as playing:
        await playing.tick(1)
        blob = await playing.snapshot()
    again = Playing(registry, blob)
    again.session.send("mute")
    async with again:
        await again.tick(2)
        assert loads(await again.snapshot())["cells"]["b"]["state"]["commands"] == ["mute"]


async def test_counters_may_begin_at_nothing(registry):
    async with Playing(registry) as playing:
        await playing.tick(1)
        playing.session.metrics.count("a.things", 5)
        blob = await playing.snapshot()
    for recount, samples, things in ((True, TICK, 5), (False, 0, 0)):
        session = Session.restore(playing.graph, blob, extra=extra(), recount=recount)
        session.prepare()
        assert (session.metrics.audio_samples, session.metrics.counters.get("a.things", 0)) == (samples, things)
