"""PortAudio through PyAudio: what is there, and one stream of samples. Knows no ring, no thread, no graph.

PortAudio is not safe for threads and lists devices only while it initialises, so `streamer.nodes.host` makes all of
these calls in one thread and initialises it again when a device has vanished.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

from streamer.errors import InputError
from streamer.nodes.devices import DeviceInfo, Direction, described, find

__all__ = ["Asked", "Opened", "PortAudio", "Probe"]

MISSING: Final = (
    "live sound needs PyAudio, which cannot be imported ({why}). On Debian: apt-get install portaudio19-dev gcc; "
    'then: pip install "audiolm-streamer[mic]"'
)
BUSY: Final = frozenset({-9985, -9999})  # paDeviceUnavailable, paUnanticipatedHostError (how ALSA says EBUSY)
Asked = tuple[str | None, Direction, int, int]  # name (None: the default), direction, rate, channels
Callback = Callable[[bytes | None, int, Any, int], tuple[bytes | None, int]]


def module() -> Any:
    """The library.

    Raises:
        InputError: it is not there, or the PortAudio under it is not; says how to install both.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints there what it raises
            import pyaudio
    except ImportError as error:
        raise InputError(MISSING.format(why=error)) from error
    return pyaudio


class PortAudio:
    """PortAudio while it is initialised. All calls must come from one thread.

    ALSA, JACK and PortAudio itself write dozens of lines about devices that are not there to C's `stderr`. Until
    `close` that stream is led to nowhere; file descriptor 2, Python's `sys.stderr` and crash reports are untouched.
    """

    def __init__(self) -> None:
        self._library = module()
        _hush(on=True)
        try:
            self._audio = self._library.PyAudio()
        except OSError as error:
            _hush(on=False)
            raise InputError(f"PortAudio cannot start: {error}") from error

    @staticmethod
    def outside(asked: Sequence[Asked]) -> Probe:
        """Begin to look whether any of these could be opened now, without ending the streams of this process."""
        return Probe(asked)

    def close(self) -> None:
        """End it; every stream must have been closed."""
        self._audio.terminate()
        _hush(on=False)

    def devices(self) -> list[DeviceInfo]:
        """What was there when it was initialised."""
        audio, defaults = self._audio, {}
        for direction, ask in (
            ("input", audio.get_default_input_device_info),
            ("output", audio.get_default_output_device_info),
        ):
            try:
                defaults[direction] = ask()["index"]
            except OSError:  # how it says that there is none
                defaults[direction] = -1
        apis = [audio.get_host_api_info_by_index(each)["name"] for each in range(audio.get_host_api_count())]
        infos = [audio.get_device_info_by_index(each) for each in range(audio.get_device_count())]
        return [_info(each, apis, defaults) for each in infos]

    def can(self, device: DeviceInfo, direction: Direction, rate: int, channels: int) -> bool:
        """Whether a stream of float32 could be opened.

        Raises:
            InputError: another program holds the device.
        """
        kind = self._library.paFloat32
        asked = {f"{direction}_device": device.index, f"{direction}_channels": channels, f"{direction}_format": kind}
        try:
            return bool(self._audio.is_format_supported(rate, **asked))
        except ValueError as error:
            code = error.args[1] if len(error.args) > 1 else 0
            if code in BUSY:
                raise self._refusal(device, direction, code, str(error.args[0])) from error
            return False

    def open(
        self, device: DeviceInfo, direction: Direction, *, rate: int, channels: int, frames: int, callback: Callback
    ) -> Opened:
        """A running stream of float32 that calls `callback` for each block of `frames`.

        Raises:
            InputError: another program holds the device, or it has gone.
        """
        try:
            stream = self._audio.open(
                rate, channels, self._library.paFloat32, frames_per_buffer=frames, stream_callback=callback,
                **{direction: True, f"{direction}_device_index": device.index},
            )  # fmt: skip
        except OSError as error:
            raise self._refusal(device, direction, error.errno, str(error.strerror or error)) from error
        return Opened(stream, direction)

    def _refusal(self, device: DeviceInfo, direction: Direction, code: int | None, said: str) -> InputError:
        listed = described(self.devices(), direction)
        if code in BUSY:
            return InputError(
                f"the {direction} {device.name!r} is busy or has gone ({said}): end the program that uses it, "
                f"or take another one{listed}"
            )
        return InputError(f"the {direction} {device.name!r} cannot be opened: {said}{listed}")


class Opened:
    """One running stream."""

    def __init__(self, stream: Any, direction: Direction) -> None:
        self._stream = stream
        self.latency: float = stream.get_input_latency() if direction == "input" else stream.get_output_latency()

    @property
    def active(self) -> bool:
        """False when it has ended by itself, as it does when its device vanishes."""
        try:
            return bool(self._stream.is_active())
        except OSError:  # how it says that the stream is broken
            return False

    def close(self) -> None:
        """End it. Returns at once where the device has vanished; hangs for as long as a sound server stands still."""
        with contextlib.suppress(OSError):  # it has ended already
            self._stream.close()


class Probe:
    """A process of its own that looks what could be opened, so that the streams of this one need not be closed."""

    def __init__(self, asked: Sequence[Asked]) -> None:
        code = "from streamer.nodes import portaudio; portaudio.tell()"
        path = os.pathsep.join(each for each in sys.path if each)
        self._process = subprocess.Popen(  # noqa: S603 - this program's own code
            [sys.executable, "-c", code, json.dumps(asked)],
            env=os.environ | {"PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    @property
    def ready(self) -> bool:
        """Whether it has found out."""
        return self._process.poll() is not None

    @property
    def found(self) -> bool:
        """Whether any could be opened; waits until it is ready."""
        return self._process.wait() == 0

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def tell() -> None:
    """What a `Probe` runs: ends with 0 when any of what its argument asks for could be opened."""
    audio = PortAudio()
    devices = audio.devices()
    found = False
    for name, direction, rate, channels in json.loads(sys.argv[1]):
        with contextlib.suppress(InputError):  # it is not there, or busy
            found |= audio.can(find(devices, name, direction), direction, rate, channels)
    audio.close()
    sys.exit(0 if found else 3)


def _info(raw: dict[str, Any], apis: list[str], defaults: dict[str, int]) -> DeviceInfo:
    name = raw["name"]
    return DeviceInfo(
        index=int(raw["index"]),
        name=name.decode(errors="replace") if isinstance(name, bytes) else str(name),
        api=apis[raw["hostApi"]],
        inputs=int(raw["maxInputChannels"]),
        outputs=int(raw["maxOutputChannels"]),
        rate=round(raw["defaultSampleRate"]),
        input_latency_ms=round(1000 * raw["defaultLowInputLatency"], 2),
        output_latency_ms=round(1000 * raw["defaultLowOutputLatency"], 2),
        default_input=raw["index"] == defaults["input"],
        default_output=raw["index"] == defaults["output"],
    )


@cache
def _stderr() -> tuple[ctypes.c_void_p, int | None, int | None] | None:
    """C's variable `stderr`, its value and a stream to nowhere; None without glibc, whose variable may be changed."""
    if platform.libc_ver()[0] != "glibc":
        return None
    program = ctypes.CDLL(None)
    variable = ctypes.c_void_p.in_dll(program, "stderr")
    program.fopen.restype = ctypes.c_void_p
    return variable, variable.value, program.fopen(os.devnull.encode(), b"w")


def _hush(*, on: bool) -> None:
    """Lead C's `stderr` to nowhere, or back."""
    found = _stderr()
    if found is not None:
        variable, usual, nowhere = found
        variable.value = nowhere if on and nowhere else usual
