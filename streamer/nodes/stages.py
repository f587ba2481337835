"""The three stages as nodes. What each does at a position is `audiolm.runner`; here frames go in and come out.

None of them needs its inputs in step: tokens carry positions and the runner lines them up. A node only says which input it wants, so
that what waits is bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from audiolm.runner import FOREVER, Emitted, StageRunner, drive
from streamer.errors import ConfigError, InputError
from streamer.frame import ACOUSTIC, COARSE, CONTROL, FINE, SEMANTIC, TICK, Frame
from streamer.node import Build, Facts, Saved, SessionInfo, named_inputs
from streamer.nodes.model import FRAME_SAMPLES, ModelNode, ModelSettings, Outlet, describe, sampling_of, stacked

HELD = 64  # frames of one input that a stage holds while the other input catches up; the lag of the stages is about 10
TICK_SAMPLES = 640


class StageSettings(ModelSettings):
    """How a stage samples; what is not given is the bundle's."""

    temperature: float | None = Field(default=None, ge=0, le=10, description="divides the logits; 0 is greedy")
    top_k: int | None = Field(default=None, ge=0, description="keep the k likeliest tokens; 0: all")
    top_p: float | None = Field(default=None, gt=0, le=1, description="keep the likeliest tokens of this mass; 1: all")
    guidance: float | None = Field(default=None, ge=0, le=20, description="classifier-free guidance; 1: off, and costs nothing")


@dataclass
class StageState:
    """What a stage remembers of one session."""

    slot: int
    out: Outlet
    runner: StageRunner
    ended: set[str] = field(default_factory=set)
    ticks: int = 0  # heard and continued so far
    pending: dict[int, npt.NDArray[np.int64]] = field(default_factory=dict)  # fine: coarse tokens of frames in the making
    done: list[Emitted] = field(default_factory=list)  # finished frames of a tick that is not whole yet


class StageNode(ModelNode):
    """What the three stages share."""

    merge = "arrival"
    Config = StageSettings
    config: StageSettings

    def __init__(self, config: StageSettings, build: Build) -> None:
        """Load the model and settle how this stage samples."""
        super().__init__(config, build)
        self.spec = self.parts.stages[self.part].spec
        self.sampling = sampling_of(self.parts.sampling[self.part], config.model_dump())
        if self.sampling.guidance != 1:
            self.shared.guided.add(self.part)

    def make_runner(self, info: SessionInfo) -> StageRunner:
        """The rows of this stage."""
        return StageRunner(self.spec, info.seed)

    def init_state(self, info: SessionInfo) -> StageState:
        """A fresh stream in the session's slot."""
        slot = self.shared.acquire(info.id)
        self.engine.set_sampling(slot, self.part, self.sampling)
        return StageState(slot, Outlet(info, next(iter(self.emits))), self.make_runner(info))

    def close(self, state: StageState) -> None:
        """Give the slot back."""
        self.shared.release(state.out.info.id)

    def save(self, state: StageState) -> Saved:
        """The runner, what it waits for, and the part's tensors."""
        own = {"ended": sorted(state.ended), "ticks": state.ticks, "seq": state.out.seq}
        pending = [[frame, *tokens.tolist()] for frame, tokens in state.pending.items()]
        done = [[e.frame, int(e.generated), *e.tokens.tolist()] for e in state.done]
        part = self.engine.save_part(self.part, state.slot)
        return {"own": own, "runner": state.runner.save(), "pending": pending, "done": done, "part": part}

    def load(self, saved: Saved, info: SessionInfo) -> StageState:
        """The state again."""
        state = self.init_state(info)
        self.load_part(state.slot, saved["part"])
        state.runner.load(saved["runner"])
        own = saved["own"]
        state.ended, state.ticks, state.out.seq = set(own["ended"]), int(own["ticks"]), int(own["seq"])
        state.pending = {int(row[0]): np.asarray(row[1:], np.int64) for row in saved["pending"]}
        state.done = [Emitted(int(row[0]), np.asarray(row[2:], np.int64), bool(row[1])) for row in saved["done"]]
        return state

    def advance(self, state: StageState) -> list[Emitted]:
        """Every row that is possible now."""
        return drive(self.engine, self.part, [(state.slot, state.runner)])[state.slot]

    def note(self, frame: Frame, state: StageState) -> None:
        """Mark when the last of the prompt entered the stages."""
        if frame.heard and frame.payload:
            state.out.info.metrics.mark("prompt_end", again=True)

    def is_open(self, state: StageState, name: str) -> bool:
        """Whether an input is connected and goes on."""
        return name in state.out.info.inputs and name not in state.ended

    def control(self, frame: Frame, state: StageState) -> None:
        """`set` changes how this stage samples; `node` in its values names one stage, else all of them listen."""
        values = dict(frame.meta)
        if values.pop("command", None) != "set" or values.pop("node", self.name) not in (self.name, self.part):
            return
        known = {key: value for key, value in values.items() if key in StageSettings.model_fields}
        self.engine.set_sampling(state.slot, self.part, sampling_of(self.sampling, self.config.model_dump() | known))

    def ticks_of(self, frames: Iterable[Emitted], state: StageState) -> Iterator[list[Emitted]]:
        """Finished frames in whole ticks."""
        per = self.parts.frames_per_tick
        state.done += frames
        while len(state.done) >= per:
            tick, state.done = state.done[:per], state.done[per:]
            yield tick


