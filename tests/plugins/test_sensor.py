"""The sensor: numbers from messages, a smooth way to them, few updates, and both ways in (MQTT is a fake here)."""

import asyncio
import contextlib
import json
import math
import socket
import sys
from pathlib import Path

import aiomqtt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "mqtt"))
import mosquitto
from desks import graph_of, playing
from streamer_plugins import sensor
from streamer_plugins._numbers import Follower, number_in
from streamer_plugins.sensor import SensorSettings

from streamer import ConfigError

MQTT = """
  light:
    type: sensor
    topic: house/light
    path: sensors.0.lux
    input: [0, 800]
    output: [1.2, 0.4]
    node: coarse
    smooth: 0
    most_a_second: 25
"""
EDGES = ", light -> ear.control"


# -- what a message holds ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "path", "number"),
    [
        (b"21.5", "", 21.5),
        (b" -3 \n", "", -3.0),
        (b'"7"', "", 7.0),
        (b"true", "", 1.0),
        (b"OFF", "", 0.0),
        (b'{"state": "open"}', "state", 1.0),
        (b'{"a": {"b": [1, {"c": 2e3}]}}', "a.b.1.c", 2000.0),
        (b'{"0": 4}', "0", 4.0),
        (b".5", "", 0.5),
    ],
)
def test_the_number_in_a_message(payload, path, number):
    assert number_in(payload, path) == number


@pytest.mark.parametrize(
    ("payload", "path", "said"),
    [
        (b"", "", "'' is no number"),
        (b"warm", "", "'warm' is no number"),
        (b"NaN", "", "is no number"),
        (b"1e999", "", "is no number"),
        (b"9" * 5000, "", "is no number"),
        (b"null", "", "is no number"),
        (b"[1]", "", "is no number"),
        (b"[1]", "1", "nothing at '1'"),
        (b"[1]", "-1", "nothing at '-1'"),
        (b'{"a": 1}', "b", "nothing at 'b' of the path 'b'"),
        (b"5", "a", "nothing at 'a'"),
        (b"[" * 60_000, "", "is no number"),
        (b"\xff\xfe", "", "is no number"),
        (b" " * 70_000, "", "70000 bytes"),
    ],
)
def test_a_message_without_a_number_is_a_value_error(payload, path, said):
    with pytest.raises(ValueError, match=said):
        number_in(payload, path)


@given(st.binary(max_size=40), st.sampled_from(["", "a", "0.a"]))
def test_any_bytes_are_a_finite_number_or_a_value_error(payload, path):
    with contextlib.suppress(ValueError):
        assert math.isfinite(number_in(payload, path))


# -- the way to it ----------------------------------------------------------------------------------------------------


def follow(follower, times):
    return {at: told for at in times if (told := follower.step(at)) is not None}


def test_the_first_number_is_told_at_once_and_the_next_is_come_to_in_the_time_constant():
    follower = Follower(2.0, 0.01, 10)
    assert follower.step(0.0) is None
    follower.want(3.0, 5.0)
    assert follower.step(5.0) == 3.0
    assert follower.settled
    follower.want(7.0, 100.0)  # the time at rest does not count
    assert follower.step(102.0) == pytest.approx(3 + 4 * (1 - math.exp(-1)))
    told = follow(follower, [102 + i / 5 for i in range(1, 200)])
    assert list(told.values()) == sorted(told.values())
    assert follower.settled
    assert follower.now == 7.0
    assert follower.told == pytest.approx(7.0, abs=0.1)


def test_the_way_depends_on_the_time_alone_not_on_the_steps():
    one, many = Follower(1.0, 0.0, 1), Follower(1.0, 0.0, 1)
    for each in (one, many):
        each.want(0.0, 0.0)
        each.step(0.0)
        each.want(1.0, 0.0)
    follow(many, [i / 100 for i in range(1, 101)])
    one.step(1.0)
    assert one.now == pytest.approx(many.now) == pytest.approx(1 - math.exp(-1))


