"""Seats and drivers: who of a session can go on, and the worker thread of each lane.

Everything here runs on the event loop; only what `Driver.call` is given runs in the lane's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from streamer.lane import Cell, Lane

_T = TypeVar("_T")


class Stream(Protocol):
    """One session while it runs, as seats see it."""

    active: set[Seat]

    @property
    def cells(self) -> Mapping[str, Cell]:
        """Its cells by node name."""

    def all_rest(self) -> None:
        """Called when the last seat rests."""


class Seat:
    """One task's place in a session: whether it can go on, or rests until it is woken."""

    def __init__(self, stream: Stream, name: str) -> None:
        self.stream, self.name = stream, name
        self.event = asyncio.Event()
        self.gone = False
        self.reached = 0  # of a source: position up to which it has given frames
        stream.active.add(self)

    def wake(self) -> None:
        """There is a frame, or room, or a moved gate: look again."""
        if not self.gone:
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

    def __init__(self, stream: Stream, driver: Driver) -> None:
        super().__init__(stream, f"lane {driver.lane.name}")
        self.driver = driver
        driver.seats.append(self)
        self.wake()

    def wake(self) -> None:
        """Let the lane take another turn."""
        self.stream.active.add(self)
        self.driver.dirty.add(self)
        self.driver.event.set()


class Driver:
    """A lane and its worker thread: turns as long as somebody was woken."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.executor = ThreadPoolExecutor(1, thread_name_prefix=f"lane-{lane.name}")
        self.event = asyncio.Event()
        self.dirty: set[LaneSeat] = set()
        self.seats: list[LaneSeat] = []
        self.leaving: list[Stream] = []
        self.closing = False

    async def call(self, work: Callable[..., _T], *args: Any) -> _T:
        """Run something in the worker; when cancelled, wait for it all the same, so that states are at rest."""
        future = asyncio.get_running_loop().run_in_executor(self.executor, work, *args)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self.lane.stopping = True
            await asyncio.wait([future])
            if not future.cancelled():
                future.exception()  # seen; the cancellation says more
            raise

    async def drive(self) -> None:
        """Turn by turn until told to close."""
        while True:
            if not self.dirty:
                await self.event.wait()
            self.event.clear()
            if self.closing:
                return
            for stream in self.leaving:
                self.lane.leave(stream.cells)
            self.leaving.clear()
            seats, self.dirty = self.dirty, set()
            more = await self.call(self.lane.turn)
            touched, self.lane.touched = self.lane.touched, set()
            for waker in touched:
                waker.wake()
            if more:
                self.dirty |= seats
            for seat in seats - self.dirty:
                seat.rest()

    def close(self) -> None:
        """End the worker thread."""
        self.executor.shutdown(wait=True)
