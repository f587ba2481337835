"""The ears and the mouth: sound to acoustic tokens, sound to semantic tokens, tokens to sound.

`acoustic` and `semantic_tokens` each have a door of their own, so that sound is made safe wherever it comes from; both doors see the
same samples and do the same to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from pydantic import Field

from audiolm.door import Door, DoorConfig, DoorState
from audiolm.errors import InputError as DoorError
from audiolm.ticks import TICK, Samples, TickAssembler
from streamer.errors import InputError
from streamer.frame import ACOUSTIC, AUDIO, FINE, HEARD, SEMANTIC, Frame
from streamer.node import Build, Facts, Saved, SessionInfo, named_inputs
from streamer.nodes.model import ModelNode, ModelSettings, Outlet, describe


class EarSettings(ModelSettings):
    """Settings of `acoustic` and `semantic_tokens`."""

    gain: Literal["auto", "off"] = Field(default="auto", description="bring the input to the level of the training data")


@dataclass
class EarState:
    """What an ear remembers of one session."""

    slot: int
    out: Outlet
    door: DoorState
    ticks: TickAssembler = field(default_factory=TickAssembler)
    heard: int = 0
    ended: bool = False


class Ear(ModelNode):
    """What both ears share: samples of any chunking to clean ticks."""

    accepts = (AUDIO,)
    Config = EarSettings
    config: EarSettings
    counts_door = False

    def __init__(self, config: EarSettings, build: Build) -> None:
        """Load the model and set the door."""
        super().__init__(config, build)
        self.door = Door(DoorConfig(gain=config.gain))

    def init_state(self, info: SessionInfo) -> EarState:
        """A fresh stream in the session's slot."""
        return EarState(self.shared.acquire(info.id), Outlet(info, next(iter(self.emits))), self.door.init_state())

    def close(self, state: EarState) -> None:
        """Give the slot back, and say what the door met."""
        if self.counts_door:
            for name, count in state.door.counts.as_dict().items():
                state.out.info.metrics.counters[f"door.{name}"] = count
        self.shared.release(state.out.info.id)

    def save(self, state: EarState) -> Saved:
        """Door, position and the part's tensors."""
        own = {"heard": state.heard, "ended": state.ended, "seq": state.out.seq, "ticks": state.ticks.save()}
        return {"own": own, "door": self.door.save(state.door), "part": self.engine.save_part(self.part, state.slot)}

    def load(self, saved: Saved, info: SessionInfo) -> EarState:
        """The state again."""
        state = self.init_state(info)
        self.load_part(state.slot, saved["part"])
        state.door = self.door.load({key: np.asarray(value) for key, value in saved["door"].items()})
        own = saved["own"]
        state.heard, state.ended, state.out.seq = int(own["heard"]), bool(own["ended"]), int(own["seq"])
        state.ticks.load({key: np.asarray(value) for key, value in own["ticks"].items()})
        return state

    def position(self, state: EarState) -> int:
        """Samples taken."""
        return state.heard * TICK

    def clean(self, frame: Frame, state: EarState) -> Iterator[Samples]:
        """The ticks that `frame` completes, through the door.

        Raises:
            InputError: sound at another rate.
        """
        if frame.rate != 16_000:
            raise InputError(f"node {self.name!r} takes sound at 16000 Hz, {frame.rate} Hz came; resample it at the source")
        try:
            for tick in state.ticks.push(frame.array):
                state.heard += 1
                yield self.door.step(tick, state.door)
        except DoorError as error:
            raise InputError(str(error)) from error


