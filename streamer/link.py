"""A link: what joins one session to one visitor, a bounded inbox and a bounded outbox. Nobody ever waits to put.

It knows frames, and neither sockets nor nodes: the source and the sink of `streamer.nodes.web` hold one end of it, a
server the other. Everything happens on one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from streamer.frame import AUDIO, CONTROL, LAST, TURN, Frame

INBOX_TICKS: Final = 12  # 480 ms: a burst after a hiccup of the network fits, a graph that is late loses the oldest
OUTBOX_FRAMES: Final = 256  # about 2 s of sound and tokens
OUTBOX_CONTROLS: Final = 64


class Inbox:
    """Frames of the visitor that wait for the session. When it is full the oldest goes.

    Attributes:
        dropped: frames that were lost so.
        ended: nothing comes any more.
    """

    def __init__(self, capacity: int = INBOX_TICKS) -> None:
        self._frames: deque[Frame] = deque(maxlen=capacity)
        self._changed = asyncio.Event()
        self.dropped = 0
        self.ended = False

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frame: Frame) -> None:
        """Add a frame; after `end` it is passed over."""
        if self.ended:
            return
        self.dropped += len(self._frames) == self._frames.maxlen
        self._frames.append(frame)
        self._changed.set()

    def end(self) -> None:
        """Nothing more comes; what waits is still given."""
        self.ended = True
        self._changed.set()

    async def get(self) -> Frame | None:
        """The oldest frame, as soon as there is one; None at the end."""
        while not self._frames:
            if self.ended:
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._frames.popleft()


class Outbox:
    """Packed frames that wait for the visitor, in order.

    When it is full the oldest tokens go, then the oldest sound: a picture may have holes before the sound has. Control
    is never dropped; a visitor for whom too much of it waits does not read, see `overrun`. Frames that end a turn or a
    stream stay as well: there is at most one of them for each turn.

    Attributes:
        dropped: frames that were lost so.
        overrun: control that found no room: the visitor is to be closed.
    """

    def __init__(self, capacity: int = OUTBOX_FRAMES, controls: int = OUTBOX_CONTROLS) -> None:
        self.capacity, self.controls = capacity, controls
        self._control: deque[tuple[int, Frame]] = deque()
        self._audio: deque[tuple[int, Frame]] = deque()
        self._tokens: deque[tuple[int, Frame]] = deque()
        self._number = 0
        self._changed = asyncio.Event()
        self.dropped = 0
        self.overrun = False

    def __len__(self) -> int:
        return len(self._control) + len(self._audio) + len(self._tokens)

    def put(self, frame: Frame) -> None:
        """Add a frame behind the others."""
        self._number += 1
        if frame.kind == CONTROL or frame.flags & (TURN | LAST):
            self._put_control(frame)
        else:
            if len(self._audio) + len(self._tokens) >= self.capacity:
                (self._tokens or self._audio).popleft()
                self.dropped += 1
            (self._audio if frame.kind == AUDIO else self._tokens).append((self._number, frame))
        self._changed.set()

    def _put_control(self, frame: Frame) -> None:
        if frame.meta.get("command") == "status":  # of these only the newest says anything
            waiting = [item for item in self._control if item[1].meta.get("command") != "status"]
            self._control = deque(waiting)
        if len(self._control) >= self.controls:
            self.overrun = True
            return
        self._control.append((self._number, frame))

    def interrupt(self, epoch: int) -> None:
        """Leave out generated sound that is older than this epoch: nobody is to hear it any more."""
        self._audio = deque((n, frame) for n, frame in self._audio if not frame.generated or frame.epoch >= epoch)

    def clear(self) -> None:
        """Leave out everything but control: it belongs to a session that is over."""
        self._audio.clear()
        self._tokens.clear()

    def take(self) -> Frame | None:
        """The oldest frame, or None."""
        waiting = [queue for queue in (self._control, self._audio, self._tokens) if queue]
        if not waiting:
            return None
        return min(waiting, key=lambda queue: queue[0][0]).popleft()[1]

    async def get(self) -> Frame:
        """The oldest frame, as soon as there is one."""
        while (frame := self.take()) is None:
            self._changed.clear()
            await self._changed.wait()
        return frame


@dataclass
class Link:
    """One visitor as a session sees it: `Session(extra={"link": Link()})`.

    Attributes:
        inbox: ticks of the visitor's sound.
        outbox: what the visitor gets.
        epoch: generated sound that is older goes nowhere.
    """

    inbox: Inbox = field(default_factory=Inbox)
    outbox: Outbox = field(default_factory=Outbox)
    epoch: int = 0
