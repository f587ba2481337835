"""A node that raises, hangs or floods: what becomes of it, of its session, and of everybody else."""

import asyncio
import gc
import queue
import sys
import threading
import weakref
from typing import ClassVar

import fakes
import numpy as np
import pytest
import soundfile
import structlog
from pydantic import Field

from streamer import ConfigError, Frame, Graph, GraphError, Node, NodeError, Running, Session, Settings, run
from streamer.cell import Cell
from streamer.config import parse
from streamer.isolate import RESTARTS, Guard
from streamer.lane import AbandonedError, Lane
from streamer.port import Inbox, Port, PortSpec
from streamer.watchdog import MOST_LEFT, Watchdog

TICK = 640
BYPASS = Guard("bypass")
TEXT = """
nodes: {src: {type: count, ticks: TICKS}, a: {type: shaky, on_error: POLICY MORE}, out: collect}
edges: [src -> a -> out]
"""


class ShakySettings(Settings):
    at: list[int] = Field(default=[4])
    how: str = "raise"
    add: float = 0.5


class Shaky(Node):
    """Adds a number; fails at the frames of these numbers, in the way it is told."""

    type_name = "shaky"
    accepts = ("audio",)
    emits = ("audio",)
    Config = ShakySettings
    gate = threading.Event()  # what hangs waits for it
    closed: ClassVar = []
    entered = threading.Event()

    def init_state(self, info):
        return {"steps": 0}

    def close(self, state):
        self.closed.append((threading.current_thread().name, dict(state)))
        if self.config.how == "close" and len(self.closed) == 1:
            raise OSError("will not close")

    def step(self, frame, state, into):
        state["steps"] += 1
        if frame.position // TICK in self.config.at and (frame.payload or self.config.how == "last"):
            return self.failing(frame)
        return self.giving(frame)

    def giving(self, frame):
        if not frame.payload:
            return (frame,)
        return (Frame.of("audio", frame.array + np.float32(self.config.add), position=frame.position, like=frame),)

    def failing(self, frame):
        how = self.config.how
        if how in ("raise", "close", "last"):
            raise ValueError("no more")
        if how == "hang":
            self.entered.set()
            self.gate.wait(30)
            return self.giving(frame)
        return getattr(self, how)(frame)

    def late(self, frame):
        """Fails after it has given the frame."""
        yield from self.giving(frame)
        raise ValueError("no more, after one")

    def lazily(self, frame):
        """Hangs when it is asked for a second frame."""
        yield from self.giving(frame)
        self.entered.set()
        self.gate.wait(30)
        yield frame

    def flood(self, frame):
        while True:
            yield Frame.of("audio", np.zeros(0, np.float32), position=frame.position, like=frame)

    def kind(self, frame):
        yield Frame.of("semantic", [1], position=frame.position)

    def garbage(self, frame):
        yield "noise"

    def twice(self, frame):
        yield Frame.end("audio", position=frame.position, like=frame)
        yield Frame.end("audio", position=frame.position, like=frame)

    def ahead(self, frame):
        for i in range(4):
            yield Frame.of("audio", np.zeros(TICK, np.float32), position=frame.position + i * TICK, like=frame)
        raise ValueError("too fast")


class Crowd(Shaky):
    """Steps its sessions together."""

    type_name = "crowd"

    def step_many(self, batch):
        return [self.step(*item) for item in batch]


@pytest.fixture
def registry(registry):
    for node in (Shaky, Crowd, Pair):
        registry.add(node)
    Shaky.gate, Shaky.closed, Shaky.entered = threading.Event(), [], threading.Event()
    yield registry
    Shaky.gate.set()
    for thread in threading.enumerate():
        if thread.name.startswith("lane-"):
            thread.join(5)


@pytest.fixture
def log():
    with structlog.testing.capture_logs() as found:
        yield found


