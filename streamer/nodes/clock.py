"""The clock: a source of ticks. One tick is the permission to make one more step of the continuation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from pydantic import Field

from streamer.errors import ConfigError
from streamer.frame import LAST, SAMPLE_RATE, TICK, Frame
from streamer.node import Build, Facts, Mode, SessionInfo, Settings, Source

DAY = 86_400.0


class ClockSettings(Settings):
    """How long and how fast the clock ticks."""

    seconds: float | None = Field(default=None, gt=0, le=7 * DAY, description="how long; default: session.seconds")
    realtime: bool = Field(default=False, description="one tick every tick_samples / 16000 s instead of at once")
    tick_samples: int = Field(default=640, ge=1, le=SAMPLE_RATE, description="length of a tick in samples at 16 kHz")


class ClockSource(Source):
    """Emits `seconds` worth of ticks, as fast as the port admits or paced; the last tick carries `LAST`.

    Positions start at 0 with the first tick. With no length it ticks until the session is stopped. A clock of less
    than half a tick gives one empty frame with `LAST` (its `samples` are 0).
    """

    type_name = "clock"
    emits = (TICK,)
    Config = ClockSettings
    config: ClockSettings

    @classmethod
    def facts(cls, config: ClockSettings, build: Build) -> Facts:
        """Nothing beyond what the class says; a duet is refused."""
        _check_mode(build.name, build.session.mode)
        return super().facts(config, build)

    def count(self, ctx: SessionInfo) -> int | None:
        """How many ticks a session gets; None: no end."""
        seconds = self.config.seconds if self.config.seconds is not None else ctx.seconds
        return None if seconds is None else round(seconds * SAMPLE_RATE / self.config.tick_samples)

    async def frames(self, ctx: SessionInfo) -> AsyncIterator[Frame]:
        """The ticks of one session.

        Raises:
            ConfigError: the session is a duet.
        """
        _check_mode(self.name, ctx.mode)
        count, size = self.count(ctx), self.config.tick_samples
        if count == 0:
            yield Frame.end(TICK, position=0, session=ctx.id, meta={"empty": True})
            return
        rate = max(1, SAMPLE_RATE // size)
        loop = asyncio.get_running_loop()
        due = loop.time()
        number = 0
        while count is None or number < count:
            flags = LAST if number + 1 == count else 0
            if self.config.realtime:
                due = await _until(loop, due)
                ctx.load.permit(number * size, behind=max(0.0, loop.time() - due))
                due += size / SAMPLE_RATE
            fields: dict[str, Any] = {"session": ctx.id, "seq": number, "rate": rate, "flags": flags}
            given = loop.time()
            yield Frame.of(TICK, position=number * size, **fields)
            held = loop.time() - given
            due += held if held > size / SAMPLE_RATE else 0.0  # in a prompt nobody takes it: time stands still
            number += 1


def _check_mode(name: str, mode: Mode) -> None:
    if mode == "duet":
        message = f"node {name!r} knows all modes but one, not 'duet': there the sound that is heard says when to go on"
        raise ConfigError(f"{message}; use the config duet.yaml, or a node of type `turns` in its place")


async def _until(loop: asyncio.AbstractEventLoop, due: float) -> float:
    """Wait for an instant; one that has long passed (the port was full) is moved to now, so that none is caught up."""
    now = loop.time()
    if due > now:
        await asyncio.sleep(due - now)
        return due
    return now if now - due > 1.0 else due
