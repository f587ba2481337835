"""`sensor`: a number from the world (light, distance, people in a room) moves one setting, smoothly, by MQTT or OSC.

nodes:
  light:
    type: sensor
    topic: house/hall/light      # or, for OSC: `address: /light`, `port: 9002`
    path: sensors.0.lux          # within the JSON of a message; a message may also be the plain number
    input: [0, 800]
    output: [1.2, 0.5]
    value: temperature
    smooth: 3
edges:
  - light -> semantic, coarse
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, cast

from pydantic import Field, model_validator

from streamer import Build, Frame, SessionInfo, Settings, Source, mqtt_messages

from ._numbers import Follower, number_in
from ._steer import NAME, Span, Target, finite, needing, refused
from ._wire import listening


class SensorSettings(Settings):
    """Where the number comes from, and what it moves."""

    topic: str | None = Field(default=None, min_length=1, description="MQTT topic on the broker of the config's `mqtt`")
    path: str = Field(default="", description="within JSON, names and numbers with dots between; default: the whole")
    address: str | None = Field(default=None, pattern=r"^/[^\s#*,?\[\]{}]{1,255}$", description="OSC address, for OSC")
    bind: str = Field(
        default="127.0.0.1", min_length=1, description="OSC: address it listens on; 0.0.0.0: the whole network"
    )
    port: int = Field(default=9002, ge=0, le=65_535, description="OSC: UDP port; 0: any, see the gauge `NAME.port`")
    command: str = Field(default="set", pattern=NAME, description="for instance set, gain, length")
    value: str = Field(default="temperature", pattern=NAME, description="the value that moves")
    node: str | None = Field(default=None, min_length=1, max_length=64, description="name of one node; default: all")
    input: Span = Field(description="what the number moves between; what is beyond is cut off")
    output: Span = Field(description="what the value moves between; the first for the first of `input`")
    smooth: float = Field(default=1.0, ge=0, le=3600, description="time constant in seconds; 0: at once")
    dead_band: float = Field(default=0.01, ge=0, le=0.5, description="share of `output` below which nothing is sent")
    most_a_second: float = Field(default=5.0, gt=0, le=25, description="updates a second at most")

    @model_validator(mode="after")
    def _fits(self) -> SensorSettings:
        if (self.topic is None) == (self.address is None):
            raise ValueError("expected either `topic` (MQTT) or `address` (OSC), to tell where the number comes from")
        self.target()
        return self

    def target(self) -> Target:
        """What the number becomes."""
        return Target(command=self.command, value=self.value, node=self.node, input=self.input, output=self.output)


class SensorSource(Source):
    """Follows one number; sends `command` with the value when it has moved by more than the dead band.

    A new session begins with what stands. Counter: `refused` (what came was no number). Gauges: `input` (as it came),
    `output` (as it was sent), `port` (OSC).
    """

    type_name = "sensor"
    emits = ("control",)
    Config = SensorSettings
    config: SensorSettings

    def __init__(self, config: SensorSettings, build: Build) -> None:
        """Nothing is opened before a session begins.

        Raises:
            ConfigError: OSC is wanted, and python-osc is not installed.
        """
        super().__init__(config, build)
        self._target = config.target()
        self._last: float | None = None  # as it came
        if config.address is not None:
            with needing(self.name, "python-osc", "osc"):
                import pythonosc.osc_message  # noqa: F401 - so that it is missed before anything starts

    async def frames(self, ctx: SessionInfo) -> AsyncIterator[Frame]:
        """Control frames, `most_a_second` at most, until cancelled.

        Raises:
            ConfigError: the config has no broker. InputError: the OSC port is taken.
        """
        config, now = self.config, asyncio.get_running_loop().time
        follower = Follower(config.smooth, config.dead_band, abs(config.output[1] - config.output[0]))
        news = asyncio.Event()

        def take(number: float) -> None:
            self._last = number
            ctx.metrics.gauge(f"{self.name}.input", number)
            follower.want(float(self._target.scaled(number, None)), now())
            news.set()

        if self._last is not None:
            take(self._last)
        reader = asyncio.create_task(self._read(ctx, take), name=f"sensor:{ctx.id}:{self.name}")
        reader.add_done_callback(lambda _: news.set())
        try:
            while not reader.done():
                if follower.settled:
                    await news.wait()
                news.clear()
                value = follower.step(now())
                if value is not None:
                    ctx.metrics.gauge(f"{self.name}.output", value)
                    yield self._frame(value, ctx)
                await asyncio.sleep(1 / config.most_a_second)
            reader.result()
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    def _frame(self, value: float, ctx: SessionInfo) -> Frame:
        values: dict[str, Any] = {} if self.config.node is None else {"node": self.config.node}
        values[self.config.value] = value
        return Frame.control(self.config.command, **values).replace(session=ctx.id)

    async def _read(self, ctx: SessionInfo, take: Callable[[float], None]) -> None:
        """Hand on each number as it comes."""
        if self.config.topic is None:

            def heard(address: str, values: list[Any]) -> None:
                number = finite(values[0]) if values else None
                if address == self.config.address and number is not None:
                    take(number)
                elif address == self.config.address:
                    refused(self.name, ctx, f"OSC {address} came without a number")

            def bad(note: str) -> None:
                refused(self.name, ctx, note)

            bind, port = self.config.bind, self.config.port
            async with listening(self.name, ctx, bind=bind, port=port, take=heard, refuse=bad):
                await asyncio.Event().wait()
        messages = cast("AsyncGenerator[tuple[str, bytes], None]", mqtt_messages(self.build, str(self.config.topic)))
        async with contextlib.aclosing(messages):
            async for topic, payload in messages:
                try:
                    take(number_in(payload, self.config.path))
                except ValueError as error:
                    refused(self.name, ctx, f"{topic[:64]}: {error}")
                await asyncio.sleep(0)  # a flood lets others run
