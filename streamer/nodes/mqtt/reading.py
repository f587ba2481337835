"""One session's reading of one topic: messages to frames in order, with what is wrong, late or lost counted.

It knows a mailbox and the clock of its session, no connection. Whatever comes, it raises nothing; what ends the session
is kept in `failure`.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
import structlog

from streamer.conceal import CONCEALED, conceal
from streamer.errors import FrameError, PeerRestarted
from streamer.frame import CONTROL, LAST, TURN, Frame
from streamer.node import SessionInfo
from streamer.nodes.mqtt.common import Bases, Bell, Mailbox
from streamer.resequence import Resequencer
from streamer.wire import unpack_many

__all__ = ["Reading", "Spec"]

NEAR: Final = 75  # a run whose beginning was lost still counts as begun for so many frames, where loss is allowed
HELD: Final = 64  # early frames held
BACK: Final = 256  # a run that is so far behind itself was begun anew by a program without run ids
PROOF: Final = 3  # frames in a row that show it
NUMBERS: Final = ("duplicates", "late", "lost", "reordered", "refused", "strays")


@dataclass(frozen=True, slots=True)
class Spec:
    """How a topic is read; as the settings of `mqtt_in`.

    Attributes:
        kind, levels, rate: what is expected; None: any.
        start: a run from its beginning, or what is there now.
        strict: nothing may be lost. live: it goes by the wall clock. conceal: make up what was lost.
        wait: seconds that an early frame waits. capacity: frames that wait for the graph.
    """

    kind: str
    levels: int | None
    rate: int | None
    start: bool
    strict: bool
    live: bool
    conceal: bool
    wait: float
    capacity: int


class Reading:
    """One session's reading of one topic.

    Attributes:
        queue: frames for the graph. bell: rung when there is something new.
        run: what is read. failure: what ends the session. ended: the run has been read to its end.
        came: when the last message came (monotonic clock).
        overflow: something was refused for want of room: it is to be sent again.
    """

    def __init__(self, spec: Spec, box: Mailbox, bases: Bases, ctx: SessionInfo, name: str) -> None:
        self.spec, self.box, self.bases, self.ctx, self.name = spec, box, bases, ctx, name
        self.queue: deque[Frame] = deque()  # at most `capacity` and the frames of one message, see `take`
        self.bell = Bell()
        self.run: str | None = None
        self.failure: PeerRestarted | None = None
        self.ended = self.overflow = False
        self.came = time.monotonic()
        self.order: Resequencer[Frame] = Resequencer()
        self._key = ""
        self._told = dict.fromkeys(NUMBERS, 0)
        self._due = 0  # number of the next frame
        self._at = 0  # position behind the last frame
        self._last: Frame | None = None
        self._back: deque[int] = deque(maxlen=PROOF)
        self._refused: set[str] = set()

    def begin(self) -> None:
        """Take what was kept, and what comes from now on."""
        for payload in self.box.join(self.take):
            self.take(payload)

    def end(self) -> None:
        """Take nothing more."""
        self.box.leave(self.take)
        if self.run is not None:
            self.box.past.append(self.run)

    def count(self, what: str, amount: int = 1) -> None:
        """Add to a counter of this node."""
        if amount:
            self.ctx.metrics.count(f"{self.name}.{what}", amount)

    # -- what comes --

    def take(self, payload: bytes) -> None:
        """Take one message."""
        if self._over:
            self.box.put_by(payload)
            return
        self.came = time.monotonic()
        if self.spec.strict and len(self.queue) + self.order.held >= self.spec.capacity:
            self.overflow = True
            self.count("overflow")
            return
        try:
            frames = unpack_many(payload)
        except FrameError as error:
            self._refuse(str(error))
            return
        if any(self._take_frame(frame) for frame in frames):  # behind the first one all are
            self.box.put_by(payload)
        self.bell.ring()

    def _take_frame(self, frame: Frame) -> bool:
        """Take one frame; True when it is for the next session."""
        if self._over:
            return True
        wrong = self._misfit(frame)
        if wrong is not None:
            self._refuse(wrong)
        elif self._admit(frame):
            self._push(frame)
            return False
        return self._over

    @property
    def _over(self) -> bool:
        """What comes now is for the next session."""
        return self.ended or self.failure is not None

    def _refuse(self, why: str) -> None:
        """Count it; say each reason once."""
        self.count("bad")
        if why not in self._refused and len(self._refused) < HELD:
            self._refused.add(why)
            structlog.get_logger().warning("mqtt", node=self.name, topic=self.box.topic, refused=why)

    def _misfit(self, frame: Frame) -> str | None:
        spec = self.spec
        if frame.kind != spec.kind:
            return f"a frame of kind {frame.kind}; {spec.kind} is expected"
        if spec.rate is not None and frame.rate != spec.rate:
            return f"{frame.rate} a second; {spec.rate} are expected"
        if spec.levels is not None and frame.payload and len(frame.shape) == 2 and frame.shape[1] != spec.levels:
            return f"{frame.shape[1]} codebooks; {spec.levels} are expected"
        return None

    def _admit(self, frame: Frame) -> bool:
        """Whether a frame belongs to what is read now; a new run begins, or ends the session."""
        if frame.session == self.run:
            return self.spec.start or not self._anew(frame)
        fresh = frame.seq == 0 if self.spec.strict else frame.seq < NEAR
        if frame.session in self.box.past or (self.spec.start and not fresh):
            self.count("stale")
            return False
        if self.run is None or not self.spec.start:
            self._bind(frame)
            return True
        message = f"its writer began anew in the middle of run {self.run!r}"
        self.failure = PeerRestarted(self.box.topic, message)
        return False

    def _anew(self, frame: Frame) -> bool:
        """Whether it may be of a new run under the same name (of a program without run ids); once proven it is read."""
        if frame.seq >= self.order.next - BACK:
            self._back.clear()
            return False
        self._back.append(frame.seq)
        if list(self._back) != list(range(frame.seq - PROOF + 1, frame.seq + 1)):
            self.count("stale")
            return True
        self._bind(frame)
        return False

    def _bind(self, frame: Frame) -> None:
        self._tally()
        if self.run is not None and self.run != frame.session:
            self.box.past.append(self.run)
            self.count("runs")
        self.run, self._last = frame.session, None
        self._key = f"{self.run} {self.ctx.metrics.counters.get(f'{self.name}.runs', 0)}" if self._back else self.run
        self._back.clear()
        first = 0 if self.spec.start else frame.seq
        if self.spec.start:
            self.bases.whole(self._key)
        wait = None if self.spec.strict else self.spec.wait
        self.order = Resequencer(wait=wait, most=self.spec.capacity if self.spec.strict else HELD, first=first)
        self._told, self._due = dict.fromkeys(NUMBERS, 0), first

    # -- what goes on --

    def poll(self) -> None:
        """Give up what has been waited for long enough."""
        for number, frame in self.order.poll(time.monotonic()):
            self._give(number, frame)
        self._tally()

    def missing(self, seconds: float) -> bool:
        """Whether something before what has come is missing for so long."""
        since = self.order.since()
        return self.overflow or (since is not None and time.monotonic() - since > seconds)

    def _push(self, frame: Frame) -> None:
        for number, found in self.order.push(frame.seq, frame, time.monotonic()):
            self._give(number, found)
        self._tally()

    def _tally(self) -> None:
        """Bring what the order counted into the metrics."""
        for name in NUMBERS:
            now = getattr(self.order, name)
            if now != self._told[name]:
                self.count(name, now - self._told[name])
                self._told[name] = now

    def _give(self, number: int, frame: Frame) -> None:
        """One frame that is in order: to its place on our clock, and into the queue."""
        hole, self._due = number != self._due, number + 1
        placed = self._placed(frame)
        if placed is None:
            return
        if hole and self.spec.conceal and self._last is not None and placed.kind in CONCEALED:
            made = conceal(self._last, placed.position)
            self.count("concealed", len(made))
            for each in made:
                self._queue(each)
        self._queue(placed)
        self._last = placed
        self.ended = placed.last

    def _placed(self, frame: Frame) -> Frame | None:
        """The frame with our session and position; None: it is before what was given, or an end that ends nothing."""
        changes: dict[str, object] = {"session": self.ctx.id}
        if not self.spec.start:
            if frame.last and self.spec.live and not frame.payload:
                return None  # its program has ended; the next one may come
            if frame.kind == CONTROL:
                position = self.bases.command(self._key, frame.position)
            else:
                position = frame.position - self.bases.base(self._key, frame.position)
                if position < self._at:
                    self.count("late")
                    return None
            changes |= {"position": position, "flags": frame.flags & ~LAST if self.spec.live else frame.flags}
        if frame.dtype == "i2" and self.spec.live:
            changes |= {"dtype": "f4", "payload": (frame.array.astype("<f4") / np.float32(32768)).tobytes()}
        return frame.replace(**changes)

    def _queue(self, frame: Frame) -> None:
        if not self.spec.strict and len(self.queue) >= self.spec.capacity:
            plain = (i for i, each in enumerate(self.queue) if not each.flags & (TURN | LAST) and each.kind != CONTROL)
            del self.queue[next(plain, 0)]
            self.count("dropped")
        self.queue.append(frame)
        if frame.kind != CONTROL:
            self._at = frame.position + frame.samples
            self.bases.reached = max(self.bases.reached, self._at)
