"""Who may play now: a number of places, so many of them for one address, and a lobby for those who have not said hello.

It counts; it knows neither sockets nor sessions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from streamer.web.limits import Limits
from streamer.web.protocol import Closed


class Admission:
    """The places of one server.

    Attributes:
        playing: visitors that have a place.
        lobby: sockets that have not said hello yet.
        closing: the server ends; nobody comes in any more.
        crowded: whether the machine is too slow for those who are in: then nobody else comes in until it is not.
    """

    def __init__(self, limits: Limits, crowded: Callable[[], bool] = bool) -> None:
        self.limits, self.crowded = limits, crowded
        self.playing = 0
        self.lobby = 0
        self.closing = False
        self._by_address: Counter[str] = Counter()

    @property
    def full(self) -> bool:
        """Whether every place is taken."""
        return self.playing >= self.limits.sessions

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Stand in the lobby.

        Raises:
            Closed: it is full, or the server ends.
        """
        if self.closing or self.lobby >= self.limits.lobby:
            raise Closed("busy", "the server is busy now; try again in a moment")
        self.lobby += 1
        try:
            yield
        finally:
            self.lobby -= 1

    @contextmanager
    def place(self, address: str) -> Iterator[None]:
        """Take a place, for as long as the visit lasts.

        Raises:
            Closed: there is none, for anybody or for this address.
        """
        self._check(address)
        self.playing += 1
        self._by_address[address] += 1
        try:
            yield
        finally:
            self.playing -= 1
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def _check(self, address: str) -> None:
        counts = {"sessions": self.playing, "limit": self.limits.sessions}
        if self.closing:
            raise Closed("busy", "the server is ending; try again in a moment")
        if self.full:
            text = f"all {self.limits.sessions} places are taken now; try again in a moment"
            raise Closed("full", text, **counts)
        if self.crowded():
            text = "the computer is too slow for one more visitor now; try again in a moment"
            raise Closed("busy", text, **counts)
        own, most = self._by_address[address], self.limits.per_address
        if most is not None and own >= most:
            raise Closed("full", f"{own} of {most} visits from your address are open; close one of them", **counts)
