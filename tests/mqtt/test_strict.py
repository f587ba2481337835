"""Streams that may lose nothing: what one graph says the other gets, whatever happens in between."""

import asyncio
import time

import pytest
from graphs_over_topics import (
    STRICT_IN,
    STRICT_OUT,
    TICK,
    frame_of,
    numbers,
    play,
    reader,
    registry,
    session,
    until,
    writer,
)

from streamer import ConfigError, Graph, NodeError, Running
from streamer.errors import PeerRestarted


async def both(write, read, ticks=20, **extra):
    """Play both to their end; what was read."""
    said, heard = session(write, ticks=ticks), session(read, **extra)
    async with asyncio.timeout(40), asyncio.TaskGroup() as group:
        group.create_task(play(read, heard))
        group.create_task(play(write, said))
    return said, heard


@pytest.mark.parametrize("kind", ["audio", "acoustic", "semantic", "tick"])
async def test_every_kind_arrives_as_it_was(make_broker, kind):
    broker, topic = make_broker(), f"streamer/ears/stream/out/{kind}"
    write = writer(broker, kind=kind, out=STRICT_OUT)
    _, heard = await both(write, reader(broker, kind=kind, topic=topic, how=STRICT_IN), ticks=100)
    got = heard.info.extra["got"]
    assert len(got) == 101
    assert [frame.replace(seq=0) for frame in got[:-1]] == [
        frame_of(kind, i, "main").replace(seq=0) for i in range(100)
    ]
    assert got[-1].last
    assert got[-1].position == 100 * TICK


async def test_with_the_older_protocol(make_broker):
    broker, how = make_broker(), {"protocol": "3.1.1"}
    _, heard = await both(writer(broker, out=STRICT_OUT, **how), reader(broker, how=STRICT_IN, **how), ticks=100)
    assert numbers(heard.info.extra["got"]) == list(range(100))


