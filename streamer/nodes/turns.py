"""Whose turn it is: what is heard goes to the ears, what is not becomes permissions to generate.

`turns` stands behind a live source, which is its clock: each tick that comes in is let in (audio, heard), or becomes a
`tick` (the model may go on by 40 ms), or is held back until it is known what it was. So the stages' clock moves by what
is said on either side, and never by silence: the pause in which someone is known to have ended is dropped, and the
continuation follows the sound itself. It knows no model and no device; how sound is told from silence is `detect`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from pydantic import Field

from audiolm.ticks import SAMPLE_RATE, TICK, Samples, TickAssembler
from streamer.errors import ConfigError, InputError
from streamer.frame import AUDIO, CONTROL, Frame
from streamer.frame import TICK as TICKS
from streamer.node import Build, Mode, Node, Saved, SessionInfo, Settings
from streamer.nodes.detect import Detector, Heard, make_detector
from streamer.nodes.feed import WHOLE_INPUT, logger, says_it_as_ours
from streamer.nodes.outlet import ASIDE, Outlet, role_of

__all__ = ["TurnsNode", "TurnsSettings"]
MS = SAMPLE_RATE // 1000


class TurnsSettings(Settings):
    """When the model goes on, and when it yields. Times are taken in whole ticks of 40 ms."""

    detector: Literal["auto", "speech", "music", "none"] = Field(
        default="auto", description="what ends a prompt and breaks in; auto: what the bundle's ears are made for"
    )
    hangover_ms: float = Field(default=520, ge=40, le=10_000, description="silence after which a prompt is over")
    least_ms: float = Field(default=400, ge=0, le=60_000, description="sound that a prompt needs; less is passed over")
    pre_roll_ms: float = Field(default=200, ge=0, le=2_000, description="what is let in from before an onset")
    burst_ms: float = Field(default=120, ge=40, le=1_000, description="generated at once when a turn begins")
    barge_in: bool = Field(default=True, description="new sound stops the continuation")
    barge_in_ms: float = Field(default=40, ge=40, le=2_000, description="sound that it takes to break in")
    gate_ms: float = Field(default=120, ge=0, le=2_000, description="mode duet: pauses that still count as heard")
    seconds: float | None = Field(default=None, gt=0, description="of a continuation; default: session.seconds")


@dataclass
class TurnsState:
    """What is known of one session.

    Attributes:
        position: of the stages' clock, in samples.
        held: ticks that may be silence: the pause of a phrase, or what came before one.
        continuing: it is the model's turn.
        phrase: something has sounded in this turn. active, silent, let_in, made: ticks of this turn.
        run: ticks of sound in a row during a continuation. armed: silence was heard since it began: sound is new.
        broken: sound has broken in; if it was too short to be a phrase (a cough, an echo), the model goes on again.
        begun: mode duet: something was ever heard.
    """

    info: SessionInfo
    ear: Any
    audio: Outlet
    ticks: Outlet
    detector: Detector | None
    limit: int | None
    most: int | None
    assembler: TickAssembler = field(default_factory=TickAssembler)
    held: deque[Samples] = field(default_factory=deque)
    position: int = 0
    epoch: int = 0
    active: int = 0
    silent: int = 0
    let_in: int = 0
    made: int = 0
    run: int = 0
    continuing: bool = False
    phrase: bool = False
    armed: bool = False
    broken: bool = False
    begun: bool = False
    muted: bool = False


COUNTS = ("position", "epoch", "active", "silent", "let_in", "made", "run")
SWITCHES = ("continuing", "phrase", "armed", "broken", "begun", "muted")


class TurnsNode(Node):
    """Lets sound in while someone speaks or plays, and gives ticks while the model goes on.

    Modes: `continue` and `acoustic_only` take turns, `duet` decides tick by tick, `reconstruct` and `resynthesize` let
    everything in. Commands: `trigger`, `listen`, `interrupt`, `mute` (`on`), `length` (`seconds`). What it interrupts
    it says as a control frame `interrupt`, for the speaker.
    """

    type_name = "turns"
    accepts = {"audio": (AUDIO,), "control": (CONTROL,)}  # noqa: RUF012 - a class constant
    optional = ("control",)
    emits = (AUDIO, TICKS, CONTROL)
    commands = ("trigger", "listen", "interrupt", "mute", "length")
    Config = TurnsSettings
    config: TurnsSettings

    def __init__(self, config: TurnsSettings, build: Build) -> None:
        """Make the detector; a session may ask for another one by `extra`."""
        super().__init__(config, build)
        self._detectors: dict[str, Detector | None] = {}
        self._detector(config.detector)

    def _detector(self, kind: str) -> Detector | None:
        """The detector of a name, made once; None for `none`."""
        if kind not in self._detectors:
            if kind == "auto":
                self._detectors[kind] = self._detector(self._suited())
            else:
                self._detectors[kind] = None if kind == "none" else make_detector(kind)
        return self._detectors[kind]

    def _suited(self) -> str:
        """Music for ears that hear notes, or where the detector of speech is not installed."""
        if self.build.bundle is None:
            return "music"
        from streamer.nodes.model import ModelSettings, describe

        if describe(ModelSettings(), self.build)["tokenizer"].get("pitches"):
            return "music"
        try:
            self._detector("speech")
        except ConfigError as error:
            logger().warning("turns", node=self.name, note=f"detector music in place of speech: {error}")
            return "music"
        return "speech"

    @classmethod
    def check_mode(cls, name: str, mode: Mode, inputs: Iterable[str] = ()) -> None:
        """Refuse a mode that hears nothing.

        Raises:
            ConfigError: the mode is `dream`.
        """
        _ = inputs
        if mode == "dream":
            raise ConfigError(f"node {name!r}: mode 'dream' hears nothing; use a config without a microphone")

    def init_state(self, info: SessionInfo) -> TurnsState:
        """Listening.

        Raises:
            ConfigError: a mode that hears nothing, or a detector that there is not.
        """
        self.check_mode(self.name, info.mode)
        detector = self._detector(str(info.extra.get("detector") or self.config.detector))
        seconds = info.seconds if self.config.seconds is None else self.config.seconds
        state = TurnsState(
            info, None if detector is None else detector.init_state(), Outlet(info, AUDIO), Outlet(info, TICKS),
            detector, _ticks_of(seconds), _ticks_of(info.prompt_seconds),
        )  # fmt: skip
        self._say(state)
        return state

    # -- a step --

    def step(self, frame: Frame, state: TurnsState, input: str) -> Iterable[Frame]:  # noqa: A002
        """One tick of sound, or a command.

        Raises:
            InputError: sound at another rate.
        """
        _ = input
        if frame.kind == CONTROL:
            yield from self._command(frame, state)
            return
        if frame.rate != SAMPLE_RATE:
            raise InputError(f"node {self.name!r} takes sound at {SAMPLE_RATE} Hz, {frame.rate} Hz came; resample it")
        with says_it_as_ours():
            ticks = list(state.assembler.push(frame.array))
        for tick in ticks:
            yield from self._hear(tick, frame, state)
        if frame.last:
            yield from self._end(state)

    def _hear(self, tick: Samples, frame: Frame, state: TurnsState) -> Iterator[Frame]:
        if frame.meta.get("role") is not None or state.info.mode in WHOLE_INPUT:
            yield self._let_in(tick, state, **role_of(frame))
            return
        if frame.meta.get("gap"):  # the microphone is away: neither sound nor silence
            yield from self._permit(state)
            return
        clean = np.zeros_like(tick) if state.muted else tick
        heard = self._notice(clean, state)
        if state.info.mode == "duet":
            yield from self._duet(clean, heard, state)
        elif state.continuing:
            yield from self._continuing(clean, heard, state)
        else:
            yield from self._listening(clean, heard, state)

    def _notice(self, tick: Samples, state: TurnsState) -> Heard:
        """What the detector says; without one everything counts as sound."""
        if state.detector is None:
            return Heard(active=not state.muted, level_db=0.0, score=1.0, onset=False)
        heard = state.detector.step(tick, state.ear)
        state.info.metrics.gauge(f"{self.name}.speech", round(heard.score, 3))
        return heard

    def _listening(self, tick: Samples, heard: Heard, state: TurnsState) -> Iterator[Frame]:
        """Let sound in, with what came before it; hold silence back until it is a pause, or the end."""
        if heard.active:
            state.phrase, state.silent = True, 0
            state.active += 1
            while state.held:
                yield self._let_in(state.held.popleft(), state)
            yield self._let_in(tick, state)
        else:
            state.silent += state.phrase
            self._hold(tick, state)
        if state.most is not None and state.let_in >= state.most:
            yield from self._go_on(state)
        elif state.phrase and state.silent >= _whole(self.config.hangover_ms):
            if state.active < _whole(self.config.least_ms):
                state.info.metrics.count(f"{self.name}.too_short")
            if state.active >= _whole(self.config.least_ms) or state.broken:
                yield from self._go_on(state)
            else:
                state.phrase, state.active, state.silent = False, 0, 0
                self._trim(state)

    def _continuing(self, tick: Samples, heard: Heard, state: TurnsState) -> Iterator[Frame]:
        """Go on by a tick, unless somebody breaks in."""
        state.armed = state.armed or not heard.active
        state.run = state.run + 1 if heard.active and state.armed else 0
        if self.config.barge_in and state.run >= _whole(self.config.barge_in_ms):
            yield from self._stop(state, interrupted=True)
            state.broken = True
            yield from self._listening(tick, heard, state)
            return
        self._hold(tick, state)
        yield from self._permit(state)

    def _duet(self, tick: Samples, heard: Heard, state: TurnsState) -> Iterator[Frame]:
        """Above the gate it is heard, below it the model plays; nothing is held back or dropped."""
        state.silent = 0 if heard.active else state.silent + 1
        state.begun = state.begun or heard.active
        if state.begun and state.silent <= _whole(self.config.gate_ms):
            if state.continuing:
                yield from self._stop(state, interrupted=False)
            yield self._let_in(tick, state)
        elif state.begun:
            yield state.audio.frame(tick, state.position, generated=False, role=ASIDE)
            if not state.continuing:
                yield self._turn(state)
            yield self._tick(state)

    # -- turns --

    def _go_on(self, state: TurnsState) -> Iterator[Frame]:
        """The prompt is over: the held silence is dropped, and the model goes on at once."""
        metrics, now = state.info.metrics, time.perf_counter()
        metrics.marks["decided_continue"] = now
        metrics.marks["speech_ended"] = now - state.silent * TICK / SAMPLE_RATE
        metrics.count(f"{self.name}.continued")
        state.held.clear()
        state.phrase, state.armed = False, state.silent > 0
        state.run = state.made = 0
        yield self._turn(state)
        for _ in range(_whole(self.config.burst_ms)):
            yield from self._permit(state)

    def _turn(self, state: TurnsState) -> Frame:
        """What is heard has ended."""
        state.continuing = True
        self._say(state)
        return state.audio.turn(state.position, generated=False)

    def _stop(self, state: TurnsState, *, interrupted: bool) -> Iterator[Frame]:
        """The continuation has ended. One that is interrupted ends an epoch: what is not played yet is dropped."""
        if interrupted:
            state.epoch += 1
            state.info.metrics.mark("decided_stop", again=True)
            state.info.metrics.count(f"{self.name}.interrupted")
            yield Frame.control("interrupt").replace(session=state.info.id, epoch=state.epoch)
        yield state.ticks.turn(state.position, generated=True)
        state.audio.epoch = state.ticks.epoch = state.epoch
        state.continuing = state.phrase = state.broken = False
        state.active = state.silent = state.let_in = 0
        self._say(state)

    def _permit(self, state: TurnsState) -> Iterator[Frame]:
        """One more tick of the continuation, and its end when it is long enough."""
        if not state.continuing:
            return
        yield self._tick(state)
        state.made += 1
        if state.limit is not None and state.made >= state.limit:
            yield from self._stop(state, interrupted=False)

    def _tick(self, state: TurnsState) -> Frame:
        state.info.load.permit(state.position, paced=self.build.live)
        state.position += TICK
        return state.ticks.frame(None, state.position - TICK, generated=True)

    def _let_in(self, tick: Samples, state: TurnsState, **meta: str) -> Frame:
        state.info.load.permit(state.position, placed=True, paced=self.build.live)
        state.position += TICK
        state.let_in += 1
        return state.audio.frame(tick, state.position - TICK, generated=False, **meta)

    def _hold(self, tick: Samples, state: TurnsState) -> None:
        """Keep a tick that may be silence: all of a pause, else only what an onset wants to have before it."""
        state.held.append(tick)
        if not state.phrase:
            self._trim(state)

    def _trim(self, state: TurnsState) -> None:
        while len(state.held) > _whole(self.config.pre_roll_ms):
            state.held.popleft()

    def _end(self, state: TurnsState) -> Iterator[Frame]:
        """The input is over. Behind a file the model has its turn out, one tick after another; behind a device not."""
        if not self.build.live and state.limit is not None and state.info.mode not in (*WHOLE_INPUT, "duet"):
            yield from self._finish(state)
        if state.continuing:
            yield from self._stop(state, interrupted=False)
        yield state.audio.end(state.position)
        yield state.ticks.end(state.position)

    def _finish(self, state: TurnsState) -> Iterator[Frame]:
        """The end of a file ends the phrase that it breaks off; a turn that has begun goes on to its end."""
        if state.phrase and not state.continuing:
            yield from self._go_on(state)
        elif not state.info.metrics.counters.get(f"{self.name}.continued"):
            logger().warning("turns", node=self.name, note="no phrase in the input; detector=none lets everything in")
        while state.continuing:
            yield from self._permit(state)

    def _say(self, state: TurnsState) -> None:
        state.info.metrics.gauge(f"{self.name}.state", "continuing" if state.continuing else "listening")

    # -- commands --

    def _command(self, frame: Frame, state: TurnsState) -> Iterator[Frame]:
        """Do what a control frame says; what does not fit the moment does nothing."""
        command, by_turns = frame.meta.get("command"), state.info.mode not in (*WHOLE_INPUT, "duet")
        if command == "trigger" and by_turns and not state.continuing:
            yield from self._go_on(state)
        elif command in ("listen", "interrupt") and by_turns and state.continuing:
            state.epoch = max(state.epoch, frame.epoch - 1)
            state.held.clear()
            yield from self._stop(state, interrupted=True)
        elif command == "mute":
            state.muted = bool(frame.meta.get("on", True))
        elif command == "length":
            state.limit = self._length(frame, state)

    def _length(self, frame: Frame, state: TurnsState) -> int | None:
        """Ticks of a continuation from now on; what is no length is counted and changes nothing."""
        seconds = frame.meta.get("seconds")
        if seconds is None or (isinstance(seconds, (int, float)) and 0 < seconds < float("inf")):
            return _ticks_of(seconds)
        state.info.metrics.count(f"{self.name}.refused_controls")
        return state.limit

    # -- snapshots --

    def save(self, state: TurnsState) -> Saved:
        """Everything; the detector's state by the detector."""
        return {
            "ear": None if state.detector is None else state.detector.save(state.ear),
            "held": np.stack(state.held) if state.held else np.zeros((0, TICK), np.float32),
            "assembler": state.assembler.save(), "seqs": [state.audio.seq, state.ticks.seq],
            "limit": state.limit, "own": {name: getattr(state, name) for name in (*COUNTS, *SWITCHES)},
        }  # fmt: skip

    def load(self, saved: Saved, info: SessionInfo) -> TurnsState:
        """The state again."""
        state = self.init_state(info)
        if state.detector is not None:
            state.ear = state.detector.load(saved["ear"])
        state.held.extend(np.asarray(saved["held"], np.float32))
        state.assembler.load({key: np.asarray(value) for key, value in saved["assembler"].items()})
        state.limit = None if saved["limit"] is None else int(saved["limit"])
        for name in (*COUNTS, *SWITCHES):
            setattr(state, name, (int if name in COUNTS else bool)(saved["own"][name]))
        state.audio.seq, state.ticks.seq = (int(seq) for seq in saved["seqs"])
        state.audio.epoch = state.ticks.epoch = state.epoch
        self._say(state)
        return state


def _whole(milliseconds: float) -> int:
    """Ticks, rounded up."""
    return -int(-milliseconds * MS // TICK)


def _ticks_of(seconds: float | None) -> int | None:
    return None if seconds is None else max(1, round(seconds * SAMPLE_RATE / TICK))
