"""The watchdog of a running graph: finds, on the event loop, the step that hangs in its lane's thread.

A thread cannot be ended from outside. So one that hangs is given up: its lane goes on with a new thread, and the old
one ends when, if ever, its step comes back. A step that never lets go of the interpreter (a C function that holds the
GIL) holds the watchdog too and is not found.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from streamer.cell import Cell
from streamer.driver import Driver
from streamer.errors import GraphError
from streamer.isolate import report

LOOKS: Final = 4  # looks in the shortest time that a step of the graph may take
OFTENEST, SELDOMEST = 0.02, 1.0  # seconds between two looks
MOST_LEFT: Final = 8  # threads that a lane may leave behind and that have not come back


class Watchdog:
    """Looks at the lanes now and then. `watch` runs until it is cancelled.

    Args:
        drivers: the lanes.
        shortest: the least `step_seconds` of their nodes.
        give_up: called with the error when a lane has left too many threads behind.
    """

    def __init__(self, drivers: Sequence[Driver], shortest: float, give_up: Callable[[GraphError], None]) -> None:
        self.drivers, self.give_up = drivers, give_up
        self.period = min(max(shortest / LOOKS, OFTENEST), SELDOMEST)
        self._seen: dict[str, tuple[float, float]] = {}  # lane -> when its step began, seconds it was seen in it

    async def watch(self) -> None:
        """Look, again and again."""
        before = time.perf_counter()
        while True:
            await asyncio.sleep(self.period)
            now = time.perf_counter()
            for driver in self.drivers:
                self.look(driver, min(now - before, 2 * self.period))
            before = now

    def look(self, driver: Driver, seconds: float) -> None:
        """Look at one lane.

        Args:
            driver: the lane.
            seconds: what has passed since the last look; at most two periods, so that a program that was stopped for
                an hour (a suspended laptop, Ctrl-Z) has no step that hangs.
        """
        lane = driver.lane
        busy, began = lane.busy, lane.began
        if busy is None:
            self._seen.pop(lane.name, None)
            return
        last, seen = self._seen.get(lane.name, (None, 0.0))
        seen = seen + seconds if last == began else 0.0
        self._seen[lane.name] = (began, seen)
        guard = (busy[0] if isinstance(busy, tuple) else busy).guard
        if seen >= guard.step_seconds and (cells := lane.claim(began)):
            self._replace(driver, cells, time.perf_counter() - began)

    def _replace(self, driver: Driver, cells: Iterable[Cell], seconds: float) -> None:
        for cell in cells:
            if cell.guard.on_error == "fail":
                where = {"node": cell.name, "session": cell.info.id, "position": cell.position}
                report(**where, error=f"its step hangs since {seconds:.3g} s", then="its session ends")
        driver.replace(cells, seconds)
        if len(driver.left) > MOST_LEFT:
            left = f"lane {driver.lane.name!r} has left {len(driver.left)} threads behind that hang"
            self.give_up(GraphError(f"{left}; end the program and start it again"))