def _tokens(frame: Frame) -> npt.NDArray[np.int64]:
    return frame.array.astype(np.int64)


def _check(node: StageNode, frame: Frame, levels: int) -> None:
    if frame.payload and frame.shape[1] != levels:
        raise InputError(f"node {node.name!r} takes {frame.kind} frames of {levels} levels, {frame.shape[1]} came")


class SemanticNode(StageNode):
    """The semantic stage: forced on the tokens that are heard, and after their end one token a tick.

    The first tick also samples what the tokenizer still had to look ahead for, and runs L tokens ahead for the coarse stage.
    """

    type_name = "semantic"
    accepts = (SEMANTIC, TICK, CONTROL)
    optional = (SEMANTIC, CONTROL)
    emits = (SEMANTIC,)
    part = "semantic"

    def wants(self, state: StageState) -> frozenset[str]:
        """Ticks only when nothing more is heard: they are the permission to go on alone."""
        return frozenset([SEMANTIC if self.is_open(state, SEMANTIC) else TICK])

    def step(self, frame: Frame, state: StageState, input: str) -> Iterable[Frame]:  # noqa: A002
        """Tokens, heard and sampled, in the order of their positions."""
        if frame.kind == CONTROL:
            self.control(frame, state)
            return
        self.note(frame, state)
        if frame.kind == SEMANTIC:
            first = frame.position // TICK_SAMPLES
            for i, token in enumerate(_tokens(frame)):
                state.runner.hear(first + i, [token])
            if frame.last:
                state.ticks = frame.position // TICK_SAMPLES
        elif frame.samples:
            state.ticks += 1
            state.runner.sample_until(state.ticks + self.parts.ahead)
        if frame.last:
            state.ended.add(input)
        for emitted in self.advance(state):
            yield state.out.frame(emitted.tokens, emitted.frame * TICK_SAMPLES, generated=emitted.generated)
        if frame.last and frame.kind == TICK:
            yield state.out.end(state.runner.row * TICK_SAMPLES)


