"""Streams on a fake sound system: rings, shapes, and devices that vanish and come back."""

import sys
import threading
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fake_sound import BOTH, LOUD, MIC, System, until

from streamer.errors import InputError
from streamer.nodes import host, lines
from streamer.nodes.host import Host, Wanted


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(host, "LOOK", 0.002)
    monkeypatch.setattr(host, "FIRST_DELAY", 0.005)
    monkeypatch.setattr(host, "MOST_DELAY", 0.01)
    monkeypatch.setattr(lines, "FIRST", 10**9)


@pytest.fixture
def system():
    return System(MIC, LOUD, BOTH)


@pytest.fixture
def made(system):
    """The host of a fake system; what a test leaves open is closed."""
    found = Host(system.backend())
    yield found
    for line in list(found._lines):
        line.close()


def test_a_capture_hears_into_its_ring(made, system):
    ear = made.capture(Wanted(channels=2))
    assert (ear.name, ear.rate, ear.channels, ear.connected, ear.latency) == ("USB Mic", 48_000, 2, True, 0.02)
    block = np.random.default_rng(0).standard_normal((480, 2)).astype(np.float32)
    system.streams[0].pulse(block)
    assert np.array_equal(ear.ring.pop(1000), block)
    assert system.streams[0].frames == 480


def test_a_playout_plays_its_ring_and_then_silence(made, system):
    mouth = made.playout(Wanted())
    block = np.random.default_rng(0).standard_normal((700, 1)).astype(np.float32)
    mouth.ring.push(block)
    mouth.expecting = True
    played = [np.frombuffer(system.streams[0].pulse(), np.float32) for _ in range(3)]
    assert np.array_equal(np.concatenate(played)[:700], block[:, 0])
    assert not np.concatenate(played)[700:].any()
    assert mouth.underruns == 2
    mouth.expecting = False
    system.streams[0].pulse()
    assert mouth.underruns == 2


@pytest.mark.parametrize(
    ("wanted", "can", "shape"),
    [
        (Wanted(), ({44_100}, 1), (44_100, 1)),
        (Wanted(rate=16_000), ({16_000, 44_100}, 1), (16_000, 1)),
        (Wanted(rate=96_000), ({44_100, 48_000}, 1), (44_100, 1)),
        (Wanted(), ({48_000}, 2), (48_000, 2)),
        (Wanted(channels=2), ({48_000}, 1), (48_000, 2)),
    ],
)
def test_the_wanted_rate_else_the_devices_own(made, system, wanted, can, shape):
    system.rates, system.fewest = can
    line = made.capture(wanted)
    assert (line.rate, line.channels) == shape
    assert system.streams[0].frames == shape[0] // 100


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Wanted("bogus"), ["no sound input is named 'bogus'", "USB Headset"]),
        (Wanted(channels=3), ["cannot do 48000 or 44100 Hz with 3 channel(s); it has 2", "USB Headset"]),
        (Wanted(rate=8000), ["cannot do 8000 or 44100 Hz with 1 or 2 channel(s)"]),
        (Wanted("Headset"), ["'USB Headset' is busy"]),
    ],
)
def test_what_cannot_be_opened_is_refused(made, system, wanted, said):
    system.busy, system.rates = {"USB Headset"}, {48_000}
    with pytest.raises(InputError) as error:
        made.capture(wanted)
    for each in said:
        assert each in str(error.value)
    until(lambda: not system.open_audio)


def test_listing_and_checking_leave_nothing_open(made, system):
    assert made.devices() == [MIC, LOUD, BOTH]
    assert made.check(Wanted("Headset"), "output") is BOTH
    with pytest.raises(InputError, match="no outputs"):
        made.check(Wanted("Mic"), "output")
    until(lambda: not system.open_audio)


def test_a_missing_library_is_said():
    class Missing:
        def __init__(self):
            raise InputError("live sound needs PyAudio")

    with pytest.raises(InputError, match="PyAudio"):
        Host(Missing).devices()


