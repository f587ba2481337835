import asyncio
import itertools
import threading
import tracemalloc

import pytest

from streamer import Graph, GraphError, InputError, NodeError, Session, StallError, run

DIAMOND = """
nodes: {src: {type: count, ticks: 60}, a: add, d: {type: delay, ticks: 3}, m: mix, out: collect}
edges:
  - src -> d
  - {from: d, to: m.b, capacity: %d}
  - {from: src, to: a, capacity: %d}
  - {from: a, to: m.a, capacity: %d}
  - {from: m, to: out, capacity: %d}
"""
PLAIN = "nodes: {src: count, a: add, out: collect}\nedges: [src -> a -> out]\n"


async def collect(text, registry, overrides=(), *, sessions=1, **changes):
    graph = Graph.parse(text, registry, overrides=overrides)
    made = [Session(graph, f"s{i}", extra={"got": [], "base": i}, **changes) for i in range(sessions)]
    await run(graph, made)
    found = [session.info.extra["got"] for session in made]
    return found[0] if sessions == 1 else found


async def test_frames_reach_the_sink_in_order(registry, heartbeat):
    got = await collect(PLAIN, registry)
    assert got == [(i * 640, i + 1 + (i + 1) * 1000.0) for i in range(10)] + ["end"]


async def test_a_diamond_gives_the_same_for_every_capacity(registry, heartbeat):
    wanted = await collect(DIAMOND % (16, 16, 16, 16), registry)
    assert len(wanted) == 61
    for b, src, a, out in itertools.product((1, 2, 7), (1, 3), (4, 5, 60), (1, 2)):
        assert await collect(DIAMOND % (b, src, a, out), registry) == wanted


LANES = ["{}", "{x: [a], y: [d, m]}", "{x: [a, m], y: [d]}", "{x: [m], y: [a, d]}", "{x: [a], y: [d], z: [m]}"]


@pytest.mark.parametrize("lanes", LANES)
async def test_lanes_and_packing_change_nothing(registry, heartbeat, lanes):
    text = DIAMOND % (1, 1, 4, 1)
    wanted = await collect(text, registry)
    assert await collect(text, registry, [f"lanes={lanes}"]) == wanted
    assert await collect(text, registry, [f"lanes={lanes}", "packed=true"]) == wanted


async def test_a_merge_is_in_the_order_of_positions_whatever_the_timing(registry):
    text = """
nodes: {src: count, a: {type: add, work: %s}, b: {type: add, add: 5, work: %s}, m: merge, out: collect}
edges: [src -> a -> m.a, src -> b -> m.b, m -> out]
lanes: {x: [a], y: [b], z: [m]}
"""
    fast = await collect(text % (0.0, 0.002), registry)
    slow = await collect(text % (0.002, 0.0), registry)
    assert fast == slow
    assert [position for position, _ in fast[:-1]] == sorted(2 * [i * 640 for i in range(10)])


async def test_a_burst_of_any_size_stays_within_the_ports(registry):
    text = "nodes: {src: count, b: {type: burst, size: 500}, p: pass, out: collect}\nedges: [src -> b -> p -> out]"
    graph = Graph.parse(text, registry)
    session = Session(graph, extra={"got": []})
    await run(graph, session)
    assert len(session.info.extra["got"]) == 501
    assert max(port["high"] for port in session.report()["ports"].values()) <= 16


async def test_a_slow_sink_makes_the_source_wait(registry, heartbeat):
    graph = Graph.parse(PLAIN, registry, overrides=["nodes.src.ticks=100", "nodes.out.wait=0.001"])
    session = Session(graph, extra={"got": []})
    task = asyncio.create_task(run(graph, session))
    await asyncio.sleep(0.02)
    assert session.ports["src -> a.audio"].put_count < 60
    await task
    assert len(session.info.extra["got"]) == 101
    assert session.report()["dropped"] == 0


