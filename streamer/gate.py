"""The gate of a running session: where its sources hold back so that it can be saved, and the saving itself.

The rule of a snapshot is that nothing moves while it is taken: the sources are held, everyone else rests, and commands
that come meanwhile wait. A source that waits for the world (a microphone, a broker) counts as held when a snapshot is
wanted now; what it brings meanwhile is held too. Sources go on as soon as the states are copied; the bytes are made
after that. It knows neither what frames mean nor how a session begins or ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from streamer import snapshot
from streamer.driver import Driver, Seat
from streamer.errors import SnapshotError, StreamerError
from streamer.frame import Frame
from streamer.session import Session

_OVER: Final[Any] = object()


class Gate:
    """Holds the sources of one session back.

    Args:
        session: whose sources. Its `gate` is the position at which they stop; None: they do not.
        drivers: the lanes, whose threads copy the states.
        until: where they stop by themselves, for a pause.

    Attributes:
        held: sources that stand at it. outside: sources that wait for their next frame.
        saving: a snapshot is being taken. stopping: the session is to end, and nobody is held any more.
    """

    def __init__(self, session: Session, drivers: Sequence[Driver], until: int | None) -> None:
        self.session, self.drivers, self.until = session, drivers, until
        self.held: set[Seat] = set()
        self.outside: set[Seat] = set()
        self.saving = False
        self.stopping = False
        session.gate = until

    # -- sources ----------------------------------------------------------------------------------------------------

    async def next(self, frames: AsyncIterator[Frame], seat: Seat) -> Frame | None:
        """The next frame of a source, None at its end; while it waits for it the source is outside."""
        self.outside.add(seat)
        try:
            if self._wants_all():
                self._hold_outside(seat)
            frame = await anext(frames, _OVER)
        finally:
            self.outside.discard(seat)
            self._let_in(seat)
        return None if frame is _OVER else frame

    async def passes(self, position: int, seat: Seat) -> None:
        """Return when a frame that starts at `position` may go on."""
        while self.session.gate is not None and position >= self.session.gate and not self.stopping:
            self.held.add(seat)
            try:
                await seat.wait()
            finally:
                self.held.discard(seat)

    def moved(self) -> None:
        """A snapshot is wanted, or not any more: whoever stands here looks again."""
        session = self.session
        if session.wanted is not None and session.wanted.cancelled() and not self.saving:
            session.wanted, session.gate = None, self.until
        for seat in self.held - self.outside:
            seat.wake()
        for seat in list(self.outside):
            if self._wants_all():
                self._hold_outside(seat)
            else:
                self._let_in(seat)

    def _wants_all(self) -> bool:
        """Whether a snapshot is wanted now, wherever the sources are."""
        return self.session.wanted is not None and self.session.gate == 0

    def _hold_outside(self, seat: Seat) -> None:
        if seat not in self.held:
            self.held.add(seat)
            seat.away = True
            seat.rest()

    def _let_in(self, seat: Seat) -> None:
        if seat in self.held:
            self.held.discard(seat)
            seat.away = False
            seat.stream.active.add(seat)

    # -- saving -----------------------------------------------------------------------------------------------------

    async def pause(self, reached: Mapping[str, int]) -> bytes:
        """The snapshot of a session that goes no further.

        Args:
            reached: position up to which each source has given frames.

        Raises:
            StreamerError: a state cannot be saved.
        """
        return await asyncio.to_thread(snapshot.dumps, await self._copied(reached))

    async def save(self, wanted: asyncio.Future[bytes], reached: Mapping[str, int]) -> None:
        """Copy every state in its lane's thread, let the session go on, and make the bytes for who wanted them.

        What cannot be saved is the error of who wanted it, not of the session.
        """
        try:
            parts = await self._copied(reached)
            self._check_going_on()
            self._go_on()
            data = await asyncio.to_thread(snapshot.dumps, parts)
        except Exception as error:  # noqa: BLE001 - raised where the snapshot is awaited
            if not wanted.done():
                wanted.set_exception(error if isinstance(error, StreamerError) else self._unsaved(error))
        else:
            if not wanted.done():
                wanted.set_result(data)
        finally:
            self.session.wanted = None
            self._go_on()

    async def _copied(self, reached: Mapping[str, int]) -> dict[str, Any]:
        """All there is to save, as plain data that nothing changes any more."""
        session = self.session
        session.hold()
        calls = (driver.call(session.save_cells, driver.lane.order) for driver in self.drivers)
        cells: dict[str, Any] = {}
        for found in await asyncio.gather(*calls):
            cells |= found
        return session.parts(cells, reached)

    def _go_on(self) -> None:
        """Nothing is held any more."""
        if self.saving:
            self.saving = False
            self.session.gate = self.until
            self.session.release()
            for seat in self.held - self.outside:
                seat.wake()
            for seat in self.held & self.outside:
                self._let_in(seat)

    def _check_going_on(self) -> None:
        if self.stopping:
            raise SnapshotError(f"session {self.session.info.id!r} was told to end while it was saved")

    def _unsaved(self, error: Exception) -> SnapshotError:
        made = SnapshotError(f"session {self.session.info.id!r} cannot be saved: {type(error).__name__}: {error}")
        made.__cause__ = error
        return made
