import numpy as np
import pytest

from streamer import Frame, Graph, InputError, NodeError, Session, run
from streamer.nodes.record import read_log

RECORD = """
nodes: {t: tokens, a: count, d: delay, log: {type: record, path: PATH}}
edges: [t -> log, a -> d -> log]
"""
REPLAY = """
nodes: {r: {type: replay, path: PATH, kinds: [audio]}, add: add, out: collect}
edges: [r -> add -> out]
"""


async def record(registry, path, text=RECORD, **more):
    graph = Graph.parse(text.replace("PATH", str(path)), registry)
    session = Session(graph, **more)
    await run(graph, session)
    graph.close()
    return path.read_bytes()


async def replay(registry, path):
    graph = Graph.parse(REPLAY.replace("PATH", str(path)), registry)
    session = Session(graph, "again", extra={"got": []})
    await run(graph, session)
    return session.info.extra["got"]


async def test_a_log_is_the_same_every_time_and_in_order(registry, tmp_path):
    first = await record(registry, tmp_path / "a")
    assert first == await record(registry, tmp_path / "b", RECORD + "lanes: {x: [d]}\npacked: true\n")
    frames = list(read_log(tmp_path / "a"))
    assert sum(f.kind == "acoustic" for f in frames) == 21
    assert [f.position for f in frames if not f.last] == sorted(f.position for f in frames if not f.last)
    assert not list(tmp_path.glob("*.part"))


async def test_a_replay_gives_what_the_live_graph_gave(registry, tmp_path):
    text = "nodes: {s: count, add: add, out: collect, log: {type: record, path: PATH}}\n"
    text += "edges: [s -> add -> out, s -> log]"
    graph = Graph.parse(text.replace("PATH", str(tmp_path / "log")), registry)
    live = Session(graph, extra={"got": []})
    await run(graph, live)
    assert await replay(registry, tmp_path / "log") == live.info.extra["got"]


async def test_paused_and_continued_it_is_the_same_file(registry, tmp_path):
    whole = await record(registry, tmp_path / "a")
    graph = Graph.parse(RECORD.replace("PATH", str(tmp_path / "b")), registry)
    session = Session(graph)
    await run(graph, session, until=7 * 640)
    blob = session.snapshot()
    graph.close()
    other = Graph.parse(RECORD.replace("PATH", str(tmp_path / "b")), registry)
    await run(other, Session.restore(other, blob))
    assert (tmp_path / "b").read_bytes() == whole


async def test_nothing_is_left_after_an_error(registry, tmp_path):
    text = RECORD.replace("a: count", "a: {type: count, fail_at: 5}")
    with pytest.raises(NodeError):
        await record(registry, tmp_path / "a", text)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"", "is empty"),
        (lambda data: data[:-3], "cut off"),
        (lambda data: data[:2], "not a log"),
        (lambda data: b"\xff\xff\xff\xff" + data, "not a log"),
        (lambda data: data[:4] + b"\x00" + data[5:], "entry 0"),
        (lambda data: b"RIFF this is a wave file", "not a log"),
    ],
)
async def test_a_damaged_log_is_refused(registry, tmp_path, change, message):
    data = await record(registry, tmp_path / "log")
    (tmp_path / "log").write_bytes(change(data))
    with pytest.raises(InputError, match=message):
        list(read_log(tmp_path / "log"))


async def test_a_missing_log_has_exit_code_2(registry, tmp_path):
    with pytest.raises(NodeError, match="cannot read the log 'none'") as error:
        await replay(registry, tmp_path / "none")
    assert error.value.exit_code == 2


async def test_a_kind_that_is_not_in_the_log(registry, tmp_path):
    frame = Frame.of("semantic", np.array([1]), position=0)
    data = frame.pack()
    (tmp_path / "log").write_bytes(len(data).to_bytes(4, "little") + data)
    with pytest.raises(NodeError, match="no LAST frame of audio"):
        await replay(registry, tmp_path / "log")