def text(policy="bypass", more="", ticks=10):
    return TEXT.replace("POLICY", policy).replace(" MORE", more and f", {more}").replace("TICKS", str(ticks))


def session(graph, name="s", **extra):
    return Session(graph, name, extra={"got": [], **extra})


def got(made):
    return made.info.extra["got"]


def counted(made, name="a"):
    return {key.removeprefix(f"{name}."): value for key, value in made.metrics.counters.items() if key.startswith(name)}


async def played(graph, **extra):
    made = session(graph, **extra)
    await run(graph, made)
    return made


def values(made):
    return {position // TICK: value for position, value in got(made)[:-1]}


# -- what raises


async def test_fail_ends_the_session_as_ever(registry, log):
    graph = Graph.parse(text("fail"), registry)
    made = session(graph)
    with pytest.raises(NodeError, match=r"node 'a' at position 2560.*no more"):
        await run(graph, made)
    assert (got(made)[-1], counted(made), log) == ("abort", {"failures": 1}, [])
    assert "a.state" not in made.metrics.gauges


async def test_bypass_hands_everything_through_from_there_on(registry, log):
    made = await played(Graph.parse(text(), registry))
    assert values(made) == {i: i + (0.5 if i < 4 else 0) for i in range(10)}
    assert (got(made)[-1], made.status, counted(made)) == ("end", "ended", {"failures": 1})
    assert made.metrics.gauges["a.state"] == "bypassed"
    [line] = log
    assert (line["node"], line["session"], line["position"], line["log_level"]) == ("a", "s", 4 * TICK, "error")
    assert "no more" in line["error"]
    assert "bypassed" in line["then"]
    assert len(Shaky.closed) == 1


async def test_restart_begins_anew_with_a_fresh_state(registry, log):
    made = await played(Graph.parse(text("restart", "at: [4, 6]"), registry))
    assert values(made) == {i: i + (0 if i in (4, 6) else 0.5) for i in range(10)}
    assert (counted(made), made.metrics.gauges["a.state"]) == ({"failures": 2, "restarts": 2}, "running")
    assert [state["steps"] for _, state in Shaky.closed] == [5, 2, 4]
    assert len(log) == 2


async def test_what_fails_too_often_is_taken_out(registry, log):
    fails = list(range(2, 2 + RESTARTS + 1))
    made = await played(Graph.parse(text("restart", f"at: {fails}", ticks=12), registry))
    assert values(made) == {i: i + (0.5 if i < 2 else 0) for i in range(12)}
    assert counted(made) == {"failures": RESTARTS + 1, "restarts": RESTARTS}
    assert made.metrics.gauges["a.state"] == "bypassed"
    assert ["anew" in line["then"] for line in log] == [True] * RESTARTS + [False]


async def test_failures_that_lie_far_apart_are_forgiven(registry, monkeypatch):
    now = iter(range(0, 10_000, 61))
    monkeypatch.setattr("streamer.cell._now", lambda: next(now))
    made = await played(Graph.parse(text("restart", f"at: {list(range(2, 11))}", ticks=12), registry))
    assert counted(made) == {"failures": 9, "restarts": 9}
    assert made.metrics.gauges["a.state"] == "running"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("late", "after one"),
        ("kind", "gave a semantic frame"),
        ("garbage", "gave 'noise'"),
        ("flood", "more than 20 frames"),
        ("close", "no more"),
    ],
)
@pytest.mark.parametrize("policy", ["bypass", "restart"])
async def test_every_way_to_fail_is_passed_over(registry, log, how, message, policy):
    made = await played(Graph.parse(text(policy, f"how: {how}, most_frames: 20"), registry))
    assert message in log[0]["error"]
    after = 0.5 if policy == "restart" else 0
    wanted = {i: i + (0.5 if i < 4 else after) for i in range(10)} | {4: 4.5 if how == "late" else 4.0}
    assert (values(made), got(made)[-1]) == (wanted, "end")
    assert counted(made)["failures"] == 1
    assert ("will not close" in log[0].get("also", "")) == (how == "close")