def test_a_device_that_vanishes_is_opened_again_by_name_on_the_same_ring(made, system):
    ear = made.capture(Wanted("USB Mic"))
    ring = ear.ring
    system.unplug("USB Mic")
    until(lambda: not ear.connected)
    before = system.initialised
    until(lambda: system.initialised > before + 3)
    system.plug(MIC)  # its number is another one now
    until(lambda: ear.connected)
    system.running("USB Mic")[0].pulse(np.ones((480, 1), np.float32))
    assert ear.ring is ring
    assert ring.level == 480


def test_it_is_said_once(made, system, capsys):
    ear = made.capture(Wanted("USB Mic"))
    system.unplug("USB Mic")
    before = system.initialised
    until(lambda: system.initialised > before + 3)
    system.plug(MIC)
    until(lambda: ear.connected)
    ear.close()
    said = capsys.readouterr().err
    assert said.count("vanished") == 1
    assert said.count("came back") == 1


def test_the_default_is_whichever_it_is_then(made, system):
    ear = made.capture(Wanted())
    system.unplug("USB Mic")
    until(lambda: ear.connected and ear.name == "USB Headset")


def test_a_stream_that_is_silent_has_vanished(made, system, monkeypatch):
    monkeypatch.setattr(lines, "FIRST", 40)
    ear = made.capture(Wanted())
    first = system.streams[0]
    until(lambda: len(system.streams) > 1)
    assert first.closed
    until(lambda: ear.connected)


def test_others_go_on_until_the_device_is_back_and_are_opened_again_then(made, system):
    ear, mouth = made.capture(Wanted("USB Mic")), made.playout(Wanted())
    system.unplug("USB Mic")
    until(lambda: system.probes > 3)
    assert system.initialised == 1
    assert mouth.connected
    assert system.running("Speakers") == [system.streams[1]]
    system.plug(MIC)
    until(lambda: ear.connected and mouth.connected)
    assert system.initialised == 2
    assert len(system.running("Speakers")) == 1
    assert system.running("Speakers") != [system.streams[1]]


def test_others_are_not_disturbed_while_the_device_is_there_but_busy(made, system):
    ear, mouth = made.capture(Wanted("USB Mic")), made.playout(Wanted())
    system.unplug("USB Mic")
    system.busy.add("USB Mic")
    system.plug(MIC)
    until(lambda: system.probes > 3)
    assert system.initialised == 1
    assert mouth.connected
    system.busy.clear()
    until(lambda: ear.connected)


def test_a_device_that_is_busy_when_it_comes_back_is_waited_for(made, system):
    ear = made.capture(Wanted("USB Mic"))
    system.unplug("USB Mic")
    system.busy.add("USB Mic")
    system.plug(MIC)
    before = system.initialised
    until(lambda: system.initialised > before + 2)
    assert not ear.connected
    system.busy.clear()
    until(lambda: ear.connected)


def test_closing_ends_the_stream_and_then_the_library(made, system):
    ear, mouth = made.capture(Wanted()), made.playout(Wanted())
    ear.close()
    assert system.streams[0].closed
    assert system.open_audio == 1
    mouth.close()
    mouth.close()
    until(lambda: not system.open_audio)


def test_a_sound_server_that_stands_still_does_not_hold_up_the_end(made, system, monkeypatch, capsys):
    monkeypatch.setattr(host, "CLOSING", 0.01)
    ear, mouth = made.capture(Wanted()), made.playout(Wanted())
    system.streams[0].hold = threading.Event()
    ear.close()
    mouth.close()
    assert capsys.readouterr().err.count("stands still") == 2
    system.streams[0].hold.set()
    until(lambda: not system.open_audio)
    assert all(each.closed for each in system.streams)


def test_a_sound_server_that_does_not_answer_is_said(system, monkeypatch):
    monkeypatch.setattr(host, "PATIENCE", 0.01)
    ready = threading.Event()

    class Slow:
        def __init__(self):
            ready.wait()
            raise InputError("later")

    with pytest.raises(InputError, match="has not answered"):
        Host(Slow).devices()
    ready.set()


def test_there_is_one_host():
    assert Host.shared() is Host.shared()
