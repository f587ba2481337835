"""What a running program says on a real broker, and what it does when it is told something."""

import asyncio
import json
import math
import signal
from types import SimpleNamespace

import live_ends
import msgpack
import pytest
import structlog

from streamer import Graph, Node
from streamer.commands import broker as embedded
from streamer.commands.account import Account
from streamer.commands.controls import Controls
from streamer.commands.follow import Follower
from streamer.commands.remote import Remote
from streamer.commands.sessions import Live
from streamer.errors import ConfigError
from streamer.nodes.mqtt import station as module
from streamer.nodes.mqtt.station import station_for

LIMIT = 20.0
CONFIG = """
session: {seconds: 10, seed: 3}
nodes: {mic: {type: fake_mic}, ear: willing, turns: fake_brain, speaker: fake_speaker}
edges: [mic -> ear -> turns -> speaker]
mqtt: {host: 127.0.0.1, port: PORT, instance: brain, keepalive: 4, metrics_seconds: 0.2 OPTIONS}
"""


class Willing(Node):
    """Takes every command there is, and two modes."""

    type_name = "willing"
    accepts = ("audio", "control")
    optional = ("control",)
    emits = ("audio",)
    commands = ("trigger", "listen", "mute", "length", "monitor", "gain")

    @classmethod
    def check_mode(cls, name, mode, inputs=()):
        if mode not in ("continue", "duet"):
            raise ConfigError(f"{name} knows no {mode}")

    def step(self, frame, state, into):
        if frame.kind != "control":
            yield frame


def willing():
    made = live_ends.registry()
    made.add(Willing)
    return made


@pytest.fixture(autouse=True)
def logged():
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture
async def on_air():
    """`await on_air(port, options)`: a live run and its station; all are ended."""
    ends = []

    async def begin(port, options="", text=CONFIG):
        graph = Graph.parse(text.replace("PORT", str(port)).replace("OPTIONS", options), willing()).build()
        live = Live(graph, Follower(graph))
        remote = Remote(live, Controls(live))
        station = station_for(next(iter(graph.plan.builds.values())), Account(live, remote))
        async with asyncio.timeout(LIMIT):
            await station.__aenter__()
            await station.exchange.client.wait_connected()
        running = asyncio.create_task(live.run())
        looking = asyncio.create_task(look(live))

        async def end():
            if live.over is not None:
                return
            live.end("the test")
            await running
            looking.cancel()
            await station.__aexit__(None, None, None)
            graph.close()

        ends.append(end)
        return SimpleNamespace(live=live, station=station, remote=remote, graph=graph, end=end)

    yield begin
    for end in ends:
        await end()


async def until(condition):
    """Wait until something is so; there is no event for all that can be waited for."""
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.005)


async def look(live):
    while True:
        live.follower.look()
        await asyncio.sleep(0.02)


class Watcher:
    """Somebody who listens on the broker, and asks."""

    def __init__(self, client):
        self.client, self.got, self.news = client, [], asyncio.Event()

    def listen(self, topic):
        self.client.subscribe(topic, 1, self.take)

    def take(self, message):
        self.got.append(message)
        self.news.set()

    def of(self, end):
        """What came on topics that end so: parsed messages, in order."""
        return [json.loads(each.payload) for each in self.got if each.topic.endswith(end) and each.payload]

    async def until(self, condition):
        """Wait until something that is listened for makes this true, and give it."""
        async with asyncio.timeout(LIMIT):
            while not (found := condition()):
                self.news.clear()
                await self.news.wait()
        return found

    async def ask(self, command, payload=b"", instance="brain", **options):
        """The answer to a command."""
        number = sum(each.topic.startswith("answers/") for each in self.got)
        how = {"qos": 1, "response_topic": "answers/me", "correlation": f"no {number}".encode()} | options
        self.client.publish(f"streamer/{instance}/control/{command}", payload, **how)
        await self.until(lambda: sum(each.topic.startswith("answers/") for each in self.got) > number)
        found = [each for each in self.got if each.topic.startswith("answers/")][number]
        assert found.correlation == how["correlation"]
        return json.loads(found.payload)


