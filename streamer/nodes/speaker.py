"""The speaker: plays what is generated on a sound device, evenly, stoppable within a few hundredths of a second.

Knows frames and sessions; the sound itself goes through `jitter` (bursts to an even stream), `pump` (the thread),
`drift` (two clocks) and `host` (the device). The device belongs to the graph, a session only borrows it.

Where a source of the graph goes by the wall clock (a microphone), that is the clock: `write` never waits, and what
piles up beyond `most_ms` is skipped. Elsewhere (a file, `dream`) the device is the clock: `write` waits for room.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from audiolm.ticks import SAMPLE_RATE, TICK, Samples
from streamer.errors import GraphError, InputError
from streamer.frame import AUDIO, CONTROL, Frame
from streamer.node import Build, SessionInfo, Settings, Sink
from streamer.nodes.echo import reference
from streamer.nodes.host import Host, Wanted
from streamer.nodes.jitter import JitterBuffer
from streamer.nodes.pump import KEEP, Note, Pump

__all__ = ["SpeakerSettings", "SpeakerSink"]

MS = SAMPLE_RATE // 1000
LOUDEST = 4.0  # gain that a command may ask for: 12 dB


class SpeakerSettings(Settings):
    """Where it plays, and how much it holds."""

    device: str | int | None = Field(default=None, description="name, part of a name or number; default: the system's")
    rate: int | None = Field(default=None, ge=8000, le=192_000, description="of the device; default: what suits it")
    channels: int | None = Field(default=None, ge=1, le=64, description="of the device; all get the same")
    prime_ms: float = Field(default=80, ge=0, le=2000, description="sound that waits before a turn begins")
    keep_ms: float = Field(default=120, ge=0, le=5000, description="sound that waits on average while it plays")
    most_ms: float = Field(default=400, ge=80, le=10_000, description="sound that waits at most")
    monitor: bool = Field(default=False, description="play what is heard, too (headphones, or it hears itself)")
    volume_db: float = Field(default=0.0, ge=-96, le=0, description="0: as it comes")

    @model_validator(mode="after")
    def _room(self) -> SpeakerSettings:
        if self.most_ms < self.prime_ms + 40:
            raise ValueError(
                f"most_ms is {self.most_ms:g} and prime_ms {self.prime_ms:g}; expected most_ms at least 40 more"
            )
        return self


class _Voice:
    """One session while it plays: what the pump says about it goes into its metrics, in the event loop."""

    def __init__(self, name: str, device: Any, ctx: SessionInfo, *, monitor: bool) -> None:
        self.name, self.device, self.ctx, self.monitor = name, device, ctx, monitor
        self.moved = asyncio.Event()
        self.generated = self.stopping = False
        self._used: dict[str, float] = {}
        self._loop = asyncio.get_running_loop()

    def listen(self, note: Note) -> None:
        """Called by the pump, in its thread."""
        with contextlib.suppress(RuntimeError):  # the loop was closed without an end of the session
            self._loop.call_soon_threadsafe(self.take, note)

    def take(self, note: Note) -> None:
        """Say what is true now."""
        metrics, name = self.ctx.metrics, self.name
        metrics.gauge(f"{name}.device", self.device.name)
        metrics.gauge(f"{name}.connected", self.device.connected)
        metrics.gauge(f"{name}.level_db", note.level_db)
        metrics.gauge(f"{name}.buffer_ms", 1000 * note.waits)
        metrics.gauge(f"{name}.drift_ppm", note.ppm)
        metrics.counters[f"{name}.underruns"] = note.underruns
        metrics.counters[f"{name}.late_blocks"] = note.late
        metrics.counters[f"{name}.concealed_samples"] = note.concealed
        metrics.counters[f"{name}.lost_samples"] = note.lost
        if note.began is not None and self.generated:
            self._since("decided_continue", "decision_to_sound", note.began)
            self._since("speech_ended", "speech_end_to_sound", note.began)
        if note.silent is not None and self.stopping:
            self._since("decided_stop", "stop_to_silence", note.silent)
            self.stopping = False
        self.moved.set()

    def _since(self, mark: str, latency: str, now: float) -> None:
        """Measure from a mark, once for each time that it was set."""
        then = self.ctx.metrics.marks.get(mark)
        if then is not None and then != self._used.get(mark):
            self._used[mark] = then
            if self.device.connected:
                self.ctx.metrics.latency(latency, now - then)


class SpeakerSink(Sink):
    """Plays generated sound, and what is heard where the mode or `monitor` says so; one session at a time.

    Control: `interrupt` fades out what plays and drops what waits of older epochs; `monitor` (`on`: bool); `gain`
    (`value`: 0 to 4, a factor beside `volume_db`, reached smoothly; it lasts until another session begins).
    Metrics: gauges `device`, `connected`, `level_db`, `buffer_ms`, `drift_ppm`; counters `underruns`, `late_blocks`,
    `concealed_samples`, `lost_samples`, `not_finite`, `refused_controls`; latencies `decision_to_sound`,
    `speech_end_to_sound`, `stop_to_silence`, until the sound leaves the device as far as that tells its own delay.
    """

    type_name: ClassVar[str] = "speaker"
    accepts = {"audio": (AUDIO,), "control": (CONTROL,)}  # noqa: RUF012 - a class constant
    optional = ("control",)
    commands = ("interrupt", "monitor", "gain")
    live = True
    Config = SpeakerSettings
    config: SpeakerSettings

    def __init__(self, config: SpeakerSettings, build: Build) -> None:
        """Open the device.

        Raises:
            InputError: there is none, or it cannot do what is asked; the message lists what is there.
        """
        super().__init__(config, build)
        self.playout = Host.shared().playout(Wanted(config.device, config.rate, config.channels))
        self._volume = 10 ** (config.volume_db / 20)
        self.buffer = JitterBuffer(round(config.prime_ms * MS), round(config.most_ms * MS))
        self.pump = Pump(
            self.buffer,
            self.playout,
            gain=self._volume,
            keep=min(config.keep_ms, config.most_ms - 40) / 1000,
            steer=build.live,
            given=reference(build).push,
        )
        self._voice: _Voice | None = None

    async def write(self, frame: Frame, ctx: SessionInfo, input: str) -> None:  # noqa: A002
        """Play one frame, or do what it says. Waits for room only where no live source is the clock.

        Raises:
            InputError: another rate than 16 kHz, or a second session. GraphError: the thread has failed.
        """
        _ = input
        voice = self._attach(ctx)
        self._check()
        if frame.kind == CONTROL:
            self._command(frame, voice)
            return
        audible = self._audible(frame, voice)
        if audible and frame.payload:
            await self._play(frame, voice)
        stale = frame.generated and frame.epoch < self.buffer.epoch
        if frame.last or (audible and frame.turns and not stale):
            with self.pump.lock:
                self.buffer.end_turn()

    async def finish(self, ctx: SessionInfo) -> None:
        """Play what waits to its end, and give the device back to the next session."""
        voice = self._voice
        if voice is None or voice.ctx.metrics is not ctx.metrics:
            return
        with self.pump.lock:
            self.buffer.end_turn()
        longest = self.config.most_ms / 1000 + 1.0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest):
                await self._until(voice, lambda: not (self.buffer.sounding or self.buffer.level))
        await asyncio.sleep(KEEP + self.playout.latency)
        self._detach(ctx)

    async def abort(self, ctx: SessionInfo) -> None:
        """Fade out at once; the fade goes on without the session."""
        self._detach(ctx)

    def shutdown(self) -> None:
        """Fade out and close the device."""
        self.pump.close()
        self.playout.close()

    # -- sessions ---------------------------------------------------------------------------------------------------

    def _attach(self, ctx: SessionInfo) -> _Voice:
        """The voice of a session; a session of the same name takes over from one that was paused."""
        voice = self._voice
        if voice is not None and voice.ctx.metrics is ctx.metrics:
            return voice
        if voice is not None and voice.ctx.id != ctx.id:
            raise InputError(
                f"speaker {self.name!r} plays session {voice.ctx.id!r}, and session {ctx.id!r} came too; one speaker "
                "plays one session at a time: end the first, or give each a graph of its own"
            )
        self._voice = voice = _Voice(self.name, self.playout, ctx, monitor=self.config.monitor)
        self.pump.restart()
        self.pump.gain = self._volume
        self.pump.listener = voice.listen
        self.pump.start(f"speaker {self.name}")
        return voice

    def _detach(self, ctx: SessionInfo) -> None:
        voice = self._voice
        if voice is not None and voice.ctx.metrics is ctx.metrics:
            self._voice = self.pump.listener = None
            with self.pump.lock:
                self.buffer.drop()
            voice.take(self.pump.note())

    def _check(self) -> None:
        failure = self.pump.ended.exception() if self.pump.ended.done() else None
        if failure is not None:
            raise GraphError(f"speaker {self.name!r} stopped: {type(failure).__name__}: {failure}") from failure

    async def _until(self, voice: _Voice, done: Callable[[], bool]) -> None:
        """Wait until something holds that changes only when the pump moves."""
        while not done():
            self._check()
            voice.moved.clear()
            self.pump.wanted = True
            await voice.moved.wait()

    # -- frames -----------------------------------------------------------------------------------------------------

    def _audible(self, frame: Frame, voice: _Voice) -> bool:
        """What is generated; what is heard where it is the output, or is wanted; never what only lends its voice."""
        if not frame.heard or frame.generated:
            return True
        if "role" in frame.meta or voice.ctx.mode == "resynthesize":
            return False
        return voice.monitor or voice.ctx.mode == "reconstruct"

    def _command(self, frame: Frame, voice: _Voice) -> None:
        command = frame.meta.get("command")
        if command == "interrupt":
            with self.pump.lock:
                voice.stopping = self.buffer.sounding and frame.epoch > self.buffer.epoch
                self.buffer.interrupt(frame.epoch)
        elif command == "monitor":
            voice.monitor = bool(frame.meta.get("on", True))
        elif command == "gain":
            self._set_gain(frame.meta.get("value"), voice)

    def _set_gain(self, value: object, voice: _Voice) -> None:
        """A factor beside the volume of the config; what is none is counted and changes nothing."""
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= LOUDEST:
            self.pump.gain = self._volume * value
        else:
            voice.ctx.metrics.count(f"{self.name}.refused_controls")

    async def _play(self, frame: Frame, voice: _Voice) -> None:
        """Put the sound into the buffer, a tick at a time."""
        if frame.rate != SAMPLE_RATE:
            raise InputError(
                f"speaker {self.name!r} takes sound at {SAMPLE_RATE} Hz, {frame.rate} Hz came; resample it"
            )
        sound = self._clean(frame, voice)
        voice.generated = not frame.heard
        for at in range(0, len(sound), TICK):
            piece = sound[at : at + TICK]
            if not self.build.live:
                await self._until(voice, lambda: self.buffer.level + TICK <= self.buffer.most)
            with self.pump.lock:
                self.buffer.put(piece, self.buffer.epoch if frame.heard else frame.epoch)

    def _clean(self, frame: Frame, voice: _Voice) -> Samples:
        """Float samples, finite; a sample that is not becomes silence and is counted."""
        sound: Samples = frame.array.astype(np.float32) * np.float32(1 / 32768 if frame.dtype == "i2" else 1)
        bad = ~np.isfinite(sound)
        if bad.any():
            voice.ctx.metrics.count(f"{self.name}.not_finite", int(bad.sum()))
            sound[bad] = 0
        return sound
