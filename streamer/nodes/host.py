"""Sound streams that heal themselves: one PortAudio for the process, and one thread that makes all calls to it.

The thread looks ten times a second whether every device is still there. When one has vanished it says so once and
opens it again by name, with longer and longer waits in between. PortAudio renews its list of devices only when it is
initialised again, so the other streams are opened again too, but not before a process of its own has seen that the
device is back. Knows no frames, no 16 kHz and no session.
"""

from __future__ import annotations

import atexit
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, ClassVar, Final, TypeVar

import structlog

from streamer.errors import InputError
from streamer.nodes.devices import DeviceInfo, Direction, find
from streamer.nodes.lines import Capture, Line, Playout, Wanted, shape
from streamer.nodes.portaudio import PortAudio, Probe

__all__ = ["Capture", "Host", "Line", "Playout", "Wanted", "list_devices"]

_T = TypeVar("_T")
_L = TypeVar("_L", bound=Line)
LOOK: Final = 0.1  # seconds between two looks at the streams
FIRST_DELAY, MOST_DELAY = 0.5, 5.0  # seconds between two attempts to open again
PATIENCE: Final = 15.0  # seconds that listing or opening may take
CLOSING: Final = 0.5  # seconds that closing may take before it is left to the thread


class Host:
    """All streams of this process. Its methods may be called from any thread, but not on an event loop: they wait.

    Args:
        backend: what makes a `PortAudio`; a test gives its own.
    """

    _shared: ClassVar[Host | None] = None
    _sharing: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, backend: type[PortAudio] = PortAudio) -> None:
        self._backend = backend
        self._audio: PortAudio | None = None
        self._lines: list[Line] = []
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._probe: Probe | None = None
        self._closing: Future[None] | None = None
        self._delay, self._due = FIRST_DELAY, 0.0

    @classmethod
    def shared(cls) -> Host:
        """The one of this process."""
        with cls._sharing:
            if cls._shared is None:
                cls._shared = cls()
            return cls._shared

    def devices(self) -> list[DeviceInfo]:
        """What is there; while streams are open, what was there when they were opened.

        Raises:
            InputError: PyAudio is missing, or the sound system does not answer.
        """
        return self._ask(lambda: self._ready().devices())

    def check(self, wanted: Wanted, direction: Direction) -> DeviceInfo:
        """The device that is meant, without opening it.

        Raises:
            InputError: as `find`, and as `devices`.
        """
        return find(self.devices(), wanted.device, direction)

    def capture(self, wanted: Wanted) -> Capture:
        """An open stream from a device.

        Raises:
            InputError: no such device, or it is busy, has no inputs, or cannot do the rate or the channels; the
                message ends with what is there.
        """
        return self._ask(lambda: self._open(Capture, wanted))

    def playout(self, wanted: Wanted) -> Playout:
        """An open stream to a device; raises as `capture`."""
        return self._ask(lambda: self._open(Playout, wanted))

    def release(self, line: Line) -> None:
        """End a stream; what takes longer than half a second is left to the thread, and the next ones too."""
        stuck = self._closing is not None and not self._closing.done()
        self._closing = self._put(lambda: self._remove(line))
        try:
            self._closing.result(0 if stuck else CLOSING)
        except TimeoutError:
            _say(line, "cannot be closed, the sound server stands still; left to itself")

    # -- the thread -------------------------------------------------------------------------------------------------

    def _ask(self, work: Callable[[], _T]) -> _T:
        """Let the thread do it, and wait for the result."""
        future = self._put(work)
        try:
            return future.result(PATIENCE)
        except TimeoutError as error:
            future.cancel()
            raise InputError(
                f"the sound system has not answered for {PATIENCE:g} s; does its server (PipeWire, PulseAudio) run?"
            ) from error

    def _put(self, work: Callable[[], _T]) -> Future[_T]:
        future: Future[_T] = Future()

        def job() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(work())
            except Exception as error:  # noqa: BLE001 - whoever asked raises it
                future.set_exception(error)

        self._jobs.put(job)
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="sound devices", daemon=True)
                self._thread.start()
                atexit.register(self._leave)
        return future

    def _serve(self) -> None:
        """Do what is asked, one thing after the other, and look after the streams in between."""
        while True:
            try:
                self._jobs.get(timeout=LOOK if self._lines else None)()
            except queue.Empty:
                self._look()
            if self._lines:
                continue
            self._drop_probe()
            self._shut()

    def _leave(self) -> None:
        """The program ends: close what is still open, for a callback must not meet an interpreter that has gone."""
        for line in list(self._lines):
            self.release(line)

    def _ready(self) -> PortAudio:
        if self._audio is None:
            self._audio = self._backend()
        return self._audio

    def _shut(self) -> None:
        audio, self._audio = self._audio, None
        if audio is not None:
            audio.close()

    def _open(self, kind: type[_L], wanted: Wanted) -> _L:
        audio = self._ready()
        device = find(audio.devices(), wanted.device, kind.direction)
        line = kind(wanted, device, shape(audio, device, wanted, kind.direction), self.release)
        line.start(audio, device)
        self._lines.append(line)
        return line

    def _remove(self, line: Line) -> None:
        if line in self._lines:
            self._lines.remove(line)
            line.end()

    # -- devices that vanish and come back --------------------------------------------------------------------------

    def _look(self) -> None:
        """See who has vanished, and open again when it is time."""
        for line in self._lines:
            if line.connected and line.vanished():
                line.connected = False
                self._due, self._delay = 0.0, FIRST_DELAY
                _say(line, "vanished; waiting for it to come back")
        lost = [line for line in self._lines if not line.connected]
        if lost and time.monotonic() >= self._due and self._worth_it(lost):
            self._open_again(lost)
            self._wait_longer()

    def _wait_longer(self) -> None:
        self._due = time.monotonic() + self._delay
        self._delay = min(2 * self._delay, MOST_DELAY)

    def _worth_it(self, lost: Sequence[Line]) -> bool:
        """Whether to try: where that interrupts other streams, only when a process has seen that it will do."""
        if len(lost) == len(self._lines):
            self._drop_probe()
            return True
        if self._probe is None:
            self._probe = self._backend.outside([(each.key, each.direction, each.rate, each.channels) for each in lost])
        if not self._probe.ready:
            return False
        found, self._probe = self._probe.found, None
        if not found:
            self._wait_longer()
        return found

    def _drop_probe(self) -> None:
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.close()

    def _open_again(self, lost: Sequence[Line]) -> None:
        """Close everything, let PortAudio look again, and open what is there."""
        for line in self._lines:
            line.end()
        self._shut()
        try:
            audio = self._ready()
        except InputError:
            return  # the next attempt comes
        devices = audio.devices()
        for line in self._lines:
            device = _among(devices, line)
            try:
                if device is not None:
                    line.start(audio, device)
            except InputError:
                continue  # still busy, or gone again: the next attempt comes
            if line in lost and line.connected:
                _say(line, "came back")
            elif line not in lost and not line.connected:
                _say(line, "vanished; waiting for it to come back")


def list_devices() -> list[DeviceInfo]:
    """What is there.

    Raises:
        InputError: PyAudio is missing, or the sound system does not answer.
    """
    return Host.shared().devices()


def _among(devices: Sequence[DeviceInfo], line: Line) -> DeviceInfo | None:
    try:
        return find(devices, line.key, line.direction)
    except InputError:
        return None


def _say(line: Line, state: str) -> None:
    """Once for each change: to the program's log, else to standard error."""
    plain: Any = structlog.wrap_logger(structlog.PrintLogger(sys.stderr))
    out = structlog.get_logger() if structlog.is_configured() else plain
    out.warning("device", device=line.name, direction=line.direction, state=state)