async def test_a_slow_sink_drops_by_policy_and_says_so(registry, heartbeat):
    text = """
nodes: {src: {type: count, ticks: 200}, a: add, out: {type: collect, wait: 0.002}}
edges: [src -> a, {from: a, to: out, policy: drop_oldest, capacity: 4}]
"""
    graph = Graph.parse(text, registry)
    session = Session(graph, extra={"got": []})
    await run(graph, session)
    report = session.report()
    got = session.info.extra["got"]
    assert got[-1] == "end"
    assert report["dropped"] == report["dropped_at"]["a -> out.audio"] == 200 - (len(got) - 1) > 0


async def test_policy_raise_ends_the_graph(registry):
    text = "nodes: {src: {type: count, ticks: 200}, a: add, out: {type: collect, wait: 0.01}}\n"
    text += "edges: [src -> a, {from: a, to: out, policy: raise, capacity: 4}]"
    with pytest.raises(NodeError, match=r"node 'a'.*a -> out\.audio is full"):
        await collect(text, registry)


async def test_several_sessions_share_the_lanes(registry, heartbeat):
    alone = [await collect(PLAIN, registry)]
    many = await collect(PLAIN, registry, sessions=4)
    assert many[0] == alone[0]
    for i, got in enumerate(many):
        assert got == [*((p, v + i) for p, v in alone[0][:-1]), "end"]


async def test_sessions_are_stepped_together(registry):
    import fakes

    sizes = []

    class Batched(fakes.Add):
        type_name = "batched"

        def step_many(self, batch):
            sizes.append(len(batch))
            return super().step_many(batch)

    registry.add(Batched)
    text = PLAIN.replace("a: add", "a: batched")
    assert await collect(text, registry, sessions=3) == await collect(PLAIN, registry, sessions=3)
    assert max(sizes) == 3


async def test_a_shorter_session_leaves_the_others_alone(registry):
    graph = Graph.parse(PLAIN, registry)
    short = Session(graph, "short", extra={"got": [], "ticks": 1})
    long = Session(graph, "long", extra={"got": [], "ticks": 300})
    await run(graph, [short, long])
    assert (len(short.info.extra["got"]), len(long.info.extra["got"])) == (2, 301)


@pytest.mark.parametrize(
    ("node", "position", "message", "code"),
    [
        ("a", 4 * 640, "ValueError: no more", 1),
        ("src", 4 * 640, "caught fire", 2),
        ("out", 4 * 640, "disk is full", 1),
    ],
)
async def test_an_error_names_node_and_position_and_closes_all(registry, node, position, message, code):
    closed = []
    graph = Graph.parse(PLAIN, registry, overrides=[f"nodes.{node}.fail_at=4"]).build()
    graph.nodes["a"].close = closed.append
    session = Session(graph, extra={"got": []})
    with pytest.raises(NodeError, match=message) as error:
        await run(graph, session)
    assert (error.value.node, error.value.exit_code) == (node, code)
    assert error.value.position == position
    assert isinstance(error.value.__cause__, (ValueError, InputError, OSError))
    assert session.info.extra["got"][-1] == "abort"
    assert session.status == "failed"
    assert len(closed) == 1
    assert not [t for t in threading.enumerate() if t.name.startswith("lane-")]


@pytest.mark.parametrize(
    ("kind", "message"), [("forever", "no audio frame with LAST"), ("wrong", "declares only audio")]
)
async def test_a_broken_contract_is_an_error(registry, kind, message):
    with pytest.raises(NodeError, match=message):
        await collect(PLAIN.replace("a: add", f"a: {kind}"), registry)


async def test_a_source_without_last_is_an_error(registry):
    with pytest.raises(NodeError, match=r"ended without a LAST frame on src -> a\.audio"):
        await collect(PLAIN, registry, ["nodes.src.end=false"])


async def test_a_graph_that_stands_still_says_where(registry):
    import fakes

    class Stubborn(fakes.Pass):
        type_name = "stubborn"

        def wants(self, state):
            return frozenset()

    registry.add(Stubborn)
    with pytest.raises(StallError, match=r"src -> a\.audio is not taken \(11 of 16 frames\)") as error:
        await collect(PLAIN.replace("a: add", "a: stubborn"), registry)
    assert "a -> out.audio is empty and has not ended" in error.value.waiting


