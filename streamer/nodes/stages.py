"""The three stages as nodes: semantic, coarse and fine.

None of them needs its inputs in step: tokens carry positions and the runner lines them up. A node only says which
input it wants, so that what waits is bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from audiolm.runner import FOREVER, Emitted, StageRunner
from streamer.errors import ConfigError
from streamer.frame import ACOUSTIC, COARSE, CONTROL, FINE, SEMANTIC, TICK, Frame
from streamer.node import Build, Facts, Mode, SessionInfo, named_inputs
from streamer.nodes.model import FRAME_SAMPLES, describe, stacked
from streamer.nodes.outlet import role_of
from streamer.nodes.stage import StageNode, StageSettings, StageState

__all__ = ["CoarseNode", "FineNode", "SemanticNode"]

HELD = 64  # heard frames that the coarse stage holds until their conditioning comes; its lag is about 10
TICK_SAMPLES = 640


class SemanticNode(StageNode):
    """The semantic stage: forced on the tokens that are heard, and after their end one token a tick.

    The first tick also samples what the tokenizer still had to look ahead for, and runs L tokens ahead for the coarse
    stage. Live, the two take turns: what is heard again begins where the ticks have ended, and its first L tokens stay
    as they were sampled.
    """

    type_name = "semantic"
    accepts = (SEMANTIC, TICK, CONTROL)
    optional = (SEMANTIC, CONTROL)
    emits = (SEMANTIC,)
    part = "semantic"
    modes = ("continue", "duet", "dream")
    hears = SEMANTIC

    @classmethod
    def facts(cls, config: StageSettings, build: Build) -> Facts:
        """Nothing beyond what the class says; a mode without this stage is refused."""
        _ = config
        cls.check_mode(build.name, build.session.mode)
        return Facts(named_inputs(cls.accepts), frozenset(cls.emits), frozenset(cls.optional))

    def wants(self, state: StageState) -> frozenset[str]:
        """Ticks only when nothing more is heard: they are the permission to go on alone."""
        return frozenset([SEMANTIC if self.is_open(state, SEMANTIC) and not state.generating else TICK])

    def position(self, state: StageState) -> int:
        """Where the next tick will sound: the tokens themselves are sampled L tokens before."""
        return state.ticks * TICK_SAMPLES

    def take(self, frame: Frame, state: StageState) -> None:
        """Heard tokens, one more tick, or the end of either's turn."""
        if frame.kind == SEMANTIC:
            for index, tokens in self.placed(frame, state, TICK_SAMPLES, 1, self.spec.mask_token):
                if index >= state.since:
                    state.runner.hear(index, tokens)
            state.ticks = max(state.ticks, (frame.position + frame.samples) // TICK_SAMPLES)
            state.generating = frame.turns
            self.begin(frame, state)
        elif frame.samples:
            state.out.info.load.place(frame.position, state.ticks * TICK_SAMPLES)
            state.ticks += 1
            state.runner.sample_until(state.ticks + self.parts.ahead)
        if frame.kind == TICK and frame.turns:
            state.generating = False
            state.due[SEMANTIC] = state.since = state.runner.row

    def give(self, frame: Frame, state: StageState, done: list[Emitted]) -> Iterable[Frame]:
        """Tokens, heard and sampled, in the order of their positions; lost ones stay away."""
        for emitted in done:
            if emitted.tokens[0] != self.spec.mask_token:
                yield state.out.frame(emitted.tokens, emitted.frame * TICK_SAMPLES, generated=emitted.generated)
        if frame.turns and frame.kind == TICK:
            yield state.out.turn(state.ticks * TICK_SAMPLES, generated=True)
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
        cls.check_mode(build.name, build.session.mode)
        bundle = describe(config, build)
        levels = {ACOUSTIC: int(bundle["codec"]["levels"])}
        out = {COARSE: int(bundle["stages"]["coarse"]["levels"])}
        inputs = named_inputs(cls.accepts)
        return Facts(inputs, frozenset(cls.emits), frozenset(cls.optional), levels_in=levels, levels_out=out)

    @classmethod
    def check_mode(cls, name: str, mode: Mode, inputs: Iterable[str] = ()) -> None:
        """As every stage; and what drives it in this mode must be among the inputs, where they are known."""
        super().check_mode(name, mode, inputs)
        if inputs:
            cls._check_driven(name, mode, inputs)

    @staticmethod
    def _check_driven(name: str, mode: Mode, inputs: Iterable[str]) -> None:
        needed = TICK if mode == "acoustic_only" else SEMANTIC
        if needed not in inputs:
            message = f"node {name!r} needs {needed} frames in mode {mode!r}"
            raise ConfigError(message + "; connect an edge that brings them")

    def make_runner(self, info: SessionInfo) -> StageRunner:
        """Two rows a semantic token; on its own in mode `acoustic_only`. What is never heard may be sampled at once.

        Raises:
            ConfigError: neither semantic tokens nor a clock is connected.
        """
        conditioned = info.mode != "acoustic_only"
        self._check_driven(self.name, info.mode, info.inputs)
        runner = StageRunner(self.spec, info.seed, ratio=self.parts.frames_per_tick, conditioned=conditioned)
        if conditioned and ACOUSTIC not in info.inputs:
            runner.sample_until(FOREVER)
        return runner

    def wants(self, state: StageState) -> frozenset[str]:
        """What was heard as far as little of it waits, and semantic tokens as far as what was heard needs them.

        Those of the continuation wait for the end of what is heard, so that they always come one by one and a change
        of the sampling takes effect at its position, whichever input was faster.
        """
        wanted = set()
        hears = self.is_open(state, ACOUSTIC) and not state.generating
        if hears and state.runner.heard_ahead < HELD:
            wanted.add(ACOUSTIC)
        if not hears and self.is_open(state, TICK):
            wanted.add(TICK)
        if self.is_open(state, SEMANTIC) and not (
            hears and state.due.get(SEMANTIC, 0) >= state.ticks + self.parts.ahead
        ):
            wanted.add(SEMANTIC)
        return frozenset(wanted)

    def position(self, state: StageState) -> int:
        """Where the next frame is heard first: with a delay pattern, frames behind it read it too."""
        return super().position(state) - self.parts.stages["fine"].spec.span * FRAME_SAMPLES

    def take(self, frame: Frame, state: StageState) -> None:
        """What was heard, what it shall be like, one more tick, or the end of a turn."""
        runner, spec, per = state.runner, self.spec, self.parts.frames_per_tick
        if frame.kind == ACOUSTIC:
            levels = self.parts.codec.config.levels
            for index, codes in self.placed(frame, state, FRAME_SAMPLES, levels, spec.mask_token):
                runner.hear(index, codes[: spec.levels])
                state.ticks = max(state.ticks, index // per + 1)
            state.generating = frame.turns
            if not runner.conditioned:
                self.begin(frame, state)
            elif frame.last:
                runner.sample_until(FOREVER)
        elif frame.kind == SEMANTIC and runner.conditioned:
            for index, token in self.placed(frame, state, TICK_SAMPLES, 1, spec.cond_mask):
                runner.give(index, token)
                if state.generating:  # a token that was sampled L ahead lets the tick go on that it was sampled for
                    self._go_on(state, index - self.parts.ahead + 1)
                if self.build.live and state.out.info.mode == "resynthesize":  # there, a token is the permission
                    state.out.info.load.permit((index - self.parts.ahead) * TICK_SAMPLES, placed=True)
        elif frame.kind == TICK and frame.samples:
            state.out.info.load.place(frame.position, state.ticks * TICK_SAMPLES)
            self._go_on(state, state.ticks + 1)
        if frame.turns and frame.kind != ACOUSTIC:
            state.generating = False
            state.due[ACOUSTIC] = state.ticks * per

    def _go_on(self, state: StageState, ticks: int) -> None:
        """Let everything before tick `ticks` be sampled that was not heard."""
        state.ticks = max(state.ticks, ticks)
        state.runner.sample_until(ticks * self.parts.frames_per_tick + self.parts.stages["fine"].spec.span)

    def give(self, frame: Frame, state: StageState, done: list[Emitted]) -> Iterable[Frame]:
        """Generated frames, at most a tick at a time; what was heard is in the stage's memory only."""
        per = self.parts.frames_per_tick
        generated = [emitted for emitted in done if emitted.generated]
        for piece in (generated[i : i + per] for i in range(0, len(generated), per)):
            yield state.out.frame(stacked(piece), piece[0].frame * FRAME_SAMPLES, generated=True)
        if frame.turns and frame.kind != ACOUSTIC:
            yield state.out.turn(state.ticks * TICK_SAMPLES, generated=True, begun=state.runner.row)
        if frame.last and not any(self.is_open(state, name) for name in (ACOUSTIC, SEMANTIC, TICK)):
            yield state.out.end((state.runner.row - self.spec.span) * FRAME_SAMPLES)


class FineNode(StageNode):
    """The fine stage: the other levels given the coarse ones. Out come whole stacks, those heard and its own.

    Where paced ticks come too late (`streamer.load`), stacks of its own have fewer levels: the last ones are mask
    tokens for the stage, cost it nothing, and are cut off here. Is that not enough, it stands still: the coarse levels
    pass, and when it steps again it begins afresh, as training crops begin anywhere. What lies between would be a hole
    in its memory, and to catch up would cost most when there is least.
    """

    type_name = "fine"
    accepts = (COARSE, ACOUSTIC, CONTROL)
    optional = (ACOUSTIC, CONTROL)
    emits = (FINE,)
    part = "fine"

    @classmethod
    def facts(cls, config: StageSettings, build: Build) -> Facts:
        """Levels of the bundle."""
        cls.check_mode(build.name, build.session.mode)
        bundle = describe(config, build)
        codec, spec = int(bundle["codec"]["levels"]), bundle["stages"]["fine"]
        levels = {ACOUSTIC: codec, COARSE: int(spec["cond_levels"])}
        inputs, out = named_inputs(cls.accepts), {FINE: codec}
        return Facts(inputs, frozenset(cls.emits), frozenset(cls.optional), levels_in=levels, levels_out=out)

    def wants(self, state: StageState) -> frozenset[str]:
        """What was heard first, then the continuation, turn by turn: that is the order of their positions.

        With a delay pattern the coarse stage has begun frames that are then heard; they come while it listens.
        """
        if not self.is_open(state, ACOUSTIC) or state.generating:
            return frozenset([COARSE])
        return frozenset([ACOUSTIC, COARSE] if state.due.get(COARSE, 0) < state.since else [ACOUSTIC])

    def take(self, frame: Frame, state: StageState) -> None:
        """Whole stacks that were heard, or coarse tokens to make stacks of."""
        runner, split = state.runner, self.spec.cond_levels
        if frame.kind == ACOUSTIC:
            levels = self.parts.codec.config.levels
            for index, codes in self.placed(frame, state, FRAME_SAMPLES, levels, self.spec.mask_token):
                state.pending.pop(index, None)
                if not self._steps(index, state, safe=index >= state.since):
                    continue
                if index >= state.since:  # else the coarse stage had begun this frame before it was heard
                    runner.give(index, codes[:split])
                runner.hear(index, codes[split:])
            if frame.turns or frame.last:
                runner.sample_until(state.due.get(COARSE, 0))
                state.due[COARSE] = max(state.due.get(COARSE, 0), state.due.get(ACOUSTIC, 0))
                state.generating = frame.turns
            return
        for index, codes in self.placed(frame, state, FRAME_SAMPLES, split, self.spec.cond_mask):
            if self._steps(index, state, safe=self._goes_on(state)):
                runner.give(index, codes)
            if self._goes_on(state):
                runner.sample_until(index + 1)
            if index >= max(runner.row, state.due.get(ACOUSTIC, 0)) and codes[0] != self.spec.cond_mask:
                state.pending[index] = codes
        if frame.turns:
            state.generating = False
            state.due[ACOUSTIC], state.since = frame.position // FRAME_SAMPLES, int(frame.meta.get("begun") or 0)

    def _goes_on(self, state: StageState) -> bool:
        """Whether the turn is the model's."""
        return state.generating or not self.is_open(state, ACOUSTIC)

    def _steps(self, index: int, state: StageState, *, safe: bool) -> bool:
        """Whether the stage steps at a frame, with as many levels as there is time for.

        Args:
            index: the frame.
            state: the session's.
            safe: everything that the stage needs from this frame on will come, so that it may begin again here.
        """
        levels = state.out.info.load.levels(self.spec.levels)
        if not levels and not state.still:
            state.runner.restart(index)
            state.still = True
        elif levels and state.still and safe:
            self._begin_afresh(index, state)
        if levels:
            state.runner.sample_levels(levels)
        return not state.still

    def _begin_afresh(self, index: int, state: StageState) -> None:
        """Step again from the first frame on that has not been passed, `span` frames before the one that has come."""
        first = min(index, max(index - self.spec.span, state.due.get(ACOUSTIC, 0)))
        self.engine.reset_part(self.part, state.slot)
        state.runner.restart(first)
        state.still = False
        unknown = np.full(self.spec.cond_levels, self.spec.cond_mask)
        for frame in range(first, index):
            state.runner.give(frame, state.pending.get(frame, unknown))

    def position(self, state: StageState) -> int:
        """As of every stage; while it stands still, where it would be."""
        return self._reached(state) * FRAME_SAMPLES

    def _reached(self, state: StageState) -> int:
        if state.still:
            return max(state.due.get(COARSE, 0) - self.spec.span, state.due.get(ACOUSTIC, 0))
        return state.runner.row - self.spec.span

    def give(self, frame: Frame, state: StageState, done: list[Emitted]) -> Iterable[Frame]:
        """Whole stacks, a tick at a time."""
        yield from self._stacks(self._passed(state), state)
        if frame.kind == ACOUSTIC and frame.payload:
            state.out.info.load.done(frame.position)
            yield state.out.frame(frame.array, frame.position, generated=False, **role_of(frame))
        yield from self._stacks([e for e in done if e.generated and e.frame in state.pending], state)
        if frame.turns:
            yield state.out.turn(frame.position, generated=frame.kind == COARSE)
        if frame.last and frame.kind == COARSE:
            yield state.out.end(self._reached(state) * FRAME_SAMPLES)

    def _stacks(self, frames: Iterable[Emitted], state: StageState) -> Iterator[Frame]:
        """Finished frames in whole ticks, each with the levels that both of its frames have."""
        per = self.parts.frames_per_tick
        state.done += frames
        while len(state.done) >= per:
            tick, state.done = state.done[:per], state.done[per:]
            codes = np.stack([np.concatenate((state.pending.pop(e.frame), e.tokens)) for e in tick])
            levels, position = self._levels(codes), tick[0].frame * FRAME_SAMPLES
            state.out.info.load.done(position, codes[:, levels:].size)
            yield state.out.frame(codes[:, :levels], position, generated=True)

    def _levels(self, codes: npt.NDArray[np.int64]) -> int:
        """The leading levels of a tick that are there in all of its frames: a mask token never reaches the decoder."""
        left_out = (codes[:, self.spec.cond_levels :] == self.spec.mask_token).any(0)
        return self.spec.cond_levels + (int(left_out.argmax()) if left_out.any() else len(left_out))

    def _passed(self, state: StageState) -> list[Emitted]:
        """While the stage stands still: what the coarse stage has made, without anything more, when it would be due."""
        if not state.still:
            return []
        under_way = {e.frame for e in state.done}
        heard = FOREVER if self._goes_on(state) else state.due.get(ACOUSTIC, 0)
        end = min(state.due.get(COARSE, 0) - self.spec.span, heard)
        nothing = np.full(self.spec.levels, self.spec.mask_token)
        return [
            Emitted(frame, nothing, generated=True) for frame in sorted(set(state.pending) - under_way) if frame < end
        ]