class AcousticNode(Ear):
    """Sound to acoustic tokens: `acoustic` `[2, levels]` a tick, heard.

    In mode `resynthesize` it takes the voice only (frames with `role: voice`); what is said comes by the semantic tokens.
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

    def step(self, frame: Frame, state: EarState, input: str) -> Iterable[Frame]:  # noqa: A002
        """One frame of tokens a tick."""
        _ = input
        if state.ended:
            return
        voice_over = state.out.info.mode == "resynthesize" and frame.payload and frame.meta.get("role") != "voice"
        if not voice_over:
            for tick in self.clean(frame, state):
                codes = self.engine.encode({state.slot: tick})[state.slot]
                yield state.out.frame(codes, (state.heard - 1) * TICK, generated=False)
        if frame.last or voice_over:
            state.ended = True
            yield state.out.end(state.heard * TICK)


class SemanticTokensNode(Ear):
    """Sound to semantic tokens: one a tick, `lookahead` ticks later.

    At the end of a prompt the tokens inside the look-ahead are left to the semantic stage, which samples them; the position of the `LAST`
    frame is where the prompt ends. In mode `resynthesize`
    there is no such stage, so silence is fed until the last tick of the input can be spoken.
    """

    type_name = "semantic_tokens"
    emits = (SEMANTIC,)
    part = "tokenizer"

    @classmethod
    def facts(cls, config: EarSettings, build: Build) -> Facts:
        """The bundle says how far it looks ahead."""
        return Facts(named_inputs(cls.accepts), frozenset(cls.emits), delay=int(describe(config, build)["tokenizer"]["lookahead"]) * TICK)

    def step(self, frame: Frame, state: EarState, input: str) -> Iterable[Frame]:  # noqa: A002
        """One token a tick."""
        _ = input
        for tick in self.clean(frame, state):
            yield from self._token(tick, state)
        if frame.last:
            if state.out.info.mode == "resynthesize":
                yield from self._flush(state)
            yield state.out.end(state.heard * TICK)

    def _token(self, tick: Samples, state: EarState) -> Iterator[Frame]:
        token = self.engine.listen({state.slot: tick})[state.slot]
        if token is not None:
            yield state.out.frame([token], (state.heard - 1 - self.parts.lookahead) * TICK, generated=False)

    def _flush(self, state: EarState) -> Iterator[Frame]:
        for _ in range(self.parts.lookahead + self.parts.ahead):
            state.heard += 1
            yield from self._token(self.door.step(np.zeros(TICK, np.float32), state.door), state)


@dataclass
class VoiceState:
    """What the decoder remembers of one session."""

    slot: int
    out: Outlet
    position: int = 0


class DecoderNode(ModelNode):
    """Tokens to sound: a tick of `fine` (or of `acoustic`, in mode `reconstruct`) to 640 samples, heard or generated as the tokens were."""

    type_name = "decoder"
    accepts = {"fine": (FINE, ACOUSTIC)}  # noqa: RUF012 - a class constant
    emits = (AUDIO,)
    part = "decoder"
    Config = ModelSettings

    @classmethod
    def facts(cls, config: ModelSettings, build: Build) -> Facts:
        """Any number of levels up to the codec's."""
        levels = int(describe(config, build)["codec"]["levels"])
        return Facts(named_inputs(cls.accepts), frozenset(cls.emits), levels_in={"fine": (1, levels)})

    def init_state(self, info: SessionInfo) -> VoiceState:
        """A fresh stream in the session's slot."""
        return VoiceState(self.shared.acquire(info.id), Outlet(info, AUDIO))

    def close(self, state: VoiceState) -> None:
        """Give the slot back."""
        self.shared.release(state.out.info.id)

    def save(self, state: VoiceState) -> Saved:
        """Position and the part's tensors."""
        own = {"position": state.position, "seq": state.out.seq}
        return {"own": own, "part": self.engine.save_part(self.part, state.slot)}

    def load(self, saved: Saved, info: SessionInfo) -> VoiceState:
        """The state again."""
        state = self.init_state(info)
        self.load_part(state.slot, saved["part"])
        state.position, state.out.seq = int(saved["own"]["position"]), int(saved["own"]["seq"])
        return state

    def step(self, frame: Frame, state: VoiceState, input: str) -> Iterable[Frame]:  # noqa: A002
        """The sound of one frame's ticks.

        Raises:
            InputError: not whole ticks, or more levels than the codec has.
        """
        _ = input
        per = self.parts.frames_per_tick
        if frame.shape[0] % per or (frame.payload and frame.shape[1] > self.parts.codec.config.levels):
            raise InputError(
                f"node {self.name!r} takes [{per} x ticks, up to {self.parts.codec.config.levels}] tokens, {list(frame.shape)} came"
            )
        for codes in frame.array.astype(np.int64).reshape(-1, per, frame.shape[1]) if frame.payload else ():
            sound = self.engine.decode({state.slot: codes})[state.slot]
            yield state.out.frame(sound, state.position, generated=not frame.flags & HEARD, **_role(frame))
            state.position += TICK
        if frame.last:
            yield state.out.end(state.position)


def _role(frame: Frame) -> dict[str, Any]:
    role = frame.meta.get("role")
    return {} if role is None else {"role": role}
