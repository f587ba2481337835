import asyncio
import gc
import threading
import weakref

import fakes
import numpy as np
import pytest

from streamer import (
    ConfigError,
    Frame,
    Graph,
    GraphError,
    NodeError,
    Running,
    Session,
    SnapshotError,
    Source,
    StallError,
    run,
)
from streamer.snapshot import dumps, loads

PLAIN = "nodes: {src: count, a: add, out: collect}\nedges: [src -> a -> out]\n"
FED = PLAIN.replace("count", "fed")
LANES = """
nodes: {src: fed, d: {type: delay, ticks: 2}, a: add, m: mix, out: collect}
edges: [src -> d -> m.b, src -> a -> m.a, m -> out]
lanes: {x: [a], y: [d], z: [m]}
"""


class Fed(Source):
    """Frames when the test gives the word: `extra["feed"]` holds how many go next; 0 ends the stream."""

    type_name = "fed"
    emits = ("audio",)

    async def frames(self, ctx):
        done = 0
        while count := await ctx.extra["feed"].get():
            for i in range(done, done + count):
                value = np.full(640, i + ctx.extra.get("base", 0), np.float32)
                yield Frame.of("audio", value, position=i * 640, session=ctx.id)
            done += count
        yield Frame.end("audio", position=done * 640, session=ctx.id)


class Got(list):
    """What a sink got; `reach` waits until it is so much."""

    def __init__(self):
        self.grown = asyncio.Event()

    def append(self, item):
        super().append(item)
        self.grown.set()

    async def reach(self, count):
        while len(self) < count:
            self.grown.clear()
            await self.grown.wait()


class Slotted(fakes.Add):
    """Has two slots; fails at the frame, in the opening or in the closing, as the session says."""

    type_name = "slotted"
    free = 2

    def init_state(self, info):
        if not type(self).free:
            raise ConfigError("all slots are taken")
        if info.extra.get("fail") == "open":
            raise ValueError("will not open")
        type(self).free -= 1
        return super().init_state(info) | {"fail": info.extra.get("fail"), "thread": threading.get_ident()}

    def step(self, frame, state, into):
        if state["fail"] == state["n"]:
            raise ValueError("no more")
        return super().step(frame, state, into)

    def close(self, state):
        type(self).free += 1
        assert state["thread"] == threading.get_ident()
        if state["fail"] == "close":
            raise ValueError("will not close")


class Together(Slotted):
    """Steps its sessions together; whoever is to fail fails in that step, or in its own iterable."""

    type_name = "together"
    sizes = []  # noqa: RUF012

    def step_many(self, batch):
        type(self).sizes.append(len(batch))
        for _, state, _ in batch:
            if state["fail"] == state["n"]:
                raise ValueError("one of us")
        return [self.lazily(*item) if state_of(item)["fail"] == "lazily" else self.step(*item) for item in batch]

    def lazily(self, frame, state, into):
        yield from super().step(frame, state, into)
        if state["n"] == 3:
            raise ValueError("only I")


def state_of(item):
    return item[1]


@pytest.fixture
def registry(registry):
    for node in (Fed, Slotted, Together):
        registry.add(node)
    Slotted.free = Together.free = 2
    Together.sizes = []
    return registry


def session(graph, name="s", **extra):
    return Session(graph, name, extra={"got": Got(), "feed": asyncio.Queue(), **extra})


def got(made):
    return made.info.extra["got"]


def feed(made, *counts):
    for count in counts:
        made.info.extra["feed"].put_nowait(count)


def begin(running, made, **given):
    return asyncio.create_task(running.run(made, **given), name=f"test:{made.info.id}")


async def alone(text, registry, count, **extra):
    graph = Graph.parse(text, registry)
    made = session(graph, **extra)
    feed(made, count, 0)
    await run(graph, made)
    return got(made)


def assert_empty(running):
    """Nothing of any session is kept."""
    assert running.sessions == ()
    for driver in running._drivers:
        assert not driver.seats
        assert not driver.dirty
        assert not driver.lane.touched
        assert not driver.lane.failed
        assert not any(driver.lane.rows)


