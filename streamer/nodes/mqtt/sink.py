"""`mqtt_out`: frames of any kind to topics, one a kind, live or without loss.

Its frames are numbered from 0 in each session, under a run id that is fresh for each session, so that a reader can tell
losses, repeats and a beginning.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

from pydantic import Field

from streamer.errors import GraphError, StreamerError
from streamer.frame import ACOUSTIC, AUDIO, CONTROL, FINE, KINDS, Frame
from streamer.node import Build, Facts, SessionInfo, Settings, Sink, named_inputs
from streamer.nodes.mqtt.exchange import check_broker, exchange_for
from streamer.nodes.mqtt.writing import Writing, WritingSpec

__all__ = ["MqttSink"]

TOPIC: Final = "{prefix}/{instance}/stream/{node}/{kind}"
WINDOW: Final = 32
LIVE_CAPACITY: Final = 50  # messages, 2 s of ticks
STRICT_CAPACITY: Final = 256
LOSSY: Final = frozenset({AUDIO, ACOUSTIC, FINE})  # of which a lost tick is concealed, while a late one is of no use


class MqttSinkConfig(Settings):
    """Settings of `mqtt_out`."""

    topic: str = Field(default=TOPIC, min_length=1, description="where to; {kind} tells several kinds apart")
    qos: Literal[0, 1] | None = Field(
        default=None,
        description="default: 0 for live sound and its tokens, 1 for all else and where nothing may be lost",
    )
    policy: Literal["drop_oldest", "block"] | None = Field(
        default=None, description="when it cannot be sent fast enough; default: drop_oldest live, else block"
    )
    capacity: int | None = Field(default=None, ge=1, le=1 << 16, description="messages that wait for the broker")
    bundle_ms: float = Field(default=40, ge=0, le=2000, description="sound or tokens in one message")
    readers: list[str] = Field(default_factory=list, description="instances that get it from its very beginning")
    window: int = Field(default=WINDOW, ge=1, le=1024, description="frames that `block` may be ahead of its readers")
    patience: float = Field(default=10, gt=0, le=3600, description="seconds for a reader that is there to begin")
    pcm: Literal["i2", "f4"] | None = Field(
        default=None, description="sound as 16 bit or float; default: 16 bit live, else as it comes"
    )


@dataclass(slots=True)
class _Open:
    """What one session has open."""

    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    writings: dict[str, Writing] = field(default_factory=dict)
    checks: set[asyncio.Task[None]] = field(default_factory=set)


class MqttSink(Sink):
    """Publishes frames. Live it never waits; with `block` it waits for its readers, or for the broker."""

    type_name: ClassVar[str] = "mqtt_out"
    accepts = KINDS
    optional = KINDS
    merge = "arrival"  # what is ready is sent: nothing waits for a stream that is behind
    Config = MqttSinkConfig
    config: MqttSinkConfig

    def __init__(self, config: MqttSinkConfig, build: Build) -> None:
        """Nothing is connected before the first frame."""
        super().__init__(config, build)
        self.exchange = exchange_for(build)
        self.strict = config.policy == "block" or (config.policy is None and not build.live)
        self._open: dict[str, _Open] = {}
        self._writers: dict[str, str] = {}
        for kind in sorted(KINDS):
            self._topic(kind)
        for reader in config.readers:
            self.exchange.topics.of(reader)

    @classmethod
    def is_live(cls, config: Any) -> bool:
        """What is not waited for is live."""
        return bool(config.policy == "drop_oldest")

    @classmethod
    def facts(cls, config: Any, build: Build) -> Facts:
        """Takes every kind at any rate.

        Raises:
            ConfigError: no section `mqtt`.
        """
        _ = config
        check_broker(build)
        return Facts(named_inputs(cls.accepts), frozenset(), frozenset(cls.optional), rates_in=dict.fromkeys(KINDS, 0))

    def _topic(self, kind: str) -> str:
        return self.exchange.topics.fill(self.config.topic, node=self.name, kind=kind)

    def _spec(self, kind: str) -> WritingSpec:
        config, live = self.config, self.build.live
        lossy = live and not self.strict and kind in LOSSY
        return WritingSpec(
            qos=config.qos if config.qos is not None else int(not lossy),
            strict=self.strict,
            capacity=config.capacity or (STRICT_CAPACITY if self.strict else LIVE_CAPACITY),
            window=config.window,
            bundle=round(config.bundle_ms * 16),
            patience=config.patience,
            pcm=config.pcm or ("i2" if live and not self.strict else None),
        )

    async def write(self, frame: Frame, ctx: SessionInfo, input: str) -> None:  # noqa: A002
        """Publish a frame.

        The session's own commands are left out, unless an edge carries control here.

        Raises:
            GraphError: another session writes this topic. InputError: the broker does not let us publish there.
            PeerRestarted: a reader began anew, or does not begin.
        """
        if frame.kind == CONTROL and input not in ctx.inputs:
            return
        opened = self._open.setdefault(ctx.id, _Open())
        writing = opened.writings.get(frame.kind)
        if writing is None:
            writing = await self._begin(frame.kind, ctx, opened)
        await writing.write(frame)
        dropped = sum(each.out.dropped for each in opened.writings.values())
        if dropped:
            ctx.metrics.counters[f"{self.name}.dropped"] = dropped

    async def _begin(self, kind: str, ctx: SessionInfo, opened: _Open) -> Writing:
        topic = self._topic(kind)
        if topic in self._writers:
            other = self._writers[topic]
            raise GraphError(f"session {other!r} writes {topic!r}; a topic takes one stream, name {{kind}} in it")
        if not opened.writings:
            await opened.stack.enter_async_context(self.exchange.held())
        self._writers[topic] = ctx.id
        made = Writing(
            self.exchange, topic, self.exchange.run_of(ctx), self._spec(kind),
            readers=self.config.readers, name=self.name,
        )  # fmt: skip
        opened.writings[kind] = made
        if self.strict or self.config.readers:
            await self.exchange.verify(topic)
            await made.ready()
        else:
            opened.checks.add(asyncio.create_task(self._check(made), name=f"mqtt:verify:{topic}"))
        return made

    async def _check(self, writing: Writing) -> None:
        """Find out beside the stream whether it is let through: what is live does not wait for a broker."""
        try:
            await self.exchange.verify(writing.topic)
        except StreamerError as error:
            writing.failure = error

    async def finish(self, ctx: SessionInfo) -> None:
        """Wait until everything has left; where nothing may be lost, until it has arrived."""
        opened = self._open.get(ctx.id)
        if opened is not None:
            for writing in opened.writings.values():
                await writing.finish()
            await self._close(ctx)

    async def abort(self, ctx: SessionInfo) -> None:
        """Leave; readers learn it from the run that follows."""
        await self._close(ctx)

    async def _close(self, ctx: SessionInfo) -> None:
        opened = self._open.pop(ctx.id, None)
        if opened is None:
            return
        for task in opened.checks:
            task.cancel()
        for writing in opened.writings.values():
            writing.close()
            self._writers.pop(writing.topic, None)
        await opened.stack.aclose()