@pytest.fixture
async def watch(make_client):
    """`await watch(broker, *topics)`: a Watcher."""

    async def begin(broker, *topics, name="watcher", **settings):
        watcher = Watcher(await make_client(broker, name, **settings))
        for topic in (*topics, "answers/#"):
            watcher.listen(topic)
        return watcher

    return begin


# -- what is said


async def test_status_description_and_metrics(broker, on_air, watch):
    watcher = await watch(broker, "streamer/#")
    one = await on_air(broker.port)
    ready = await watcher.until(lambda: [each for each in watcher.of("/status") if each["state"] == "ready"])
    assert ready[0]["seed"] == 3
    assert ready[0]["boot"]
    assert ready[0]["reason"] == "started"
    await watcher.until(lambda: [each for each in watcher.of("/status") if each.get("turn") == "continuing"])
    (told,) = watcher.of("/description")[-1:]
    assert told["instance"] == "brain"
    assert told["commands"]["gain"]["value"]["maximum"] == 4
    metrics = (await watcher.until(lambda: watcher.of("/metrics")))[-1]
    assert {"rtf", "underruns", "level_db", "reconnects", "gauges", "counters", "node_ms", "mqtt"} <= set(metrics)
    late = await watch(broker, "streamer/brain/status", "streamer/brain/description", name="late")
    await late.until(lambda: late.of("/status") and late.of("/description"))
    assert all(each.retain for each in late.got)
    await one.end()
    gone = await watcher.until(lambda: [each for each in watcher.of("/status") if each["state"] == "offline"])
    assert gone[0]["boot"] == ready[0]["boot"]


async def test_a_change_by_a_key_is_said_at_once(broker, on_air, watch):
    watcher = await watch(broker, "streamer/brain/status")
    one = await on_air(broker.port)
    await watcher.until(lambda: watcher.of("/status")[-1:] and watcher.of("/status")[-1]["state"] == "ready")
    one.remote.controls.press("m")
    one.remote.controls.press("up")
    found = await watcher.until(lambda: [each for each in watcher.of("/status") if each["muted"]])
    await watcher.until(lambda: watcher.of("/status")[-1]["temperature"] == {"turns": 0.95})
    assert found


async def test_the_status_is_said_again_though_nothing_changes(broker, on_air, watch, monkeypatch):
    monkeypatch.setattr(module, "AGAIN", 0.3)
    watcher = await watch(broker, "streamer/brain/status")
    await on_air(broker.port)
    await watcher.until(lambda: len(watcher.of("/status")) > 6)


# -- commands


async def test_commands_and_answers(broker, on_air, watch):
    one, watcher = await on_air(broker.port), await watch(broker)
    found = await watcher.ask("temperature", b"0.5")
    assert found["ok"] is True
    assert (found["instance"], found["command"], found["temperature"]) == ("brain", "temperature", {"turns": 0.5})
    assert (await watcher.ask("gain", msgpack.packb({"value": 1.5})))["gain"] == 1.5
    assert (await watcher.ask("mute", b"on", instance="all"))["muted"] is True
    assert (await watcher.ask("ping", b"17"))["value"] == 17
    assert (await watcher.ask("mode", b"duet"))["mode"] == "duet"
    assert (await watcher.ask("seed", b"99"))["seed"] == 99
    await until(lambda: one.live.session.info.seed == 99 and one.live.session.status == "running")
    assert (await watcher.ask("trigger"))["ok"] is True
    assert (await watcher.ask("reset"))["ok"] is True
    assert (await watcher.ask("length", b"null"))["seconds"] is None
    assert one.station.counts["obeyed"] == 9
    assert one.station.counts["refused"] == 0


