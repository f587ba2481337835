"""OSC both ways over real sockets on loopback: what messages become, what is sent, and what strangers may send."""

import asyncio
import socket
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pythonosc")
from pythonosc.osc_bundle_builder import IMMEDIATELY, OscBundleBuilder
from pythonosc.osc_message import OscMessage
from pythonosc.osc_message_builder import OscMessageBuilder

sys.path.insert(0, str(Path(__file__).parent))
from desks import TICK, graph_of, playing, sound
from streamer_plugins._steer import MOST
from streamer_plugins._wire import messages
from streamer_plugins.osc import OscTarget

from streamer import GENERATED, HEARD, ConfigError, Frame

MAP = """
  desk:
    type: osc_in
    port: 0
    map:
      /go: {command: trigger}
      /mute: {command: mute, value: on, kind: switch}
      /temperature/{node}: {value: temperature, input: [0, 1], output: [0.4, 1.4]}
      /xy: {command: gain, value: value, argument: 1, input: [0, 100], output: [2, 0]}
      /*/top: {value: top_k, kind: whole}
"""


def message(address, *values):
    builder = OscMessageBuilder(address)
    for value in values:
        builder.add_arg(value)
    return builder.build().dgram


@pytest.fixture
def graph():
    with graph_of(MAP, ", desk -> ear.control") as made:
        yield made


@pytest.fixture
def client():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        yield made


async def where(play):
    """The address that the session listens on."""
    await play.until(lambda: "desk.port" in play.metrics.gauges)
    return "127.0.0.1", int(play.metrics.gauges["desk.port"])


async def test_messages_become_commands(graph, client):
    async with playing(graph) as play:
        to = await where(play)
        for data, expected in [
            (message("/go"), ("trigger", {})),
            (message("/go", 1.0), ("trigger", {})),
            (message("/go", "now"), ("trigger", {})),
            (message("/mute", 1), ("mute", {"on": True})),
            (message("/mute", 0), ("mute", {"on": False})),
            (message("/temperature/coarse", 0.5), ("set", {"node": "coarse", "temperature": pytest.approx(0.9)})),
            (message("/temperature/fine", 7.0), ("set", {"node": "fine", "temperature": pytest.approx(1.4)})),
            (message("/xy", 3.0, 25.0), ("gain", {"value": pytest.approx(1.5)})),
            (message("/any/top", 40.4), ("set", {"top_k": 40})),
        ]:
            client.sendto(data, to)
            assert await play.took() == [expected]
        assert play.counter("desk.refused") == play.counter("desk.unmapped") == 0


async def test_the_release_of_a_button_and_unknown_addresses_do_nothing(graph, client, capsys):
    async with playing(graph) as play:
        to = await where(play)
        for data in (message("/go", 0.0), message("/other", 1), message("/other", 2), message("/go/on"), b"/go"):
            client.sendto(data, to)
        client.sendto(message("/mute"), to)
        client.sendto(message("/xy", 1.0), to)
        client.sendto(message("/xy", 1.0, float("nan")), to)
        client.sendto(message("/mute", 1), to)
        assert await play.took() == [("mute", {"on": True})]
        assert play.counter("desk.unmapped") == 3
        assert play.counter("desk.refused") == 4
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("means nothing here") == 1
    assert said.err.count("passed over") == 1
    assert "without a number" not in said.err


async def test_bundles_are_taken_in_their_order(graph, client):
    inner = OscBundleBuilder(IMMEDIATELY)
    inner.add_content(OscMessage(message("/mute", 1)))
    outer = OscBundleBuilder(2e9)  # far ahead: what comes is done at once
    outer.add_content(OscMessage(message("/go")))
    outer.add_content(inner.build())
    outer.add_content(OscMessage(message("/xy", 0.0, 0.0)))
    async with playing(graph) as play:
        client.sendto(outer.build().dgram, await where(play))
        assert await play.took(3) == [("trigger", {}), ("mute", {"on": True}), ("gain", {"value": 2.0})]


def bundle(*parts):
    return b"#bundle\0" + bytes(8) + b"".join(parts)


def nested(depth):
    data = message("/go")
    for _ in range(depth):
        data = bundle(struct.pack(">i", len(data)) + data)
    return data


BAD = [
    b"", b"\0", b"/", b"hello", b"#bundle\0", b"/go\0", b"/go\0,", b"/go\0,f\0\0", b"/go\0f\0\0\0\0\0\0\0",
    b"/go\0,[\0\0", b"/go\0,]\0\0", b"/go\0,Q\0\0", b"/\xff\xfe\0,s\0\0\xff\xff\xff\0", b"/go\0,b\0\0\xff\xff\xff\xff",
    bundle(struct.pack(">i", -4)), bundle(struct.pack(">i", 0)), bundle(struct.pack(">i", 1000) + b"/go\0"),
    bundle(b"\0\0"), nested(5), nested(500), b"/go\0,ii\0\0\0\0\1",
]  # fmt: skip