@pytest.mark.parametrize("policy", ["bypass", "restart"])
async def test_failing_at_the_very_end_still_ends_the_stream(registry, policy):
    made = await played(Graph.parse(text(policy, "at: [10], how: last"), registry))
    assert values(made) == {i: i + 0.5 for i in range(10)}
    assert (got(made)[-1], made.metrics.gauges["a.state"]) == ("end", "bypassed")


async def test_a_forgotten_end_is_given_in_its_place(registry, log):
    made = await played(Graph.parse(text().replace("shaky", "forever"), registry))
    assert (len(got(made)), got(made)[-1]) == (11, "end")
    assert "no audio frame with LAST" in log[0]["error"]


async def test_nothing_follows_an_end_that_was_given(registry):
    made = await played(Graph.parse(text(more="how: twice"), registry))
    assert values(made) == {i: i + 0.5 for i in range(4)}
    assert got(made)[-1] == "end"


async def test_a_stream_never_steps_back_behind_what_was_given(registry):
    made = await played(Graph.parse(text(more="how: ahead"), registry))
    assert [position // TICK for position, _ in got(made)[:-1]] == list(range(10))
    assert counted(made) == {"failures": 1}


async def test_a_full_port_that_raises_is_no_fault_of_its_node(registry):
    raising = text(ticks=40).replace("edges: [src -> a -> out]", "edges: [src -> a, {from: a, to: out, policy: raise}]")
    slow = raising.replace("out: collect", "out: {type: collect, wait: 0.05}")
    with pytest.raises(NodeError, match="policy is `raise`"):
        await played(Graph.parse(slow, registry))


async def test_packed_and_several_lanes_make_no_difference(registry):
    chain = """
nodes:
  src: {type: count, ticks: 60}
  a: {type: shaky, on_error: restart, at: [3, 7, 9, 30]}
  b: {type: add, on_error: bypass, fail_at: 20}
  out: collect
edges: [src -> a -> b -> out]
"""
    made = [await played(Graph.parse(chain + more, registry)) for more in ("", "packed: true", "lanes: {x: [b]}")]
    assert got(made[0]) == got(made[1]) == got(made[2])
    assert len(got(made[0])) == 61


async def test_it_is_one_session_that_is_isolated(registry):
    wanted = got(await played(Graph.parse(text(more="at: []"), registry), base=50))
    for kind in ("shaky", "crowd"):
        graph = Graph.parse(text().replace("shaky", kind), registry)
        one, two = session(graph, "one", ticks=30), session(graph, "two", ticks=3, base=50)
        await run(graph, [one, two])
        assert got(two) == [*wanted[:3], "end"]
        assert len(got(one)) == 31
        assert (one.metrics.gauges["a.state"], two.metrics.gauges["a.state"]) == ("bypassed", "running")


# -- several inputs


class Pair(fakes.Mix):
    """Adds two inputs; fails at a frame of the second, or in `wants`."""

    type_name = "pair"
    Config = ShakySettings

    def wants(self, state):
        if self.config.how == "wants" and state["a"] is not None and state["a"].position // TICK in self.config.at:
            raise ValueError("wants nothing")
        return super().wants(state)

    def step(self, frame, state, into):
        if self.config.how == "raise" and into == "b" and frame.position // TICK in self.config.at:
            raise ValueError("not b")
        return super().step(frame, state, into)


TWO = """
nodes:
  one: {type: count, ticks: 10}
  two: {type: count, ticks: ENDS}
  m: {type: pair, on_error: POLICY, how: HOW}
  out: collect
edges: [one -> m.a, two -> m.b, m -> out]
"""


@pytest.mark.parametrize("how", ["raise", "wants"])
@pytest.mark.parametrize("ends", [6, 10, 15])
async def test_of_several_inputs_the_first_goes_on(registry, how, ends):
    made = await played(
        Graph.parse(TWO.replace("POLICY", "bypass").replace("HOW", how).replace("ENDS", str(ends)), registry)
    )
    found = values(made)
    assert [found[i] for i in range(4)] == [0, 2, 4, 6]
    assert all(found[i] == i for i in range(5, max(10, ends)))
    assert got(made)[-1] == "end"
    assert made.metrics.counters["m.failures"] == 1


@pytest.mark.parametrize("how", ["raise", "wants"])
async def test_a_node_of_several_inputs_begins_anew(registry, how):
    made = await played(
        Graph.parse(TWO.replace("POLICY", "restart").replace("HOW", how).replace("ENDS", "10"), registry)
    )
    found = values(made)
    assert [found[i] for i in range(4)] == [0, 2, 4, 6]
    assert [found[i] for i in range(6, 10)] == ([12, 14, 16, 18] if how == "raise" else [6, 7, 8, 9])  # out of step
    assert got(made)[-1] == "end"


def cell(kinds, inputs, guard=BYPASS):
    """A cell of a node that raises at once, with a port per `(input, kind)` and one out per kind."""

    class Raising(Node):
        type_name = "raising"
        accepts: ClassVar = dict(inputs)
        emits: ClassVar = kinds

        def step(self, frame, state, into):
            raise ValueError("never")

    into = [Port(PortSpec("p", kind, "n", name)) for name, kind in inputs]
    out = {kind: [Port(PortSpec("n", kind, "q", kind))] for kind in kinds}
    from streamer import Build, Metrics, SessionInfo

    info = SessionInfo(metrics=Metrics())
    made = Cell(Raising(Settings(), Build("n")), info, Inbox(into), out, info.metrics.ring("n"), guard)
    made.open(None)
    return made, into, out


def test_a_stream_whose_input_has_ended_ends_at_the_failure():
    made, (a, b), out = cell(["audio", "semantic"], [("a", "audio"), ("b", "semantic")])
    a.put(Frame.end("audio", position=1280))
    made.inbox.take(a)
    out["audio"][0].put(Frame.of("audio", np.zeros(TICK, np.float32), position=TICK))
    b.put(Frame.of("semantic", [7], position=1280))
    made.frame, made.port = made.inbox.take(b), b
    assert made.survive(made.wrong("never"))
    audio, semantic = made.gen
    assert (audio.kind, audio.last, audio.position, audio.samples) == ("audio", True, 2 * TICK, 0)
    assert semantic is made.frame or semantic.array[0] == 7


def test_an_end_with_sound_goes_on_as_sound_while_another_input_is_open():
    made, (a, b), out = cell(["audio"], [("a", "audio"), ("b", "audio")])
    a.put(Frame.of("audio", np.ones(TICK, np.float32), position=0, flags=4))
    made.frame, made.port = made.inbox.take(a), a
    assert made.survive(made.wrong("never"))
    [frame] = made.gen
    assert (frame.last, frame.array[0]) == (False, 1)
    out["audio"][0].put(frame)
    b.put(Frame.end("audio", position=TICK))
    [end] = made.node.step(made.inbox.take(b), made.state, "b")
    assert end.last


def test_a_turn_goes_on_and_so_does_what_follows_at_its_place():
    made, (a,), out = cell(["audio"], [("a", "audio")])
    frames = [
        Frame.of("audio", np.ones(TICK, np.float32), position=0),
        Frame.turn("audio", position=TICK),
        Frame.of("audio", np.ones(TICK, np.float32), position=TICK),
        Frame.end("audio", position=2 * TICK),
    ]
    for frame in frames:
        a.put(frame)
        made.frame, made.port = made.inbox.take(a), a
        given = made.gen if made.survive(made.wrong("never")) else made.node.step(frame, made.state, "a")
        for each in given:
            assert each is frame
            out["audio"][0].put(each)
    assert len(out["audio"][0].queue) == 4


def test_control_is_handed_through_where_it_is_given():
    made, (a, c), _ = cell(["audio", "control"], [("a", "audio"), ("c", "control")])
    a.put(Frame.of("audio", np.ones(TICK, np.float32), position=0))
    made.frame, made.port = made.inbox.take(a), a
    made.survive(made.wrong("never"))
    list(made.gen)
    command = Frame.control("set", gain=2)
    assert made.node.step(command, made.state, "c") == [command]
    assert c.side


def test_a_snapshot_of_an_endless_step_is_refused_not_made(registry):
    graph = Graph.parse(text("fail", "most_frames: 50"), registry).build()
    made = session(graph)
    made.prepare()
    flooded = made.cells["a"]
    flooded.gen = graph.nodes["a"].flood(Frame.of("audio", [0.0], position=0))
    with pytest.raises(NodeError, match="more than 50 frames"):
        flooded.save()


# -- snapshots


async def test_what_was_taken_out_stays_out_after_a_restore(registry):
    graph = Graph.parse(text(ticks=20), registry)
    whole = got(await played(graph))
    half = session(graph)
    await run(graph, half, until=10 * TICK)
    rest = Session.restore(graph, half.snapshot(), extra={"got": []})
    await run(graph, rest)
    assert got(half) + got(rest) == whole
    assert rest.metrics.gauges["a.state"] == "bypassed"
    assert counted(rest) == {"failures": 1}


class _Sealed:
    def __init__(self, inside):
        self.inside = inside


async def test_a_node_that_cannot_be_saved_begins_anew_when_the_rest_goes_on(registry):
    class Forgets(fakes.Add):
        type_name = "forgets"
        restorable = False

        def init_state(self, info):
            return _Sealed(super().init_state(info))

        def step(self, frame, state, into):
            return super().step(frame, state.inside, into)

    registry.add(Forgets)
    graph = Graph.parse("nodes: {src: count, a: forgets, out: collect}\nedges: [src -> a -> out]", registry)
    half = session(graph)
    await run(graph, half, until=5 * TICK)
    rest = Session.restore(graph, half.snapshot(), extra={"got": []})
    await run(graph, rest)
    assert [value for _, value in got(rest)[:-1]] == [1001 + i + 1000 * (i - 5) for i in range(5, 10)]


# -- what hangs


HANGS = "step_seconds: 0.1, how: hang"


@pytest.mark.parametrize("kind", ["shaky", "crowd"])
@pytest.mark.parametrize("how", ["hang", "lazily"])
async def test_what_hangs_ends_its_session_and_nobody_waits_for_it(registry, log, how, kind, heartbeat):
    graph = Graph.parse(text("fail", f"step_seconds: 0.1, how: {how}").replace("shaky", kind), registry)
    made = session(graph)
    with pytest.raises(NodeError, match=r"node 'a' at position 2560 .*hangs: it has given nothing for 0\.\d+ s"):
        await run(graph, made)
    assert (made.status, got(made)[-1]) == ("failed", "abort")
    assert (counted(made), made.metrics.gauges["a.state"]) == ({"failures": 1}, "hangs")
    assert [(line["node"], line["position"]) for line in log] == [("a", 2560)]
    assert Shaky.closed == []


@pytest.mark.parametrize("kind", ["shaky", "crowd"])
@pytest.mark.parametrize("policy", ["bypass", "restart"])
@pytest.mark.parametrize("how", ["hang", "lazily"])
async def test_what_hangs_is_taken_out_and_the_rest_plays_on(registry, log, policy, how, kind):
    graph = Graph.parse(text(policy, f"step_seconds: 0.1, how: {how}").replace("shaky", kind), registry)
    made = await played(graph)
    given = 4.5 if how == "lazily" else 4
    assert values(made) == {i: i + (0.5 if i < 4 else 0) for i in range(10)} | {4: given}
    assert (got(made)[-1], made.metrics.gauges["a.state"]) == ("end", "bypassed")
    assert (counted(made), len(log)) == ({"failures": 1}, 1)


async def test_what_comes_back_late_is_discarded_and_its_state_released(registry):
    graph = Graph.parse(text("bypass", HANGS), registry)
    async with Running(graph) as running:
        made = session(graph, ticks=10)
        driver = running._drivers[0]
        before = driver.thread
        await running.run(made)
        wanted = list(got(made))
        assert driver.thread is not before
        assert before.is_alive()
        Shaky.gate.set()
        await asyncio.to_thread(before.join, 5)
        assert not before.is_alive()
        assert got(made) == wanted
        assert Shaky.closed == [(before.name, {"steps": 5})]
        assert not any(driver.lane.rows)
        again = session(graph, "again", ticks=3)
        await running.run(again)
        assert got(again)[-1] == "end"


async def test_other_sessions_of_the_lane_go_on_and_come_and_go(registry):
    graph = Graph.parse(text("fail", HANGS), registry)
    async with Running(graph) as running:
        bad, good = session(graph, "bad", ticks=10), session(graph, "good", ticks=4, base=3)
        failing = asyncio.create_task(running.run(bad), name="test:bad")
        await asyncio.to_thread(Shaky.entered.wait, 5)
        joining = asyncio.create_task(running.run(good), name="test:good")  # waits for the thread that hangs
        with pytest.raises(NodeError, match="hangs"):
            await failing
        await joining
        assert got(good) == [*((i * TICK, 3 + i + 0.5) for i in range(4)), "end"]
        assert running.sessions == ()


async def test_of_a_common_step_that_hangs_each_session_has_its_error(registry):
    graph = Graph.parse(
        text("fail", HANGS).replace("shaky", "crowd").replace("count", "fed"), registry_with_fed(registry)
    )
    async with Running(graph) as running:
        made = [session(graph, name, feed=asyncio.Queue()) for name in "xy"]
        tasks = [asyncio.create_task(running.run(each), name=f"test:{each.info.id}") for each in made]
        gate = threading.Event()
        for each in made:
            each.info.extra["feed"].put_nowait(4)
            while len(got(each)) < 4:  # noqa: ASYNC110 - no event for it
                await asyncio.sleep(0)
        holding = running._drivers[0].submit(gate.wait, 10)
        for each in made:
            each.info.extra["feed"].put_nowait(1)
            while not each.ports["src -> a.audio"].queue:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0)
        gate.set()
        await holding
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [(error.session, "hangs" in str(error)) for error in results] == [("x", True), ("y", True)]