BAD = [
    ("load", b"os", "unknown command 'load'"),
    ("temperature", b"9", "expected a number from 0 to 2"),
    ("temperature", b"NaN", "expected a finite number"),
    ("temperature", msgpack.packb(math.inf), "expected a number"),
    ("temperature", b'"hot"', "expected a number"),
    ("temperature", b'{"node": "nobody", "value": 1}', "unknown stage 'nobody'"),
    ("temperature", b"[" * 4000, "expected JSON or msgpack"),
    ("temperature", b" " * 5000, "at most 4096"),
    ("mode", b"dream", "unknown mode 'dream'; known: continue, duet"),
    ("mute", b"", "expected true or false"),
    ("reset", b'{"bundle": "/etc/passwd"}', "it takes no value"),
]


async def test_what_is_refused_is_answered_and_counted_and_ends_nothing(broker, on_air, watch):
    one, watcher = await on_air(broker.port), await watch(broker, "streamer/brain/metrics")
    for command, payload, says in BAD:
        found = await watcher.ask(command, payload)
        assert found["ok"] is False
        assert says in found["error"]
    await watcher.until(lambda: [m for m in watcher.of("/metrics") if m["mqtt"]["commands"]["refused"] == len(BAD)])
    assert one.station.counts == {"obeyed": 0, "refused": len(BAD), "retained": 0, "dropped": 0, "passed": 0}
    assert (await watcher.ask("ping"))["ok"] is True
    assert one.live.failed == 0


RESPONSES = [
    "streamer/brain/status",
    "streamer/other/control/mode",
    "streamer",
    "homeassistant/device/x/config",
    "a" * 300,
]


@pytest.mark.parametrize("topic", RESPONSES)
async def test_answers_go_to_no_topic_of_programs(broker, on_air, watch, topic):
    one, watcher = await on_air(broker.port), await watch(broker, "other/#", topic if len(topic) < 100 else "none")
    watcher.client.publish("streamer/brain/control/mute", b"true", qos=1, response_topic=topic)
    found = await watcher.ask("ping")
    assert found["muted"] is False, "a command whose answer cannot go where it should is not obeyed"
    assert one.station.counts["refused"] == 1
    assert [each for each in watcher.got if each.topic == topic and b'"ok"' in each.payload] == []


async def test_answers_below_the_prefix_have_a_place(broker, on_air, watch):
    await on_air(broker.port)
    watcher = await watch(broker, "streamer/answer/#")
    watcher.client.publish("streamer/brain/control/ping", b"5", qos=1, response_topic="streamer/answer/me")
    assert (await watcher.until(lambda: watcher.of("answer/me")))[0]["value"] == 5


async def test_a_retained_command_is_not_obeyed(broker, on_air, watch):
    watcher = await watch(broker, "streamer/brain/metrics")
    watcher.client.publish("streamer/brain/control/mute", b"true", qos=1, retain=True)
    watcher.client.publish("streamer/all/control/temperature", b"0.1", qos=1, retain=True)
    one = await on_air(broker.port)
    await watcher.until(lambda: [m for m in watcher.of("/metrics") if m["mqtt"]["commands"]["retained"] == 2])
    now = await watcher.ask("ping")
    assert (now["muted"], now["temperature"]) == (False, {"turns": 0.9})
    assert one.station.counts["obeyed"] == 1


async def test_what_is_for_all_and_concerns_nobody_here_is_passed_over(broker, on_air, watch):
    text = CONFIG.replace("ear: willing, turns: fake_brain, ", "").replace("mic -> ear -> turns", "mic")
    one, watcher = await on_air(broker.port, text=text), await watch(broker)
    watcher.client.publish("streamer/all/control/trigger", b"", qos=1, response_topic="answers/me")
    watcher.client.publish("streamer/all/control/temperature", b"1", qos=1, response_topic="answers/me")
    found = await watcher.ask("trigger")
    assert (found["ok"], found["error"]) == (
        False,
        "no node of this graph takes 'trigger', so 'trigger' does nothing here",
    )
    assert (one.station.counts["passed"], one.station.counts["refused"]) == (2, 1)