async def test_cancellation_is_clean(registry):
    graph = Graph.parse(PLAIN.replace("count", "endless"), registry, overrides=["nodes.a.work=0.002"])
    session = Session(graph, extra={"got": []})
    task = asyncio.create_task(run(graph, session))
    while not session.info.extra["got"]:  # noqa: ASYNC110 - the fake has no event to wait for
        await asyncio.sleep(0.001)
    names = {t.get_name() for t in asyncio.all_tasks()}
    assert {"source:main:src", "sink:main:out", "lane:main"} <= names
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert session.status == "failed"
    assert session.info.extra["got"][-1] == "abort"
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_stop_ends_an_endless_source_and_finishes_the_sink(registry):
    graph = Graph.parse(PLAIN.replace("count", "endless"), registry)
    session = Session(graph, extra={"got": []})
    task = asyncio.create_task(run(graph, session))
    while len(session.info.extra["got"]) < 20:  # noqa: ASYNC110 - the fake has no event to wait for
        await asyncio.sleep(0.001)
    session.stop()
    session.stop()
    await task
    got = session.info.extra["got"]
    assert got[-1] == "end"
    assert [p for p, _ in got[:-1]] == [i * 640 for i in range(len(got) - 1)]
    assert len(got) > 10


async def test_the_loop_beats_on_during_steps(registry, heartbeat):
    await collect(PLAIN, registry, ["nodes.a.work=0.03", "nodes.src.ticks=6"])
    assert len(heartbeat) >= 10


async def test_control_takes_effect_at_its_position(registry):
    graph = Graph.parse(PLAIN, registry)
    session = Session(graph, extra={"got": []})
    session.send("set", position=5 * 640, add=500.0)
    await run(graph, session)
    values = [value - (i + 1) * 1000 - i for i, (_, value) in enumerate(session.info.extra["got"][:-1])]
    assert values == [1.0] * 5 + [500.0] * 5
    with pytest.raises(GraphError, match="ended"):
        session.send("set", add=1.0)


async def test_a_late_control_is_counted(registry):
    graph = Graph.parse(PLAIN, registry, overrides=["nodes.src.ticks=50", "nodes.src.wait=0.001"])
    session = Session(graph, extra={"got": []})
    task = asyncio.create_task(run(graph, session))
    while len(session.info.extra["got"]) < 10:  # noqa: ASYNC110 - the fake has no event to wait for
        await asyncio.sleep(0.001)
    session.send("set", position=640, add=500.0)
    session.interrupt()
    session.ports["session -> a.control"].queue.pop()
    await task
    assert session.report()["counters"] == {"a.late_controls": 1}
    assert session.epoch == 1


async def test_feedback_arrives_at_the_next_tick(registry):
    text = "nodes: {src: count, e: echo, p: pass, out: collect}\n"
    text += "edges: [src -> e -> p -> out, {from: p, to: e.back, feedback: true}]"
    got = await collect(text, registry)
    assert [value for _, value in got[:-1]] == [float(i) for i in range(10)]


async def test_memory_is_bounded(registry):
    async def peak(ticks):
        tracemalloc.start()
        graph = Graph.parse(PLAIN, registry, overrides=[f"nodes.src.ticks={ticks}"])
        await run(graph, Session(graph, extra={"got": Forget()}))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    await peak(10)
    assert await peak(8000) < 1.25 * await peak(3000)


class Forget(list):
    def append(self, item):
        pass


async def test_report_has_the_numbers(registry):
    graph = Graph.parse(PLAIN, registry)
    session = Session(graph, extra={"got": []})
    await run(graph, session)
    report = session.report()
    assert report["audio_seconds"] == pytest.approx(0.4)
    assert report["rtf"] > 0
    assert report["nodes"]["a"]["count"] == 11
    assert 0 < report["nodes"]["a"]["p50"] <= report["nodes"]["a"]["p99"]
    assert report["ports"]["src -> a.audio"]["put"] == 11
    assert report["status"] == "ended"


async def test_an_ended_session_does_not_run_again(registry):
    graph = Graph.parse(PLAIN, registry)
    session = Session(graph, extra={"got": []})
    await run(graph, session)
    with pytest.raises(GraphError, match="make a new Session"):
        await run(graph, session)