def lane_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("lane-")]


@pytest.mark.parametrize("text", [FED, LANES], ids=["one lane", "three lanes"])
async def test_sessions_come_and_go_while_others_go_on(registry, text):
    wanted = {base: await alone(text, registry, 40, base=base) for base in (0, 7, 9)}
    graph = Graph.parse(text, registry)
    async with Running(graph) as running:
        first, second, third = (session(graph, f"s{base}", base=base) for base in wanted)
        tasks = [begin(running, first)]
        feed(first, 15)
        await got(first).reach(10)
        tasks.append(begin(running, second))
        feed(second, 10)
        await got(second).reach(5)
        assert running.sessions == ("s0", "s7")
        feed(first, 25, 0)
        await tasks[0]
        assert (first.status, second.status) == ("ended", "running")
        assert running.sessions == ("s7",)
        tasks.append(begin(running, third))
        feed(third, 40, 0)
        feed(second, 30, 0)
        await asyncio.gather(*tasks)
        assert_empty(running)
    assert {0: got(first), 7: got(second), 9: got(third)} == wanted
    assert not lane_threads()


FAILURES = {
    "step": ({"a": "slotted"}, {"fail": 4}, r"node 'a' at position 2560.*no more"),
    "source": ({"src": "sick"}, {"sick": 4}, "caught fire"),
    "sink": ({"out": "picky"}, {"picky": 4}, "disk is full"),
    "kind": ({"a": "odd"}, {"odd": "kind"}, "declares only audio"),
    "end": ({"a": "odd"}, {"odd": "end"}, "no audio frame with LAST"),
    "wants": ({"a": "odd"}, {"odd": "wants"}, "node 'a'.*wants nothing"),
    "stall": ({"a": "odd"}, {"odd": "stall"}, r"stands still: src -> a\.audio is not taken"),
}


class Odd(fakes.Add):
    """Breaks the contract in the sessions that say so."""

    type_name = "odd"

    def init_state(self, info):
        return super().init_state(info) | {"odd": info.extra.get("odd")}

    def wants(self, state):
        if state["odd"] == "wants":
            raise ValueError("wants nothing")
        return frozenset() if state["odd"] == "stall" else None

    def step(self, frame, state, into):
        if state["odd"] == "kind" and state["n"] == 4:
            yield Frame.of("semantic", [1], position=frame.position)
        if state["odd"] != "end" or not frame.last:
            yield from super().step(frame, state, into)


class Sick(Fed):
    type_name = "sick"

    async def frames(self, ctx):
        async for frame in super().frames(ctx):
            if frame.position == 640 * ctx.extra.get("sick", -1):
                raise OSError("caught fire")
            yield frame


class Picky(fakes.Collect):
    type_name = "picky"

    async def write(self, frame, ctx, into):
        if len(ctx.extra["got"]) == ctx.extra.get("picky", -1):
            raise OSError("the disk is full")
        await super().write(frame, ctx, into)


@pytest.mark.parametrize("case", FAILURES)
async def test_one_that_fails_raises_its_own_error_and_disturbs_nobody(registry, case):
    for node in (Odd, Sick, Picky):
        registry.add(node)
    types, extra, message = FAILURES[case]
    text = FED
    for name, kind in types.items():
        text = text.replace({"src": "src: fed", "a": "a: add", "out": "out: collect"}[name], f"{name}: {kind}")
    wanted = await alone(text, registry, 30, base=3)
    graph = Graph.parse(text, registry)
    async with Running(graph) as running:
        good, bad = session(graph, "good", base=3), session(graph, "bad", **extra)
        task, failing = begin(running, good), begin(running, bad)
        feed(good, 10)
        feed(bad, 10, 0)
        with pytest.raises((NodeError, StallError), match=message) as error:
            await failing
        assert error.value.session == "bad" or case == "end"
        assert (bad.status, got(bad)[-1], good.status) == ("failed", "abort", "running")
        feed(good, 20, 0)
        await task
        assert_empty(running)
    assert got(good) == wanted
    assert [name for name in ("a", "src", "out") if name in types] == [getattr(error.value, "node", "a")]


