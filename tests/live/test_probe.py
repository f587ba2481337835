"""The process that looks whether a device is back, on the virtual card; and one of two devices that goes."""

import os

from card import until

from streamer.nodes.host import Host, Wanted
from streamer.nodes.portaudio import PortAudio


def looked(*asked):
    probe = PortAudio.outside(asked)
    until(lambda: probe.ready, "the process to have looked")
    return probe.found


def test_what_could_be_opened(here):
    assert looked(("pulse", "input", 48_000, 1))
    assert looked(("bogus", "input", 48_000, 1), (None, "output", 44_100, 2))
    assert not looked(("bogus", "input", 48_000, 1), ("pulse", "output", 48_000, 64))


def test_without_a_sound_server_nothing_could(here):
    here.kill()
    assert not looked((None, "input", 48_000, 1))


def test_it_can_be_ended_before_it_has_looked(here):
    PortAudio.outside([("pulse", "input", 48_000, 1)]).close()


def test_one_device_goes_and_the_other_is_not_disturbed(here):
    host = Host()
    ear, mouth = host.capture(Wanted("pulse")), host.playout(Wanted("pulse"))
    try:
        until(lambda: ear.calls and mouth.calls, "both to run")
        first = ear._stream
        here.pactl("unload-module", here.module_of("speaker"))
        here.end_playing(os.getpid())
        until(lambda: not mouth.connected, "the speaker to have gone")
        before = ear.calls
        until(lambda: ear.calls > before + 200, "the microphone to go on")
        assert ear.connected
        assert ear._stream is first
        here.pactl("load-module", "module-null-sink", "sink_name=speaker", "rate=48000", "channels=1")
        until(lambda: mouth.connected and ear.connected, "the speaker to be back")
        assert ear._stream is not first
    finally:
        ear.close()
        mouth.close()
        here.kill()  # the next test gets a fresh one
