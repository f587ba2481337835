"""What one visitor and all of them together may take. Knows neither sockets nor sessions."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a server; times in seconds.

    Attributes:
        sessions: visitors that play at once.
        per_address: of these, how many from one address; None: no such limit.
        visit: how long one may stay; None: no limit.
        idle: how long one may say nothing at all.
        hello: how long one may take for the first message.
        lobby: sockets that have not said hello yet.
        slow: how long one message to a visitor may take.
        leave: how long the end of a session may take.
        messages, message_burst: a second, and at once.
        bytes, byte_burst: likewise.
        controls, control_burst: control messages likewise; they are among the messages too.
        refusals, refusal_rate: messages that cannot be used: how many at once, and how many a second come back.
    """

    sessions: int = 2
    per_address: int | None = None
    visit: float | None = 600.0
    idle: float = 60.0
    hello: float = 10.0
    lobby: int = 32
    slow: float = 5.0
    leave: float = 1.0
    messages: float = 100.0
    message_burst: int = 400
    bytes: float = 150_000.0
    byte_burst: int = 600_000
    controls: float = 20.0
    control_burst: int = 60
    refusals: int = 10
    refusal_rate: float = 0.1


class Bucket:
    """A token bucket: `burst` at once, `rate` a second in the long run."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst, self.clock = rate, burst, clock
        self._left, self._at = float(burst), clock()

    def take(self, amount: float = 1.0) -> bool:
        """Take so much; False when there is not enough, and nothing is taken."""
        now = self.clock()
        self._left = min(self.burst, self._left + (now - self._at) * self.rate)
        self._at = now
        if amount > self._left:
            return False
        self._left -= amount
        return True