def registry_with_fed(registry):
    class Fed(fakes.Count):
        type_name = "fed"

        async def frames(self, ctx):
            done = 0
            while count := await ctx.extra["feed"].get():
                for _ in range(count):
                    value = np.full(TICK, done, np.float32)
                    yield Frame.of("audio", value, position=done * TICK, session=ctx.id)
                    done += 1
            yield Frame.end("audio", position=done * TICK, session=ctx.id)

    registry.add(Fed)
    return registry


async def test_cancelling_and_closing_do_not_wait_for_what_hangs(registry):
    graph = Graph.parse(text("fail", HANGS), registry)
    made = session(graph)
    task = asyncio.create_task(run(graph, made), name="test")
    await asyncio.to_thread(Shaky.entered.wait, 5)
    task.cancel()
    with pytest.raises((asyncio.CancelledError, NodeError)):
        await task
    assert made.status == "failed"
    assert {each.get_name() for each in asyncio.all_tasks()} == {asyncio.current_task().get_name()}


async def test_leaving_the_block_does_not_wait_for_what_hangs(registry):
    graph = Graph.parse(text("bypass", HANGS), registry)
    made = session(graph)
    async with Running(graph) as running:
        task = asyncio.create_task(running.run(made), name="test")
        await asyncio.to_thread(Shaky.entered.wait, 5)
    with pytest.raises(GraphError, match="its graph stops running"):
        await task


