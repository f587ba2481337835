"""MIDI steers: what notes and controllers become, which port is meant, a device that is unplugged and comes back."""

import asyncio
import sys
import threading
from pathlib import Path

import mido
import pytest
from mido import Message

sys.path.insert(0, str(Path(__file__).parent))
from desks import graph_of, playing
from streamer_plugins import midi
from streamer_plugins.midi import MidiSettings

from streamer import ConfigError

NODES = """
  faders:
    type: midi_in
    port: kontrol
    controls:
      0: {value: temperature, node: coarse, output: [0.4, 1.3]}
      1: {command: gain, value: value, output: [0, 1.5]}
      2: {command: length, value: seconds, input: [127, 0], output: [2, 30]}
      3: {command: monitor, value: on, kind: switch}
    notes:
      36: {command: trigger}
      37: {command: listen}
      38: {command: mute, value: on, kind: switch}
      39: {value: top_k, kind: whole, output: [1, 10]}
"""
EDGES = ", faders -> ear.control"


class Ports:
    """The ports of a machine; what is opened can be played on, from a thread of its own, as the library does."""

    def __init__(self, *names):
        self.names, self.open, self.closed, self.broken = list(names), {}, [], None

    def get_input_names(self):
        return list(self.names)

    def open_input(self, name, callback):
        if self.broken:
            raise OSError(self.broken)
        port = Port(self, name)
        self.open[name] = callback
        return port

    def play(self, *messages):
        for callback in list(self.open.values()):
            thread = threading.Thread(target=lambda call=callback: [call(message) for message in messages])
            thread.start()
            thread.join()


class Port:
    def __init__(self, ports, name):
        self.ports, self.name = ports, name

    def close(self):
        del self.ports.open[self.name]
        self.ports.closed.append(self.name)


@pytest.fixture
def ports(monkeypatch):
    made = Ports("Midi Through:Midi Through Port-0 14:0", "nanoKONTROL2:nanoKONTROL2 MIDI 1 20:0", "Keystation 24:0")
    monkeypatch.setattr(mido, "get_input_names", made.get_input_names)
    monkeypatch.setattr(mido, "open_input", made.open_input)
    return made


@pytest.fixture
def graph(ports):
    with graph_of(NODES, EDGES) as made:
        yield made


def control(number, value, channel=0):
    return Message("control_change", control=number, value=value, channel=channel)


def note(number, velocity=100, kind="note_on"):
    return Message(kind, note=number, velocity=velocity)


async def connected(play):
    await play.until(lambda: play.metrics.gauges.get("faders.connected"))


async def test_controllers_and_notes_become_commands(graph, ports):
    async with playing(graph) as play:
        await connected(play)
        for message, expected in [
            (control(0, 0), ("set", {"node": "coarse", "temperature": pytest.approx(0.4)})),
            (control(0, 127), ("set", {"node": "coarse", "temperature": pytest.approx(1.3)})),
            (control(1, 127, channel=9), ("gain", {"value": 1.5})),
            (control(2, 127), ("length", {"seconds": 2.0})),
            (control(2, 0), ("length", {"seconds": 30.0})),
            (control(3, 64), ("monitor", {"on": True})),
            (control(3, 63), ("monitor", {"on": False})),
            (note(36), ("trigger", {})),
            (note(37, 1), ("listen", {})),
            (note(38), ("mute", {"on": True})),
            (note(38, 0), ("mute", {"on": False})),
            (note(38), ("mute", {"on": True})),
            (note(38, 64, "note_off"), ("mute", {"on": False})),
            (note(39, 127), ("set", {"top_k": 10})),
        ]:
            ports.play(message)
            assert await play.took() == [expected]
        assert play.metrics.gauges["faders.port"] == "nanoKONTROL2:nanoKONTROL2 MIDI 1"
    assert ports.closed == ["nanoKONTROL2:nanoKONTROL2 MIDI 1 20:0"]


async def test_everything_else_does_nothing(graph, ports):
    async with playing(graph) as play:
        await connected(play)
        ports.play(
            Message("program_change", program=36), control(99, 1), note(99), note(36, 0), note(36, 5, "note_off"),
            Message("pitchwheel", pitch=5), Message("clock"), Message("sysex", data=(1, 2)),
            Message("polytouch", note=36, value=9), control(1, 0),
        )  # fmt: skip
        assert await play.took() == [("gain", {"value": 0.0})]


def test_one_channel_counts_where_one_is_named():
    settings = MidiSettings(channel=10, notes={36: {"command": "trigger"}})
    assert settings.frame(Message("note_on", note=36, channel=9)).meta == {"command": "trigger"}
    assert settings.frame(Message("note_on", note=36, channel=0)) is None
    assert settings.frame(Message("clock")) is None