async def test_a_flood_is_bounded_and_the_last_word_counts(broker, on_air, watch, heartbeat):
    one, watcher = await on_air(broker.port), await watch(broker)
    for number in range(500):
        watcher.client.publish("streamer/brain/control/gain", f"{number / 250}", qos=1)
    await until(lambda: one.remote.controls.gain == 499 / 250)
    counts = one.station.counts
    assert counts["obeyed"] + counts["dropped"] == 500
    assert counts["dropped"] > 0
    assert (await watcher.ask("ping"))["gain"] == 499 / 250


async def test_control_can_be_switched_off(broker, on_air, watch):
    one = await on_air(broker.port, ", control: false")
    watcher = await watch(broker, "streamer/brain/+")
    watcher.client.publish("streamer/brain/control/mute", b"true", qos=1)
    told = (await watcher.until(lambda: watcher.of("/description")))[-1]
    assert told["commands"] == {}
    before = len(watcher.of("/metrics"))
    await watcher.until(lambda: len(watcher.of("/metrics")) > before + 2)
    assert one.remote.controls.muted is False
    assert sum(one.station.counts.values()) == 0


async def test_control_can_have_a_prefix_of_its_own(broker, on_air, watch):
    one = await on_air(broker.port, ", control_prefix: desk/light")
    watcher = await watch(broker)
    watcher.client.publish("streamer/brain/control/mute", b"true", qos=1)
    watcher.client.publish("desk/light/all/control/gain", b"2", qos=1)
    watcher.client.publish("desk/light/brain/control/ping", b"1", qos=1, response_topic="answers/me")
    assert (await watcher.until(lambda: watcher.of("answers/me")))[0]["gain"] == 2
    assert one.remote.controls.muted is False


@pytest.mark.parametrize(("given", "meant"), [("5", "5"), ('"5"', "5"), ("3.1.1", "3.1.1")])
def test_a_version_of_the_protocol_needs_no_quotes(given, meant):
    graph = Graph.parse(CONFIG.replace("PORT", "1").replace("OPTIONS", f", protocol: {given}"), willing())
    assert graph.plan.loaded.config.mqtt.protocol == meant


# -- when it is away


async def test_a_command_that_waited_is_obeyed_but_not_one_that_has_expired(broker, on_air, watch):
    watcher = await watch(broker)
    first = await on_air(broker.port)
    assert (await watcher.ask("ping"))["ok"]
    await first.end()
    acknowledged = watcher.client.outgoing("streamer/brain/control/seed", qos=1, capacity=4, policy="block")
    await acknowledged.put(b"77")
    expiring = watcher.client.outgoing("streamer/brain/control/mute", qos=1, capacity=4, policy="block", expiry=1)
    await expiring.put(b"true")
    await acknowledged.drained()
    await expiring.drained()
    await asyncio.sleep(2.1)  # Mosquitto counts whole seconds
    second = await on_air(broker.port)
    await until(lambda: second.live.setting("seed") == 77)
    assert (await watcher.ask("ping"))["muted"] is False
    assert second.station.counts["obeyed"] == 2


async def test_commands_go_on_after_the_broker_was_killed(broker, on_air, watch):
    watcher = await watch(broker, "streamer/brain/status", "streamer/brain/description")
    one = await on_air(broker.port)
    assert (await watcher.ask("gain", b"0.5"))["gain"] == 0.5
    await watcher.until(lambda: watcher.of("/description"))
    broker.kill()
    one.remote.controls.press("m")
    watcher.got.clear()
    broker.start()
    await watcher.until(lambda: [each for each in watcher.of("/status") if each["state"] == "ready" and each["muted"]])
    await watcher.until(lambda: watcher.of("/description"))
    assert (await watcher.ask("gain", b"0.7"))["gain"] == 0.7
    assert one.live.failed == 0