async def test_a_lane_leaves_only_so_many_threads_behind(registry):
    graph = Graph.parse(text("bypass", "step_seconds: 0.05, how: hang"), registry)
    async with Running(graph) as running:
        for number in range(MOST_LEFT):
            await running.run(session(graph, f"s{number}"))
        with pytest.raises(GraphError, match="threads behind that hang"):
            await running.run(session(graph, "last"))
        with pytest.raises(GraphError, match="does not run"):
            await running.run(session(graph, "later"))


async def test_nothing_is_kept_of_a_session_whose_thread_was_given_up(registry):
    graph = Graph.parse(text("fail", HANGS), registry)
    async with Running(graph) as running:
        made = session(graph)
        with pytest.raises(NodeError, match="hangs"):
            await running.run(made)
        Shaky.gate.set()
        await asyncio.to_thread(running._drivers[0].left[0].join, 5)
        kept = weakref.ref(made)
        del made
        gc.collect()
        assert kept() is None


async def test_slow_is_not_hanging(registry):
    graph = Graph.parse(
        text("fail", "step_seconds: 0.3").replace("shaky", "add").replace("add,", "add, work: 0.05,"), registry
    )
    made = await played(graph)
    assert len(got(made)) == 11


def test_a_program_that_was_stopped_for_an_hour_has_no_step_that_hangs(registry):
    class Busy:
        name, began = "x", 1.0
        claimed = 0

        def __init__(self):
            self.busy, _, _ = cell(["audio"], [("a", "audio")], Guard("fail", 10.0))

        def claim(self, began):
            self.claimed += 1
            return ()

    class Held:
        lane = Busy()

    dog = Watchdog([Held], 10.0, list)
    assert dog.period == 1.0
    for _ in range(2):
        dog.look(Held, min(3600, 2 * dog.period))
    assert not Held.lane.claimed
    for _ in range(6):
        dog.look(Held, 1.0)
    assert not Held.lane.claimed
    dog.look(Held, 2.0)
    assert Held.lane.claimed == 1
    Held.lane.began = 2.0  # the next step
    dog.look(Held, 2.0)
    assert Held.lane.claimed == 1


