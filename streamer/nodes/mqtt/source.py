"""`mqtt_in`: the frames of one topic, live or from the beginning of a run to its end without a gap.

With `join: start` it tells the writer by receipts how much it has got (docs/frames.md). So the writer waits for it, is
ahead of it by its window at most, and sends again what a broker that died took with it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from typing import Any, ClassVar, Final, Literal

from pydantic import Field

from streamer.errors import ConfigError, GraphError, InputError, unknown
from streamer.frame import AUDIO, COARSE, CONTROL, FINE, KINDS, TICK, Frame
from streamer.node import Build, Facts, SessionInfo, Settings, Source
from streamer.nodes.mqtt.common import Mailbox
from streamer.nodes.mqtt.exchange import Exchange, check_broker, exchange_for
from streamer.nodes.mqtt.reading import Reading, Spec
from streamer.nodes.mqtt.receipts import Receipt

__all__ = ["MqttSource"]

TOPIC: Final = "{prefix}/{instance}/stream/{node}/{kind}"
LIVE_CAPACITY: Final = (
    25  # frames, a second: what comes in a burst after a hiccup; a graph that is late loses the oldest
)
STRICT_CAPACITY: Final = 1024  # more than any window
RECEIPT_FRAMES: Final = 8  # from one receipt to the next
RECEIPT_SECONDS: Final = 0.1  # after which one is sent when nothing more comes
GAP_SECONDS: Final = 0.5  # after which what is missing is asked for again
AGAIN_SECONDS: Final = 1.0  # from one such question to the next
QUIET_SECONDS: Final = 5.0  # without a message, after which the status says so
LOOK: Final = 1.0


class MqttSourceConfig(Settings):
    """Settings of `mqtt_in`."""

    kind: str = Field(description="kind of the frames: audio, acoustic, semantic, coarse, fine, control or tick")
    topic: str = Field(default=TOPIC, min_length=1, description="where they come from")
    qos: Literal[0, 1] = Field(default=1, description="at most; a message comes with that of its writer")
    join: Literal["present", "start"] = Field(
        default="present", description="present: what is there now, as if it began with us; start: whole runs only"
    )
    policy: Literal["drop_oldest", "block"] = Field(
        default="drop_oldest", description="block: the writer waits for us and nothing is lost (needs join: start)"
    )
    capacity: int | None = Field(default=None, ge=1, le=1 << 16, description="frames that wait for the graph")
    live: bool = Field(default=True, description="it goes by the wall clock")
    wait_ms: float = Field(default=120, ge=0, le=10_000, description="that a frame waits for one before it")
    conceal: bool = Field(default=True, description="live sound: repeat and fade what was lost, at most 3 frames")
    levels: int | None = Field(default=None, ge=1, le=32, description="codebooks; others are refused")
    rate: int | None = Field(default=None, ge=1, le=384_000, description="items a second; others are refused")


class MqttSource(Source):
    """Gives the frames of one topic. What is wrong, late or lost is counted and never ends the graph."""

    type_name: ClassVar[str] = "mqtt_in"
    emits = KINDS
    live = True
    Config = MqttSourceConfig
    config: MqttSourceConfig

    def __init__(self, config: MqttSourceConfig, build: Build) -> None:
        """Nothing is connected before the first session."""
        super().__init__(config, build)
        self.exchange = exchange_for(build)
        self.topic = self.exchange.topics.fill(config.topic, node=build.name, kind=config.kind)
        self.receipt = self.exchange.topics.receipt(self.topic)
        live_capacity = LIVE_CAPACITY if config.kind in (AUDIO, COARSE, FINE) else 4 * LIVE_CAPACITY
        strict = config.policy == "block"
        self.spec = Spec(
            kind=config.kind, levels=config.levels, rate=config.rate, start=config.join == "start", strict=strict,
            live=config.live, conceal=config.conceal and config.live and not strict, wait=config.wait_ms / 1000,
            capacity=config.capacity or (STRICT_CAPACITY if strict else live_capacity),
        )  # fmt: skip
        self.box()

    @classmethod
    def is_live(cls, config: Any) -> bool:
        """As the settings say."""
        return bool(config.live)

    @classmethod
    def facts(cls, config: Any, build: Build) -> Facts:
        """Gives the one kind of its settings.

        Raises:
            ConfigError: no section `mqtt`, an unknown kind, or `block` without `join: start`.
        """
        at = f"nodes.{build.name}"
        check_broker(build)
        if config.kind not in KINDS:
            raise ConfigError(unknown("kind", config.kind, KINDS), path=f"{at}.kind")
        if config.policy == "block" and config.join != "start":
            raise ConfigError("policy `block` reads whole runs; set join: start as well", path=f"{at}.policy")
        levels = {} if config.levels is None else {config.kind: config.levels}
        rates = {} if config.rate is None else {config.kind: config.rate}
        return Facts({}, frozenset([config.kind]), levels_out=levels, rates_out=rates)

    def box(self) -> Mailbox:
        """The mail of the topic; what comes between two sessions is kept for the next where runs are read whole."""
        keep = self.spec.capacity if self.spec.start else 0
        return self.exchange.mailbox(self.topic, self.config.qos, keep=keep)

    async def frames(self, ctx: SessionInfo) -> AsyncIterator[Frame]:
        """Give frames until the run has ended (live from the present: until stopped).

        Raises:
            InputError: the broker does not let us in, or not read this topic.
            GraphError: another session reads it already and no frame may be missed.
            PeerRestarted: the writer began anew in the middle.
        """
        box = self.box()
        if box.read and self.spec.start:
            raise GraphError(f"another session reads {self.topic!r} from its start; one at a time can")
        reading = Reading(self.spec, box, self.exchange.bases_of(ctx), ctx, self.name)
        async with self.exchange.held() as client:
            await client.wait_connected()
            if box.refused is not None:
                raise InputError(box.refused)
            receipts = _Receipts(self.exchange, self.receipt) if self.spec.start else None
            if receipts is not None:
                await self.exchange.verify(self.receipt)
                receipts.begin()
            reading.begin()
            try:
                async for frame in self._read(reading, receipts):
                    if frame.kind == TICK:
                        ctx.load.permit(frame.position, paced=self.spec.live)
                    yield frame
            finally:
                reading.end()
                self.exchange.note(self.name, None)
                if receipts is not None:
                    receipts.end()

    async def _read(self, reading: Reading, receipts: _Receipts | None) -> AsyncIterator[Frame]:
        while True:
            if reading.failure is not None:
                raise reading.failure
            if receipts is not None:
                receipts.look(reading)
            if not reading.queue:
                await self._wait(reading, receipts)
                continue
            frame = reading.queue.popleft()
            yield frame
            if receipts is not None:
                receipts.handed(last=frame.last)
            if frame.last and frame.kind != CONTROL:
                return

    async def _wait(self, reading: Reading, receipts: _Receipts | None) -> None:
        """Wait for the next message, or for the time to give up a missing one."""
        now, pause = time.monotonic(), LOOK
        if reading.order.due is not None:
            pause = max(0.0, min(pause, reading.order.due - now))
        if receipts is not None and receipts.owes:
            pause = min(pause, RECEIPT_SECONDS)
        quiet = now - reading.came > QUIET_SECONDS
        self.exchange.note(self.name, f"nothing comes on {self.topic}" if quiet else None)
        if not await reading.bell.wait(pause) and receipts is not None:
            receipts.say()
        reading.poll()


class _Receipts:
    """What the writer is told of one reading."""

    def __init__(self, exchange: Exchange, topic: str) -> None:
        self.exchange, self.topic = exchange, topic
        self.session = secrets.token_hex(8)
        self.run: str | None = None
        self.got = self.told = 0
        self._asked = 0.0
        self._forget = exchange.on_connect(lambda: self._publish(again=True))

    @property
    def owes(self) -> bool:
        """More has come than the writer knows."""
        return self.got != self.told

    def begin(self) -> None:
        """We are here, and have nothing yet."""
        self._publish()

    def end(self) -> None:
        """Say how far it got."""
        self._forget()
        self.say()

    def look(self, reading: Reading) -> None:
        """Say which run is read as soon as one is; ask for what is missing."""
        if reading.run != self.run:
            self.run, self.got = reading.run, 0
            self._publish()
        now = time.monotonic()
        if not reading.spec.strict or not self.exchange.client.connected:
            return
        idle = self.run is not None and now - max(reading.came, self._asked) > QUIET_SECONDS
        missing = reading.missing(GAP_SECONDS) and now - self._asked > AGAIN_SECONDS
        if idle or missing:
            reading.overflow = False
            self._asked = now
            self._publish(again=True)

    def handed(self, *, last: bool) -> None:
        """The graph has one more."""
        self.got += 1
        if last or self.got - self.told >= RECEIPT_FRAMES:
            self._publish()

    def say(self) -> None:
        """Say what is owed."""
        if self.owes:
            self._publish()

    def _publish(self, *, again: bool = False) -> None:
        self.told = self.got
        receipt = Receipt(self.session, self.exchange.boot, self.run, self.got, again)
        self.exchange.client.publish(self.topic, receipt.dump(), qos=1, retain=True)