def test_what_stays_within_the_dead_band_is_not_told():
    follower = Follower(0.0, 0.1, 10)
    told = []
    for i, number in enumerate([5, 5.9, 4.1, 6.1, 5.2, 7.2, 6.9]):
        follower.want(number, i)
        told.append(follower.step(i))
    assert told == [5, None, None, 6.1, None, 7.2, None]


def test_without_smoothing_and_dead_band_every_change_is_told_once():
    follower = Follower(0.0, 0.0, 1)
    told = []
    for i, number in enumerate([0.5, 0.5, 0.50001, 0.2]):
        follower.want(number, i)
        told.append(follower.step(i))
    assert told == [0.5, None, 0.50001, 0.2]
    assert follower.settled


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.001, 100)), min_size=1, max_size=20), st.floats(0, 10))
def test_it_never_leaves_what_it_was_given(steps, smooth):
    follower, at = Follower(smooth, 0.01, 1), 0.0
    low, high = min(number for number, _ in steps), max(number for number, _ in steps)
    for number, pause in steps:
        follower.want(number, at)
        at += pause
        told = follower.step(at)
        assert told is None or low - 1e-9 <= told <= high + 1e-9


# -- whole graphs -----------------------------------------------------------------------------------------------------


class Broker:
    """Stands for `streamer.mqtt_messages`: gives what is put in, to one who listens."""

    def __init__(self):
        self.queue, self.asked, self.open = asyncio.Queue(100), [], 0

    async def messages(self, build, topic):
        self.asked.append((build.name, topic))
        self.open += 1
        try:
            while (payload := await self.queue.get()) is not None:
                if isinstance(payload, Exception):
                    raise payload
                yield topic, payload
        finally:
            self.open -= 1

    def say(self, payload):
        self.queue.put_nowait(payload)

    def lux(self, value):
        self.say(json.dumps({"sensors": [{"lux": value}]}).encode())


@pytest.fixture
def broker(monkeypatch):
    made = Broker()
    monkeypatch.setattr(sensor, "mqtt_messages", made.messages)
    return made


async def test_an_mqtt_value_moves_a_setting(broker):
    with graph_of(MQTT, EDGES) as graph:
        async with playing(graph) as play:
            for lux, temperature in ((0, 1.2), (400, 0.8), (5000, 0.4), (-7, 1.2)):
                broker.lux(lux)
                assert await play.took() == [
                    ("set", {"node": "coarse", "temperature": pytest.approx(temperature)})
                ]  # fmt: skip
            assert play.metrics.gauges["light.input"] == -7
            assert play.metrics.gauges["light.output"] == pytest.approx(1.2)
        assert broker.asked == [("light", "house/light")]
        assert broker.open == 0


async def test_it_goes_on_towards_the_last_number_though_no_more_come(broker):
    smooth = MQTT.replace("smooth: 0", "smooth: 0.05")
    with graph_of(smooth, EDGES) as graph:
        async with playing(graph) as play:
            broker.lux(0)
            assert await play.took() == [("set", {"node": "coarse", "temperature": pytest.approx(1.2)})]
            broker.lux(800)
            seen = []
            while not seen or seen[-1] > 0.41:
                seen += [values["temperature"] for _, values in await play.took()]
            assert seen == sorted(seen, reverse=True)
            assert len(seen) > 1


async def test_a_flood_gives_few_updates_and_the_last_number(broker):
    with graph_of(MQTT, EDGES) as graph:
        async with playing(graph) as play:
            for i in range(90):
                broker.lux(8 * i)
            broker.lux(800)
            seen = [values["temperature"] for _, values in await play.took()]
            while seen[-1] > 0.401:
                seen += [values["temperature"] for _, values in await play.took()]
            assert len(seen) < 20


async def test_messages_without_a_number_are_counted_and_said_once(broker, capsys):
    with graph_of(MQTT, EDGES) as graph:
        async with playing(graph) as play:
            for payload in (b"", b"12", b'{"sensors": []}', b'{"sensors": [{"lux": "dark"}]}'):
                broker.say(payload)
            broker.lux(0)
            await play.took()
            assert play.counter("light.refused") == 4
    said = capsys.readouterr()
    assert said.err.count("house/light: nothing at 'sensors'") == 1
    assert said.out == ""