# -- what the config may say


@pytest.mark.parametrize(
    ("line", "nodes", "message"),
    [
        (2, ["s: {type: count, on_error: bypass}", "a: add", "o: collect"], "source or a sink"),
        (4, ["s: count", "a: add", "o: {type: collect, step_seconds: 3}"], "has no steps"),
        (3, ["s: count", "a: {type: shaky, on_error: bypas}", "o: collect"], "'bypass'"),
        (3, ["s: count", "a: {type: shaky, step_seconds: 0}", "o: collect"], "greater"),
        (3, ["s: count", "a: {type: turn_to, on_error: restart}", "o: token_sink"], "gets only audio"),
        (3, ["s: tokens", "a: {type: fewer, on_error: bypass}", "o: {type: token_sink, levels: 4}"], "other codebooks"),
    ],
)  # fmt: skip
def test_what_cannot_be_passed_over_is_refused_with_its_line(registry, line, nodes, message):
    class TurnTo(fakes.Pass):
        type_name = "turn_to"
        emits = ("acoustic",)

    class Fewer(fakes.Pass):
        type_name = "fewer"
        accepts = emits = ("acoustic",)

        @classmethod
        def facts(cls, config, build):
            base = super().facts(config, build)
            return type(base)(base.inputs, base.emits, levels_out={"acoustic": 4})

    registry.add(TurnTo)
    registry.add(Fewer)
    with pytest.raises(ConfigError, match=message) as error:
        Graph.load(parse("\n  ".join(["nodes:", *nodes]) + "\nedges: [s -> a -> o]"), registry)
    assert error.value.line == line


