"""The sessions of one visitor, one after another: what is wished is opened, fed, measured and ended.

It knows rooms and frames, and no socket: what the visitor gets goes into an outbox, what ends the visit is raised.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import structlog

from streamer.errors import GraphError, StreamerError
from streamer.frame import SAMPLE_RATE, Frame
from streamer.link import Inbox, Link, Outbox
from streamer.session import Session
from streamer.web.limits import Limits
from streamer.web.meters import Meters, Tally
from streamer.web.protocol import TICK, VERSION, Closed, RefusedError, Wish
from streamer.web.rooms import Room, Rooms
from streamer.web.status import Health, loading


class Player:
    """Plays what one visitor wishes.

    Args:
        rooms: where sessions run.
        meters: what is counted.
        limits: how long the end of a session may take.
        outbox: what goes to the visitor.

    Attributes:
        started: a session has been opened.
        muted: the visitor's sound is taken as silence.
    """

    def __init__(self, rooms: Rooms, meters: Meters, limits: Limits, outbox: Outbox) -> None:
        self.rooms, self.meters, self.limits, self.outbox = rooms, meters, limits, outbox
        self.muted = self.started = False
        self._wish = Wish()
        self._leaving = False
        self._changed = asyncio.Event()
        self._link: Link | None = None  # where sound goes; None between two sessions
        self._session: Session | None = None
        self._health: Health | None = None
        self._tally: Tally | None = None
        self._expected: int | None = None

    # -- what the visitor does ------------------------------------------------------------------------------------

    def wish(self, wish: Wish) -> None:
        """End the session that runs, if any, and begin one like this."""
        self._wish = wish
        self._begin_again()

    def leave(self) -> None:
        """Let the session come to its end, and begin no other."""
        self._leaving = True
        self._begin_again()

    def _begin_again(self) -> None:
        """Take no more sound for the session that is over."""
        if self._link is not None:
            self._link.inbox.end()
        self._link, self._expected = None, None
        self._changed.set()

    def hear(self, frame: Frame) -> None:
        """Hand sound to the session; without one it is thrown away. What was skipped on the way is counted.

        Raises:
            RefusedError: it goes backwards.
        """
        if self._link is None:
            return
        skipped = 0 if self._expected is None else frame.position - self._expected
        if skipped < 0:
            raise RefusedError(f"sound at position {frame.position} came after that up to {self._expected}")
        self.meters.lost.inc(skipped)
        self._expected = frame.position + TICK
        self._link.inbox.put(frame)

    def send(self, command: str, values: Mapping[str, Any]) -> None:
        """Hand a command to the session; one that comes between two sessions has nobody to go to."""
        if command == "mute":
            self.muted = bool(values["on"])
        if self._session is not None and self._session.status in ("new", "running"):
            self._session.send(command, **values)

    def status(self, values: Mapping[str, Any]) -> Frame:
        """How it goes; `values` are those that the server adds."""
        if self._tally is not None:
            self._tally.update()
        values = {**values, "muted": self.muted}
        return loading(values) if self._health is None else self._health.frame(values)

    @property
    def rung(self) -> int:
        """How much is left out of the session that runs, see `streamer.load`; 0 without one."""
        return 0 if self._session is None or self._session.status != "running" else self._session.info.load.rung

    # -- sessions -------------------------------------------------------------------------------------------------

    async def play(self, values: Mapping[str, Any]) -> None:
        """One session after another, until the visitor leaves; `values` go into each welcome.

        Raises:
            Closed: a model cannot be loaded, or a session has failed.
        """
        while not self._leaving:
            self._changed.clear()
            async with self._running(values) as task:
                await self._until_changed(task)

    async def _until_changed(self, task: asyncio.Task[None]) -> None:
        """Until the visitor wishes something else or the session fails; who leaves waits a moment for its end."""
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait({task, changed}, return_when=asyncio.FIRST_COMPLETED)
            if self._leaving:
                await asyncio.wait({task}, timeout=self.limits.leave)
            if task.done():
                self._check_ended(task)
                await changed
        finally:
            changed.cancel()

    @asynccontextmanager
    async def _running(self, values: Mapping[str, Any]) -> AsyncIterator[asyncio.Task[None]]:
        """A session as it is wished, running; it is over when the block is left."""
        wish = self._wish
        bundle = self.rooms.check(wish.bundle, wish.mode)
        room = await self._enter(bundle, wish.mode)
        session, link = self._open(room, wish)
        task = asyncio.create_task(room.run(session), name=f"session:{session.info.id}")
        try:
            self.outbox.put(self._welcome(session, bundle, wish, values))
            if not self._changed.is_set():  # else the next wish came while the model was loaded
                self._link = link
            yield task
        finally:
            self._link = None
            task.cancel()
            await asyncio.wait({task})
            self._take_down(link)

    async def _enter(self, bundle: str, mode: str) -> Room:
        try:
            return await self.rooms.enter(bundle, mode)
        except StreamerError as error:
            raise Closed("failed", f"the bundle {bundle!r} cannot be loaded; the server's log says why") from error

    def _open(self, room: Room, wish: Wish) -> tuple[Session, Link]:
        link = Link(Inbox(), self.outbox)
        seed = secrets.randbelow(2**31) if wish.seed is None else wish.seed
        extra = {"link": link, "detector": wish.detector}
        session = Session(
            room.graph, secrets.token_hex(8), extra=extra, mode=wish.mode, seed=seed, seconds=wish.seconds
        )
        if wish.sampling:
            session.send("set", **wish.sampling)
        if self.muted:
            session.send("mute", on=True)
        self._session, self._health = session, Health(session, link)
        self._tally = Tally(self.meters, session.metrics)
        self.started = True
        self.meters.started.inc()
        return session, link

    def _welcome(self, session: Session, bundle: str, wish: Wish, values: Mapping[str, Any]) -> Frame:
        about = dict(self.rooms.about(bundle))
        for key, value in wish.sampling.items():
            about |= {name: value for name in about if name.startswith(f"{key}_")}
        own: dict[str, Any] = {
            "version": VERSION,
            "bundle": bundle,
            "bundles": ",".join(self.rooms.bundles),
            "mode": wish.mode,
            "modes": ",".join(self.rooms.choices),
            "seed": session.info.seed,
            "seconds": session.info.seconds,
            "detector": wish.detector,
            "tick": TICK,
            "rate": SAMPLE_RATE,
        }
        return Frame.control("welcome", **own, **about, **values).replace(session=session.info.id)

    def _check_ended(self, task: asyncio.Task[None]) -> None:
        """A session has ended by itself.

        Raises:
            Closed: it failed.
        """
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        structlog.get_logger().error("session", error=str(error))
        if isinstance(error, GraphError):
            raise Closed("failed", "the session failed; the server's log says why") from error
        raise error

    def _take_down(self, link: Link) -> None:
        """A session is over: take down what it measured, and leave out what of it nobody waits for."""
        if self._tally is not None:
            self._tally.update()
        if not self._leaving:
            self.outbox.clear()
        self.meters.dropped.labels("in").inc(link.inbox.dropped)
        self.meters.dropped.labels("out").inc(link.outbox.dropped)
        link.outbox.dropped = 0
