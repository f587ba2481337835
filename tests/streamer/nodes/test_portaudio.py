"""The edge to PyAudio, with a fake of it: errors in words, names, and C's standard error while it is open."""

import ctypes
import sys
from types import SimpleNamespace

import pytest

from streamer.errors import InputError
from streamer.nodes import portaudio
from streamer.nodes.portaudio import PortAudio

RAW = {
    "index": 0, "name": b"Mic\xff", "hostApi": 0, "maxInputChannels": 1, "maxOutputChannels": 0,
    "defaultSampleRate": 44100.0, "defaultLowInputLatency": 0.0087, "defaultLowOutputLatency": -1.0,
}  # fmt: skip


class Library:
    """What PyAudio gives and raises."""

    paFloat32 = 1  # noqa: N815 - its name

    def __init__(self, opening=None, supported=None, active=None):
        self.opening, self.supported, self.active = opening, supported, active
        self.ended = False

    def PyAudio(self):  # noqa: N802 - its name
        return self

    def terminate(self):
        self.ended = True

    def get_default_input_device_info(self):
        return RAW

    def get_default_output_device_info(self):
        raise OSError("No Default Output Device Available")

    def get_host_api_count(self):
        return 1

    def get_host_api_info_by_index(self, _):
        return {"name": "ALSA"}

    def get_device_count(self):
        return 1

    def get_device_info_by_index(self, _):
        return RAW

    def is_format_supported(self, rate, **_):
        if self.supported:
            raise self.supported
        return rate == 48_000

    def open(self, *arguments, **options):
        self.opened = (arguments, options)
        if self.opening:
            raise self.opening
        return SimpleNamespace(get_input_latency=lambda: 0.02, is_active=self._is_active, close=self._close)

    def _is_active(self):
        if self.active:
            raise self.active
        return True

    def _close(self):
        raise OSError(-9988, "Stream closed")


@pytest.fixture
def audio(monkeypatch):
    """`audio(**options)`: an open `PortAudio` on a fake library."""

    def make(**options):
        library = Library(**options)
        monkeypatch.setattr(portaudio, "module", lambda: library)
        return PortAudio()

    return make


def test_a_device_is_listed_as_it_is(audio):
    (found,) = audio().devices()
    assert (found.name, found.api, found.inputs, found.rate) == ("Mic\ufffd", "ALSA", 1, 44_100)
    assert found.input_latency_ms == 8.7
    assert (found.default_input, found.default_output) == (True, False)


def test_a_stream_is_opened_and_closed(audio):
    made = audio()
    (device,) = made.devices()
    assert made.can(device, "input", 48_000, 1)
    assert not made.can(device, "input", 44_100, 1)
    stream = made.open(device, "input", rate=48_000, channels=1, frames=480, callback=print)
    assert stream.latency == 0.02
    assert stream.active
    stream.close()  # one that is broken too
    made.close()
    assert made._audio.ended


def test_a_broken_stream_is_not_active(audio):
    made = audio(active=OSError(-9999, "Unanticipated host error"))
    assert not made.open(made.devices()[0], "input", rate=48_000, channels=1, frames=480, callback=print).active


def test_a_busy_device_is_said(audio):
    made = audio(opening=OSError(-9985, "Device unavailable"), supported=ValueError("Device unavailable", -9985))
    (device,) = made.devices()
    with pytest.raises(InputError, match=r"(?s)busy or has gone \(Device unavailable\).*take another one.*0: Mic"):
        made.open(device, "input", rate=48_000, channels=1, frames=480, callback=print)
    with pytest.raises(InputError, match="busy or has gone"):
        made.can(device, "input", 48_000, 1)


def test_what_else_goes_wrong_is_said(audio):
    made = audio(opening=OSError(-9996, "Invalid device"), supported=ValueError("Invalid sample rate", -9997))
    (device,) = made.devices()
    assert not made.can(device, "input", 8_000, 1)
    with pytest.raises(InputError, match="cannot be opened: Invalid device"):
        made.open(device, "input", rate=48_000, channels=1, frames=480, callback=print)


def test_a_missing_library_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyaudio", None)
    with pytest.raises(InputError, match=r'portaudio19-dev gcc.*pip install "audiolm-streamer\[mic\]"'):
        PortAudio()


@pytest.mark.skipif(portaudio._stderr() is None, reason="only glibc's standard error is led away")
def test_the_chatter_of_c_libraries_is_not_seen_while_it_is_open(audio, capfd):
    program = ctypes.CDLL(None)
    made = audio()
    program.perror(b"chatter")
    sys.stderr.write("mine\n")
    made.close()
    program.perror(b"afterwards")
    said = capfd.readouterr().err
    assert "chatter" not in said
    assert "mine" in said
    assert "afterwards" in said


def test_a_library_that_cannot_start_is_said(monkeypatch):
    def fails():
        raise OSError(-9999, "Unanticipated host error")

    monkeypatch.setattr(portaudio, "module", lambda: SimpleNamespace(PyAudio=fails))
    with pytest.raises(InputError, match="PortAudio cannot start"):
        PortAudio()
