"""What the visitors of one server share: its rules, places, rooms and counters; and whether it is ready."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, Protocol

from streamer import memory
from streamer.errors import StreamerError
from streamer.load import TOP, WORDS
from streamer.web.admission import Admission
from streamer.web.limits import Limits
from streamer.web.meters import Meters
from streamer.web.rooms import Rooms
from streamer.web.security import Access

FAREWELL: Final = 0.6  # seconds that visitors have to hear that the server ends


class Guest(Protocol):
    """A visitor, as far as the load and the end of the server concern it."""

    @property
    def rung(self) -> int:
        """How much is left out of its session now, see `streamer.load`."""

    def end(self, text: str) -> None:
        """Say so and leave."""


class Service:
    """One server, without its sockets.

    Args:
        rooms: where sessions run.
        access: who may come.
        limits: how many, and how much of everything.

    Attributes:
        visitors: those that are here.
        failed: why it can serve nobody; None while it can.
        warmed: the first bundle is loaded, or has failed to.
    """

    def __init__(self, rooms: Rooms, access: Access | None = None, limits: Limits | None = None) -> None:
        self.rooms, self.access, self.limits = rooms, access or Access(), limits or Limits()
        self.meters, self.admission = Meters(), Admission(self.limits, lambda: self.rung == TOP)
        self.visitors: set[Guest] = set()
        self.failed: StreamerError | None = None
        self.warmed = asyncio.Event()
        self._empty = asyncio.Event()

    @property
    def rung(self) -> int:
        """The most that is left out of a visitor's session now, see `streamer.load`."""
        return max((visitor.rung for visitor in self.visitors), default=0)

    @contextmanager
    def present(self, visitor: Guest) -> Iterator[None]:
        """Count as a visitor meanwhile."""
        self.visitors.add(visitor)
        try:
            yield
        finally:
            self.visitors.discard(visitor)
            if not self.visitors:
                self._empty.set()

    async def warm(self) -> None:
        """Load the first bundle, so that the first visitor need not wait; what goes wrong is kept in `failed`."""
        try:
            await self.rooms.enter(self.rooms.default, next(iter(self.rooms.choices)))
        except StreamerError as error:
            self.failed = error
        memory.keep()
        self.warmed.set()

    async def end(self) -> None:
        """Let nobody in any more, tell everybody, and wait for a moment until they are gone."""
        self.admission.closing = True
        for visitor in list(self.visitors):
            visitor.end("the server ends now")
        if self.visitors:
            self._empty.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), FAREWELL)

    def health(self) -> dict[str, Any]:
        """Whether visitors can play, else why not, as plain data."""
        why = self._why_not()
        counts = {"sessions": self.admission.playing, "limit": self.limits.sessions, "full": self.admission.full}
        left_out = WORDS[self.rung] if self.rung else None
        load = {"left_out": left_out, "crowded": self.admission.crowded()}
        return {"ready": why is None, "why": why, **counts, **load, "loaded": self.rooms.loaded}

    def _why_not(self) -> str | None:
        if self.admission.closing:
            return "the server is ending"
        if self.failed is not None:
            return f"the bundle {self.rooms.default!r} cannot be loaded; the log says why"
        return None if self.warmed.is_set() else f"the bundle {self.rooms.default!r} is being loaded"

    def metrics(self) -> bytes:
        """Prometheus' text, with what is true now."""
        meters, admission = self.meters, self.admission
        meters.sessions.set(admission.playing)
        meters.limit.set(self.limits.sessions)
        meters.lobby.set(admission.lobby)
        meters.rung.set(self.rung)
        meters.ready.set(self._why_not() is None)
        return meters.text()
