"""The ears and the mouth: sound to acoustic tokens, sound to semantic tokens, tokens to sound.

`acoustic` and `semantic_tokens` each have a door of their own, so that sound is made safe wherever it comes from; both
doors see the same samples and do the same to them. Sessions that have a tick at once are stepped side by side.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from audiolm.bundle import codec_config
from audiolm.door import Door, DoorConfig, DoorState
from audiolm.ticks import SAMPLE_RATE, TICK, Samples, TickAssembler
from audiolm.watermark import Marker
from streamer.errors import InputError
from streamer.frame import ACOUSTIC, AUDIO, FINE, HEARD, SEMANTIC, Frame
from streamer.node import Build, Facts, Saved, SessionInfo, named_inputs
from streamer.nodes.feed import says_it_as_ours
from streamer.nodes.model import ModelNode, ModelSettings, describe, refusing
from streamer.nodes.outlet import ASIDE, Outlet, role_of

__all__ = ["AcousticNode", "DecoderNode", "SemanticTokensNode"]


class EarSettings(ModelSettings):
    """Settings of `acoustic` and `semantic_tokens`."""

    gain: Literal["auto", "off"] = Field(
        default="auto", description="bring the input to the level of the training data"
    )


@dataclass
class EarState:
    """What an ear remembers of one session.

    Attributes:
        at: position of the next tick, in samples.
        fed: position of each tick that no token has come out for yet, and whether it is to be forced.
        since: where the turn began; tokens of ticks before it come too late.
    """

    slot: int
    out: Outlet
    door: DoorState
    fed: deque[tuple[int, bool]]
    ticks: TickAssembler = field(default_factory=TickAssembler)
    at: int = 0
    since: int = 0
    ended: bool = False


class Ear(ModelNode):
    """What both ears share: samples of any chunking to clean ticks, and those of several sessions side by side."""

    accepts = (AUDIO,)
    Config = EarSettings
    config: EarSettings
    counts_door = False

    def __init__(self, config: EarSettings, build: Build) -> None:
        """Load the model and set the door."""
        super().__init__(config, build)
        self.door = Door(DoorConfig(gain=config.gain))

    @property
    def lag(self) -> int:
        """Ticks by which tokens come later than their sound."""
        return 0

    def init_state(self, info: SessionInfo) -> EarState:
        """A fresh stream in the session's slot."""
        out, fed = Outlet(info, next(iter(self.emits))), deque[tuple[int, bool]](maxlen=self.lag + 1)
        return EarState(self.shared.acquire(info.id), out, self.door.init_state(), fed)

    def close(self, state: EarState) -> None:
        """Give the slot back, and say what the door met."""
        if self.counts_door:
            for name, count in state.door.counts.as_dict().items():
                state.out.info.metrics.counters[f"door.{name}"] = count
        self.shared.release(state.out.info.id)

    def save(self, state: EarState) -> Saved:
        """Door, position and the part's tensors."""
        own = {
            "at": state.at, "since": state.since, "fed": [[position, int(forced)] for position, forced in state.fed],
            "ended": state.ended, "seq": state.out.seq, "epoch": state.out.epoch, "ticks": state.ticks.save(),
        }  # fmt: skip
        return {"own": own, "door": self.door.save(state.door), "part": self.engine.save_part(self.part, state.slot)}

    def load(self, saved: Saved, info: SessionInfo) -> EarState:
        """The state again."""
        state = self.init_state(info)
        with self.letting_go(info.id):
            self.load_part(state.slot, saved["part"])
            state.door = self.door.load({key: np.asarray(value) for key, value in saved["door"].items()})
            own = saved["own"]
            state.at, state.since, state.ended = int(own["at"]), int(own["since"]), bool(own["ended"])
            state.fed.extend((int(position), bool(forced)) for position, forced in own["fed"])
            state.out.seq, state.out.epoch = int(own["seq"]), int(own["epoch"])
            state.ticks.load({key: np.asarray(value) for key, value in own["ticks"].items()})
        return state

    def step(self, frame: Frame, state: EarState, input: str) -> Iterable[Frame]:  # noqa: A002
        """One tick after another of what `frame` completes.

        Raises:
            InputError: sound at another rate.
        """
        _ = input
        if self.takes(frame, state):
            for tick in self.clean(frame, state):
                yield from self.give(self.work({state.slot: tick})[state.slot], state)
        yield from self.after(frame, state)

    def step_many(self, batch: Sequence[tuple[Frame, EarState, str]]) -> Sequence[Iterable[Frame]]:
        """Sessions that have one tick each are stepped by one call of the engine."""
        if len(batch) == 1 or any(state.ticks.held + frame.shape[0] >= 2 * TICK for frame, state, _ in batch):
            return super().step_many(batch)
        ticks: dict[int, Samples] = {}
        refused: dict[int, Iterator[Frame]] = {}
        for frame, state, _ in batch:
            try:
                for tick in self.clean(frame, state) if self.takes(frame, state) else ():
                    ticks[state.slot] = tick
            except InputError as error:
                refused[state.slot] = refusing(error)
        done = self.work(ticks) if ticks else {}
        return [
            refused.get(state.slot)
            or chain(self.give(done[state.slot], state) if state.slot in done else (), self.after(frame, state))
            for frame, state, _ in batch
        ]

    def clean(self, frame: Frame, state: EarState) -> Iterator[Samples]:
        """The ticks that `frame` completes, through the door."""
        if frame.rate != SAMPLE_RATE:
            message = f"node {self.name!r} takes sound at {SAMPLE_RATE} Hz, {frame.rate} Hz came"
            raise InputError(message + "; resample it at the source")
        if not state.ticks.held:  # what was lost, or generated in between, takes its time all the same
            state.at = max(state.at, frame.position // TICK * TICK)
        state.out.follow(frame)
        with says_it_as_ours():
            ticks = state.ticks.push(frame.array)
        for tick in ticks:
            yield self.take(tick, state, forced=frame.meta.get("role") != ASIDE)

    def take(self, tick: Samples, state: EarState, *, forced: bool = True) -> Samples:
        """Count a tick as fed; gives it as it comes through the door."""
        state.fed.append((state.at, forced))
        state.at += TICK
        return self.door.step(tick, state.door)

    def takes(self, frame: Frame, state: EarState) -> bool:
        """Whether the sound of this frame is listened to."""
        _ = frame, state
        return True

    @abstractmethod
    def work(self, ticks: Mapping[int, Samples]) -> Mapping[int, Any]:
        """The engine's answer to one tick a slot."""

    def give(self, made: Any, state: EarState) -> Iterator[Frame]:
        """The frame of one answer, unless there is none yet, or its tick is not to be forced, or not any more."""
        position, forced = state.fed[0]
        if made is not None and forced and position >= state.since:
            yield state.out.frame(self.shaped(made), position, generated=False)

    @abstractmethod
    def shaped(self, made: Any) -> npt.ArrayLike:
        """One answer as the payload of a frame."""

    def after(self, frame: Frame, state: EarState) -> Iterator[Frame]:
        """What follows when all ticks of `frame` are done: the end of the turn, or of the stream with its last one."""
        if frame.turns and not state.ended:
            state.since = frame.position
            yield state.out.turn(frame.position, generated=False)
        yield from self.ends(frame, state)

    @abstractmethod
    def ends(self, frame: Frame, state: EarState) -> Iterator[Frame]:
        """The end of the stream, if `frame` is its last."""


class AcousticNode(Ear):
    """Sound to acoustic tokens: `acoustic` `[2, levels]` a tick, heard.

    In mode `resynthesize` it takes the voice only (frames with `role: voice`); what is said comes by the semantic
    tokens.
    """

    type_name = "acoustic"
    emits = (ACOUSTIC,)
    part = "encoder"
    counts_door = True

    @classmethod
    def facts(cls, config: EarSettings, build: Build) -> Facts:
        """The bundle says how many levels come out."""
        levels = int(describe(config, build)["codec"]["levels"])
        return Facts(named_inputs(cls.accepts), frozenset(cls.emits), levels_out={ACOUSTIC: levels})

    def takes(self, frame: Frame, state: EarState) -> bool:
        """In mode `resynthesize` the voice alone."""
        return not state.ended and not _is_words(frame, state)

    def work(self, ticks: Mapping[int, Samples]) -> Mapping[int, Any]:
        """Acoustic tokens."""
        return self.engine.encode(ticks)

    def shaped(self, made: Any) -> npt.ArrayLike:
        """`[2, levels]`."""
        return np.asarray(made)

    def ends(self, frame: Frame, state: EarState) -> Iterator[Frame]:
        """The end comes with the last frame, or with the first that is not the voice."""
        if not state.ended and (frame.last or _is_words(frame, state)):
            state.ended = True
            yield state.out.end(state.at)


def _is_words(frame: Frame, state: EarState) -> bool:
    """Whether this is what is to be said in another voice, not that voice."""
    return state.out.info.mode == "resynthesize" and bool(frame.payload) and frame.meta.get("role") != "voice"


class SemanticTokensNode(Ear):
    """Sound to semantic tokens: one a tick, `lookahead` ticks later.

    At the end of a prompt the tokens inside the look-ahead are left to the semantic stage, which samples them; the
    position of the `LAST` frame is where the prompt ends. In mode `resynthesize` there is no such stage, so silence is
    fed until the last tick of the input can be spoken.
    """

    type_name = "semantic_tokens"
    emits = (SEMANTIC,)
    part = "tokenizer"

    @classmethod
    def facts(cls, config: EarSettings, build: Build) -> Facts:
        """The bundle says how far it looks ahead."""
        delay = int(describe(config, build)["tokenizer"]["lookahead"]) * TICK
        return Facts(named_inputs(cls.accepts), frozenset(cls.emits), delay=delay)

    def work(self, ticks: Mapping[int, Samples]) -> Mapping[int, Any]:
        """Semantic tokens, or None while there is none."""
        return self.engine.listen(ticks)

    @property
    def lag(self) -> int:
        """The look-ahead."""
        return self.parts.lookahead

    def shaped(self, made: Any) -> npt.ArrayLike:
        """`[1]`."""
        return np.asarray([made])

    def ends(self, frame: Frame, state: EarState) -> Iterator[Frame]:
        """The end, in mode `resynthesize` behind the tokens that silence brings out."""
        if not frame.last:
            return
        if state.out.info.mode == "resynthesize":
            for _ in range(self.parts.lookahead + self.parts.ahead):
                silence = self.take(np.zeros(TICK, np.float32), state)
                yield from self.give(self.work({state.slot: silence})[state.slot], state)
        yield state.out.end(state.at)


@dataclass
class VoiceState:
    """What the decoder remembers of one session."""

    slot: int
    out: Outlet
    position: int = 0
    marker: Marker = field(default_factory=Marker)


class DecoderNode(ModelNode):
    """Tokens to sound, heard or generated as the tokens were; what was generated is marked unless `watermark: false`.

    Takes ticks of `fine` (or of `acoustic`, in mode `reconstruct`) with any number of levels up to the codec's; gives
    640 samples a tick.
    """

    type_name = "decoder"
    accepts = {"fine": (FINE, ACOUSTIC)}  # noqa: RUF012 - a class constant
    emits = (AUDIO,)
    part = "decoder"
    Config = ModelSettings

    @classmethod
    def facts(cls, config: ModelSettings, build: Build) -> Facts:
        """Any number of levels up to the codec's; a codec of spectra completes its sound later."""
        codec = codec_config(describe(config, build))
        levels = {"fine": (1, codec.levels)}
        return Facts(named_inputs(cls.accepts), frozenset(cls.emits), levels_in=levels, delay=codec.delay)

    def init_state(self, info: SessionInfo) -> VoiceState:
        """A fresh stream in the session's slot."""
        return VoiceState(self.shared.acquire(info.id), Outlet(info, AUDIO))

    def close(self, state: VoiceState) -> None:
        """Give the slot back."""
        self.shared.release(state.out.info.id)

    def save(self, state: VoiceState) -> Saved:
        """Position and the part's tensors."""
        own = {"position": state.position, "seq": state.out.seq, "epoch": state.out.epoch}
        return {"own": own, "marker": state.marker.save(), "part": self.engine.save_part(self.part, state.slot)}

    def load(self, saved: Saved, info: SessionInfo) -> VoiceState:
        """The state again."""
        state = self.init_state(info)
        with self.letting_go(info.id):
            self.load_part(state.slot, saved["part"])
            state.marker.load(saved.get("marker") or Marker().save())  # older snapshots have none
            own = saved["own"]
            state.position, state.out.seq, state.out.epoch = int(own["position"]), int(own["seq"]), int(own["epoch"])
        return state

    def step(self, frame: Frame, state: VoiceState, input: str) -> Iterable[Frame]:  # noqa: A002
        """The sound of one frame's ticks.

        Raises:
            InputError: not whole ticks, more levels than the codec has, or tokens out of its range.
        """
        _ = input
        for codes in self._ticks(frame):
            yield self._sound(self.engine.decode({state.slot: codes})[state.slot], frame, state)
        yield from self._ends(frame, state)

    def step_many(self, batch: Sequence[tuple[Frame, VoiceState, str]]) -> Sequence[Iterable[Frame]]:
        """Sessions that have one tick each are stepped by one call of the engine."""
        if len(batch) == 1 or any(frame.shape[0] > self.parts.frames_per_tick for frame, _, _ in batch):
            return super().step_many(batch)
        ticks: dict[int, npt.NDArray[np.int64]] = {}
        refused: dict[int, Iterator[Frame]] = {}
        for frame, state, _ in batch:
            try:
                for codes in self._ticks(frame):
                    ticks[state.slot] = codes
            except InputError as error:
                refused[state.slot] = refusing(error)
        done = self.engine.decode(ticks) if ticks else {}
        return [refused.get(state.slot) or self._after(done.get(state.slot), frame, state) for frame, state, _ in batch]

    def _after(self, sound: Samples | None, frame: Frame, state: VoiceState) -> Iterator[Frame]:
        if sound is not None:
            yield self._sound(sound, frame, state)
        yield from self._ends(frame, state)

    def _ends(self, frame: Frame, state: VoiceState) -> Iterator[Frame]:
        state.out.follow(frame)
        if frame.turns:
            yield state.out.turn(state.position, generated=not frame.flags & HEARD)
        if frame.last:
            yield state.out.end(state.position)

    def _sound(self, sound: Samples, frame: Frame, state: VoiceState) -> Frame:
        state.out.follow(frame)
        generated = not frame.flags & HEARD
        sound = state.marker.pass_on(sound, mark=generated and state.out.info.watermark)
        made = state.out.frame(sound, state.position, generated=generated, **role_of(frame))
        state.position += TICK
        return made

    def _ticks(self, frame: Frame) -> npt.NDArray[np.int64]:
        """The tokens of a frame as `[ticks, 2, levels]`, checked."""
        per, config = self.parts.frames_per_tick, self.parts.codec.config
        if not frame.payload:
            return np.zeros((0, per, 1), np.int64)
        tokens = frame.array.astype(np.int64)
        if len(tokens) % per or tokens.shape[1] > config.levels:
            expected = f"[{per} x ticks, up to {config.levels}]"
            raise InputError(f"node {self.name!r} takes tokens {expected}, {list(frame.shape)} came")
        if tokens.max() >= config.cardinality:
            message = f"node {self.name!r} takes tokens from 0 to {config.cardinality - 1}, {tokens.max()} came"
            raise InputError(message + "; they are of another model")
        return tokens.reshape(-1, per, tokens.shape[1])