def refused(data):
    try:
        list(messages(data))
    except ValueError:
        return True
    return False


@pytest.mark.parametrize("data", BAD)
def test_what_is_no_osc_is_a_value_error_and_nothing_else(data):
    try:
        found = list(messages(data))
    except ValueError as error:
        assert str(error)  # noqa: PT017 - any text will do
    else:
        assert all(isinstance(address, str) for address, _ in found)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([b"", b"/go\0", b"/go\0,", bundle(), nested(2)]), st.binary(max_size=80))
def test_any_bytes_are_messages_or_a_value_error(start, rest):
    assert refused(start + rest) in {True, False}


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["number", "whole", "switch"]))
def test_whatever_number_comes_the_frame_can_travel(number, kind):
    for extra in ({}, {"input": (0, 1)}, {"input": (1, 0), "output": (-5, 5)}):
        target = OscTarget(value="x", kind=kind, **extra)
        frame = target.frame(number)
        assert Frame.unpack(frame.pack()) == frame
        if "output" in extra:
            assert -5 <= frame.meta["x"] <= 5


def test_bundles_nest_a_little():
    assert list(messages(nested(4))) == [("/go", [])]
    with pytest.raises(ValueError, match="do not fit"):
        list(messages(nested(5)))


async def test_bad_datagrams_are_counted_said_once_and_never_fatal(graph, client, capsys):
    async with playing(graph) as play:
        to = await where(play)
        for data in BAD:
            client.sendto(data, to)
        client.sendto(message("/mute", 1), to)
        await play.until(lambda: play.got.qsize() and play.got._queue[-1].meta["command"] == "mute")
        assert play.counter("desk.refused") == sum(map(refused, BAD)) >= 15
    assert capsys.readouterr().err.count("passed over") == 1


async def test_a_flood_leaves_the_newest_of_each_and_is_counted(graph):
    source = graph.sources["desk"]
    async with playing(graph) as play:
        await where(play)
        ctx = play.session.info
        for i in range(1000):
            source._take("/xy", [0.0, float(i % 100)], ctx)
        source._take("/go", [], ctx)
        assert await play.took(2) == [("gain", {"value": pytest.approx(0.02)}), ("trigger", {})]
        assert play.counter("desk.superseded") == 999
        for i in range(MOST + 50):
            source._take(f"/temperature/n{i}", [0.0], ctx)
        got = await play.took(MOST)
        assert [values["node"] for _, values in got] == [f"n{i}" for i in range(50, MOST + 50)]
        assert play.counter("desk.dropped") == 50


async def test_the_next_session_begins_with_what_the_faders_stand_at(graph, client):
    async with playing(graph) as play:
        to = await where(play)
        for data in (message("/xy", 0.0, 50.0), message("/go"), message("/xy", 0.0, 100.0)):
            client.sendto(data, to)
            await play.took()
    async with playing(graph) as play:
        client.sendto(message("/mute", 1), await where(play))
        assert await play.took(2) == [("gain", {"value": 0.0}), ("mute", {"on": True})]


async def test_a_port_that_is_taken_and_a_second_session_are_refused(client, graph):
    client.bind(("127.0.0.1", 0))
    port = client.getsockname()[1]
    with graph_of(MAP.replace("port: 0", f"port: {port}"), ", desk -> ear.control") as taken:
        async with playing(taken, ends=rf"cannot listen to OSC on 127.0.0.1:{port}.*another `port`"):
            pass
    async with playing(graph) as play:
        await where(play)
        async with playing(graph, ends="one desk steers one session"):
            pass


async def test_the_port_is_free_when_the_session_has_ended(graph):
    async with playing(graph) as play:
        to = await where(play)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other, pytest.raises(OSError, match="in use"):
            other.bind(to)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(to)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("go: {command: trigger}", "expected /name/name"),
        ('"/go/[ab]": {command: trigger}', "expected /name/name"),
        ('"/{node}/{node}": {command: trigger}', "expected /name/name"),
        ("/x: {value: command}", "cannot be called 'command'"),
        ("/x: {value: temperature, input: [1, 1]}", "two different"),
        ("/x: {comand: trigger}", "comand"),
    ],
)
def test_a_map_that_cannot_be_is_refused_before_anything_starts(entry, said):
    with pytest.raises(ConfigError, match=said.replace("[", r"\[")):
        graph_of(f"  desk: {{type: osc_in, map: {{{entry}}}}}", ", desk -> ear.control")