@pytest.mark.parametrize("how", ["together", "alone"])
async def test_what_fails_in_a_common_step(registry, how):
    """It ends each session of that step, with an error of its own; an iterable that raises ends its session only."""
    text = FED.replace("add", "together")
    Together.free = 3
    wanted = await alone(text, registry, 12)
    graph = Graph.parse(text, registry)
    async with Running(graph) as running:
        bad = session(graph, "bad", fail=2 if how == "together" else "lazily")
        near, late = session(graph, "near"), session(graph, "late")
        tasks = [begin(running, bad), begin(running, near), begin(running, late)]
        for made in (bad, near):
            feed(made, 2)
            await got(made).reach(2)
        feed(late, 1)
        await got(late).reach(1)
        gate = threading.Event()
        holding = running._drivers[0].submit(gate.wait, 10)  # so that both frames are there when the lane looks
        feed(bad, 1)
        feed(near, 1 if how == "together" else 10, 0)
        while not all(made.ports["src -> a.audio"].queue for made in (bad, near)):  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0)
        gate.set()
        await holding
        await asyncio.wait(tasks[:2])
        feed(late, 11, 0)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert_empty(running)
    if how == "together":
        assert max(Together.sizes) >= 2
        assert [(error.session, "one of us" in str(error)) for error in results[:2]] == [("bad", True), ("near", True)]
        assert results[0] is not results[1]
        assert results[0].__cause__ is results[1].__cause__
    else:
        assert (results[0].session, results[1]) == ("bad", None)
        assert got(near) == wanted
    assert (results[2], got(late)) == (None, wanted)


async def test_sessions_of_one_call_end_together_and_others_go_on(registry):
    graph = Graph.parse(FED.replace("add", "slotted"), registry)
    Slotted.free = 3
    async with Running(graph) as running:
        bad, mate, other = (session(graph, name, fail=3 if name == "bad" else None) for name in ("bad", "mate", "x"))
        task = begin(running, other)
        feed(bad, 9)
        with pytest.raises(NodeError, match="no more"):
            await running.run(bad, mate)
        assert (mate.status, got(mate)) == ("failed", ["abort"])
        feed(other, 20, 0)
        await task
        assert len(got(other)) == 21


async def test_cancelling_one_run_ends_that_session_only(registry):
    wanted = await alone(LANES, registry, 30)
    graph = Graph.parse(LANES, registry)
    async with Running(graph) as running:
        good, bad = session(graph, "good"), session(graph, "bad")
        task, cancelled = begin(running, good), begin(running, bad)
        feed(good, 10)
        feed(bad, 10)
        await got(bad).reach(3)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert (bad.status, got(bad)[-1]) == ("failed", "abort")
        assert not [t for t in asyncio.all_tasks() if ":bad" in t.get_name()]
        feed(good, 20, 0)
        await task
        assert_empty(running)
    assert got(good) == wanted


async def test_cancelled_while_it_opens_its_state_is_closed(registry):
    graph = Graph.parse(FED.replace("add", "slotted"), registry)
    async with Running(graph) as running:
        gate = threading.Event()
        holding = running._drivers[0].submit(gate.wait, 10)
        made = session(graph)
        task = begin(running, made)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        gate.set()
        await holding
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (made.status, Slotted.free) == ("failed", 2)
        assert_empty(running)


