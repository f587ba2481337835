"""One stream of samples to or from a device, and its ring. Knows no thread and no other stream: `host` drives it.

Samples are float32, which every host API of PortAudio converts to what the device takes, with clipping; so nothing is
converted here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np

from streamer.errors import InputError
from streamer.nodes.devices import DeviceInfo, Direction, described
from streamer.nodes.portaudio import Opened, PortAudio
from streamer.nodes.ring import Ring

__all__ = ["Capture", "Line", "Playout", "Wanted", "shape"]

USUAL_RATE: Final = 48_000  # what nearly every device does, and what sound servers run at
RING_SECONDS: Final = 2.0
SILENT: Final = 5  # looks without a callback after which a device has vanished: half a second
FIRST: Final = 40  # the same at first: a sleeping sound server takes two seconds to wake up, after it has taken a few
SETTLED: Final = 50  # callbacks after which a stream is no longer at first
CONTINUE: Final = 0  # what a callback gives for "go on" (paContinue)
Release = Callable[["Line"], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody wants of a device.

    Attributes:
        device: its number, its name or a part of it; None: the default one.
        rate: samples a second; None: 48000. Where the device cannot do that, its own rate is taken.
        channels: None: one, or the fewest that the device can do.
        frames_ms: length of a block of the callback.
    """

    device: str | int | None = None
    rate: int | None = None
    channels: int | None = None
    frames_ms: float = 10.0


def shape(audio: PortAudio, device: DeviceInfo, wanted: Wanted, direction: Direction) -> tuple[int, int]:
    """The first rate and number of channels that the device can do.

    Raises:
        InputError: none of them, or the device is busy.
    """
    most = device.channels(direction)
    counts = [wanted.channels] if wanted.channels else sorted({1, min(2, most), most})
    rates = list(dict.fromkeys([wanted.rate or USUAL_RATE, device.rate]))
    for rate in rates:
        for count in counts:
            if count <= most and audio.can(device, direction, rate, count):
                return rate, count
    asked = f"{_either(rates)} Hz with {_either(counts)} channel(s)"
    listed = described(audio.devices(), direction)
    raise InputError(f"the {direction} {device.name!r} cannot do {asked}; it has {most} channel(s){listed}")


def _either(numbers: list[int]) -> str:
    return " or ".join(str(each) for each in numbers)


class Line(ABC):
    """One stream to or from a device; `close` ends it.

    Attributes:
        ring: float32 `[n, channels]` at the device's rate; stays the same when the device is opened again.
        rate: samples a second of the ring. channels: columns of the ring. name: of the device.
        latency: seconds that the device's buffers hold.
        connected: false while the device is away.
        calls: callbacks so far. troubles: callbacks with a flag of PortAudio, which says that samples were lost.
    """

    direction: ClassVar[Direction]

    def __init__(self, wanted: Wanted, device: DeviceInfo, form: tuple[int, int], release: Release) -> None:
        self.wanted, self.device, self.name = wanted, device, device.name
        self.rate, self.channels = form
        self.ring = Ring(round(RING_SECONDS * self.rate), self.channels)
        self.latency = 0.0
        self.connected = False
        self.calls = self.troubles = 0
        self._release = release
        self._frames = max(1, round(self.rate * wanted.frames_ms / 1000))
        self._stream: Opened | None = None
        self._seen = self._quiet = self._first = 0

    @property
    def key(self) -> str | None:
        """What finds the device again: its name, since numbers change; None: whichever is the default then."""
        return None if self.wanted.device is None else self.name

    @abstractmethod
    def callback(self, data: bytes | None, count: int, times: Any, status: int) -> tuple[bytes | None, int]:
        """Copy one block; called by PortAudio in a thread of its own."""

    def close(self) -> None:
        """End the stream. Takes no longer than half a second, even where the sound server stands still."""
        self._release(self)

    # -- for the host -----------------------------------------------------------------------------------------------

    def start(self, audio: PortAudio, device: DeviceInfo) -> None:
        """Open the stream.

        Raises:
            InputError: it cannot be opened now.
        """
        if not audio.can(device, self.direction, self.rate, self.channels):
            raise InputError(f"{device.name!r} cannot do {self.rate} Hz with {self.channels} channel(s) any more")
        self._stream = audio.open(
            device, self.direction, rate=self.rate, channels=self.channels, frames=self._frames, callback=self.callback
        )
        self.device, self.name, self.latency = device, device.name, self._stream.latency
        self._seen = self._first = self.calls
        self._quiet = 0
        self.connected = True

    def end(self) -> None:
        """Close the stream, if it is open."""
        stream, self._stream, self.connected = self._stream, None, False
        if stream is not None:
            stream.close()

    def vanished(self) -> bool:
        """Take one look: whether the stream has ended, or gives no sign of life."""
        self._quiet = self._quiet + 1 if self.calls == self._seen else 0
        self._seen = self.calls
        most = FIRST if self.calls < self._first + SETTLED else SILENT
        return self._stream is None or self._quiet >= most or not self._stream.active


class Capture(Line):
    """A stream from a device: the callback pushes into the ring; what does not fit counts in `ring.overruns`."""

    direction = "input"

    def callback(self, data: bytes | None, count: int, times: Any, status: int) -> tuple[bytes | None, int]:
        """Copy one block into the ring."""
        _ = count, times
        if data:
            self.ring.push(np.frombuffer(data, np.float32).reshape(-1, self.channels))
        self.calls += 1
        self.troubles += status != 0
        return None, CONTINUE


class Playout(Line):
    """A stream to a device: the callback pops from the ring, and gives silence where the ring is empty.

    Attributes:
        expecting: set by who fills the ring: whether an empty ring counts as an underrun.
        underruns: callbacks that found too little in the ring while it was expected.
    """

    direction = "output"

    def __init__(self, wanted: Wanted, device: DeviceInfo, form: tuple[int, int], release: Release) -> None:
        super().__init__(wanted, device, form, release)
        self.expecting = False
        self.underruns = 0

    def callback(self, data: bytes | None, count: int, times: Any, status: int) -> tuple[bytes | None, int]:
        """Copy one block out of the ring."""
        _ = data, times
        block = np.zeros((count, self.channels), np.float32)
        if self.ring.pop_into(block) < count and self.expecting:
            self.underruns += 1
        self.calls += 1
        self.troubles += status != 0
        return block.tobytes(), CONTINUE
