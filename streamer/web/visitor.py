"""One visitor of the page: hello, a place, messages in and out, and the end, whoever ends it.

It knows the socket and the protocol. What is played is `play`; limits, counters and places are the server's.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect

from streamer.errors import ConfigError
from streamer.frame import Frame
from streamer.link import Outbox
from streamer.web.limits import Bucket
from streamer.web.play import Player
from streamer.web.protocol import (
    CODES,
    GOING_AWAY,
    NORMAL,
    Change,
    Closed,
    Hello,
    Mute,
    Ping,
    RefusedError,
    Report,
    Wish,
    parse,
)  # fmt: skip
from streamer.web.service import Service

PULSE: Final = 0.2  # seconds from one status to the next
LAST_WORDS: Final = 1.0  # seconds that saying why may take
WRONG_TOKEN: Final = 0.5  # seconds that a wrong token costs
ENDING: Final = "ending"


class Left(Exception):  # noqa: N818 - no error: the visitor has gone, or both have said bye
    """The visit is over and nothing more needs to be said."""


class Visitor:
    """One socket, already accepted.

    Args:
        socket: it.
        service: the server's rooms, limits and counters.
        address: where the visitor comes from.
    """

    def __init__(self, socket: WebSocket, service: Service, address: str) -> None:
        limits = service.limits
        self.socket, self.service, self.limits, self.address = socket, service, limits, address
        self.outbox = Outbox()
        self.player = Player(service.rooms, service.meters, limits, self.outbox)
        self.begin = self.heard_of = time.monotonic()
        self._messages = Bucket(limits.messages, limits.message_burst)
        self._bytes = Bucket(limits.bytes, limits.byte_burst)
        self._controls = Bucket(limits.controls, limits.control_burst)
        self._refusals = Bucket(limits.refusal_rate, limits.refusals)
        self._farewell: Exception | None = None  # raised when the last word, a `bye`, is out

    async def visit(self) -> None:
        """Everything from hello to the closed socket."""
        code = NORMAL
        try:
            with self.service.admission.waiting():
                hello = await self._hello()
            with self.service.admission.place(self.address):
                await self._stay(hello)
        except Closed as closed:
            code = self._note(closed)
            if closed.code != ENDING:
                await self._say(closed.frame)
        except (Left, WebSocketDisconnect):
            structlog.get_logger().debug("left")
        except Exception:
            await self._say(Closed("failed", "the server has failed; its log says why").frame)
            await self._close(CODES["failed"])
            raise
        await self._close(code)

    @property
    def rung(self) -> int:
        """How much is left out of its session now."""
        return self.player.rung

    def end(self, text: str) -> None:
        """The server ends: say so, then leave."""
        self._farewell = Closed(ENDING, text)
        self.outbox.put(Frame.control("bye", text=text))

    def _note(self, closed: Closed) -> int:
        """Count how it ended; gives the code to close with."""
        meters = self.service.meters
        (meters.closed if self.player.started else meters.refused).labels(closed.code).inc()
        text = closed.text.encode("unicode_escape").decode()  # it may repeat what came, which may be made for terminals
        structlog.get_logger().info("closed", code=closed.code, text=text)
        return CODES.get(closed.code, GOING_AWAY)

    # -- hello ----------------------------------------------------------------------------------------------------

    async def _hello(self) -> Hello:
        """The first message.

        Raises:
            Closed: it does not come, is no hello, asks for what there is not, or the token is wrong.
        """
        try:
            async with asyncio.timeout(self.limits.hello):
                command, values = parse(await self._receive())
            if not isinstance(values, Hello):
                raise RefusedError(f"{command} came before hello")  # noqa: TRY301 - told like what cannot be read
        except TimeoutError as error:
            raise Closed("limit", f"no hello came within {self.limits.hello:g} seconds") from error
        except RefusedError as error:
            self.service.meters.bad_frames.inc()
            raise Closed("bad_frame", f"{error}; reload the page") from error
        await self._check_token(values.token)
        try:
            self._check(values)
        except RefusedError as error:
            raise Closed("bad_frame", str(error)) from error
        return values

    async def _check_token(self, token: str | None) -> None:
        """A wrong one costs a moment, and one of the few places in the lobby meanwhile."""
        if self.service.access.knows_token(token):
            return
        await asyncio.sleep(WRONG_TOKEN)
        raise Closed("token", "the token is not right" if token else "a token is needed", wrong=bool(token))

    def _check(self, wish: Wish) -> None:
        """Whether this server can do what is wished.

        Raises:
            RefusedError: it has not that bundle, or no guidance.
        """
        try:
            self.service.rooms.check(wish.bundle, wish.mode)
        except ConfigError as error:
            raise RefusedError(error.message) from error
        self._check_guidance(wish.guidance)

    def _check_guidance(self, guidance: float | None) -> None:
        if guidance not in (None, 1) and not self.service.rooms.guidance:
            raise RefusedError(
                "the guidance cannot be changed here; the server would have to be started with --guidance"
            )

    # -- the visit ------------------------------------------------------------------------------------------------

    async def _stay(self, hello: Hello) -> None:
        """Listen, speak, play and look at the clock, until one of these ends the visit."""
        self.service.meters.admitted.inc()
        self.player.wish(hello)
        try:
            with self.service.present(self):
                async with asyncio.TaskGroup() as group:
                    for work in (self._listen, self._speak, self._play, self._pulse):
                        group.create_task(work(), name=f"visitor:{work.__name__.strip('_')}")
        except BaseExceptionGroup as found:
            reason = _reason(found)
            raise reason from reason.__cause__

    async def _receive(self) -> bytes:
        """The next message.

        Raises:
            Left: the socket is closed. RefusedError: it is text. Closed: there are too many, or they are too large.
        """
        message = await self.socket.receive()
        if message["type"] == "websocket.disconnect":
            raise Left
        data = message.get("bytes")
        size = len(data if data is not None else message.get("text") or "")
        self.heard_of = time.monotonic()
        self.service.meters.received.inc(size)
        if not self._messages.take() or not self._bytes.take(size):
            most = f"at most {self.limits.messages:g} messages a second are taken"
            raise Closed("limit", f"too much came at once; {most}")
        if data is None:
            raise RefusedError("a text message came; every message is one binary frame")
        return bytes(data)

    async def _listen(self) -> None:
        """Take one message after another; what cannot be used is refused, and the next is taken."""
        while True:
            try:
                command, values = parse(await self._receive())
                if isinstance(values, Frame):
                    self.player.hear(values)
                else:
                    self._obey(command, values)
            except RefusedError as error:
                self._refuse(error)

    def _refuse(self, error: RefusedError) -> None:
        self.service.meters.bad_frames.inc()
        if not self._refusals.take():
            raise Closed("bad_frame", f"too many messages could not be used, the last one because: {error}") from error
        self.outbox.put(Frame.control("refused", code="bad_frame", text=str(error)[:500]))

    def _obey(self, command: str, values: Any) -> None:
        """Do what a control message says.

        Raises:
            RefusedError: this server cannot. Closed: they come too fast.
        """
        if not self._controls.take():
            raise Closed("limit", f"too many commands came; at most {self.limits.controls:g} a second are taken")
        match values:
            case Hello():
                raise RefusedError("hello came twice; `reset` begins again")
            case Wish():
                self._check(values)
                self.player.wish(values)
            case Ping():
                self.outbox.put(Frame.control("pong", at=values.at))
            case Report():
                self.service.meters.report(values.underruns, values.buffer_ms, values.latency_ms)
            case Change():
                self._check_guidance(values.guidance)
                self.player.send(command, values.values)
            case Mute():
                self.player.send(command, {"on": values.on})
            case _ if command == "bye":
                self.player.leave()
            case _:
                self.player.send(command, {})

    async def _speak(self) -> None:
        """Send what waits, in order, until the last word."""
        while True:
            frame = await self.outbox.get()
            data = frame.pack()
            try:
                async with asyncio.timeout(self.limits.slow):
                    await self.socket.send_bytes(data)
            except TimeoutError as error:
                raise Closed("slow", f"nothing could be sent for {self.limits.slow:g} seconds") from error
            self.service.meters.sent.inc(len(data))
            if self._farewell is not None and frame.meta.get("command") == "bye":
                raise self._farewell

    async def _play(self) -> None:
        """Play until the visitor leaves, then say bye behind everything that still goes out."""
        await self.player.play({"limit_seconds": self._left(), **self._counts()})
        self._farewell = self._farewell or Left()
        self.outbox.put(Frame.control("bye", text="until next time"))

    async def _pulse(self) -> None:
        """Every fifth of a second: how it goes, and whether the time is up."""
        while True:
            await asyncio.sleep(PULSE)
            left = self._left()
            self.outbox.put(self.player.status({"left_s": left, **self._counts()}))
            if left == 0:
                raise Closed("limit", f"the time is up: a visit lasts {self.limits.visit or 0:g} seconds; come again")
            if time.monotonic() - self.heard_of > self.limits.idle:
                raise Closed("limit", f"nothing came for {self.limits.idle:g} seconds")
            if self.outbox.overrun:
                raise Closed("slow", "too much waits to be read")

    def _left(self) -> float | None:
        """Seconds that the visit may still last; None: it has no limit."""
        if self.limits.visit is None:
            return None
        return round(max(0.0, self.limits.visit - (time.monotonic() - self.begin)), 1)

    def _counts(self) -> dict[str, int]:
        return {"sessions": self.service.admission.playing, "limit": self.limits.sessions}

    # -- the end --------------------------------------------------------------------------------------------------

    async def _say(self, frame: Frame) -> None:
        """Send the last words, if the visitor still listens."""
        try:
            async with asyncio.timeout(LAST_WORDS):
                await self.socket.send_bytes(frame.pack())
        except (TimeoutError, WebSocketDisconnect, RuntimeError):
            structlog.get_logger().debug("unheard", command=frame.meta.get("command"))

    async def _close(self, code: int) -> None:
        try:
            async with asyncio.timeout(LAST_WORDS):
                await self.socket.close(code)
        except (TimeoutError, WebSocketDisconnect, RuntimeError):
            structlog.get_logger().debug("gone", code=code)


def _reason(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Why a visit ended: what is nobody's doing first, then what the visitor is told."""
    found = [_reason(error) if isinstance(error, BaseExceptionGroup) else error for error in group.exceptions]
    order = (Closed, Left, WebSocketDisconnect)
    return min(found, key=lambda error: order.index(type(error)) + 1 if type(error) in order else 0)
