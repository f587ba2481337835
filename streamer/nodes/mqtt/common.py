"""What both ends of a topic use: a bell, the mail of a topic, where positions begin. Knows no connection."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from streamer.nodes.mqtt.client import Message, Subscription

__all__ = ["Bases", "Bell", "Mailbox"]

PAST: Final = 32  # run ids of which late messages are known


class Bell:
    """Something may have changed: whoever waits looks again. A ring is never missed by who asked before it."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.rung = 0

    def ring(self) -> None:
        """Wake everybody who waits."""
        self.rung += 1
        event, self._event = self._event, asyncio.Event()
        event.set()

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait for the next ring, at most so long; False when it did not ring."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        return True


class Mailbox:
    """The messages of one topic: handed to the sessions that read it, kept for the next one while none does.

    Args:
        topic: where they come from.
        qos: of the subscription.
        keep: messages that are kept at most; when it is full the newest are left out, since a run is read from its
            beginning.

    Attributes:
        past: run ids that have been read; what still comes of them is stale.
        asked: the subscription, once there is one.
        stale: retained messages, which are none of a stream's present. dropped: messages for which there was no room.
    """

    def __init__(self, topic: str, qos: int, keep: int) -> None:
        self.topic, self.qos, self.keep = topic, qos, keep
        self.past: deque[str] = deque(maxlen=PAST)
        self.stale = self.dropped = 0
        self.asked: Subscription | None = None
        self._kept: deque[bytes] = deque()
        self._takers: list[Callable[[bytes], None]] = []

    def take(self, message: Message) -> None:
        """Take a message from the broker. An empty one is somebody's probe."""
        if message.retain:
            self.stale += 1
        elif message.payload:
            for taker in list(self._takers):
                taker(message.payload)
            if not self._takers:
                self.put_by(message.payload)

    def put_by(self, payload: bytes) -> None:
        """Keep a message for the next session."""
        if len(self._kept) < self.keep:
            self._kept.append(payload)
        else:
            self.dropped += self.keep > 0

    def join(self, taker: Callable[[bytes], None]) -> list[bytes]:
        """Have `taker` called with each message from now on; gives what was kept."""
        self._takers.append(taker)
        kept = list(self._kept)
        self._kept.clear()
        return kept

    def leave(self, taker: Callable[[bytes], None]) -> None:
        """Get no more."""
        if taker in self._takers:
            self._takers.remove(taker)

    @property
    def refused(self) -> str | None:
        """Why the broker does not give us this topic, or None."""
        return None if self.asked is None else self.asked.refused

    @property
    def read(self) -> bool:
        """Whether a session reads it now."""
        return bool(self._takers)


class Bases:
    """Where the runs that one session reads have their zero on its own clock.

    A run that is met in the middle begins where the session is then, for all of its streams alike, so that they stay
    lined up and positions never go back. A run that is read from its start has the session's own clock.
    """

    def __init__(self) -> None:
        self.reached = 0  # samples: how far the furthest stream of the session is
        self._bases: dict[str, int] = {}
        self._whole = False

    def whole(self, run: str) -> None:
        """A run is read from its start."""
        self._whole = True
        self._settle(run, 0)

    def base(self, run: str, position: int) -> int:
        """What is taken from the positions of a run; settled by the first frame of it that any stream sees."""
        if run not in self._bases:
            self._settle(run, position - self.reached)
        return self._bases[run]

    def command(self, run: str, position: int) -> int:
        """Where a command takes effect: at once, if it is not known where its run has its zero."""
        base = self._bases.get(run, 0 if self._whole else position)
        return max(0, position - base)

    def _settle(self, run: str, base: int) -> None:
        while len(self._bases) >= PAST:
            self._bases.pop(next(iter(self._bases)))
        self._bases[run] = base
