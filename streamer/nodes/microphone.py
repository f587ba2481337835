"""The microphone: what a device hears, as audio frames of one tick. It is the clock of a live graph.

The device is opened for the first session and stays open until the graph is closed; when it vanishes, `host` brings it
back. Knows no turns: it gives all that it hears.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator
from typing import ClassVar, Final, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from audiolm.ticks import SAMPLE_RATE, TICK, Samples
from streamer.frame import AUDIO, Frame
from streamer.node import Build, SessionInfo, Settings, Source
from streamer.nodes.echo import make_canceller, reference
from streamer.nodes.feed import TickFeed, says_it_as_ours
from streamer.nodes.files import forced_voice
from streamer.nodes.host import Capture, Host, Wanted
from streamer.nodes.inlet import Inlet

__all__ = ["MicrophoneSource"]

TICK_SECONDS: Final = TICK / SAMPLE_RATE
STALE: Final = 0.25  # seconds without a tick after which silence takes its place
QUIETEST: Final = 1e-12  # mean square: -120 dBFS


class MicrophoneSettings(Settings):
    """Which device, and what is done to its sound."""

    device: str | int | None = Field(
        default=None, description="name, part of a name or number, see `streamer devices`; null: the default one"
    )
    rate: int | None = Field(
        default=None, ge=8_000, le=384_000, description="samples a second; null: 48000, else what the device can do"
    )
    channels: int | None = Field(default=None, ge=1, le=64, description="null: one, or the fewest the device can do")
    channel: int | None = Field(default=None, ge=1, le=64, description="which channel, from 1; null: the mean of all")
    echo: Literal["auto", "cancel", "gate", "off"] = Field(
        default="auto", description="what keeps the loudspeaker out: a canceller, a gate; auto: the best one installed"
    )
    away: Literal["silence", "end"] = Field(
        default="silence", description="while the device is away: silence in real time, or the end of the stream"
    )

    @field_validator("echo", mode="before")
    @classmethod
    def _off(cls, value: object) -> object:
        """A bare `off` in YAML is false."""
        return "off" if value is False else value

    @model_validator(mode="after")
    def _channel_is_there(self) -> MicrophoneSettings:
        if self.channel and self.channels and self.channel > self.channels:
            raise ValueError(f"channel {self.channel} of {self.channels} channels; the first is 1")
        return self


class MicrophoneSource(Source):
    """Gives what a microphone hears as audio frames of one tick (640 samples at 16 kHz), until it is stopped.

    Positions count samples from 0 in each session. While the device is away the frames hold silence, and `gap: true`
    in their meta. A new session takes the microphone over; the stream of the one before ends.
    """

    type_name: ClassVar[str] = "microphone"
    emits = (AUDIO,)
    live: ClassVar[bool] = True
    Config = MicrophoneSettings
    config: MicrophoneSettings

    def __init__(self, config: MicrophoneSettings, build: Build) -> None:
        """Look whether the device is there; it is opened by the first session.

        Raises:
            InputError: PyAudio is missing, or there is no such device; the message lists what is there.
        """
        super().__init__(config, build)
        self.wanted = Wanted(config.device, config.rate, config.channels or config.channel)
        Host.shared().check(self.wanted, "input")
        self._canceller = make_canceller(config.echo, reference(build))
        self._opening = threading.Lock()
        self._capture: Capture | None = None
        self._served = 0

    async def frames(self, ctx: SessionInfo) -> AsyncIterator[Frame]:
        """Give the voice (mode `resynthesize`), then what is heard from now on.

        Raises:
            InputError: the device cannot be opened; the message lists what is there.
        """
        feed = TickFeed(ctx)
        capture = await asyncio.to_thread(self._opened)
        with says_it_as_ours():
            for frame in await forced_voice(feed, ctx, self.build.base):
                yield frame
        self._served += 1
        mine, inlet = self._served, Inlet(capture, self.config.channel, self._canceller.process)
        pace = _Pace()
        while not (pace.away and self.config.away == "end"):
            tick = await self._next(inlet, pace)
            if mine != self._served:
                break
            self._note(ctx, inlet, tick)
            for frame in feed.push(tick):
                yield frame.replace(meta={"gap": True}) if pace.away else frame
        for frame in feed.finish("drop"):
            yield frame

    def shutdown(self) -> None:
        """Close the device, and free the canceller."""
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.close()
        self._canceller.close()

    def _opened(self) -> Capture:
        with self._opening:
            if self._capture is None:
                self._capture = Host.shared().capture(self.wanted)
            return self._capture

    async def _next(self, inlet: Inlet, pace: _Pace) -> Samples:
        """Wait for the next tick: of sound, or of silence while there is none."""
        while True:
            if pace.away and inlet.capture.connected and inlet.capture.ring.level:
                inlet.restart()
                pace.away = False
            tick = None if pace.away else inlet.take()
            if tick is not None:
                pace.given()
                return tick
            if pace.away or not inlet.capture.connected or pace.late > STALE:
                return await self._silence(inlet, pace)
            await asyncio.sleep(inlet.wait())

    async def _silence(self, inlet: Inlet, pace: _Pace) -> Samples:
        """A tick for the time in which nothing is heard; the first one begins with what was heard before."""
        tick = np.zeros(TICK, np.float32) if pace.away else inlet.rest()
        pace.away = True
        await pace.wait()
        return tick

    def _note(self, ctx: SessionInfo, inlet: Inlet, tick: Samples) -> None:
        metrics, capture = ctx.metrics, inlet.capture
        metrics.gauge(f"{self.name}.level_db", 10 * math.log10(float(np.mean(tick * tick)) + QUIETEST))
        metrics.gauge(f"{self.name}.device", capture.name)
        metrics.gauge(f"{self.name}.connected", capture.connected)
        metrics.count(f"{self.name}.lost_samples", inlet.lost - metrics.counters.get(f"{self.name}.lost_samples", 0))


class _Pace:
    """When ticks were given, by the wall clock. `away`: silence is given, because nothing is heard."""

    def __init__(self) -> None:
        self.away = False
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()

    @property
    def late(self) -> float:
        """Seconds by which the next tick is late."""
        return self._loop.time() - self._last - TICK_SECONDS

    def given(self) -> None:
        """A tick of sound has come."""
        self._last = self._loop.time()

    async def wait(self) -> None:
        """Wait until a tick of silence is due; none are made up for."""
        due = max(self._last + TICK_SECONDS, self._loop.time())
        await asyncio.sleep(due - self._loop.time())
        self._last = due
