"""The embedded broker: that it is one, what it says, and how it ends."""

import asyncio
import contextlib
import json
import logging
import signal
import socket
import subprocess

import pytest
import structlog

from streamer.commands import broker as module
from streamer.errors import ConfigError

paho = pytest.importorskip("paho.mqtt.client", reason="needs paho-mqtt")
pytest.importorskip("amqtt", reason="needs amqtt, the extra `broker`")
LIMIT = 30.0


class Client:
    """A client of another library than the broker's, in its own thread."""

    def __init__(self, port, name):
        self.loop, self.messages, self.up = asyncio.get_running_loop(), asyncio.Queue(), asyncio.Event()
        self.subscribed, self.acknowledged = asyncio.Event(), asyncio.Event()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv311)
        self.client.on_connect = lambda *_: self._later(self.up.set)
        self.client.on_subscribe = lambda *_: self._later(self.subscribed.set)
        self.client.on_publish = lambda *_: self._later(self.acknowledged.set)
        self.client.on_message = lambda _, __, message: self._later(self.messages.put_nowait, message)
        self.client.connect_async("127.0.0.1", port)
        self.client.loop_start()

    def _later(self, call, *values):
        with contextlib.suppress(RuntimeError):  # the test is over
            self.loop.call_soon_threadsafe(call, *values)

    async def subscribe(self, topic, qos):
        self.subscribed.clear()
        self.client.subscribe(topic, qos)
        await self.subscribed.wait()

    async def publish(self, topic, payload, **options):
        self.acknowledged.clear()
        self.client.publish(topic, payload, **options)
        await self.acknowledged.wait()

    async def next(self):
        found = await self.messages.get()
        return found.topic, found.payload, found.qos, found.retain

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
async def port():
    """Where a broker listens."""
    async with module.running() as found:
        yield found


@pytest.fixture
async def clients(port):
    """`clients(name)`: a connected client; all are closed before the broker is."""
    made = []

    async def connect(name):
        made.append(Client(port, name))
        await made[-1].up.wait()
        return made[-1]

    yield connect
    for each in made:
        each.close()


async def test_publish_subscribe_retained_and_qos_1(clients):
    async with asyncio.timeout(LIMIT):
        one, two = await clients("one"), await clients("two")
        await two.subscribe("streamer/+/status", 1)
        await one.publish("streamer/brain/status", b'{"state": "ready"}', qos=1, retain=True)
        assert await two.next() == ("streamer/brain/status", b'{"state": "ready"}', 1, False)
        for number in range(50):
            await one.publish("streamer/brain/status", str(number), qos=1)
        assert [(await two.next())[1] for _ in range(50)] == [str(number).encode() for number in range(50)]
        late = await clients("late")
        await late.subscribe("streamer/#", 1)
        await one.publish("streamer/brain/metrics", b"\x93\x00\xff", qos=0)
        got = [await late.next()]
        while not got[-1][0].endswith("metrics"):
            got.append(await late.next())
        retained = {(topic, payload, kept) for topic, payload, _, kept in got[:-1]}  # amqtt may give it twice
        assert retained == {("streamer/brain/status", b'{"state": "ready"}', True)}
        assert (got[-1][1], got[-1][3]) == (b"\x93\x00\xff", False)


async def test_a_last_will(clients, port):
    async with asyncio.timeout(LIMIT):
        watcher = await clients("watcher")
        await watcher.subscribe("gone", 1)
        dying = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="dying", protocol=paho.MQTTv311)
        dying.will_set("gone", b"offline", qos=1)
        await asyncio.to_thread(dying.connect, "127.0.0.1", port)
        await asyncio.to_thread(dying.loop, 1.0)
        dying.socket().shutdown(socket.SHUT_RDWR)  # as if its machine had lost power
        assert (await watcher.next())[:2] == ("gone", b"offline")
        dying.loop_misc()


async def test_another_version_of_the_protocol_and_rubbish_do_not_end_it(clients, port):
    with structlog.testing.capture_logs() as logged:
        async with asyncio.timeout(LIMIT):
            for rubbish in (
                b"GET / HTTP/1.1\r\n\r\n",
                b"\x10\xff\xff\xff\xff\xff",
                b"\x10\x0c\x00\x04MQTT\x05\x02\x00\x0a",
            ):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(rubbish)
                writer.write_eof()
                await reader.read()
                writer.close()
            await clients("sound")
    assert {line["log_level"] for line in logged} <= {"warning"}


async def test_so_many_clients_and_no_more(monkeypatch, clients, port):
    monkeypatch.setattr(module, "CONNECTIONS", 1)
    async with asyncio.timeout(LIMIT):
        await clients("one")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b""
        writer.close()


async def test_a_port_that_is_taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match=r"cannot listen on 127\.0\.0\.1 port .*another --port"):
            async with module.running(taken.getsockname()[1]):
                pass
    with pytest.raises(ConfigError, match="cannot listen on"):
        async with module.running(70_000):
            pass


async def test_its_logs_are_left_as_they_were():
    log = logging.getLogger("amqtt")
    before = (list(log.handlers), log.propagate)
    async with module.running():
        pass
    assert (list(log.handlers), log.propagate) == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_command_says_where_it_is_and_ends_with_a_signal(program, number, code):
    with program("broker", "--port", "0", "--json") as running:
        found = json.loads(running.stdout.readline())
        assert (found["host"], found["protocol"]) == ("127.0.0.1", "3.1.1")
        with socket.create_connection((found["host"], found["port"]), LIMIT):
            running.send_signal(number)
            _, err = running.communicate(timeout=LIMIT)
    assert running.returncode == code
    assert b"Traceback" not in err


def test_people_are_told_what_it_is_not(program):
    with program("broker", "--port", "0", stdout=subprocess.DEVNULL) as running:
        told = [running.stderr.readline().decode() for _ in range(4)]
        running.terminate()
        running.communicate(timeout=LIMIT)
    assert "for a first try listens on 127.0.0.1 port" in told[0]
    assert "asks for no password" in told[1]
    assert "Mosquitto" in told[2]
    assert "--set mqtt.protocol=3.1.1" in told[3]


def test_a_port_that_is_none(streamer):
    result = streamer("broker", "--port", "70000")
    assert result.code == 2
    assert "cannot listen on 127.0.0.1 port 70000" in result.err