def test_a_side_output_that_leads_nowhere_is_no_hindrance(registry):
    class Detects(fakes.Pass):
        type_name = "detects"
        emits = ("audio", "control", "semantic")

    registry.add(Detects)
    config = "nodes: {s: count, a: {type: detects, on_error: bypass}, b: add, o: collect}\nedges: [s -> a -> b -> o]"
    assert Graph.parse(config, registry).plan.loaded.config.nodes["a"].guard == Guard("bypass")


# -- the claim itself


@pytest.fixture
def restless():
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def test_who_is_claimed_brings_nothing_and_who_is_not_goes_on(registry, restless):
    """A thread steps as fast as it can while another gives it up again and again: each frame has one fate."""

    entered = threading.Event()

    class Spins(fakes.Pass):
        type_name = "spins"

        def step(self, frame, state, into):
            entered.set()
            for _ in range(7919 * frame.position % 50_000):
                pass
            return (frame,)

    registry.add(Spins)
    graph = Graph.parse("nodes: {src: count, a: spins, out: collect}\nedges: [src -> a -> out]", registry).build()
    made = session(graph)
    made.prepare()
    lane = Lane("main", ("a",))
    lane.join(made.cells)
    made.open_cells(lane.order)
    into, out = made.ports["src -> a.audio"], made.ports["a -> out.audio"]
    claimed, lost, ended = 0, 0, []

    def work(lane):
        try:
            while jobs.get():
                lane.turn()
        except AbandonedError:
            ended.append(lane)

    def begin():
        made = threading.Thread(target=work, args=(lane,), name="lane-x")
        made.start()
        return made

    jobs = queue.SimpleQueue()
    thread, got_back = begin(), []
    for number in range(300):
        assert lane.claim(-1.0) == ()  # a step that is over
        into.put(Frame.of("audio", [0.0], position=number))
        jobs.put("turn")
        assert entered.wait(5)
        entered.clear()
        if cells := lane.claim(lane.began):
            claimed += 1
            lost += cells[0].gen is None  # else it had given its frame, and was asked for another
            before, lane = thread, lane.heir()
            cells[0].forsake()
            before.join(5)
            assert not before.is_alive()
            cells[0].opened = True
            thread = begin()
        while out.queue:
            got_back.append(out.queue.popleft().position)
    jobs.put("")
    thread.join(5)
    got_back += [frame.position for frame in out.queue]
    assert got_back == sorted(set(got_back))
    assert len(got_back) == 300 - lost
    assert len(ended) == claimed > 0


