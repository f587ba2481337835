"""Seats and drivers: who of a session can go on, and the worker thread of each lane.

Everything here runs on the event loop; only what `Driver.submit` is given runs in the lane's thread, one thing after
another. So a lane's cells come and go between turns without a lock.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from streamer.cell import Cell
from streamer.lane import AbandonedError, Lane

_T = TypeVar("_T")


class Seated(Protocol):
    """One session while it runs, as seats and lanes see it."""

    active: set[Seat]

    def all_rest(self) -> None:
        """Called when the last seat rests."""

    def fail(self, error: BaseException) -> None:
        """Called when a node of it has failed."""


class Seat:
    """One task's place in a session: whether it can go on, or rests until it is woken."""

    def __init__(self, stream: Seated, name: str) -> None:
        self.stream, self.name = stream, name
        self.event = asyncio.Event()
        self.gone = False
        self.away = False  # of a source: it waits for the world while it is held, and nothing here wakes it
        self.reached = 0  # of a source: position up to which it has given frames
        stream.active.add(self)

    def wake(self) -> None:
        """There is a frame, or room, or a moved gate: look again."""
        if not self.gone and not self.away:
            self.stream.active.add(self)
            self.event.set()

    def leave(self) -> None:
        """The task is over; nothing wakes it any more."""
        self.gone = True
        self.rest()

    def rest(self) -> None:
        """Nothing to do until woken."""
        self.stream.active.discard(self)
        if not self.stream.active:
            self.stream.all_rest()

    async def wait(self) -> None:
        """Rest until woken; returns at once when it was woken since the last time."""
        if not self.event.is_set():
            self.rest()
        await self.event.wait()
        self.event.clear()


class LaneSeat(Seat):
    """A lane's place in one session."""

    def __init__(self, stream: Seated, driver: Driver) -> None:
        super().__init__(stream, f"lane {driver.lane.name}")
        self.driver = driver
        self.wake()

    def wake(self) -> None:
        """Let the lane take another turn."""
        if not self.gone:
            self.stream.active.add(self)
            self.driver.dirty.add(self)
            self.driver.event.set()


