"""Putting a numbered stream in order again: duplicates go, what is early waits, what never comes is given up in time.

Pure: it is told the time. What it carries may be anything.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Generic, TypeVar

_T = TypeVar("_T")

FAR: Final = 10_000  # numbers ahead that one item alone is not believed
PROOF: Final = 3  # items in a row that are
REMEMBERED: Final = 1024  # numbers that were given up


class Resequencer(Generic[_T]):
    """A stream of items with rising numbers, in order.

    Args:
        wait: seconds that an early item waits for those before it; None: for ever, nothing is given up.
        most: early items held. One more gives up what is missing; with `wait` None it is refused, to come again.
        first: number of the first item.

    Attributes:
        next: the number that is due.
        duplicates, late, lost, reordered: items that came again, came after they were given up, were given up, and came
            after a later one. refused: early ones for which there was no room. strays: far ahead, and not believed.
    """

    def __init__(self, *, wait: float | None = 0.12, most: int = 64, first: int = 0) -> None:
        self.wait, self.most, self.next = wait, most, first
        self.duplicates = self.late = self.lost = self.reordered = self.refused = self.strays = 0
        self._held: dict[int, tuple[float, _T]] = {}
        self._given_up: deque[int] = deque(maxlen=REMEMBERED)
        self._far: deque[int] = deque(maxlen=PROOF)

    @property
    def held(self) -> int:
        """Items that wait for one before them."""
        return len(self._held)

    @property
    def due(self) -> float | None:
        """When `poll` may have something to give; None while nothing waits, or without an end to waiting."""
        if self.wait is None or not self._held:
            return None
        return min(at for at, _ in self._held.values()) + self.wait

    def since(self) -> float | None:
        """When the oldest of what waits came; None while nothing does."""
        return min((at for at, _ in self._held.values()), default=None)

    def push(self, number: int, item: _T, now: float) -> list[tuple[int, _T]]:
        """Take one item; give those that are in order now, with their numbers."""
        if number < self.next:
            self._note_old(number)
            return []
        if number in self._held:
            self.duplicates += 1
            return []
        if number > self.next + FAR and not self._believes(number):
            self.strays += 1
            return []
        self.reordered += bool(self._held) and number < max(self._held)
        if self.wait is None and number != self.next and len(self._held) >= self.most:
            self.refused += 1
            return []
        self._held[number] = (now, item)
        made = self._ready()
        while len(self._held) > self.most:
            made += self._skip()
        return made

    def poll(self, now: float) -> list[tuple[int, _T]]:
        """Give what has waited long enough, leaving out what is missing before it."""
        made: list[tuple[int, _T]] = []
        while (due := self.due) is not None and now >= due:
            made += self._skip()
        return made

    def _ready(self) -> list[tuple[int, _T]]:
        made = []
        while self.next in self._held:
            made.append((self.next, self._held.pop(self.next)[1]))
            self.next += 1
        return made

    def _skip(self) -> list[tuple[int, _T]]:
        """Give up what is missing before the first that waits."""
        first = min(self._held)
        self.lost += first - self.next
        self._given_up.extend(range(max(self.next, first - REMEMBERED), first))
        self.next = first
        return self._ready()

    def _note_old(self, number: int) -> None:
        if number in self._given_up:
            self._given_up.remove(number)
            self.late += 1
        else:
            self.duplicates += 1

    def _believes(self, number: int) -> bool:
        """A long outage leaps ahead as well, but then the next ones follow."""
        self._far.append(number)
        return list(self._far) == list(range(number - PROOF + 1, number + 1))