async def test_the_embedded_broker_will_do(on_air, watch):
    pytest.importorskip("amqtt", reason="needs amqtt, the extra `broker`")
    async with embedded.running() as port:
        watcher = await watch(port, "streamer/brain/status", protocol="3.1.1")
        one = await on_air(port, ", protocol: 3.1.1")
        await watcher.until(lambda: [each for each in watcher.of("/status") if each["state"] == "ready"])
        watcher.client.publish("streamer/brain/control/gain", b"0.5", qos=1)
        await watcher.until(lambda: watcher.of("/status")[-1].get("gain") == 0.5)
        watcher.client.publish("streamer/brain/control/gain", b"9", qos=1)
        await until(lambda: one.station.counts["refused"] == 1)
        await one.end()
        await watcher.until(lambda: watcher.of("/status")[-1]["state"] == "offline")
        await watcher.client.stop()


# -- Home Assistant


def configs(watcher):
    return [each for each in watcher.got if each.topic.startswith("homeassistant/device/")]


async def test_home_assistant_is_told_and_the_next_start_takes_it_back(broker, on_air, watch):
    watcher = await watch(broker, "homeassistant/#")
    one = await on_air(broker.port, ", discovery: true")
    (message,) = await watcher.until(lambda: configs(watcher))
    parts = json.loads(message.payload)["components"]
    assert {"trigger", "mute", "temperature", "mode", "phase", "reconnects"} <= set(parts)
    command = parts["temperature"]["command_topic"]
    watcher.client.publish(command, b"0.25", qos=1)
    watcher.client.publish(parts["trigger"]["command_topic"], parts["trigger"]["payload_press"].encode(), qos=1)
    watcher.client.publish(parts["mute"]["command_topic"], parts["mute"]["payload_on"].encode(), qos=1)
    now = await watcher.ask("ping")
    assert (now["temperature"], now["muted"]) == ({"turns": 0.25}, True)
    assert one.station.counts == {"obeyed": 4, "refused": 0, "retained": 0, "dropped": 0, "passed": 0}
    await one.end()
    await on_air(broker.port)
    await watcher.until(lambda: [each for each in configs(watcher) if not each.payload])


async def test_what_another_program_announces_is_left_alone(broker, on_air, watch):
    watcher = await watch(broker, "homeassistant/#", "streamer/brain/metrics")
    topic = module.config_topic("homeassistant", "streamer", "brain")
    watcher.client.publish(topic, b'{"origin": {"name": "zigbee2mqtt"}}', qos=1, retain=True)
    await watcher.until(lambda: configs(watcher))
    one = await on_air(broker.port)
    found = next(task for task in one.station._tasks if task.get_name() == "station:discovery")
    async with asyncio.timeout(LIMIT):
        await found
    assert [each.payload for each in configs(watcher)] == [b'{"origin": {"name": "zigbee2mqtt"}}']


# -- the program


async def test_a_program_that_is_killed_is_offline(broker, watch, tmp_path, program):
    path = tmp_path / "room.yaml"
    path.write_text(
        CONFIG.replace("ear: willing, ", "")
        .replace("ear -> ", "")
        .replace("PORT", str(broker.port))
        .replace("OPTIONS", "")
    )
    watcher = await watch(broker, "streamer/brain/status")
    for number in (signal.SIGTERM, signal.SIGKILL):
        watcher.got.clear()
        with program("run", path, "--plugins", live_ends.__file__, "--quiet") as running:
            ready = await watcher.until(lambda: [each for each in watcher.of("/status") if each["state"] == "ready"])
            assert (await watcher.ask("temperature", b"0.4"))["temperature"] == {"turns": 0.4}
            running.send_signal(number)
            gone = await watcher.until(lambda: [each for each in watcher.of("/status") if each["state"] == "offline"])
            _, err = await asyncio.to_thread(running.communicate)
        assert gone[-1]["boot"] == ready[-1]["boot"]
        assert running.returncode == (143 if number is signal.SIGTERM else -signal.SIGKILL)
        assert b"Traceback" not in err
