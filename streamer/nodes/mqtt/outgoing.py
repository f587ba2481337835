"""What waits to be published: bounded queues with a policy. What is lost is counted, what is in flight is kept.

Knows neither a connection nor frames. One event loop uses it, so nothing is locked.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Letter", "Outgoing"]


@dataclass(slots=True, eq=False)
class Letter:
    """One message on its way out. `born`: when it was put (monotonic clock). `expiry`: seconds, for the broker."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    response_topic: str | None = None
    correlation: bytes | None = None
    expiry: float | None = None
    born: float = field(default_factory=time.monotonic)


class Outgoing:
    """Messages of one topic (or of several, by `put_letter`) that wait for the connection, in order.

    Args:
        topic: where `put` publishes.
        qos: 0 or 1.
        capacity: messages that wait or are in flight at most.
        policy: when it is full: `block` (`put` waits, `put_nowait` refuses) or `drop_oldest`.
        most_age: seconds after which a message that still waits is left out; None: never.
        expiry: seconds after which the broker may drop it; None: never.
        wake: called when there is something new to send.

    Attributes:
        dropped: messages lost: pushed out by the policy, too old, or under way at QoS 0 when the connection broke.
        sent: messages that were published (at QoS 1: confirmed by the broker).
    """

    def __init__(
        self,
        topic: str,
        *,
        qos: int,
        capacity: int,
        policy: Literal["block", "drop_oldest"],
        most_age: float | None = None,
        expiry: float | None = None,
        wake: Callable[[], None],
    ) -> None:
        self.topic, self.qos, self.capacity, self.policy = topic, qos, capacity, policy
        self.most_age, self.expiry = most_age, expiry
        self.dropped = self.sent = 0
        self.closed = False
        self._wake = wake
        self._waiting: deque[Letter] = deque(maxlen=capacity)
        self._flying: dict[Letter, None] = {}  # in the order in which they left
        self._changed = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Messages that wait or are in flight."""
        return len(self._waiting) + len(self._flying)

    @property
    def room(self) -> bool:
        """Whether another one fits without loss."""
        return self.waiting < self.capacity

    async def put(self, payload: bytes) -> None:
        """Add a message; with policy `block` wait for room first."""
        while self.policy == "block" and not self.room:
            self._changed.clear()
            await self._changed.wait()
        self.put_nowait(payload)

    def put_nowait(self, payload: bytes) -> bool:
        """Add a message; False when there is no room and the policy is `block`."""
        return self.put_letter(Letter(self.topic, payload, self.qos, expiry=self.expiry))

    def put_letter(self, letter: Letter, *, latest: bool = False) -> bool:
        """Add a message of any topic; `latest`: it takes the place of what waits for the same topic."""
        if latest:
            self._waiting = deque((other for other in self._waiting if other.topic != letter.topic), self.capacity)
        if not self.room:
            if self.policy == "block":
                return False
            self.dropped += 1
            if not self._waiting:  # all of it is in flight
                return True
            self._waiting.popleft()
        self._waiting.append(letter)
        self._wake()
        return True

    def clear(self) -> None:
        """Forget what waits; what is in flight goes on. Not counted: the caller sends it again."""
        self._waiting.clear()
        self._changed.set()

    async def drained(self) -> None:
        """Wait until nothing waits or is in flight."""
        while self.waiting:
            self._changed.clear()
            await self._changed.wait()

    def close(self) -> None:
        """Nothing more is put; what waits is still sent."""
        self.closed = True
        self._wake()

    # -- for the client --

    def take(self, now: float) -> Letter | None:
        """The next one to send, which is in flight from now on; what is too old is left out."""
        self.expire(now)
        if not self._waiting:
            return None
        letter = self._waiting.popleft()
        self._flying[letter] = None
        return letter

    def expire(self, now: float) -> None:
        """Leave out what has waited too long."""
        while self.most_age is not None and self._waiting and now - self._waiting[0].born > self.most_age:
            self._waiting.popleft()
            self.dropped += 1
            self._changed.set()

    @property
    def over(self) -> bool:
        """Closed, and nothing left to send."""
        return self.closed and not self.waiting

    def done(self, letter: Letter) -> None:
        """It was published."""
        if self._flying.pop(letter, self) is None:
            self.sent += 1
        self._changed.set()

    def recall(self) -> None:
        """The connection broke: what was in flight at QoS 1 goes first next time, what was at QoS 0 is lost."""
        again = [letter for letter in self._flying if letter.qos]
        self.dropped += len(self._flying) - len(again)
        self._flying.clear()
        self._waiting.extendleft(reversed(again))
        self._changed.set()
