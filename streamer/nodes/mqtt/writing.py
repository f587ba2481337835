"""One session's writing of one topic: frames to messages, and what its readers have told of them.

Where nothing may be lost it keeps what not every reader has got and sends it again when a connection was lost: a broker
confirms what it has taken, and may die with it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from streamer.errors import GraphError, PeerRestarted
from streamer.frame import AUDIO, CONTROL, LAST, TICK, TURN, Frame
from streamer.nodes.mqtt.exchange import Exchange
from streamer.nodes.mqtt.receipts import Peer, Receipt
from streamer.wire import MOST_FRAMES

__all__ = ["Writing", "WritingSpec"]

LOOK: Final = 0.5  # seconds between two looks at readers that do not move
SLACK: Final = 64  # messages in the outbox above the window
MOST_BUNDLE: Final = 1 << 16  # bytes after which a message goes
LIVE_AGE: Final = 2.0  # seconds after which tokens at QoS 1 are no longer live
LAST_WORDS: Final = 2.0  # seconds that the end of a live stream may take to leave


@dataclass(frozen=True, slots=True)
class WritingSpec:
    """How a topic is written; as the settings of `mqtt_out`.

    Attributes:
        qos: 0 or 1. strict: nothing may be lost. capacity: messages that wait. window: frames ahead of the readers.
        bundle: samples in a message. patience: seconds for a reader to begin. pcm: `i2`, `f4`, or as it comes.
    """

    qos: int
    strict: bool
    capacity: int
    window: int
    bundle: int
    patience: float
    pcm: str | None


class _Reader:
    """One reader of one topic, as we know it."""

    def __init__(self, instance: str, topic: str) -> None:
        self.instance, self.topic = instance, topic
        self.session: str | None = None  # of the reading that took our run
        self.boot = ""
        self.got = 0
        self.since = time.monotonic()  # since when it could have begun
        self.seen: Receipt | None = None

    def take(self, receipt: Receipt | None, peer: Peer, run: str) -> bool:
        """Look at what it last said; True when it wants what it has not got once more.

        Raises:
            PeerRestarted: it read our run and does not any more.
        """
        fresh = receipt is not None and receipt is not self.seen
        self.seen = receipt
        if receipt is not None and receipt.run == run and self.session in (None, receipt.session):
            self.session, self.boot = receipt.session, receipt.boot
            self.got = max(self.got, receipt.got)
            lost = peer.online and peer.boot != self.boot
        else:
            lost = self.session is not None
        if lost:
            raise PeerRestarted(self.instance, "it began anew in the middle of what it read from us")
        return fresh and receipt is not None and (receipt.again or self.session is None)


class Writing:
    """One session's writing of one topic.

    Args:
        exchange: held by the caller.
        topic: where to.
        run: the run id.
        spec: how.
        readers: instances that are to get it from its beginning.
        name: of the node, for what it waits for.
    """

    def __init__(
        self, exchange: Exchange, topic: str, run: str, spec: WritingSpec, *, readers: list[str], name: str
    ) -> None:
        self.exchange, self.topic, self.run, self.spec, self.name = exchange, topic, run, spec, name
        self.seq = 0
        self.failure: Exception | None = None
        capacity = spec.window + SLACK if spec.strict and readers else spec.capacity
        self.out = exchange.client.outgoing(
            topic, qos=spec.qos, capacity=capacity, policy="block" if spec.strict else "drop_oldest",
            most_age=None if spec.strict or not spec.qos else LIVE_AGE, expiry=None if spec.strict else LIVE_AGE,
        )  # fmt: skip
        self.readers = [_Reader(each, exchange.topics.of(each).receipt(topic)) for each in readers]
        self._bundle: list[bytes] = []
        self._span = 0
        self._complete = False  # nothing follows
        self._kept: deque[tuple[int, bytes]] = deque()  # at most `window` messages: (frames up to its end, message)
        self._timer: asyncio.TimerHandle | None = None
        self._forget = exchange.on_connect(self._resend)
        for reader in self.readers:
            exchange.watch(reader.instance)
            exchange.expect(reader.topic)

    @property
    def got(self) -> int:
        """Frames that every reader has got."""
        return min((reader.got for reader in self.readers), default=self.seq)

    # -- the beginning --

    async def ready(self) -> None:
        """Wait until every reader is there."""
        while missing := [reader.instance for reader in self.readers if not self._present(reader)]:
            self._note(f"waiting for {', '.join(missing)}")
            await self.exchange.bell.wait(LOOK)
        self._note(None)
        for reader in self.readers:
            reader.seen = self.exchange.receipt(reader.topic)

    def _present(self, reader: _Reader) -> bool:
        receipt, peer = self.exchange.receipt(reader.topic), self.exchange.peers[reader.instance]
        return receipt is not None and peer.online and receipt.boot == peer.boot

    # -- frames --

    async def write(self, frame: Frame) -> None:
        """Send one frame, or put it with the next ones; where nothing may be lost, wait for the readers.

        Raises:
            PeerRestarted: a reader began anew, or does not begin.
        """
        self.look()
        if self.spec.strict:
            await self._until(lambda: self.seq - self.got < self.spec.window, "to go on")
        due = self._add(frame)
        if due:
            await self.flush()
        elif self._timer is None:
            wait = self.spec.bundle / 16_000
            self._timer = asyncio.get_running_loop().call_later(wait, self._flush_late)

    def _add(self, frame: Frame) -> bool:
        """Put it into the message; True when that is to go."""
        shaped = _as_pcm(frame, self.spec.pcm).replace(session=self.run, seq=self.seq)
        self._bundle.append(shaped.pack())
        self.seq += 1
        self._span += frame.samples
        self._complete |= frame.last
        full = len(self._bundle) >= MOST_FRAMES or sum(map(len, self._bundle)) >= MOST_BUNDLE
        urgent = frame.kind in (CONTROL, TICK) or bool(frame.flags & (TURN | LAST))
        return full or urgent or self._span >= self.spec.bundle

    async def flush(self) -> None:
        """Send what is in the message."""
        message = self._sealed()
        if message is not None:
            await self.out.put(message)

    def _flush_late(self) -> None:
        """The rest of the message has not come in time."""
        message = self._sealed()
        if message is not None:
            self.out.put_nowait(message)

    def _sealed(self) -> bytes | None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._bundle:
            return None
        message = b"".join(self._bundle)
        self._bundle, self._span = [], 0
        if self.spec.strict and self.readers:
            self._kept.append((self.seq, message))
        return message

    # -- readers --

    def look(self) -> None:
        """Look at what the readers said, and send again what one of them misses.

        Raises:
            PeerRestarted: a reader began anew, or does not begin.
        """
        if self.failure is not None:
            raise self.failure
        now, again, connected = time.monotonic(), False, self.exchange.client.connected
        for reader in self.readers:
            peer = self.exchange.peers[reader.instance]
            if not self._complete or reader.got < self.seq:  # who has got everything may go
                again |= reader.take(self.exchange.receipt(reader.topic), peer, self.run)
            if not self.seq or reader.session is not None or not (connected and peer.online):
                reader.since = now
            elif now - reader.since > self.spec.patience:
                message = f"it is there, but has not begun to read {self.topic} for {self.spec.patience:g} s"
                raise PeerRestarted(reader.instance, message)
        while self._kept and self._kept[0][0] <= self.got:
            self._kept.popleft()
        if again:
            self._resend()

    def _resend(self) -> None:
        """Send again what not every reader has got; who has got it passes it over."""
        if self._kept:
            self.out.clear()
            for _, message in self._kept:
                self.out.put_nowait(message)

    async def _until(self, done: Callable[[], bool], what: str) -> None:
        """Wait for the readers, saying for whom."""
        while not done():
            behind = [reader.instance for reader in self.readers if reader.got == self.got]
            told = await self.exchange.bell.wait(LOOK)
            if not told:
                self._note(f"waiting for {', '.join(behind)} {what}")
            self.look()
        self._note(None)

    def _note(self, text: str | None) -> None:
        self.exchange.note(f"{self.name} {self.topic}", text)

    # -- the end --

    async def finish(self) -> None:
        """Send the rest, and wait until it has arrived; live only for a moment.

        Raises:
            PeerRestarted: a reader began anew before it had everything.
        """
        self._complete = True
        await self.flush()
        if self.spec.strict and self.readers:
            self.look()
            await self._until(lambda: self.got >= self.seq, "to get the end")
        elif self.spec.strict:
            await self.out.drained()
        else:
            await self._drain()

    async def _drain(self) -> None:
        waiting = asyncio.ensure_future(self.out.drained())
        await asyncio.wait([waiting], timeout=LAST_WORDS)
        waiting.cancel()

    def close(self) -> None:
        """Nothing more is sent by us."""
        if self._timer is not None:
            self._timer.cancel()
        self._forget()
        self._note(None)
        self.out.close()


def _as_pcm(frame: Frame, pcm: str | None) -> Frame:
    """Sound as it is to travel."""
    if frame.kind != AUDIO or pcm in (None, frame.dtype):
        return frame
    if pcm == "f4":
        return frame.replace(dtype="f4", payload=(frame.array.astype("<f4") / np.float32(32768)).tobytes())
    if pcm != "i2":
        raise GraphError(f"sound as {pcm!r}; expected i2 or f4")
    clean = np.nan_to_num(np.rint(frame.array * np.float32(32768)), posinf=32767, neginf=-32768)
    return frame.replace(dtype="i2", payload=np.clip(clean, -32768, 32767).astype("<i2").tobytes())
