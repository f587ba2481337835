"""`osc_out`: tells of a session by OSC over UDP, for TouchDesigner, Max, Pd, SuperCollider: levels, tokens, turns.

Messages are made by python-osc. Whoever listens is never waited for, and need not be there.

    nodes:
      screen: {type: osc_out, to: 127.0.0.1, port: 9001, tokens: [coarse]}
    edges:
      - decoder -> speaker, screen
      - coarse -> screen
      - turns -> screen.control
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from streamer import Build, Frame, InputError, SessionInfo, Settings, Sink, sound_of

from ._steer import needing, refused

TICK, RATE = 640, 16_000
SILENCE_DB = -100.0
TOKENS = ("acoustic", "coarse", "fine", "semantic")


class OscOutSettings(Settings):
    """Where it sends, and what."""

    to: str = Field(default="127.0.0.1", min_length=1, description="name or address of the machine it sends to")
    port: int = Field(default=9001, ge=1, le=65_535, description="UDP port it sends to")
    prefix: str = Field(default="/streamer", pattern=r"^(/[A-Za-z0-9_.-]{1,64}){1,8}$", description="of all addresses")
    level: bool = Field(default=True, description="the level of the sound, a message a tick")
    turns: bool = Field(default=True, description="whose turn it is, interruptions, and the end")
    tokens: list[Literal["semantic", "acoustic", "coarse", "fine"]] = Field(
        default=[], description="kinds whose tokens are sent, a message for each frame of them"
    )


@dataclass
class Talk:
    """One session: its socket, and the last end of a turn: where it was and whose turn began."""

    socket: socket.socket
    turn: tuple[int, str] = (-1, "")


class OscSink(Sink):
    """Tells of a session by OSC messages under `prefix`; it never waits for who listens.

    `/heard/level` and `/generated/level`: dBFS of each tick, float, at least -100. `/tokens/KIND`: number of the frame
    of tokens, then its tokens, integers. `/turn`: `heard` or `generated`, when that turn begins. `/interrupt`: the
    epoch that begins. `/end`: nothing more comes. What the network did not take is counted as `NAME.unsent`.
    """

    type_name = "osc_out"
    accepts = ("audio", "control", *TOKENS)
    optional = ("audio", "control", *TOKENS)
    merge = "arrival"  # what is there is told: nothing waits for a stream that is behind
    live = True
    Config = OscOutSettings
    config: OscOutSettings

    def __init__(self, config: OscOutSettings, build: Build) -> None:
        """Nothing is opened before the first frame comes.

        Raises:
            ConfigError: python-osc is not installed.
        """
        super().__init__(config, build)
        with needing(self.name, "python-osc", "osc"):
            from pythonosc.osc_message_builder import OscMessageBuilder
        self._builder = OscMessageBuilder
        self._talks: dict[str, Talk] = {}

    async def write(self, frame: Frame, ctx: SessionInfo, input: str) -> None:  # noqa: A002
        """Tell of one frame.

        Raises:
            InputError: the machine it should send to is not known.
        """
        _ = input
        talk = self._talks.get(ctx.id) or await self._open(ctx)
        if frame.kind == "control":
            if self.config.turns and frame.meta.get("command") == "interrupt":
                self._send(ctx, "/interrupt", frame.epoch)
            return
        if frame.turns and self.config.turns:
            self._turn(frame, talk, ctx)
        if frame.kind == "audio" and frame.payload and self.config.level:
            side = "generated" if frame.generated else "heard"
            sound = sound_of(frame, self.name, ctx.metrics)
            for at in range(0, len(sound), TICK):
                self._send(ctx, f"/{side}/level", level_db(sound[at : at + TICK]))
        elif frame.kind in self.config.tokens:
            first = frame.position * frame.rate // RATE
            for number, tokens in enumerate(frame.array.reshape(frame.shape[0], -1) if frame.payload else (), first):
                self._send(ctx, f"/tokens/{frame.kind}", number, *tokens.tolist())

    async def finish(self, ctx: SessionInfo) -> None:
        """Tell the end."""
        if ctx.id in self._talks:
            if self.config.turns:
                self._send(ctx, "/end")
            self._close(ctx.id)

    async def abort(self, ctx: SessionInfo) -> None:
        """Tell the end, too: nothing more comes."""
        await self.finish(ctx)

    def shutdown(self) -> None:
        """Close what is still open."""
        for session in list(self._talks):
            self._close(session)

    async def _open(self, ctx: SessionInfo) -> Talk:
        config = self.config
        try:
            found = await asyncio.get_running_loop().getaddrinfo(config.to, config.port, type=socket.SOCK_DGRAM)
            with contextlib.ExitStack() as unless_it_fails:
                opened = unless_it_fails.enter_context(socket.socket(*found[0][:3]))
                opened.settimeout(0)
                opened.connect(found[0][4])
                unless_it_fails.pop_all()
        except OSError as error:
            message = f"node {self.name!r} cannot send OSC to {config.to}:{config.port}: {error.strerror or error}"
            raise InputError(f"{message}; give the name or address of a machine as `to`") from error
        self._talks[ctx.id] = Talk(opened)
        return self._talks[ctx.id]

    def _close(self, session: str) -> None:
        self._talks.pop(session).socket.close()

    def _turn(self, frame: Frame, talk: Talk, ctx: SessionInfo) -> None:
        """Each stream says it when a turn ends; the first one counts."""
        begins = "generated" if frame.heard else "heard"
        if frame.position >= talk.turn[0] and begins != talk.turn[1]:
            talk.turn = (frame.position, begins)
            self._send(ctx, "/turn", begins)

    def _send(self, ctx: SessionInfo, address: str, *values: float | str) -> None:
        """Send one message; one that cannot be sent now is counted, and the first is said."""
        builder = self._builder(self.config.prefix + address)
        for value in values:
            builder.add_arg(value)
        try:
            self._talks[ctx.id].socket.send(builder.build().dgram)
        except OSError as error:
            where = f"{self.config.to}:{self.config.port}"
            refused(self.name, ctx, f"OSC to {where} goes nowhere: {error.strerror or error}", "unsent")


def level_db(sound: NDArray[np.float32]) -> float:
    """The level of a piece of sound in dBFS, at least -100."""
    power = float(np.mean(np.square(sound, dtype=np.float64)))
    return max(SILENCE_DB, 10 * float(np.log10(power))) if power > 0 else SILENCE_DB