class Driver:
    """A lane and its worker thread: turns as long as somebody was woken.

    Attributes:
        lane: the cells; another one, with the same cells, once a thread was given up.
        left: threads that were given up and have not come back.
    """

    def __init__(self, name: str, members: Iterable[str]) -> None:
        self.jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()  # at most one a session, and a turn
        self.lane = Lane(name, tuple(members), lambda: not self.jobs.empty())
        self.thread = self._begin()
        self.turning: asyncio.Future[bool] | None = None
        self.left: list[threading.Thread] = []
        self.event = asyncio.Event()
        self.dirty: set[LaneSeat] = set()
        self.seats: dict[str, LaneSeat] = {}
        self.closing = False

    def seat(self, stream: Seated, session: str) -> LaneSeat:
        """A place for one more session, by its name."""
        made = self.seats[session] = LaneSeat(stream, self)
        return made

    def unseat(self, session: str) -> None:
        """The session has gone; nothing of it is kept."""
        seat = self.seats.pop(session, None)
        if seat is not None:
            self.dirty.discard(seat)

    def submit(self, work: Callable[..., _T], *args: Any) -> asyncio.Future[_T]:
        """Give the thread something to do after the turn it is in, which ends early for it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        self.jobs.put(partial(_serve, loop, future, work, *args))
        return future

    def _begin(self) -> threading.Thread:
        made = threading.Thread(target=_work, args=(self.jobs,), name=f"lane-{self.lane.name}", daemon=True)
        made.start()
        return made

    def join(self, cells: Mapping[str, Cell]) -> None:
        """In the thread: take the cells of one more session into the lane."""
        self.lane.join(cells)

    def replace(self, cells: Iterable[Cell], seconds: float) -> None:
        """The thread hangs in a step of these cells, which were claimed: go on with a new one.

        What waited for the old one is done by the new one, and what the old one still brings is discarded.
        """
        waiting, self.jobs, self.lane = self.jobs, SimpleQueue(), self.lane.heir()
        while not waiting.empty():
            self.jobs.put(waiting.get_nowait())
        waiting.put(None)
        self.left = [*(thread for thread in self.left if thread.is_alive()), self.thread]
        message = f"its step hangs: it has given nothing for {seconds:.3g} s (`step_seconds`); its thread is given up"
        for cell in cells:
            self.lane.hung(cell, cell.wrong(message))
        self.thread = self._begin()
        if self.turning is not None and not self.turning.done():
            self.turning.set_result(True)

    async def call(self, work: Callable[..., _T], *args: Any) -> _T:
        """Run something in the thread; when cancelled, wait for it all the same, so that states are at rest."""
        return await self._over(self.submit(work, *args))

    async def _over(self, future: asyncio.Future[_T]) -> _T:
        try:
            return await future
        except asyncio.CancelledError:
            await settled([self.submit(_nothing)])
            raise

    async def drive(self) -> None:
        """Turn by turn until told to close."""
        while True:
            if not self.dirty:
                await self.event.wait()
            self.event.clear()
            if self.closing:
                return
            if self.dirty:
                await self._turn()

    async def _turn(self) -> None:
        """One turn; then end who failed in it, wake whom it touched, and let rest whom it had nothing for."""
        seats, self.dirty = self.dirty, set()
        self.turning = self.submit(self.lane.turn)
        more = await self._over(self.turning)
        failed, self.lane.failed = self.lane.failed, []
        touched, self.lane.touched = self.lane.touched, set()
        for cell, error in failed:
            self.seats[cell.info.id].stream.fail(error)
        for waker in touched:
            waker.wake()
        if more:
            self.dirty |= {seat for seat in seats if not seat.gone}
        for seat in seats - self.dirty:
            seat.rest()

    def stop(self) -> None:
        """Let `drive` return."""
        self.closing = True
        self.event.set()

    def close(self) -> None:
        """End the worker thread."""
        self.jobs.put(None)
        self.thread.join()


async def settled(futures: Iterable[asyncio.Future[Any]]) -> list[BaseException]:
    """Wait until all are done, however often cancelled meanwhile; the cancellation is raised then.

    Returns:
        what they raised.
    """
    cancelled: asyncio.CancelledError | None = None
    waited = list(futures)
    while left := [future for future in waited if not future.done()]:
        try:
            await asyncio.wait(left)
        except asyncio.CancelledError as error:
            cancelled = error
    errors = [future.exception() for future in waited if not future.cancelled()]
    if cancelled is not None:
        raise cancelled
    return [error for error in errors if error is not None]


def _work(jobs: SimpleQueue[Callable[[], None] | None]) -> None:
    """The thread: one thing after another. An executor does the same, but costs a tick of six nodes 20 us more."""
    while (job := jobs.get()) is not None:
        job()
        del job  # what waits keeps nothing of a session that has gone


def _serve(loop: asyncio.AbstractEventLoop, future: asyncio.Future[_T], work: Callable[..., _T], *args: Any) -> None:
    """In the thread. The future is set on the loop directly: each step between costs a turn of the loop."""
    errors: list[BaseException] = []
    made: _T | None = None
    try:
        made = work(*args)
    except AbandonedError:  # nobody waits for it any more, and the loop may be closed
        return
    except BaseException as error:  # noqa: BLE001 - raised where the future is awaited
        errors.append(error)
    loop.call_soon_threadsafe(_set, future, made, errors)


def _set(future: asyncio.Future[Any], made: Any, errors: list[BaseException]) -> None:
    """Hand over what the thread made or raised; nobody wants it any more when the future was cancelled."""
    if future.done():
        return
    if errors:
        future.set_exception(errors.pop())
    else:
        future.set_result(made)


def _nothing() -> None:
    """What is done when everything before it is done."""