def test_a_missing_library_is_said_when_the_node_is_built(monkeypatch):
    for name in ("pythonosc", "pythonosc.osc_message", "pythonosc.osc_message_builder"):
        monkeypatch.setitem(sys.modules, name, None)
    for nodes in (MAP, "  desk: osc_out"):
        edges = ", desk -> ear.control" if "osc_in" in nodes else ", script -> desk"
        graph = graph_of(nodes, edges)
        with pytest.raises(ConfigError, match=r"needs python-osc.*audiolm-streamer\[osc\]"):
            graph.build()


# -- out --------------------------------------------------------------------------------------------------------------


class Screen:
    """A program that listens."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(0)
        self.port = self.socket.getsockname()[1]

    async def took(self, count):
        loop = asyncio.get_running_loop()
        made = []
        for _ in range(count):
            async with asyncio.timeout(5):
                found = OscMessage(await loop.sock_recv(self.socket, 4096))
            made.append((found.address, *found.params))
        return made


@pytest.fixture
def screen():
    made = Screen()
    yield made
    made.socket.close()


def out_graph(port, more=""):
    return graph_of(f"  screen: {{type: osc_out, port: {port}{more}}}", ", script -> screen")


async def test_levels_turns_and_the_end_are_told(screen):
    with out_graph(screen.port) as graph:
        async with playing(graph) as play:
            for frame, *expected in (
                (sound(0, 1.0, flags=HEARD), ("/heard/level", 0.0)),
                (
                    Frame.of("audio", np.full(2 * TICK, 3277, np.int16), position=TICK, flags=HEARD),
                    *[("/heard/level", pytest.approx(-20, abs=0.01))] * 2,
                ),
                (Frame.turn("semantic", position=3 * TICK, flags=HEARD), ("/turn", "generated")),
                (Frame.turn("audio", position=3 * TICK, flags=HEARD),),
                (sound(3, 0.0, flags=GENERATED), ("/generated/level", -100.0)),
                (Frame.control("set", temperature=1.0),),
                (Frame.control("interrupt").replace(epoch=4), ("/interrupt", 4)),
                (Frame.turn("audio", position=4 * TICK, flags=GENERATED), ("/turn", "heard")),
            ):
                play.script.put_nowait(frame)
                told = [("/streamer" + address, *values) for address, *values in expected]
                assert await screen.took(len(told)) == told
        assert await screen.took(1) == [("/streamer/end",)]
        assert play.counter("screen.unsent") == 0


async def test_tokens_are_told_with_their_number(screen):
    with out_graph(screen.port, ", prefix: /a/b, level: false, turns: false, tokens: [semantic]") as graph:
        async with playing(graph) as play:
            play.script.put_nowait(sound(0))
            play.script.put_nowait(Frame.of("semantic", [5, 1023], position=10 * TICK))
            assert await screen.took(2) == [("/a/b/tokens/semantic", 10, 5), ("/a/b/tokens/semantic", 11, 1023)]


async def test_late_ends_of_a_turn_by_other_streams_do_not_turn_it_back(screen):
    with out_graph(screen.port, ", level: false") as graph:
        async with playing(graph) as play:
            for kind in ("semantic", "audio"):
                play.script.put_nowait(Frame.turn(kind, position=TICK, flags=HEARD))
                play.script.put_nowait(Frame.turn(kind, position=5 * TICK, flags=GENERATED))
            play.script.put_nowait(Frame.control("interrupt").replace(epoch=1))
            got = await screen.took(3)
        assert sorted(got) == [
            ("/streamer/interrupt", 1), ("/streamer/turn", "generated"), ("/streamer/turn", "heard")
        ]  # fmt: skip
        assert await screen.took(1) == [("/streamer/end",)]


async def test_nobody_listens_and_nothing_waits(screen, capsys):
    screen.socket.close()
    with out_graph(screen.port) as graph:
        async with playing(graph) as play:
            for i in range(50):
                play.script.put_nowait(sound(i))
                await asyncio.sleep(0)
            await play.until(lambda: play.counter("screen.unsent") > 5)
    assert capsys.readouterr().err.count("goes nowhere") == 1


async def test_a_machine_that_is_not_known_is_refused(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with out_graph(9001, ", to: nowhere.invalid") as graph:
        async with playing(graph, ends=r"cannot send OSC to nowhere\.invalid:9001: Name or service") as play:
            play.script.put_nowait(sound(0))


# -- snapshots --------------------------------------------------------------------------------------------------------


async def test_a_restored_session_obeys_the_first_message(graph, client):
    async with playing(graph) as play:
        to = await where(play)
        for number in range(3):
            client.sendto(message("/go"), to)
            await play.took()
            play.script.put_nowait(sound(number))
        data = await asyncio.wait_for(play.session.request_snapshot(), 5)
    with graph_of(MAP, ", desk -> ear.control") as other:
        async with playing(other, restore=data) as play:
            for number in range(3):  # the sound is given again up to where it was
                play.script.put_nowait(sound(number))
            client.sendto(message("/mute", 1), await where(play))
            assert await play.took() == [("mute", {"on": True})]
