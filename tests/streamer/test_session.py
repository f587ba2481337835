import asyncio
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from streamer import ConfigError, Graph, NodeError, Session, SnapshotError, run
from streamer.snapshot import dumps, loads

TEXT = """
nodes: {src: {type: count, ticks: 40}, a: add, d: {type: delay, ticks: 3}, m: mix, out: collect}
edges: [src -> d -> m.b, src -> a -> m.a, m -> out]
"""


def opened(registry, text=TEXT):
    graph = Graph.parse(text, registry)
    return Session(graph, extra={"got": []})


async def whole(registry, text=TEXT):
    session = opened(registry, text)
    await run(session.graph, session)
    return session.info.extra["got"]


@pytest.mark.parametrize("tick", [0, 1, 2, 5, 17, 39, 40])
@pytest.mark.parametrize("lanes", ["", "lanes: {x: [a], y: [d], z: [m]}\n"])
async def test_paused_anywhere_it_goes_on_the_same(registry, tick, lanes):
    text = TEXT + lanes
    wanted = await whole(registry, text)
    session = opened(registry, text)
    await run(session.graph, session, until=tick * 640)
    assert session.status == "paused"
    first = session.info.extra["got"]
    again = Session.restore(Graph.parse(text, registry), session.snapshot(), extra={"got": []})
    assert again.differences == []
    await run(again.graph, again)
    assert first + again.info.extra["got"] == wanted
    await run(session.graph, session)
    assert first == wanted


async def test_the_same_position_gives_the_same_snapshot(registry):
    blobs = []
    for lanes in ("", "lanes: {x: [a], y: [d], z: [m]}\n"):
        session = opened(registry, TEXT + lanes)
        await run(session.graph, session, until=11 * 640)
        saved = loads(session.snapshot())
        for port in saved["ports"].values():
            port.pop("high")
        blobs.append(dumps(saved))
    assert blobs[0] == blobs[1]


async def test_a_running_session_gives_a_snapshot_and_goes_on(registry):
    text = TEXT.replace("ticks: 40", "ticks: 40, wait: 0.001")
    wanted = await whole(registry, text)
    session = opened(registry, text)
    task = asyncio.create_task(run(session.graph, session))
    while not session.info.extra["got"]:  # noqa: ASYNC110 - the fake has no event to wait for
        await asyncio.sleep(0.001)
    future = session.request_snapshot(30 * 640)
    with pytest.raises(SnapshotError, match="already"):
        session.request_snapshot()
    blob = await future
    count = len(session.info.extra["got"])
    await task
    assert session.info.extra["got"] == wanted
    again = Session.restore(Graph.parse(text, registry), blob, extra={"got": []})
    await run(again.graph, again)
    assert 0 < count < 40
    assert again.info.extra["got"] == wanted[-len(again.info.extra["got"]) :]


OTHER = """
import asyncio, json, sys
sys.path.insert(0, sys.argv[1])
import fakes
from streamer import Graph, Session, run
graph = Graph.parse(sys.argv[3], fakes.registry())
session = Session.restore(graph, open(sys.argv[2], "rb").read(), extra={"got": []})
asyncio.run(run(graph, session))
print(json.dumps(session.info.extra["got"]))
"""


async def test_another_process_goes_on_the_same(registry, tmp_path):
    import json

    wanted = await whole(registry)
    session = opened(registry)
    await run(session.graph, session, until=13 * 640)
    (tmp_path / "snap").write_bytes(session.snapshot())
    here = Path(__file__).parent
    command = [sys.executable, "-c", OTHER, str(here), str(tmp_path / "snap"), TEXT]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=True, cwd=here.parent.parent
    )
    rest = [tuple(item) if isinstance(item, list) else item for item in json.loads(done.stdout)]
    assert session.info.extra["got"] + rest == wanted


async def test_frames_held_behind_a_full_port_are_kept(registry):
    """At the pause, a burst is still inside its node: the consumer waits for another input."""
    text = """
nodes: {src: count, s2: {type: count, ticks: 60}, b: {type: burst, size: 60}, p: pass, m: mix, out: collect}
edges: [src -> b -> p, {from: p, to: m.a, capacity: 2}, s2 -> m.b, m -> out]
"""
    wanted = await whole(registry, text)
    session = opened(registry, text)
    await run(session.graph, session, until=20 * 640)
    again = Session.restore(Graph.parse(text, registry), session.snapshot(), extra={"got": []})
    await run(again.graph, again)
    assert session.info.extra["got"] + again.info.extra["got"] == wanted
    assert len(wanted) == 61


async def test_several_sessions_pause_and_go_on(registry):
    graph = Graph.parse(TEXT, registry)
    sessions = [Session(graph, f"s{i}", extra={"got": [], "base": i}) for i in range(3)]
    await run(graph, sessions, until=9 * 640)
    await run(graph, sessions)
    wanted = await whole(registry)
    for i, session in enumerate(sessions):
        assert [p for p, _ in session.info.extra["got"][:-1]] == [p for p, _ in wanted[:-1]]
        assert session.info.extra["got"][0][1] == wanted[0][1] + 2 * i


async def test_snapshots_of_other_graphs_and_damaged_ones_are_refused(registry):
    session = opened(registry)
    with pytest.raises(SnapshotError, match="run it with `until`"):
        session.snapshot()
    with pytest.raises(SnapshotError, match="only a running one"):
        session.request_snapshot()
    await run(session.graph, session, until=3 * 640)
    blob = session.snapshot()
    other = Graph.parse("nodes: {src: count, out: collect}\nedges: [src -> out]", registry)
    with pytest.raises(SnapshotError, match="another graph: nodes missing here: a: add"):
        Session.restore(other, blob)
    for bad in (b"", blob[:-5], b"\x81\xa1a\x01", dumps({"x": 1})):
        with pytest.raises(SnapshotError, match="not a s"):
            Session.restore(session.graph, bad)


async def test_a_state_that_cannot_be_saved_is_named(registry):
    import fakes

    class Odd(fakes.Pass):
        type_name = "odd"

        def init_state(self, info):
            return object()

    registry.add(Odd)
    session = opened(registry, "nodes: {s: count, a: odd, o: collect}\nedges: [s -> a -> o]")
    with pytest.raises(NodeError, match=r"node 'a'.*must define save\(\) and load\(\)"):
        await run(session.graph, session, until=640)


def test_settings_of_a_session(registry):
    graph = Graph.parse(TEXT + "session: {seed: 4, seconds: 2}", registry)
    assert (Session(graph).info.seed, Session(graph, seed=5).info.seed, Session(graph).info.seconds) == (4, 5, 2.0)
    with pytest.raises(ConfigError, match="did you mean 'seed'"):
        Session(graph, sed=5)
    with pytest.raises(ConfigError, match="did you mean 'dream'"):
        Session(graph, mode="dreem")


def test_plain_data_survives_bytes():
    value = {"a": np.arange(6, dtype=np.int16).reshape(2, 3), "b": [None, True, 1.5, "x", b"y"], "c": 2**100, "d": {}}
    again = loads(dumps(value))
    assert np.array_equal(again.pop("a"), value.pop("a"))
    assert again == value
    with pytest.raises(SnapshotError, match=r"\.x\[1\]: a object"):
        dumps({"x": [1, object()]})
    with pytest.raises(SnapshotError, match="cannot be saved"):
        dumps({"x": np.array([object()])})
