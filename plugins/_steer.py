"""What the plugins that steer a session share: numbers from outside become control frames, few and in order.

`Target` says what a number becomes, `Desk` holds what waits to be sent and what the faders stand at. Neither knows OSC,
MIDI or MQTT. This module is no plugin of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
import threading
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import structlog
from pydantic import Field, field_validator

from streamer import ConfigError, Frame, InputError, SessionInfo, Settings

Span = tuple[float, float]
MOST = 256  # different commands that may wait, or stand, at a time
NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,63}$"
TAKEN = {"command", "node", "position", "like"}  # names that a value of a control frame cannot have
SIDES = (float("-inf"), float("inf"))
LARGEST = 2.0**53  # what a whole number may be: frames hold 64 bits


class Target(Settings):
    """What a message means: a command and, where `value` names one, the value that its number becomes."""

    command: str = Field(default="set", pattern=NAME, description="for instance set, trigger, listen, mute, gain")
    value: str | None = Field(
        default=None, pattern=NAME, description="value that the number becomes (temperature, seconds); default: none"
    )
    node: str | None = Field(default=None, min_length=1, max_length=64, description="name of one node; default: all")
    kind: Literal["number", "whole", "switch"] = Field(
        default="number", description="of the value; switch: on from the middle of `input` up"
    )
    input: Span | None = Field(default=None, description="what the number moves between; what is beyond is cut off")
    output: Span | None = Field(default=None, description="what the value moves between; default: as it comes")

    @field_validator("value", mode="before")
    @classmethod
    def _word(cls, name: object) -> object:
        return "on" if name is True else name  # YAML takes the word for a switch

    @field_validator("value")
    @classmethod
    def _free(cls, name: str | None) -> str | None:
        if name in TAKEN:
            raise ValueError(f"a value cannot be called {name!r}; expected for instance temperature, seconds, on")
        return name

    @field_validator("input")
    @classmethod
    def _wide(cls, span: Span | None) -> Span | None:
        if span is not None and span[0] == span[1]:
            raise ValueError(f"a number cannot move between {span[0]:g} and {span[1]:g}; expected two different ones")
        return span

    def scaled(self, number: float, usual: Span | None) -> float | int | bool:
        """The value that a number becomes. `usual`: its range where the settings give none; None: any number."""
        low, high = self.input or usual or SIDES
        if self.kind == "switch":
            middle = (low + high) / 2 if self.input or usual else 0.5
            return number >= middle if high > low else number <= middle
        made = min(max(number, min(low, high)), max(low, high)) if self.input or self.output else number
        if self.output is not None and math.isfinite(high - low):
            share = (made - low) / (high - low)
            made = (1 - share) * self.output[0] + share * self.output[1]  # exact at both ends
        return round(min(max(made, -LARGEST), LARGEST)) if self.kind == "whole" else made

    def frame(self, number: float | None, usual: Span | None = None, node: str | None = None) -> Frame | None:
        """The control frame for a number; None where the message means nothing.

        Without `value` a number is a button: 0 is its release, which does nothing.

        Args:
            number: finite; None: the message has none.
            usual: the range of the number where the settings give none.
            node: name of the node, where the message tells it.
        """
        values: dict[str, Any] = {} if (self.node or node) is None else {"node": self.node or node}
        if self.value is not None:
            if number is None:
                return None
            values[self.value] = self.scaled(number, usual)
        elif number == 0:
            return None
        return Frame.control(self.command, **values)


class Key(NamedTuple):
    """What makes two control frames the same fader or button: the later one takes the place of the earlier."""

    command: str
    names: tuple[str, ...]
    node: str | None


def key_of(frame: Frame) -> Key:
    """The key of a control frame."""
    meta = dict(frame.meta)
    command, node = str(meta.pop("command")), meta.pop("node", None)
    return Key(command, tuple(sorted(meta)), None if node is None else str(node))


class Desk:
    """What waits to be sent, the newest of each key, and what was last sent: a new session begins with that.

    It belongs to the graph and serves one session at a time. What is replaced before it was sent is counted as
    `NAME.superseded`, what goes because too much waits as `NAME.dropped`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._standing: dict[Key, Frame] = {}
        self._waiting: dict[Key, Frame] = {}
        self._lock = threading.Lock()
        self._event = asyncio.Event()
        self._ctx: SessionInfo | None = None
        self._said: set[str] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    @contextlib.contextmanager
    def serving(self, ctx: SessionInfo) -> Iterator[None]:
        """Serve a session from now on, which first gets what the faders stand at.

        Raises:
            InputError: another session is being served.
        """
        if self._ctx is not None:
            message = f"node {self.name!r} steers session {self._ctx.id!r}, and session {ctx.id!r} came too"
            raise InputError(f"{message}; one desk steers one session at a time: give each a graph of its own")
        self._ctx, self._loop, self._event = ctx, asyncio.get_running_loop(), asyncio.Event()
        self._waiting, self._said = dict(self._standing), set()
        try:
            yield
        finally:
            self._ctx = self._loop = None

    def put(self, frame: Frame | None) -> None:
        """Take a control frame, in any thread; None is passed over."""
        if frame is None:
            return
        with self._lock:
            ctx, loop, key = self._ctx, self._loop, key_of(frame)
            if ctx is None or loop is None:
                return
            idle = not self._waiting
            if self._waiting.pop(key, None) is not None:
                ctx.metrics.count(f"{self.name}.superseded")
            elif len(self._waiting) >= MOST:
                del self._waiting[next(iter(self._waiting))]
                ctx.metrics.count(f"{self.name}.dropped")
            self._waiting[key] = frame
            if idle:
                with contextlib.suppress(RuntimeError):  # the loop was closed without an end of the session
                    loop.call_soon_threadsafe(self._event.set)

    async def get(self) -> Frame:
        """The next frame of the session that is served."""
        while True:
            with self._lock:
                if self._waiting and self._ctx is not None:
                    key = next(iter(self._waiting))
                    frame = self._waiting.pop(key)
                    if key.names and (key in self._standing or len(self._standing) < MOST):
                        self._standing[key] = frame
                    return frame.replace(session=self._ctx.id)
            self._event.clear()
            await self._event.wait()

    def refuse(self, note: str) -> None:
        """Count a message that cannot be used, as `NAME.refused`; the first of a session is said."""
        if self._ctx is not None:
            refused(self.name, self._ctx, note)

    def say(self, topic: str, note: str) -> None:
        """Say something about a topic, the first time in a session."""
        if self._ctx is not None and topic not in self._said:
            self._said.add(topic)
            log(node=self.name, session=self._ctx.id, note=note)


def refused(name: str, ctx: SessionInfo, note: str, counter: str = "refused") -> None:
    """Count what went wrong, as `NAME.COUNTER`, and say the first of a session."""
    if not ctx.metrics.counters.get(f"{name}.{counter}"):
        log(node=name, session=ctx.id, note=note)
    ctx.metrics.count(f"{name}.{counter}")


def log(**values: Any) -> None:
    """Log a warning; on standard error when the program has set up no log (standard output may carry sound)."""
    plain = structlog.wrap_logger(structlog.PrintLogger(sys.stderr))
    (structlog.get_logger() if structlog.is_configured() else plain).warning("plugin", **values)


@contextlib.contextmanager
def needing(name: str, package: str, extra: str) -> Iterator[None]:
    """Say which package a node needs, where an import in the block fails.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        message = f"node {name!r} needs {package} ({error})"
        raise ConfigError(f'{message}; pip install "audiolm-streamer[{extra}]" brings it') from error


def finite(value: object) -> float | None:
    """A number or a switch as a finite float; None for anything else."""
    if not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