async def test_nodes_need_a_broker_and_say_so_before_anything_starts():
    for text in ("src: {type: mqtt_in, kind: audio}, sink: keep", "src: say, sink: mqtt_out"):
        with pytest.raises(ConfigError, match="needs a broker, and the config has no section `mqtt`"):
            Graph.parse(f"nodes: {{{text}}}\nedges: [src -> sink]\n", registry())


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("kind: sound", "unknown kind 'sound'"),
        ("kind: audio, policy: block", "set join: start as well"),
        ("kind: audio, topic: 'a/#'", "wildcards"),
        ("kind: audio, topic: '{room}/x'", "unknown placeholder 'room'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(how, message):
    text = f"mqtt: {{}}\nnodes:\n  src: {{type: mqtt_in, {how}}}\n  sink: keep\nedges: [src -> sink]\n"
    with pytest.raises(ConfigError, match=message):
        Graph.parse(text, registry()).build()


@pytest.mark.parametrize("first", ["reader", "writer"])
async def test_either_may_come_first(make_broker, first):
    broker = make_broker()
    write, read = writer(broker, out=STRICT_OUT), reader(broker, how=STRICT_IN)
    said, heard = session(write), session(read)
    pair = [(read, heard), (write, said)] if first == "reader" else [(write, said), (read, heard)]
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(play(*pair[0]))
        await asyncio.sleep(0.3)
        group.create_task(play(*pair[1]))
    assert numbers(heard.info.extra["got"]) == list(range(20))


async def test_a_writer_says_whom_it_waits_for(make_broker, make_client):
    broker = make_broker()
    watcher, said = await make_client(broker, "watcher"), []
    watcher.subscribe("streamer/ears/status", 1, lambda message: said.append(message.payload.decode()))
    write, read = writer(broker, out=STRICT_OUT), reader(broker, how=STRICT_IN)
    task = asyncio.create_task(play(write, session(write)))
    await until(lambda: any("waiting for brain" in text for text in said))
    heard = session(read)
    await play(read, heard)
    await task
    await until(lambda: '"state":"offline"' in said[-1])
    assert "waiting for" not in said[-1]
    assert numbers(heard.info.extra["got"]) == list(range(20))


async def test_a_slow_reader_holds_the_writer_back_and_nothing_grows(make_broker):
    broker = make_broker()
    write, read = writer(broker, out=f"{STRICT_OUT}, window: 16"), reader(broker, how=STRICT_IN)
    gate = asyncio.Event()
    said, heard = session(write, ticks=400), session(read, gate=gate)
    async with asyncio.timeout(40), asyncio.TaskGroup() as group:
        group.create_task(play(read, heard))
        group.create_task(play(write, said))
        sink, box = None, None
        await until(lambda: write.sinks and write.sinks["out"]._open)
        sink = write.sinks["out"]._open["main"]
        await until(lambda: sink.writings and sink.writings["audio"].seq > 16)
        before = time.monotonic()
        while time.monotonic() - before < 0.5:
            writing, box = sink.writings["audio"], read.sources["in"].box()
            # what the reader's graph has taken into its port counts as got
            assert writing.seq - writing.got <= 16
            assert len(writing._kept) <= 16
            assert writing.out.waiting <= 16 + 64
            await asyncio.sleep(0.01)
        stood = sink.writings["audio"].seq
        gate.set()
    assert stood < 200
    assert box.dropped == 0
    assert numbers(heard.info.extra["got"]) == list(range(400))


async def test_a_broker_that_is_killed_loses_nothing(make_broker):
    """Also one that keeps nothing on its disk: what it took with it is sent again."""
    broker = make_broker(persistence=False)
    write, read = writer(broker, out=STRICT_OUT, say="pause: 0.004"), reader(broker, how=STRICT_IN)
    said, heard = session(write, ticks=300), session(read)
    got = heard.info.extra["got"]
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(play(read, heard))
        group.create_task(play(write, said))
        for at in (40, 120, 200):
            await until(lambda at=at: len(got) > at)
            broker.kill()
            await asyncio.sleep(0.1)
            broker.start()
    assert numbers(got) == list(range(300))
    assert [frame.position for frame in got] == [i * TICK for i in range(301)]


async def test_a_broker_that_stands_still_loses_nothing(make_broker):
    broker = make_broker(persistence=False)
    write, read = writer(broker, out=STRICT_OUT, say="pause: 0.004"), reader(broker, how=STRICT_IN)
    said, heard = session(write, ticks=200), session(read)
    got = heard.info.extra["got"]
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(play(read, heard))
        group.create_task(play(write, said))
        await until(lambda: len(got) > 40)
        broker.freeze()
        await asyncio.sleep(0.3)
        broker.thaw()
    assert numbers(got) == list(range(200))


async def test_the_end_is_not_lost_with_the_broker(make_broker):
    broker, held = make_broker(persistence=False), asyncio.Event()
    write, read = writer(broker, out=STRICT_OUT), reader(broker, how=STRICT_IN)
    said, heard = session(write, ticks=20, hold=(19, held)), session(read)
    async with asyncio.timeout(40), asyncio.TaskGroup() as group:
        group.create_task(play(read, heard))
        group.create_task(play(write, said))
        await until(lambda: len(heard.info.extra["got"]) == 19)
        broker.kill()
        held.set()
        await asyncio.sleep(0.2)
        broker.start()
    assert numbers(heard.info.extra["got"]) == list(range(20))


async def test_a_reader_that_begins_anew_before_anything_is_lost_gets_it_all(make_broker):
    broker, held = make_broker(), asyncio.Event()
    write, read = writer(broker, out=STRICT_OUT), reader(broker, how=STRICT_IN)
    async with asyncio.timeout(40):
        heard = session(read, gate=asyncio.Event())
        reading = asyncio.create_task(play(read, heard))
        writing = asyncio.create_task(play(write, session(write, hold=(1, held))))
        await until(lambda: write.sinks and write.sinks["out"]._writers)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        again = reader(broker, how=STRICT_IN)
        second = session(again)
        reading = asyncio.create_task(play(again, second))
        held.set()
        await asyncio.gather(writing, reading)
    assert numbers(second.info.extra["got"]) == list(range(20))


async def fails_with_restart(task, peer):
    with pytest.raises(NodeError) as told:
        await task
    cause = told.value.__cause__
    assert isinstance(cause, PeerRestarted), told.value
    assert peer in cause.peer
    assert "began anew" in str(cause)


async def test_a_reader_that_begins_anew_ends_the_writers_session_and_the_next_one_works(make_broker):
    broker, held = make_broker(), asyncio.Event()
    write, read = writer(broker, out=STRICT_OUT), reader(broker, how=STRICT_IN)
    async with asyncio.timeout(40):
        heard = session(read)
        reading = asyncio.create_task(play(read, heard))
        writing = asyncio.create_task(play(write, session(write, ticks=50, hold=(40, held))))
        await until(lambda: len(heard.info.extra["got"]) == 40)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        again = reader(broker, how=STRICT_IN)  # another process
        second = session(again)
        reading = asyncio.create_task(play(again, second))
        await until(lambda: write.sinks["out"].exchange.receipt("streamer/brain/receipt/ears/out/audio").run is None)
        held.set()
        await fails_with_restart(writing, "brain")
        await play(write, session(write, "main-2"))
        await reading
    assert numbers(second.info.extra["got"]) == list(range(20))


async def test_a_writer_that_begins_anew_ends_the_readers_session_and_the_next_one_works(make_broker):
    broker, held = make_broker(), asyncio.Event()
    write, read = writer(broker, out=STRICT_OUT), reader(broker, how=STRICT_IN)
    async with asyncio.timeout(40):
        heard = session(read)
        writing = asyncio.create_task(play(write, session(write, hold=(10, held))))
        async with held_open(read):
            reading = asyncio.create_task(play(read, heard))
            await until(lambda: len(heard.info.extra["got"]) == 10)
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
            again = writer(broker, out=STRICT_OUT)
            writing = asyncio.create_task(play(again, session(again, ticks=30)))
            await fails_with_restart(reading, "streamer/ears/stream/out/audio")
            second = session(read, "main-2")
            await play(read, second)
            await writing
    assert numbers(second.info.extra["got"]) == list(range(30))


class held_open:  # noqa: N801
    """Hold a graph's exchange between two sessions, as a live run does."""

    def __init__(self, graph):
        self.graph = graph

    async def __aenter__(self):
        self.graph.build()
        self.exchange = self.graph.sources["in"].exchange
        await self.exchange.acquire()

    async def __aexit__(self, *exc):
        await self.exchange.release()


async def test_a_reader_that_is_there_and_reads_nothing_is_not_waited_for_for_ever(make_broker):
    broker = make_broker()
    write, read = writer(broker, out=f"{STRICT_OUT}, patience: 0.5"), reader(broker, how=STRICT_IN)
    async with asyncio.timeout(20), held_open(read):
        exchange = read.sources["in"].exchange
        receipt = '{"session":"x","boot":"' + exchange.boot + '","run":null,"got":0}'
        exchange.client.publish("streamer/brain/receipt/ears/out/audio", receipt, qos=1, retain=True)
        with pytest.raises(NodeError, match="brain: it is there, but has not begun to read"):
            await play(write, session(write))


async def test_sessions_follow_one_another(make_broker):
    broker = make_broker()
    write, read = writer(broker, out=STRICT_OUT), reader(broker, how=STRICT_IN)
    for i in range(3):
        said, heard = session(write, f"s{i}", ticks=10 + i), session(read, f"r{i}")
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(play(read, heard))
            group.create_task(play(write, said))
        assert numbers(heard.info.extra["got"]) == list(range(10 + i))
        assert {frame.session for frame in heard.info.extra["got"]} == {f"r{i}"}


async def test_two_readers_get_the_same(make_broker):
    broker = make_broker()
    write = writer(broker, out="policy: block, readers: [brain, mouth], window: 8")
    reads = [reader(broker, name=name, how=STRICT_IN) for name in ("brain", "mouth")]
    gate = asyncio.Event()
    heards = [session(reads[0]), session(reads[1], gate=gate)]
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        for read, heard in zip(reads, heards, strict=True):
            group.create_task(play(read, heard))
        group.create_task(play(write, session(write, ticks=100)))
        await asyncio.sleep(0.3)
        assert len(heards[0].info.extra["got"]) < 100
        gate.set()
    for heard in heards:
        assert numbers(heard.info.extra["got"]) == list(range(100))


async def test_without_named_readers_a_full_broker_is_waited_for(make_broker):
    broker = make_broker()
    write = writer(broker, out="policy: block, capacity: 4, bundle_ms: 200")
    await asyncio.wait_for(play(write, session(write, ticks=200)), 20)
    assert write.sinks == {} or not write.sinks["out"]._open


async def test_one_topic_takes_one_stream(make_broker):
    broker, held = make_broker(), asyncio.Event()
    write = writer(broker, out="policy: block")
    async with Running(write) as running:
        first = asyncio.create_task(running.run(session(write, "a", hold=(5, held))))
        await until(lambda: write.sinks["out"]._writers)
        with pytest.raises(NodeError, match="session 'a' writes"):
            await running.run(session(write, "b"))
        held.set()
        await first


async def test_whole_graphs_of_several_frames_a_message(make_broker):
    broker = make_broker()
    write = writer(broker, out=f"{STRICT_OUT}, bundle_ms: 400")
    _, heard = await both(write, reader(broker, how=STRICT_IN), ticks=95)
    assert numbers(heard.info.extra["got"]) == list(range(95))