async def test_slots_are_given_back_however_a_session_ends(registry):
    graph = Graph.parse(FED.replace("add", "slotted"), registry)
    async with Running(graph) as running:
        ends = {None: None, 3: "no more", "close": "will not close", "open": "will not open", "cancel": ""}
        for number, fail in enumerate([*ends] * 3):
            made = session(graph, f"s{number}", fail=fail)
            task = begin(running, made)
            feed(made, 9, *([] if fail == "cancel" else [0]))
            if fail == "cancel":
                await got(made).reach(2)
                task.cancel()
            [error] = await asyncio.gather(task, return_exceptions=True)
            assert (error is None) == (ends[fail] is None)
            assert (ends[fail] or "") in str(error)
            assert Slotted.free == 2
        holders = [session(graph, name) for name in "ab"]
        tasks = [begin(running, made) for made in holders]
        for made in holders:
            feed(made, 2)
            await got(made).reach(1)
        with pytest.raises(NodeError, match="all slots are taken") as error:
            await running.run(session(graph, "c"))
        assert error.value.exit_code == 2
        for made in holders:
            feed(made, 0)
        await asyncio.gather(*tasks)
        await running.run(*feeding(graph, "c"))


def feeding(graph, *names):
    made = [session(graph, name) for name in names]
    for each in made:
        feed(each, 3, 0)
    return made


@pytest.mark.parametrize("fail", ["open", "close"])
async def test_failing_to_open_or_close_is_an_error_of_that_session(registry, fail):
    graph = Graph.parse(FED.replace("add", "slotted"), registry)
    async with Running(graph) as running:
        good, bad = session(graph, "good"), session(graph, "bad", fail=fail)
        task = begin(running, good)
        feed(good, 5)
        feed(bad, 5, 0)
        with pytest.raises(NodeError, match=f"node 'a'.*will not {fail}"):
            await running.run(bad)
        assert got(bad)[-1] == ("abort" if fail == "open" else "end")
        feed(good, 5, 0)
        await task
        assert len(got(good)) == 11
        assert_empty(running)


async def test_what_fails_in_closing_is_a_note_to_what_failed_before(registry):
    class Worse(fakes.Collect):
        type_name = "worse"

        async def abort(self, ctx):
            raise OSError("the disk is gone")

    registry.add(Worse)
    graph = Graph.parse(FED.replace("add", "slotted").replace("collect", "worse"), registry)
    made = session(graph, fail=2)
    feed(made, 5)
    async with Running(graph) as running:
        with pytest.raises(NodeError, match="no more") as error:
            await running.run(made)
    assert "the disk is gone" in error.value.__notes__[0]
    assert Slotted.free == 2


async def test_many_short_sessions_in_a_row_leave_nothing_behind(registry):
    graph = Graph.parse(LANES, registry)
    async with Running(graph) as running:
        kept = []
        for number in range(200):
            made = session(graph, f"s{number}")
            feed(made, 3, 0)
            await running.run(made)
            assert got(made)[-1] == "end"
            kept.append(weakref.ref(made))
        del made
        assert_empty(running)
        named = {task.get_name() for task in asyncio.all_tasks() - {asyncio.current_task()}}
        assert named == {"lanes", "lane:x", "lane:y", "lane:z", "watchdog"}
        assert len(lane_threads()) == 3
        await asyncio.gather(*(driver.call(int) for driver in running._drivers))  # the threads have let go of theirs
        gc.collect()
        assert [ref for ref in kept if ref() is not None] == []


