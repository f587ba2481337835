"""What a page and the server say to each other: which messages there are, their values, and why a socket is closed.

Every message is one packed frame (docs/frames.md). This module knows no socket, session or graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import ConfigDict, Field, ValidationError

from streamer.errors import FrameError, InputError
from streamer.frame import AUDIO, CONTROL, SAMPLE_RATE, Frame, FrameLimits
from streamer.node import Settings

VERSION: Final = 1
TICK: Final = 640  # samples of one audio frame
MESSAGE_BYTES: Final = 8192  # the largest message of a page; an audio frame has about 1330
LIMITS: Final = FrameLimits(payload_bytes=2 * TICK, meta_items=32, text_bytes=1024)
MODES: Final = ("continue", "duet", "reconstruct")
NORMAL: Final = 1000
GOING_AWAY: Final = 1001
CODES: Final[Mapping[str, int]] = {
    "full": 4001, "token": 4002, "limit": 4004, "bad_frame": 4005, "failed": 4006, "busy": 4007, "slow": 4008,
}  # fmt: skip


class Closed(Exception):  # noqa: N818 - it is how a visit ends, not only by an error
    """The visit is over for a reason that the page is told.

    Args:
        code: one of `CODES`.
        text: a sentence for the visitor.
        values: more of the message.
    """

    def __init__(self, code: str, text: str, **values: Any) -> None:
        super().__init__(text)
        self.code, self.text, self.values = code, text, values

    @property
    def frame(self) -> Frame:
        """The message that says it."""
        return Frame.control("error", code=self.code, text=self.text, **self.values)


class RefusedError(InputError):
    """A message cannot be used; the session goes on. The text is for the visitor."""


class Wish(Settings):
    """How a session shall be; None: as the server has it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)
    mode: Literal["continue", "duet", "reconstruct"] = "continue"
    seed: int | None = Field(default=None, ge=0, le=2**53 - 1)
    seconds: float | None = Field(default=None, ge=0.04, le=86_400)
    bundle: str | None = Field(default=None, max_length=256)
    temperature: float | None = Field(default=None, ge=0, le=10)
    top_k: int | None = Field(default=None, ge=0, le=1024)
    guidance: float | None = Field(default=None, ge=0, le=20)
    detector: Literal["speech", "music", "none"] | None = None

    @property
    def sampling(self) -> dict[str, Any]:
        """The values of a `set` that says how the stages sample; empty: as the bundle has it."""
        values = {"temperature": self.temperature, "top_k": self.top_k, "guidance": self.guidance}
        return {name: value for name, value in values.items() if value is not None}


class Hello(Wish):
    """The first message: the version of the protocol, the token where one is needed, and a wish."""

    version: Literal[1]
    token: str | None = Field(default=None, max_length=512)


class Change(Settings):
    """Values of `set`: how the stages sample from now on; None brings the bundle's back."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)
    temperature: float | None = Field(default=None, ge=0, le=10)
    top_k: int | None = Field(default=None, ge=0, le=1024)
    guidance: float | None = Field(default=None, ge=0, le=20)
    node: Literal["semantic", "coarse", "fine"] | None = None

    @property
    def values(self) -> dict[str, Any]:
        """What was given."""
        return {name: getattr(self, name) for name in self.model_fields_set if (name, self.node) != ("node", None)}


class Mute(Settings):
    """Values of `mute`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    on: bool = True


class Ping(Settings):
    """Values of `ping`: any number of the page's own clock."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)
    at: float | None = None


class Report(Settings):
    """Values of `report`: what the page measured of its own playing since the last one."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)
    underruns: int = Field(default=0, ge=0, le=10_000)
    buffer_ms: float | None = Field(default=None, ge=0, le=60_000)
    latency_ms: float | None = Field(default=None, ge=0, le=60_000)


class Nothing(Settings):
    """A command without values."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


COMMANDS: Final[Mapping[str, type[Settings]]] = {
    "hello": Hello, "reset": Wish, "set": Change, "mute": Mute, "ping": Ping, "report": Report,
    "trigger": Nothing, "listen": Nothing, "bye": Nothing,
}  # fmt: skip


def parse(message: bytes) -> tuple[str, Settings | Frame]:
    """`(command, its values)`, or `("audio", frame)`.

    Raises:
        RefusedError: not a frame, or not one of this protocol; it says what was expected.
    """
    try:
        frame = Frame.unpack(message, LIMITS)
    except FrameError as error:
        raise RefusedError(str(error)) from error
    if frame.kind == AUDIO:
        return AUDIO, _sound(frame)
    if frame.kind != CONTROL:
        raise RefusedError(f"a {frame.kind} frame came; a page sends audio and control")
    values = dict(frame.meta)
    command = str(values.pop("command", ""))
    if command not in COMMANDS:
        raise RefusedError(f"unknown command {command[:40]!r}; known: {', '.join(COMMANDS)}")
    return command, _values(command, values)


def _sound(frame: Frame) -> Frame:
    if frame.dtype != "i2" or frame.rate != SAMPLE_RATE or frame.shape != (TICK,):
        came = f"{frame.dtype} {list(frame.shape)} at {frame.rate} Hz"
        raise RefusedError(f"audio of {came} came; expected i2 [{TICK}] at {SAMPLE_RATE} Hz")
    return frame


def _values(command: str, values: dict[str, Any]) -> Settings:
    try:
        return COMMANDS[command].model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:40]
        raise RefusedError(f"{command}: {where}: {first['msg']}") from error
