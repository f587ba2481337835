"""`midi_in`: notes and controllers of a keyboard or a fader box steer a session; program changes do nothing.

nodes:
  faders:
    type: midi_in
    port: nanoKONTROL
    controls:
      0: {value: temperature, node: coarse, output: [0.4, 1.3]}
      1: {command: gain, value: value, output: [0, 1.5]}
      2: {command: length, value: seconds, output: [2, 30]}
    notes: {36: {command: trigger}, 37: {command: listen}, 38: {command: mute, value: on, kind: switch}}
edges:
  - faders -> turns, coarse, speaker
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

from pydantic import Field, field_validator

from streamer import Build, Frame, InputError, SessionInfo, Settings, Source

from ._steer import Desk, Target, needing

SPAN = (0.0, 127.0)
LOOK = 2.0  # seconds of quiet after which it is looked up whether the device is still there
THROUGH = "midi through"  # ALSA's own port, which no one plays on


class MidiSettings(Settings):
    """Which port, and what notes and controllers mean. Numbers move between 0 and 127 unless `input` says otherwise."""

    port: str | None = Field(
        default=None, min_length=1, description="name of the port or a part of it; default: the first"
    )
    channel: int | None = Field(default=None, ge=1, le=16, description="the only one that counts; default: all")
    controls: dict[int, Target] = Field(default={}, description="number of a controller -> what it moves")
    notes: dict[int, Target] = Field(
        default={},
        description="number of a note -> what it does when pressed; a switch is on for as long as it is down",
    )

    @field_validator("controls", "notes")
    @classmethod
    def _numbers(cls, found: dict[int, Target]) -> dict[int, Target]:
        for number in found:
            if not 0 <= number <= 127:
                raise ValueError(f"number {number}: expected 0 to 127")
        return found

    def frame(self, message: Any) -> Frame | None:
        """What a message means; None for nothing."""
        if self.channel not in (None, getattr(message, "channel", -1) + 1):
            return None
        if message.type == "control_change" and message.control in self.controls:
            return self.controls[message.control].frame(float(message.value), SPAN)
        if message.type not in ("note_on", "note_off") or message.note not in self.notes:
            return None
        target = self.notes[message.note]
        down = message.type == "note_on" and message.velocity > 0
        if target.kind == "switch" and target.value is not None:
            return target.frame(SPAN[1] if down else SPAN[0], SPAN)
        return target.frame(float(message.velocity), SPAN) if down else None


class MidiSource(Source):
    """Notes and controllers as control frames; of each the newest waits, and a new session begins with what stands.

    A device that is unplugged is taken up again when it is back. Gauges: `port`, `connected`. Counters: `superseded`.
    """

    type_name = "midi_in"
    emits = ("control",)
    Config = MidiSettings
    config: MidiSettings

    def __init__(self, config: MidiSettings, build: Build) -> None:
        """Nothing is opened before a session begins.

        Raises:
            ConfigError: mido is not installed.
        """
        super().__init__(config, build)
        with needing(self.name, "mido", "midi"):
            import mido
        self._mido: Any = mido
        self.desk = Desk(self.name)
        self._known: str | None = None  # the port's name without its number, once it was there

    async def frames(self, ctx: SessionInfo) -> AsyncIterator[Frame]:
        """Control frames as they come, until cancelled.

        Raises:
            InputError: there is no such port, and there never was (the message lists those there are), or it is taken.
            ConfigError: the library behind mido is not installed.
        """
        with self.desk.serving(ctx):
            port = await self._attached(None, ctx)
            try:
                while True:
                    try:
                        async with asyncio.timeout(LOOK):
                            frame = await self.desk.get()
                    except TimeoutError:
                        port = await self._attached(port, ctx)
                    else:
                        yield frame
            finally:
                if port is not None:
                    port.close()

    async def _attached(self, port: Any, ctx: SessionInfo) -> Any:
        """The port if it is there, opened if it was not; else None."""
        first = self._known is None
        name = self._found(await self._names())
        if port is not None and name is None:
            port.close()
        if name is None:
            port = None
            self.desk.say("gone", f"MIDI port {self._known!r} has gone; it is waited for")
        elif port is None:
            port = self._opened(name, first=first)
        ctx.metrics.gauge(f"{self.name}.port", str(self._known))
        ctx.metrics.gauge(f"{self.name}.connected", port is not None)
        return port

    def _opened(self, name: str, *, first: bool) -> Any:
        try:
            return self._mido.open_input(name, callback=self._take)
        except OSError as error:
            message = f"MIDI port {name!r} cannot be opened: {error}"
            if first:
                raise InputError(f"node {self.name!r}: {message}; does another program hold it?") from error
            self.desk.say("busy", f"{message}; it is tried again")
            return None

    def _take(self, message: Any) -> None:
        """Called in the library's thread."""
        self.desk.put(self.config.frame(message))

    async def _names(self) -> list[str]:
        """The ports there are; a thread asks the system."""
        with needing(self.name, "python-rtmidi", "midi"):
            try:
                names: list[str] = await asyncio.to_thread(self._mido.get_input_names)
            except OSError as error:
                if self._known is None:
                    raise InputError(f"node {self.name!r}: this machine has no MIDI: {error}") from error
                names = []
        return names

    def _found(self, names: list[str]) -> str | None:
        """The port that is meant, the first time by the settings; None: the one that is known is not there."""
        if self._known is None:
            self._known = _plain(self._chosen(names))
        return next((name for name in names if _plain(name) == self._known), None)

    def _chosen(self, names: list[str]) -> str:
        """The port of a name, or the only one that a part of a name fits."""
        wanted, listed = self.config.port, ", ".join(map(repr, names)) or "none"
        if wanted in names:
            return str(wanted)
        part = "" if wanted is None else wanted.lower()
        fits = [name for name in names if part in name.lower() and (part or THROUGH not in name.lower())]
        if not fits:
            missing = "there is no MIDI input" if wanted is None else f"there is no MIDI input like {wanted!r}"
            raise InputError(
                f"node {self.name!r}: {missing}; the inputs are: {listed}; plug it in, or name another `port`"
            )
        if len(fits) > 1 and part:
            raise InputError(f"node {self.name!r}: {wanted!r} fits {len(fits)} MIDI inputs; name one of: {listed}")
        return fits[0]


def _plain(name: str) -> str:
    """The name without the number that ALSA gives a port anew each time it is plugged in (`Fader 20:0`)."""
    return re.sub(r" \d+:\d+$", "", name)