class CoarseNode(StageNode):
    """The coarse stage: levels 1 to 4 given the semantic tokens; forced on what is heard, L tokens behind."""

    type_name = "coarse"
    accepts = (SEMANTIC, ACOUSTIC, TICK, CONTROL)
    optional = (SEMANTIC, ACOUSTIC, TICK, CONTROL)
    emits = (COARSE,)
    part = "coarse"

    @classmethod
    def facts(cls, config: StageSettings, build: Build) -> Facts:
        """Levels of the bundle; without semantic tokens (`acoustic_only`) the clock drives this stage."""
        bundle = describe(config, build)
        levels = {ACOUSTIC: int(bundle["codec"]["levels"])}
        out = {COARSE: int(bundle["stages"]["coarse"]["levels"])}
        return Facts(named_inputs(cls.accepts), frozenset(cls.emits), frozenset(cls.optional), levels_in=levels, levels_out=out)

    def make_runner(self, info: SessionInfo) -> StageRunner:
        """Two rows a semantic token; on its own in mode `acoustic_only`.

        Raises:
            ConfigError: neither semantic tokens nor a clock is connected.
        """
        conditioned = info.mode != "acoustic_only"
        needed = SEMANTIC if conditioned else TICK
        if needed not in info.inputs:
            raise ConfigError(f"node {self.name!r} needs {needed} frames in mode {info.mode!r}; connect an edge that brings them")
        return StageRunner(self.spec, info.seed, ratio=self.parts.frames_per_tick, conditioned=conditioned)

    def init_state(self, info: SessionInfo) -> StageState:
        """As every stage; what is never heard may be sampled from the start."""
        state = super().init_state(info)
        if info.mode == "acoustic_only":
            return state
        if ACOUSTIC not in info.inputs:
            state.runner.sample_until(FOREVER)
        return state

    def wants(self, state: StageState) -> frozenset[str]:
        """Whatever goes on and does not wait too long already."""
        wanted = set()
        if self.is_open(state, ACOUSTIC):
            wanted |= {ACOUSTIC} if state.runner.heard_ahead < HELD else set()
        elif self.is_open(state, TICK):
            wanted.add(TICK)
        if self.is_open(state, SEMANTIC) and state.runner.cond_ahead < HELD:
            wanted.add(SEMANTIC)
        return frozenset(wanted)

    def step(self, frame: Frame, state: StageState, input: str) -> Iterable[Frame]:  # noqa: A002
        """Generated frames, a tick at a time; what was heard is in the stage's memory only."""
        if frame.kind == CONTROL:
            self.control(frame, state)
            return
        self.note(frame, state)
        self._take(frame, state)
        if frame.last:
            state.ended.add(input)
        generated = (emitted for emitted in self.advance(state) if emitted.generated)
        for tick in self.ticks_of(generated, state):
            yield state.out.frame(stacked(tick), tick[0].frame * FRAME_SAMPLES, generated=True)
        if frame.last and not any(self.is_open(state, name) for name in (ACOUSTIC, SEMANTIC, TICK)):
            yield state.out.end(state.runner.row * FRAME_SAMPLES)

    def _take(self, frame: Frame, state: StageState) -> None:
        runner, per = state.runner, self.parts.frames_per_tick
        if frame.kind == ACOUSTIC:
            _check(self, frame, self.parts.codec.config.levels)
            first = frame.position // FRAME_SAMPLES
            for i, codes in enumerate(_tokens(frame)):
                runner.hear(first + i, codes[: self.spec.levels])
                state.ticks = max(state.ticks, (first + i) // per + 1)
            if frame.last and runner.conditioned:
                runner.sample_until(FOREVER)
        elif frame.kind == SEMANTIC and runner.conditioned:
            first = frame.position // TICK_SAMPLES
            for i, token in enumerate(_tokens(frame)):
                runner.give(first + i, [token])
        elif frame.kind == TICK and frame.samples:
            state.ticks += 1
            runner.sample_until(state.ticks * per)


class FineNode(StageNode):
    """The fine stage: the other levels given the coarse ones. Out come whole stacks: heard ones as they are, and its own."""

    type_name = "fine"
    accepts = (COARSE, ACOUSTIC, CONTROL)
    optional = (ACOUSTIC, CONTROL)
    emits = (FINE,)
    part = "fine"

    @classmethod
    def facts(cls, config: StageSettings, build: Build) -> Facts:
        """Levels of the bundle."""
        bundle = describe(config, build)
        codec, spec = int(bundle["codec"]["levels"]), bundle["stages"]["fine"]
        levels = {ACOUSTIC: codec, COARSE: int(spec["cond_levels"])}
        return Facts(
            named_inputs(cls.accepts), frozenset(cls.emits), frozenset(cls.optional), levels_in=levels, levels_out={FINE: codec}
        )

    def wants(self, state: StageState) -> frozenset[str]:
        """What was heard first, then the continuation: that is the order of their positions."""
        return frozenset([ACOUSTIC if self.is_open(state, ACOUSTIC) else COARSE])

    def step(self, frame: Frame, state: StageState, input: str) -> Iterable[Frame]:  # noqa: A002
        """Whole stacks, a tick at a time."""
        if frame.kind == CONTROL:
            self.control(frame, state)
            return
        self.note(frame, state)
        first = frame.position // FRAME_SAMPLES
        if frame.kind == ACOUSTIC:
            _check(self, frame, self.parts.codec.config.levels)
            self._hear(_tokens(frame), first, state)
            if frame.payload:
                yield state.out.frame(frame.array, frame.position, generated=False, **_role(frame.meta))
            self.advance(state)
        else:
            _check(self, frame, self.spec.cond_levels)
            yield from self._generate(_tokens(frame), first, state)
        if frame.last:
            state.ended.add(input)
        if frame.last and input == COARSE:
            yield state.out.end(state.runner.row * FRAME_SAMPLES)

    def _hear(self, codes: npt.NDArray[np.int64], first: int, state: StageState) -> None:
        split = self.spec.cond_levels
        for i, row in enumerate(codes):
            state.runner.give(first + i, row[:split])
            state.runner.hear(first + i, row[split:])

    def _generate(self, coarse: npt.NDArray[np.int64], first: int, state: StageState) -> Iterator[Frame]:
        for i, row in enumerate(coarse):
            state.runner.give(first + i, row)
            state.runner.sample_until(first + i + 1)
            state.pending[first + i] = row
        for tick in self.ticks_of((e for e in self.advance(state) if e.generated), state):
            codes = [np.concatenate((state.pending.pop(e.frame), e.tokens)) for e in tick]
            yield state.out.frame(np.stack(codes), tick[0].frame * FRAME_SAMPLES, generated=True)


def _role(meta: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": meta["role"]} if "role" in meta else {}
