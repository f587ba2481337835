import asyncio
import json

import pytest
from graphs_over_topics import until

from streamer import ConfigError, InputError
from streamer.metrics import Metrics
from streamer.node import Build, SessionInfo
from streamer.nodes.mqtt.exchange import exchange_for, messages
from streamer.settings import MqttSettings


def build(broker, instance="brain", **settings):
    how = {"host": "127.0.0.1", "port": broker.port, "keepalive": 4} | settings
    return Build("node", mqtt=MqttSettings(**how), instance=instance)


@pytest.fixture
async def watched(broker, make_client):
    """What `streamer/brain/status` said, as it came."""
    said = []
    client = await make_client(broker, "watcher")
    asked = client.subscribe("streamer/brain/status", 1, lambda message: said.append(json.loads(message.payload)))
    await asyncio.wait_for(asked.granted.wait(), 5)
    return said


async def test_the_nodes_of_one_graph_share_it(broker):
    made = build(broker)
    assert exchange_for(made) is exchange_for(made)
    with pytest.raises(ConfigError, match="needs a broker"):
        exchange_for(Build("node"))


async def test_the_status_says_when_it_comes_and_goes(broker, watched):
    exchange = exchange_for(build(broker))
    async with exchange.held():
        exchange.say(phase="running", reason="started", gone=None)
        exchange.note("in", "waiting for ears")
        exchange.note("out", "waiting for mouth")
        await until(lambda: watched and watched[-1].get("waiting") == "waiting for ears; waiting for mouth")
        exchange.note("in", None)
        exchange.note("out", None)
        await until(lambda: "waiting" not in watched[-1])
        now = watched[-1]
        assert (now["state"], now["phase"], now["boot"]) == ("online", "running", exchange.boot)
        assert "gone" not in now
    await until(lambda: watched[-1]["state"] == "offline")
    count = len(watched)
    async with exchange.held():
        await until(lambda: len(watched) > count and watched[-1]["state"] == "online")


async def test_it_lives_as_long_as_somebody_holds_it(broker):
    exchange = exchange_for(build(broker))
    await exchange.acquire()
    await exchange.acquire()
    client = exchange.client
    await exchange.release()
    assert exchange.client is client
    leaving = asyncio.create_task(exchange.release())
    await asyncio.sleep(0)
    leaving.cancel()  # it leaves all the same
    await until(lambda: exchange._client is None and client._task is None)
    with pytest.raises(RuntimeError, match="not held"):
        _ = exchange.client


async def test_a_killed_broker_learns_the_status_again(broker, watched):
    exchange = exchange_for(build(broker))
    async with exchange.held():
        await until(lambda: watched)
        broker.kill()
        (broker.folder / "mosquitto.db").unlink(missing_ok=True)
        broker.start()
        watched.clear()
        await until(lambda: watched and watched[-1]["state"] == "online")


async def test_messages_for_a_plugin(broker, make_client):
    writer = await make_client(broker, "lamp")
    writer.publish("house/hall/light", "0.5", qos=1, retain=True)
    stream = messages(build(broker), "house/+/light")
    async with asyncio.timeout(10):
        assert await anext(stream) == ("house/hall/light", b"0.5")
        writer.publish("house/attic/light", "1", qos=1)
        assert await anext(stream) == ("house/attic/light", b"1")
        for i in range(400):
            writer.publish("house/hall/light", str(i), qos=1)
        await until(lambda: not writer._post.waiting)
        got = [await anext(stream)]
        while got[-1][1] != b"399":
            got.append(await anext(stream))
    assert len(got) <= 400
    await stream.aclose()
    with pytest.raises(ConfigError, match="topic filter"):
        await anext(messages(build(broker), "a/b#"))


async def test_what_the_rights_allow_is_verified_once(make_broker, monkeypatch):
    monkeypatch.setattr("streamer.nodes.mqtt.exchange.ECHO", 0.5)
    rights = "user alice\ntopic readwrite streamer/brain/#\ntopic write streamer/blind/#\n"
    broker = make_broker(users={"alice": "horse"}, rights=rights)
    exchange = exchange_for(build(broker, username="alice", password="horse"))  # noqa: S106
    async with exchange.held():
        await exchange.verify(exchange.topics.probe)
        await exchange.verify(exchange.topics.probe)
        for topic in ("streamer/other/probe", "streamer/blind/probe"):
            with pytest.raises(InputError, match="does not let alice publish there, or not read there"):
                await exchange.verify(topic)


def test_runs_and_positions_belong_to_a_session(broker):
    exchange = exchange_for(build(broker))
    first, same = (SessionInfo("main", metrics=metrics) for metrics in [Metrics()] * 2)
    again = SessionInfo("main", metrics=Metrics())
    run = exchange.run_of(first)
    assert run.startswith("main.")
    assert exchange.run_of(same) == run != exchange.run_of(again)
    assert exchange.bases_of(first) is exchange.bases_of(same)
    assert exchange.bases_of(first) is not exchange.bases_of(again)
    for i in range(1000):
        exchange.run_of(SessionInfo(f"s{i}"))
    assert len(exchange._runs) <= 64
