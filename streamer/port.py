"""Ports: the bounded inboxes between nodes, one per stream and input, and how a consumer chooses among its own.

A port has one producer and one consumer, which may be on different threads. Neither ever waits here: a producer asks
`has_room` first, a consumer gets None when there is nothing, and whoever has to wait is woken by the runtime.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from streamer.errors import GraphError, OverflowFrameError
from streamer.frame import CONTROL, LAST, LIMITS, Frame, FrameLimits

Policy = Literal["block", "drop_oldest", "raise"]
POLICIES: Final[tuple[Policy, ...]] = ("block", "drop_oldest", "raise")
DEFAULT_CAPACITY: Final = 16
MAX_CAPACITY: Final = 65_536


class Waker(Protocol):
    """Who waits at the other end of a port; `wake` is called on the event loop only."""

    def wake(self) -> None:
        """Look again: there is a frame, or room."""


@dataclass(frozen=True, slots=True)
class PortSpec:
    """One stream into one input, as the checks planned it. `label` is its name in messages and statistics."""

    producer: str
    kind: str
    consumer: str
    input: str
    capacity: int = DEFAULT_CAPACITY
    policy: Policy = "block"
    feedback: bool = False

    @property
    def label(self) -> str:
        """`producer -> consumer.input (kind)`, the kind only when the input's name does not say it."""
        tail = "" if self.kind == self.input else f" ({self.kind})"
        return f"{self.producer} -> {self.consumer}.{self.input}{tail}"

    @property
    def side(self) -> bool:
        """Control and feedback: nothing waits for them, and they need no `LAST`."""
        return self.feedback or self.kind == CONTROL


class Port:
    """A bounded inbox.

    Attributes:
        queue: the frames that wait, oldest first.
        put_count, got, dropped, high: frames in, out and dropped, and the longest the queue has been.
        newest: the frame put last.
        ended: a frame with `LAST` was put. drained: it was taken.
        consumer, producer: whom to wake; None when it is in the same lane.
    """

    __slots__ = (
        "blocks", "capacity", "consumer", "drained", "dropped", "ended", "got", "high", "input", "label", "limits",
        "newest", "packed", "producer", "put_count", "queue", "side", "skip", "spec",
    )  # fmt: skip

    def __init__(self, spec: PortSpec, *, packed: bool = False, limits: FrameLimits = LIMITS) -> None:
        self.spec = spec
        self.label, self.input, self.capacity, self.side = spec.label, spec.input, spec.capacity, spec.side
        self.blocks = spec.policy == "block"
        self.packed, self.limits = packed, limits
        self.queue: deque[Frame] = deque(maxlen=spec.capacity)
        self.put_count = self.got = self.dropped = self.high = self.skip = 0
        self.newest: Frame | None = None
        self.ended = self.drained = False
        self.consumer: Waker | None = None
        self.producer: Waker | None = None

    def has_room(self) -> bool:
        """Whether `put` would keep everything; always true for the policies that never wait."""
        return len(self.queue) < self.capacity or not self.blocks

    def put(self, frame: Frame) -> None:
        """Add a frame.

        Raises:
            OverflowFrameError: full, with policy `raise`.
            GraphError: full, with policy `block` (the producer did not ask), or a frame after `LAST`.
        """
        queue = self.queue
        size = len(queue) + 1
        if self.ended:
            raise GraphError(f"{self.label}: a frame at position {frame.position} after the one with LAST")
        if size > self.capacity:
            self._overflow()
        if self.packed:
            frame = Frame.unpack(frame.pack(), self.limits)
        if frame.flags & LAST and not self.side:
            self.ended = True
        queue.append(frame)
        self.newest = frame
        self.put_count += 1
        if size > self.high:
            self.high = min(size, self.capacity)

    def _overflow(self) -> None:
        if self.blocks:
            raise GraphError(f"{self.label}: put into a full port of {self.capacity} frames without waiting for room")
        if self.spec.policy == "raise":
            raise OverflowFrameError(self.label, self.capacity)
        try:
            self.queue.popleft()
            self.dropped += 1
        except IndexError:  # the consumer was faster
            return

    @property
    def reach(self) -> int:
        """Where the stream has come to: the end of the frame put last."""
        return 0 if self.newest is None else self.newest.position + self.newest.samples

    def stats(self) -> dict[str, int]:
        """put, got, dropped, waiting, high-water mark and capacity, in frames."""
        return {
            "put": self.put_count, "got": self.got, "dropped": self.dropped,
            "waiting": len(self.queue), "high": self.high, "capacity": self.capacity,
        }  # fmt: skip

    def save(self) -> dict[str, Any]:
        """Counters and waiting frames as plain data."""
        return {
            "frames": [frame.pack() for frame in self.queue], "put": self.put_count, "got": self.got,
            "dropped": self.dropped, "high": self.high, "ended": self.ended, "drained": self.drained,
            "reach": self.reach,
        }  # fmt: skip

    def load(self, saved: dict[str, Any]) -> None:
        """Go on from `save`; what the source feeds again is discarded up to the same frame."""
        self.queue = deque((Frame.unpack(data, self.limits) for data in saved["frames"]), maxlen=self.capacity)
        self.put_count, self.got, self.dropped = saved["put"], saved["got"], saved["dropped"]
        self.high, self.ended, self.drained = saved["high"], saved["ended"], saved["drained"]
        self.newest = Frame.end(self.spec.kind, position=int(saved.get("reach", 0)), meta={"empty": True})