async def test_a_session_waits_for_the_step_of_another_and_not_for_its_turn(registry):
    inside, release, taken = threading.Event(), threading.Event(), []

    class Busy(fakes.Add):
        type_name = "busy"

        def init_state(self, info):
            taken.append(info.id)
            return super().init_state(info)

        def step(self, frame, state, into):
            taken.append(frame.position // 640)
            if len(taken) == 4:
                inside.set()
                release.wait(10)
            return (frame,) if frame.last else ()

    registry.add(Busy)
    graph = Graph.parse(FED.replace("add", "busy"), registry)
    async with Running(graph) as running:
        first, second = session(graph, "first"), session(graph, "second")
        feed(first, 12, 0)
        tasks = [begin(running, first)]
        await asyncio.to_thread(inside.wait)
        feed(second, 0)
        tasks.append(begin(running, second))
        await asyncio.sleep(0)
        release.set()
        await asyncio.gather(*tasks)
    assert taken[:5] == ["first", 0, 1, 2, "second"]


async def test_stop_finishes_one_and_not_the_others(registry):
    graph = Graph.parse(PLAIN.replace("count", "endless"), registry)
    async with Running(graph) as running:
        first, second, third = (session(graph, name) for name in "abc")
        tasks = [begin(running, first), begin(running, second)]
        await got(first).reach(5)
        first.stop()
        await tasks[0]
        assert (got(first)[-1], second.status) == ("end", "running")
        tasks.append(begin(running, third))
        await asyncio.sleep(0)
        third.stop()  # while it opens
        await tasks[2]
        second.stop()
        await tasks[1]
        assert got(second)[-1] == got(third)[-1] == "end"


async def test_a_snapshot_of_one_while_others_run(registry):
    """It is the same as that of a session alone, and disturbs nobody."""

    def comparable(data):
        saved = loads(data)
        for port in saved["ports"].values():
            port.pop("high")
        return dumps(saved | {"metrics": None})

    wanted = await alone(LANES, registry, 30)
    graph = Graph.parse(LANES, registry)
    single = session(graph)
    feed(single, 30, 0)
    await run(graph, single, until=11 * 640)
    async with Running(graph) as running:
        made, other = session(graph), session(graph, "other")
        tasks = [begin(running, made), begin(running, other)]
        feed(other, 20)
        await got(other).reach(4)
        asked = made.request_snapshot(11 * 640)
        feed(made, 30, 0)
        blob = await asked
        assert comparable(blob) == comparable(single.snapshot())
        await tasks[0]
        again = Session.restore(graph, blob, extra={"got": Got(), "feed": asyncio.Queue()})
        feed(again, 30, 0)
        await running.run(again)
        paused = session(graph, "paused")
        feed(paused, 30, 0)
        await running.run(paused, until=5 * 640)
        assert (paused.status, other.status) == ("paused", "running")
        feed(other, 10, 0)
        await tasks[1]
        assert_empty(running)
    assert got(made) == got(other) == wanted
    assert got(single) + got(again) == wanted
    assert got(paused) == wanted[: len(got(paused))]


async def test_leaving_the_block_ends_who_still_runs(registry):
    graph = Graph.parse(FED.replace("add", "slotted"), registry)
    made = session(graph)
    async with Running(graph) as running:
        task = begin(running, made)
        feed(made, 5)
        await got(made).reach(2)
        asked = made.request_snapshot(100 * 640)
    with pytest.raises(GraphError, match="'s' was ended: its graph stops running"):
        await task
    assert asked.cancelled()
    assert (made.status, got(made)[-1], Slotted.free) == ("failed", "abort", 2)
    with pytest.raises(GraphError, match="inside `async with"):
        await running.run(session(graph))
    with pytest.raises(GraphError, match="make a new one"):
        await running.__aenter__()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert not lane_threads()


async def test_what_cannot_begin_is_refused(registry):
    graph, other = Graph.parse(FED, registry), Graph.parse(FED, registry)
    async with Running(graph) as running:
        made = session(graph)
        task = begin(running, made)
        feed(made, 2)
        await got(made).reach(1)
        with pytest.raises(GraphError, match="a session 's' runs already"):
            await running.run(session(graph))
        with pytest.raises(GraphError, match="made for another graph"):
            await running.run(session(other, "t"))
        feed(made, 0)
        await task
        with pytest.raises(GraphError, match="make a new Session"):
            await running.run(made)
        with pytest.raises(SnapshotError):
            Session.restore(graph, b"")
        await running.run()


async def test_an_error_of_the_lane_itself_ends_all_and_hangs_nobody(registry):
    graph = Graph.parse(FED, registry)

    def turn():
        raise RuntimeError("a bug")

    async def through():
        async with Running(graph) as running:
            tasks = [begin(running, session(graph, name)) for name in "ab"]
            running._drivers[0].lane.turn = turn
            for task in tasks:
                with pytest.raises(RuntimeError, match="a bug"):
                    await task
            with pytest.raises(GraphError, match="does not run"):
                await running.run(session(graph))

    with pytest.raises(RuntimeError, match="a bug"):
        await through()
    assert not lane_threads()
