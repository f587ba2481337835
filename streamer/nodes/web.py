"""The ends of a session that a visitor of the page has: `web_in` takes its sound, `web_out` gives it what comes out.

They know the link that the server made for the session (`SessionInfo.extra["link"]`), and nothing of sockets.

The visitor is the clock: no sound, no tick. When its sound stalls nothing is put in its place. What the network held up
comes in a burst afterwards, so that ticks made up in between would let the continuation run ahead of the visitor; and
where nothing was held up, because the page slept, nobody listens.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from audiolm.bundle import codec_config
from streamer.errors import ConfigError
from streamer.frame import ACOUSTIC, AUDIO, COARSE, CONTROL, FINE, HEARD, SEMANTIC, Frame
from streamer.link import Link
from streamer.node import Build, SessionInfo, Settings, Sink, Source
from streamer.nodes.model import ModelSettings, describe

__all__ = ["WebSink", "WebSource"]

SILENCE_DB = -100.0


def link_of(name: str, ctx: SessionInfo) -> Link:
    """The link of a session.

    Raises:
        ConfigError: it has none: it was not opened by the server.
    """
    link = ctx.extra.get("link")
    if not isinstance(link, Link):
        message = f"node {name!r} needs a visitor of the page, and session {ctx.id!r} has none"
        raise ConfigError(message + "; run this config with `streamer serve`")
    return link


class WebSource(Source):
    """The visitor's sound as audio frames of one tick, `f4`, heard; `LAST` when the visitor has gone.

    Positions count what is given on. What was lost on the way, or went because the graph was late, takes no time.
    """

    type_name: ClassVar[str] = "web_in"
    emits = (AUDIO,)
    live = True

    async def frames(self, ctx: SessionInfo) -> AsyncIterator[Frame]:
        """Give each tick as soon as it has come."""
        inbox, position, seq = link_of(self.name, ctx).inbox, 0, 0
        while (frame := await inbox.get()) is not None:
            samples = frame.array.astype(np.float32) / np.float32(32768)
            ctx.metrics.gauge(f"{self.name}.level_db", level_db(samples))
            yield Frame.of(AUDIO, samples, position=position, session=ctx.id, seq=seq, flags=HEARD)
            position, seq = position + len(samples), seq + 1
        yield Frame.end(AUDIO, position=position, session=ctx.id, seq=seq, flags=HEARD)


def level_db(samples: npt.NDArray[np.float32]) -> float:
    """The level of a block in dBFS, at least -100."""
    power = float(np.mean(np.square(samples))) if len(samples) else 0.0
    return max(SILENCE_DB, 10 * float(np.log10(power))) if power > 0 else SILENCE_DB


class WebSinkSettings(Settings):
    """Settings of `web_out`."""

    guidance: bool = Field(
        default=False, description="let visitors change the guidance: each stage then takes twice its time"
    )


class WebSink(Sink):
    """Puts sound (as int16), tokens and interruptions into the visitor's outbox; never waits.

    Control that only concerns nodes is left out.
    """

    type_name: ClassVar[str] = "web_out"
    accepts = (AUDIO, ACOUSTIC, SEMANTIC, COARSE, FINE, CONTROL)
    optional = (ACOUSTIC, SEMANTIC, COARSE, FINE, CONTROL)
    merge = "arrival"  # what is ready is sent: nothing waits for a stream that is behind
    live = True
    Config = WebSinkSettings
    config: WebSinkSettings

    def __init__(self, config: WebSinkSettings, build: Build) -> None:
        """It is built behind the stages, and before the engine is made."""
        super().__init__(config, build)
        if config.guidance:
            for model in build.shared.get("models", {}).values():
                model.guided.update(model.parts.stages)

    @classmethod
    def about(cls, config: WebSinkSettings, build: Build) -> dict[str, str | int | float | None]:
        """What a page must know of the model, to draw its tokens and to show how it samples.

        Reads the bundle's `config.json` only; empty for a graph without a bundle.

        Raises:
            ConfigError: there is no such bundle, or it is damaged.
        """
        if build.bundle is None:
            return {}
        bundle = describe(ModelSettings(), build)
        codec, stages = codec_config(bundle), bundle["stages"]
        shown = ("temperature", "top_k", "guidance") if config.guidance else ("temperature", "top_k")
        sampling = {f"{key}_{stage}": how[key] for stage, how in bundle["sampling"].items() for key in shown}
        return {
            "codebook": codec.cardinality,
            "semantic_codebook": stages["semantic"]["cardinality"],
            "levels": codec.levels,
            "coarse_levels": stages["coarse"]["levels"],
            "lookahead": bundle["tokenizer"]["lookahead"],
            **sampling,
        }

    async def write(self, frame: Frame, ctx: SessionInfo, input: str) -> None:  # noqa: A002
        """Hand one frame on."""
        _ = input
        link = link_of(self.name, ctx)
        if frame.kind == CONTROL:
            self._control(frame, ctx, link)
        elif frame.kind != AUDIO:
            link.outbox.put(frame)
        elif not frame.generated or frame.epoch >= link.epoch:
            self._note_sound(frame, ctx)
            link.outbox.put(as_int16(frame))

    def _control(self, frame: Frame, ctx: SessionInfo, link: Link) -> None:
        if frame.meta.get("command") != "interrupt":
            return
        link.epoch = max(link.epoch, frame.epoch)
        link.outbox.interrupt(link.epoch)
        link.outbox.put(frame)
        _latency(ctx, "decided_stop", "stop_to_silence")

    def _note_sound(self, frame: Frame, ctx: SessionInfo) -> None:
        """The first sound after a decision to continue closes the measurements that the decision opened."""
        if frame.generated and frame.payload:
            _latency(ctx, "decided_continue", "decision_to_sound")
            _latency(ctx, "speech_ended", "speech_end_to_sound")


def _latency(ctx: SessionInfo, mark: str, name: str) -> None:
    """The time since a mark, once for each time it is made: until the frame is on its way, not until it is heard."""
    made, done = ctx.metrics.marks.get(mark), f"{name}.since"
    if made is not None and ctx.metrics.marks.get(done) != made:
        ctx.metrics.marks[done] = made
        ctx.metrics.latency(name, time.perf_counter() - made)


def as_int16(frame: Frame) -> Frame:
    """A frame of sound as the page takes it: half the bytes."""
    samples = np.clip(np.rint(frame.array * np.float32(32768)), -32768, 32767).astype(np.int16)
    return frame.replace(dtype="i2", payload=samples.astype("<i2").tobytes())