# -- the program


PLUGIN = """
import time
from streamer import Node

class Sleeps(Node):
    type_name = "sleeps"
    accepts = emits = ("audio",)

    def step(self, frame, state, input):
        if frame.position == 5 * 640:
            time.sleep(600)
        yield frame

def register(registry):
    registry.add(Sleeps)
"""


@pytest.mark.parametrize(("policy", "code"), [("fail", 1), ("bypass", 0)])
def test_the_program_ends_though_a_thread_hangs(program, prompt, tmp_path, policy, code):
    (tmp_path / "sleeps.py").write_text(PLUGIN)
    config = tmp_path / "x.yaml"
    config.write_text(
        "plugins: [sleeps.py]\nsession: {mode: reconstruct}\nedges: [input -> s -> output]\n"
        f"nodes: {{input: file, s: {{type: sleeps, step_seconds: 0.2, on_error: {policy}}}, output: file_out}}\n"
    )
    output = tmp_path / "out.wav"
    done = program("run", config, "--input", prompt, "--output", output)
    _, told = (each.decode() for each in done.communicate(timeout=60))
    assert done.returncode == code, told
    assert "its step hangs" in told
    assert output.exists() == (policy == "bypass")
    if policy == "bypass":
        np.testing.assert_array_equal(soundfile.read(output)[0], soundfile.read(prompt)[0])
    else:
        assert "node 's' at position 3200" in told