async def test_the_next_session_begins_with_what_stands(broker):
    with graph_of(MQTT, EDGES) as graph:
        for _ in range(2):
            async with playing(graph) as play:
                if not broker.asked:
                    broker.lux(400)
                assert await play.took() == [("set", {"node": "coarse", "temperature": pytest.approx(0.8)})]
        assert len(broker.asked) == 2


async def test_what_the_broker_refuses_ends_the_session_and_its_end_does_not(broker):
    with graph_of(MQTT, EDGES) as graph:
        async with playing(graph, ends="no broker here"):
            broker.say(ConfigError("no broker here"))
        async with playing(graph) as play:
            broker.say(None)
            await play.until(lambda: broker.open == 0 and len(broker.asked) == 2)


@pytest.mark.skipif(mosquitto.PROGRAM is None, reason="needs mosquitto (Debian: apt-get install mosquitto)")
async def test_a_value_by_a_real_broker_moves_a_setting(tmp_path):
    broker = mosquitto.Broker(tmp_path / "broker").start()
    try:
        with graph_of(MQTT, EDGES, f"mqtt: {{host: 127.0.0.1, port: {broker.port}}}") as graph:
            async with playing(graph) as play, aiomqtt.Client("127.0.0.1", broker.port) as client:
                await client.publish("house/light", json.dumps({"sensors": [{"lux": 400}]}), qos=1, retain=True)
                assert await play.took() == [("set", {"node": "coarse", "temperature": pytest.approx(0.8)})]
                await client.publish("house/light", b"junk", qos=1)
                await client.publish("house/light", json.dumps({"sensors": [{"lux": 800}]}), qos=1)
                assert await play.took() == [("set", {"node": "coarse", "temperature": 0.4})]
                assert play.counter("light.refused") == 1
    finally:
        broker.stop()


async def test_an_osc_value_moves_a_setting(capsys):
    pytest.importorskip("pythonosc")
    from pythonosc.osc_message_builder import OscMessageBuilder

    def message(address, *values):
        builder = OscMessageBuilder(address)
        for value in values:
            builder.add_arg(value)
        return builder.build().dgram

    nodes = """
  light: {type: sensor, address: /near, port: 0, input: [0, 1], output: [1, 3], command: gain, value: value, smooth: 0,
    most_a_second: 25}"""
    with graph_of(nodes, EDGES) as graph:
        async with playing(graph) as play:
            await play.until(lambda: "light.port" in play.metrics.gauges)
            to = ("127.0.0.1", int(play.metrics.gauges["light.port"]))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                for data in (b"junk", message("/far", 1.0), message("/near", "x"), message("/near")):
                    client.sendto(data, to)
                client.sendto(message("/near", 0.5), to)
                assert await play.took() == [("gain", {"value": 2.0})]
                client.sendto(message("/near", 1), to)
                assert await play.took() == [("gain", {"value": 3.0})]
            assert play.counter("light.refused") == 3
    assert capsys.readouterr().err.count("plugin") == 1


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({}, "either `topic`"),
        ({"topic": "a", "address": "/a"}, "either `topic`"),
        ({"topic": "a", "input": (1, 1)}, "two different"),
        ({"topic": "a", "value": "node"}, "cannot be called 'node'"),
        ({"topic": "a", "most_a_second": 1000}, "less than or equal to 25"),
        ({"address": "near"}, "address"),
    ],
)
def test_settings_that_cannot_be(given_, said):
    with pytest.raises(ValidationError, match=said):
        SensorSettings(**({"input": (0, 1), "output": (0, 1)} | given_))


def test_osc_needs_its_library_and_mqtt_does_not(monkeypatch):
    for name in ("pythonosc", "pythonosc.osc_message"):
        monkeypatch.setitem(sys.modules, name, None)
    graph_of(MQTT, EDGES).build().close()
    osc = MQTT.replace("topic: house/light", "address: /light")
    with pytest.raises(ConfigError, match="needs python-osc"):
        graph_of(osc, EDGES).build()
