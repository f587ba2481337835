"""Live streams: what is there now, whatever else comes; nothing that comes from a topic ends the graph."""

import asyncio
import itertools
import json

import numpy as np
import pytest
from graphs_over_topics import (
    TICK,
    frame_of,
    numbers,
    play,
    reader,
    session,
    until,
    writer,
)

from streamer import InputError, NodeError
from streamer.errors import PeerRestarted
from streamer.wire import pack_many

TOPIC = "streamer/ears/stream/out/audio"
LIVE = "wait_ms: 40"


class Heard:
    """A live reader that runs, and a client that publishes by hand to its topic."""

    def __init__(self, client, graph, heard):
        self.client, self.graph, self.session = client, graph, heard
        self.got = heard.info.extra["got"]

    def send(self, *frames, topic=TOPIC):
        self.client.publish(topic, pack_many(frames), qos=1)

    def raw(self, data, **how):
        self.client.publish(TOPIC, data, qos=1, **how)

    @property
    def counted(self):
        names = self.session.metrics.counters.items()
        return {name.removeprefix("in."): count for name, count in names if name.startswith("in.")}


@pytest.fixture
async def listen(broker, make_client):
    """`await listen(how)`: a `Heard` that is connected."""
    tasks = []

    async def start(how=LIVE, **extra):
        client = await make_client(broker, f"hand{len(tasks)}")
        graph = reader(broker, how=how, **{name: extra.pop(name) for name in ("kind", "topic") if name in extra})
        heard = session(graph, **extra)
        tasks.append((graph, heard, asyncio.create_task(play(graph, heard))))
        await until(lambda: graph.sources and graph.sources["in"].box().read)
        await asyncio.wait_for(graph.sources["in"].box().asked.granted.wait(), 5)
        return Heard(client, graph, heard)

    yield start
    for _, heard, task in tasks:
        assert not task.done(), task.result()
        heard.stop()
        async with asyncio.timeout(5):
            await task


def frames(*numbers, run="mic.1", offset=0):
    return [frame_of("audio", i, run, position=(i + offset) * TICK) for i in numbers]


async def test_it_begins_where_the_stream_is_at_position_0(listen):
    heard = await listen()
    heard.send(*frames(1000, 1001, 1002))
    await until(lambda: len(heard.got) == 3)
    assert [(frame.position, frame.session) for frame in heard.got] == [(i * TICK, "main") for i in range(3)]


async def test_duplicates_go_and_order_comes_back(listen):
    heard = await listen("wait_ms: 5000")
    for i in (0, 1, 1, 4, 2, 3, 2, 5):
        heard.send(*frames(i))
    await until(lambda: len(heard.got) == 6)
    assert numbers(heard.got) == [0, 1, 2, 3, 4, 5]
    assert heard.counted == {"duplicates": 2, "reordered": 2}


