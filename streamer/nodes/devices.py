"""Which sound devices there are, and which one somebody means. Pure: knows no sound library and opens nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from streamer.errors import InputError, nearest

__all__ = ["DeviceInfo", "Direction", "described", "find", "usable"]

Direction = Literal["input", "output"]
REMEDY = {
    "input": "plug a microphone in, or start the sound server of this machine (PipeWire, PulseAudio)",
    "output": "plug a loudspeaker in, or start the sound server of this machine (PipeWire, PulseAudio)",
}


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """One device, as PortAudio lists it.

    Attributes:
        index: its number; it may change whenever a device comes or goes.
        name: its name; several devices may share it.
        api: the host API it belongs to, for instance `ALSA`.
        inputs, outputs: most channels in each direction; 0: none.
        rate: samples a second that it prefers.
        input_latency_ms, output_latency_ms: the low latencies that it declares.
        default_input, default_output: whether it is used when none is named.
    """

    index: int
    name: str
    api: str
    inputs: int
    outputs: int
    rate: int
    input_latency_ms: float = 0.0
    output_latency_ms: float = 0.0
    default_input: bool = False
    default_output: bool = False

    def channels(self, direction: Direction) -> int:
        """Most channels in one direction."""
        return self.inputs if direction == "input" else self.outputs

    def default(self, direction: Direction) -> bool:
        """Whether it is used when none is named."""
        return self.default_input if direction == "input" else self.default_output

    def line(self, direction: Direction) -> str:
        """One line about one direction, for messages."""
        count = self.channels(direction)
        mark = ", default" if self.default(direction) else ""
        return f"{self.index}: {self.name} ({self.api}, {count} channel{'s' * (count > 1)}, {self.rate} Hz{mark})"


def usable(devices: Sequence[DeviceInfo], direction: Direction) -> list[DeviceInfo]:
    """Those that have channels in this direction."""
    return [each for each in devices if each.channels(direction)]


def described(devices: Sequence[DeviceInfo], direction: Direction) -> str:
    """What is there, one device a line, to end a message with."""
    lines = [f"  {each.line(direction)}" for each in usable(devices, direction)]
    return f"\n{direction}s that are there:\n" + "\n".join(lines) if lines else f"\nno {direction}s are there"


def find(devices: Sequence[DeviceInfo], wanted: str | int | None, direction: Direction) -> DeviceInfo:
    """The device that is meant.

    Args:
        devices: what is there.
        wanted: its number; its name or a part of it, in any case; None: the default one.
        direction: what it must be able to do.

    Raises:
        InputError: there is none at all, none of that name or number, several that it may mean, or it has no channels
            in this direction. The message ends with what is there.
    """
    able = usable(devices, direction)
    if not able:
        raise InputError(f"no sound {direction} is here; {REMEDY[direction]}, and look with `streamer devices`")
    if wanted is None:
        return next((each for each in able if each.default(direction)), able[0])
    if isinstance(wanted, int):
        return _numbered(devices, wanted, direction)
    return _named(devices, wanted, direction)


def _numbered(devices: Sequence[DeviceInfo], number: int, direction: Direction) -> DeviceInfo:
    for each in devices:
        if each.index == number:
            return _able(devices, [each], direction, repr(number))
    raise InputError(f"there is no sound device {number}{described(devices, direction)}")


def _named(devices: Sequence[DeviceInfo], name: str, direction: Direction) -> DeviceInfo:
    """Exact names come before parts of names, what can do it before what cannot."""
    low = name.casefold()
    for found in (
        [each for each in devices if each.name == name],
        [each for each in devices if each.name.casefold() == low],
        [each for each in devices if low in each.name.casefold()],
    ):
        if found:
            return _able(devices, found, direction, repr(name))
    close = nearest(name, [each.name for each in usable(devices, direction)])
    raise InputError(f"no sound {direction} is named {name!r}{close}{described(devices, direction)}")


def _able(devices: Sequence[DeviceInfo], found: Sequence[DeviceInfo], direction: Direction, said: str) -> DeviceInfo:
    """The one of `found` that is meant: of the same device by several host APIs, the first."""
    able = usable(found, direction)
    if not able:
        raise InputError(f"{found[0].name!r} has no {direction}s{described(devices, direction)}")
    if len({each.name for each in able}) > 1:
        raise InputError(
            f"{said} may mean {len(able)} devices: {', '.join(repr(each.name) for each in able)}; "
            f"give more of the name, or the number{described(devices, direction)}"
        )
    return next((each for each in able if each.default(direction)), able[0])