async def test_a_fader_that_is_swept_leaves_its_newest_value(graph, ports):
    async with playing(graph) as play:
        await connected(play)
        ports.play(*[control(1, i % 128) for i in range(5000)], note(36), control(1, 127))
        got = await play.took()
        while not play.got.empty() or got[-1] != ("gain", {"value": 1.5}):
            got += await play.took()
        assert ("trigger", {}) in got
        assert len(got) + play.counter("faders.superseded") == 5002
        assert play.counter("faders.dropped") == 0


async def test_a_device_that_is_unplugged_is_taken_up_again_under_another_number(graph, ports, monkeypatch, capsys):
    monkeypatch.setattr(midi, "LOOK", 0.02)
    async with playing(graph) as play:
        await connected(play)
        gone, ports.names = ports.names, ["Keystation 24:0"]
        await play.until(lambda: play.metrics.gauges["faders.connected"] is False)
        assert not ports.open
        ports.broken, ports.names = "busy", gone
        await play.until(lambda: "busy" in capsys.readouterr().err)
        ports.broken, ports.names = None, ["nanoKONTROL2:nanoKONTROL2 MIDI 1 28:0"]
        await connected(play)
        ports.play(note(36))
        assert await play.took() == [("trigger", {})]
    assert ports.closed[-1] == "nanoKONTROL2:nanoKONTROL2 MIDI 1 28:0"


async def test_the_next_session_begins_with_what_the_faders_stand_at_and_waits_for_the_device(graph, ports):
    async with playing(graph) as play:
        await connected(play)
        ports.play(control(1, 127))
        await play.took()
    ports.names = []
    async with playing(graph) as play:
        assert await play.took() == [("gain", {"value": 1.5})]
        assert play.metrics.gauges["faders.connected"] is False


@pytest.mark.parametrize(
    ("wanted", "there", "said"),
    [
        ("kontrol", [], "no MIDI input like 'kontrol'; the inputs are: none"),
        ("kontrol", ["Keystation 24:0"], "no MIDI input like 'kontrol'; the inputs are: 'Keystation 24:0'"),
        ("kontrol", ["Kontrol A 1:0", "Kontrol B 2:0"], "fits 2 MIDI inputs; name one of: 'Kontrol A 1:0', 'Kontrol B"),
        (None, ["Midi Through 14:0"], "there is no MIDI input; the inputs are: 'Midi Through 14:0'"),
    ],
)
async def test_a_port_that_is_not_there_is_refused_with_those_that_are(ports, wanted, there, said):
    ports.names = there
    nodes = NODES if wanted else NODES.replace("    port: kontrol\n", "")
    with graph_of(nodes, EDGES) as graph:
        async with playing(graph, ends=said):
            pass


@pytest.mark.parametrize(
    ("wanted", "there", "taken"),
    [
        (None, ["Midi Through:Midi Through Port-0 14:0", "Keystation 24:0", "Other 28:0"], "Keystation 24:0"),
        ("Other", ["Other One", "Other"], "Other"),
        ("midi through", ["Midi Through 14:0", "Keystation 24:0"], "Midi Through 14:0"),
    ],
)
async def test_the_port_that_is_meant(ports, wanted, there, taken):
    ports.names = there
    nodes = NODES.replace("port: kontrol", f"port: {wanted}" if wanted else "channel: 1")
    with graph_of(nodes, EDGES) as graph:
        async with playing(graph) as play:
            await connected(play)
            assert list(ports.open) == [taken]


async def test_a_port_that_another_program_holds_and_a_machine_without_midi(ports, graph, monkeypatch):
    ports.broken = "device busy"
    async with playing(graph, ends="device busy; does another program hold it"):
        pass

    def none():
        raise OSError("no sequencer")

    monkeypatch.setattr(mido, "get_input_names", none)
    with graph_of(NODES, EDGES) as other:
        async with playing(other, ends="this machine has no MIDI: no sequencer"):
            pass


async def test_the_library_behind_mido_may_be_missing(ports, graph, monkeypatch):
    def missing():
        raise ModuleNotFoundError("No module named 'rtmidi'", name="rtmidi")

    monkeypatch.setattr(mido, "get_input_names", missing)
    async with playing(graph, ends=r"needs python-rtmidi.*audiolm-streamer\[midi\]"):
        pass


def test_mido_may_be_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "mido", None)
    with pytest.raises(ConfigError, match=r"needs mido.*audiolm-streamer\[midi\]"):
        graph_of(NODES, EDGES).build()


def test_numbers_beyond_midi_are_refused():
    with pytest.raises(ConfigError, match="expected 0 to 127"):
        graph_of("  faders: {type: midi_in, notes: {128: {command: trigger}}}", EDGES)


async def test_a_message_after_the_session_is_passed_over(graph, ports):
    async with playing(graph) as play:
        await connected(play)
        late = dict(ports.open)
    for callback in late.values():
        await asyncio.to_thread(callback, note(36))
    async with playing(graph) as play:
        await connected(play)
        ports.play(note(37))
        assert await play.took() == [("listen", {})]