class Inbox:
    """The ports of one consumer, and which frame it takes next.

    With `merge` = `position` the next frame is the one of the smallest position among the wanted inputs, and none is
    taken while one of them is empty and has not ended: the order never depends on which arrived first. Control and
    feedback frames come before the first frame whose position is not below theirs; where a node has a clock of its own
    (`Node.position`), as soon as that clock has come there.
    """

    __slots__ = ("by_position", "clock", "last_taken", "late", "main", "only", "own", "ports", "side")

    def __init__(self, ports: Sequence[Port], merge: str = "position") -> None:
        self.ports = tuple(ports)
        self.main = tuple(port for port in ports if not port.side)
        self.side = tuple(port for port in ports if port.side)
        self.only = self.main[0] if len(self.main) == 1 and not self.side else None
        self.by_position = merge == "position"
        self.clock = -1  # where the last thing done began: position of the last main frame, or the node's own clock
        self.own: int | None = None  # the node's own clock now
        self.late = 0
        self.last_taken = any(port.drained for port in self.main)

    @property
    def ended(self) -> bool:
        """True when every main port gave its last frame."""
        return all(port.drained for port in self.main)

    def pick(self, wanted: frozenset[str] | None, clock: int | None = None) -> Port | None:
        """The port to take from now, or None. `clock`: the node's own position, when it has one."""
        only = self.only
        if only is not None:
            return only if only.queue and (wanted is None or only.input in wanted) else None
        port = self._pick_main(wanted)
        if self.side:
            due = self._due(port, clock)
            for side in self.side:
                if side.queue and side.queue[0].position <= max(due, 0):
                    return side
        return port

    def _due(self, port: Port | None, own: int | None) -> int:
        """The position up to which control is due, before a frame is taken from `port`."""
        if own is None:
            return max(self.clock, port.queue[0].position) if port is not None and port.queue else self.clock
        if self.own is not None and own > self.own:
            self.clock = self.own
        self.own = own
        return own

    def _pick_main(self, wanted: frozenset[str] | None) -> Port | None:
        best: Port | None = None
        lowest = 0
        for port in self.main:
            if port.drained or (wanted is not None and port.input not in wanted):
                continue
            if not port.queue:
                if self.by_position:
                    return None
                continue
            position = port.queue[0].position
            if best is None or position < lowest:
                best, lowest = port, position
        return best

    def take(self, port: Port) -> Frame | None:
        """Take from a port that `pick` gave; counts a control frame that comes after its position as late."""
        try:
            frame = port.queue.popleft()
        except IndexError:  # `drop_oldest` was faster
            return None
        port.got += 1
        if not port.side:
            self.clock = frame.position if self.own is None else self.clock
            if frame.flags & LAST:
                port.drained = self.last_taken = True
        elif port.spec.kind == CONTROL and 0 < frame.position <= self.clock:
            self.late += 1
        return frame