async def test_lost_sound_is_made_up_for_three_ticks_and_late_sound_is_counted(listen):
    heard = await listen()
    heard.send(*frames(10, 11))
    heard.send(*frames(17))
    await until(lambda: len(heard.got) == 6)
    assert [frame.position // TICK for frame in heard.got] == [0, 1, 2, 3, 4, 7]
    assert [bool(frame.meta.get("concealed")) for frame in heard.got] == [False, False, True, True, True, False]
    assert np.abs(heard.got[4].array).max() < np.abs(heard.got[1].array).max() / 2
    heard.send(*frames(13))
    heard.send(*frames(18))
    await until(lambda: len(heard.got) == 7)
    assert heard.counted == {"lost": 5, "concealed": 3, "late": 1}


@pytest.mark.parametrize("live", [True, False])
async def test_a_tick_has_a_deadline_from_when_it_came_where_time_counts(listen, live):
    topic, now = "streamer/ears/stream/out/tick", [5.0]
    heard = await listen(LIVE if live else "live: false", kind="tick", topic=topic)
    load = heard.session.info.load
    load._clock = lambda: now[0]
    heard.send(*(frame_of("tick", i, "mic.1") for i in range(3)), topic=topic)
    await until(lambda: len(heard.got) == 3)
    for frame in heard.got:
        load.place(frame.position, frame.position + 7 * TICK)
        now[0] += 1.0
        load.done(frame.position + 7 * TICK)
    assert load.lateness.count == (3 if live else 0)
    assert (load.rung > 0) == live


async def test_without_concealment_the_position_leaps(listen):
    heard = await listen(f"{LIVE}, conceal: false")
    heard.send(*frames(0, 1))
    heard.send(*frames(5))
    await until(lambda: len(heard.got) == 3)
    assert [frame.position // TICK for frame in heard.got] == [0, 1, 5]


async def test_another_run_goes_on_where_the_session_is(listen):
    heard = await listen()
    heard.send(*frames(50, 51, run="mic.1"))
    heard.send(*frames(0, 1, run="mic.2"))
    heard.send(*frames(52, run="mic.1"))
    heard.send(*frames(2, run="mic.2"))
    await until(lambda: len(heard.got) == 5)
    assert [frame.position // TICK for frame in heard.got] == [0, 1, 2, 3, 4]
    assert numbers(heard.got) == [50, 51, 0, 1, 2]
    assert heard.counted == {"runs": 1, "stale": 1}


async def test_a_program_without_run_ids_may_begin_anew(listen):
    heard = await listen()
    heard.send(*frames(500, 501, run="sensor"))
    for i in range(5):
        heard.send(*frames(i, run="sensor"))
    await until(lambda: len(heard.got) == 5)
    assert numbers(heard.got) == [500, 501, 2, 3, 4]
    assert [frame.position // TICK for frame in heard.got] == [0, 1, 2, 3, 4]
    assert heard.counted == {"stale": 2}


async def test_the_end_of_a_live_run_does_not_end_the_session(listen):
    heard = await listen()
    heard.send(*frames(0), frame_of("audio", 1, "mic.1").replace(flags=4 | 1, shape=(0,), payload=b""))
    heard.send(*frames(0, run="mic.2"))
    await until(lambda: len(heard.got) == 2)
    assert not any(frame.last for frame in heard.got)


WRONG_VERSION = frame_of("audio", 0).pack().replace(b"\x9c\x01", b"\x9c\x02", 1)


@pytest.mark.parametrize(
    "bad",
    [
        b"hello",
        b"\xc1",
        b"\x91" * 100_000,
        WRONG_VERSION,
        frame_of("audio", 0).pack()[:-5],
        frame_of("semantic", 0).pack(),
        json.dumps({"state": "on"}).encode(),
    ],
    ids=["text", "never", "deep", "version", "cut", "kind", "json"],
)
async def test_what_is_damaged_is_counted_and_ends_nothing(listen, bad):
    heard = await listen()
    for _ in range(3):
        heard.raw(bad)
    heard.send(*frames(0))
    await until(lambda: len(heard.got) == 1)
    assert heard.counted == {"bad": 3}


async def test_other_numbers_of_codebooks_are_refused(listen):
    heard = await listen("levels: 8", kind="acoustic")
    heard.send(frame_of("acoustic", 0))
    await until(lambda: heard.counted == {"bad": 1})


async def test_a_retained_message_is_none_of_the_present(listen):
    first = await listen()
    first.raw(b"\xc1 bad for ever", retain=True)
    first.send(*frames(0))
    await until(lambda: len(first.got) == 1)
    assert first.counted == {"bad": 1}  # it came as it was published; kept, it is passed over
    again = await listen()  # the same identity: it takes the connection over, as a program that was started anew
    await until(lambda: again.graph.sources["in"].box().stale == 1)
    again.send(*frames(1))
    await until(lambda: len(again.got) == 1)
    assert again.counted == {}


async def test_a_graph_that_is_late_loses_the_oldest_and_says_so(listen):
    gate = asyncio.Event()
    heard = await listen(f"{LIVE}, capacity: 10", gate=gate)
    for i in range(200):
        heard.send(*frames(i))
    await until(lambda: heard.counted.get("dropped", 0) > 50)
    await until(lambda: heard.graph.sources["in"].exchange.client.connected and not heard.client._post.waiting)
    gate.set()
    heard.send(*frames(200))
    await until(lambda: numbers(heard.got)[-1:] == [200])
    assert len(heard.got) + heard.counted["dropped"] == 201
    assert numbers(heard.got) == sorted(numbers(heard.got))


async def test_a_flood_ends_nothing(listen, heartbeat):
    heard = await listen()
    for i in range(900):
        heard.raw(b"noise" if i % 3 else pack_many(frames(i // 3)))
    await until(lambda: heard.counted.get("bad") == 600)
    await until(lambda: len(heard.got) + heard.counted.get("dropped", 0) == 300)


async def test_a_graph_speaks_and_another_hears_live(make_broker):
    broker = make_broker()
    write = writer(broker, say="live: true, pause: 0.005")
    read = reader(broker)
    heard, said = session(read), session(write, ticks=200)
    async with asyncio.timeout(20):
        reading = asyncio.create_task(play(read, heard))
        await until(lambda: read.sources and read.sources["in"].box().read)
        await play(write, said)
        heard.stop()
        await reading
    got = [frame for frame in heard.info.extra["got"] if frame.payload]
    assert len(got) > 190
    assert got[0].dtype == "f4"  # it travelled as 16 bit
    assert [frame.position for frame in got] == [i * TICK for i in range(len(got))]
    assert not {name for name in heard.metrics.counters if "bad" in name}


async def test_live_sound_resumes_at_the_present(make_broker):
    broker = make_broker()
    write, read = writer(broker, say="live: true, pause: 0.01"), reader(broker)
    heard, said = session(read), session(write, ticks=100_000)
    got = heard.info.extra["got"]
    async with asyncio.timeout(30):
        tasks = [asyncio.create_task(play(graph, each)) for graph, each in ((read, heard), (write, said))]
        await until(lambda: len(got) > 20)
        broker.kill()
        await asyncio.sleep(1.0)
        before = len(got)
        broker.start()
        await until(lambda: len(got) > before + 20)
        for each in (said, heard):
            each.stop()
        await asyncio.gather(*tasks)
    numbered = numbers(got)
    leap = max(b - a for a, b in itertools.pairwise(numbered))
    assert leap > 30  # the outage was not played later
    assert said.metrics.counters["out.dropped"] > 20
    positions = [frame.position for frame in got]
    assert positions == sorted(set(positions))


async def test_live_does_not_wait_for_a_broker(make_broker):
    broker = make_broker()
    broker.kill()
    write = writer(broker, say="live: true")
    said = session(write, ticks=500)
    await asyncio.wait_for(play(write, said), 10)
    assert said.metrics.counters["out.dropped"] > 400


LIVE_OUT, LIVE_IN = "policy: drop_oldest, readers: [brain]", "join: start"


async def test_live_from_a_common_beginning(make_broker):
    broker = make_broker()
    write, read = writer(broker, out=LIVE_OUT, say="live: true, pause: 0.005"), reader(broker, how=LIVE_IN)
    heard, said = session(read), session(write, ticks=100)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(play(write, said))
        group.create_task(play(read, heard))
    got = heard.info.extra["got"]
    assert got[0].position == 0
    assert got[-1].last
    assert len(got) == 101


async def test_a_run_whose_first_frames_were_lost_still_has_its_positions(listen):
    heard = await listen(f"{LIVE}, join: start, conceal: false")
    heard.send(*frames(3, 4))
    await until(lambda: len(heard.got) == 2)
    assert [frame.position // TICK for frame in heard.got] == [3, 4]
    assert heard.counted == {"lost": 3}


async def test_a_run_that_is_met_in_its_middle_is_not_one_from_the_start(listen):
    heard = await listen("join: start")
    heard.send(*frames(80, 81))
    heard.send(*frames(0, run="mic.2"))
    await until(lambda: len(heard.got) == 1)
    assert heard.counted == {"stale": 2}


SECRET = "horse"  # noqa: S105
RIGHTS = """
user ears
topic readwrite streamer/ears/status
topic read streamer/#
"""


@pytest.mark.parametrize("policy", ["block", "drop_oldest"])
async def test_a_publication_that_the_rights_forbid_is_said(make_broker, policy, monkeypatch):
    """The broker confirms such a message and drops it; only an echo shows it."""
    broker = make_broker(users={"ears": SECRET}, rights=RIGHTS)
    monkeypatch.setenv("STREAMER_MQTT_USERNAME", "ears")
    monkeypatch.setenv("STREAMER_MQTT_PASSWORD", SECRET)
    monkeypatch.setattr("streamer.nodes.mqtt.exchange.ECHO", 0.3)
    write = writer(broker, out=f"policy: {policy}", say="live: true, pause: 0.01")
    with pytest.raises(NodeError, match="does not come back") as told:
        await asyncio.wait_for(play(write, session(write, ticks=1000)), 10)
    assert isinstance(told.value.__cause__, InputError)


async def test_a_wrong_password_ends_the_session_with_what_to_do(make_broker):
    broker = make_broker(users={"ears": SECRET})
    read = reader(broker)
    with pytest.raises(NodeError, match=r"check mqtt.username and the password"):
        await asyncio.wait_for(play(read, session(read)), 10)


async def test_a_silent_topic_is_said_in_the_status(make_broker, make_client, monkeypatch):
    monkeypatch.setattr("streamer.nodes.mqtt.source.QUIET_SECONDS", 0.1)
    monkeypatch.setattr("streamer.nodes.mqtt.source.LOOK", 0.05)
    broker = make_broker()
    watcher, said = await make_client(broker, "watcher"), []
    watcher.subscribe("streamer/brain/status", 1, lambda message: said.append(json.loads(message.payload)))
    read = reader(broker)
    heard = session(read)
    task = asyncio.create_task(play(read, heard))
    await until(lambda: any("nothing comes on streamer/ears" in (each.get("waiting") or "") for each in said))
    watcher.publish(TOPIC, pack_many(frames(0)), qos=1)
    await until(lambda: said[-1].get("waiting") is None)
    heard.stop()
    await task


async def test_a_live_reader_that_begins_anew_is_given_a_beginning(make_broker):
    """Streams that have a beginning in common begin anew together, also where frames may be lost."""
    broker = make_broker()
    write = writer(broker, out=LIVE_OUT, say="live: true, pause: 0.005")
    async with asyncio.timeout(20):
        writing = asyncio.create_task(play(write, session(write, ticks=100_000)))
        read = reader(broker, how=LIVE_IN)
        heard = session(read)
        reading = asyncio.create_task(play(read, heard))
        await until(lambda: len(heard.info.extra["got"]) > 100)  # no beginning any more that the next one could take
        reading.cancel()
        await asyncio.wait([reading])
        again = reader(broker, how=LIVE_IN)  # another process
        heard = session(again)
        reading = asyncio.create_task(play(again, heard))
        with pytest.raises(NodeError) as told:
            await writing
        assert isinstance(told.value.__cause__, PeerRestarted)
        await play(write, session(write, "main-2", ticks=30))
        await reading
    got = heard.info.extra["got"]
    assert (got[0].position, got[-1].last) == (0, True)
