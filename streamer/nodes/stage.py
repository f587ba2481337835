"""What the three stages of a graph share: sampling, control, lost frames, snapshots, and stepping sessions together.

What a stage does at a position is `audiolm.runner`; here frames go in and come out. It knows nothing of which stage it
is: `streamer.nodes.stages` has the three.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from audiolm.errors import AudioLMError, EngineError
from audiolm.runner import Emitted, StageRunner, drive
from audiolm.sampler import Sampling
from streamer.errors import ConfigError, InputError
from streamer.frame import ACOUSTIC, CONTROL, Frame
from streamer.node import Build, Mode, Saved, SessionInfo
from streamer.nodes.feed import logger, says_it_as_ours
from streamer.nodes.model import FRAME_SAMPLES, SAMPLING, ModelNode, ModelSettings, refusing, sampling_of
from streamer.nodes.outlet import Outlet

__all__ = ["StageNode", "StageSettings", "StageState"]


class StageSettings(ModelSettings):
    """How a stage samples; what is not given is the bundle's."""

    temperature: float | None = Field(default=None, ge=0, le=10, description="divides the logits; 0 is greedy")
    top_k: int | None = Field(default=None, ge=0, description="keep the k likeliest tokens; 0: all")
    top_p: float | None = Field(default=None, gt=0, le=1, description="keep the likeliest tokens of this mass; 1: all")
    guidance: float | None = Field(
        default=None, ge=0, le=20, description="classifier-free guidance; 1: off, and costs nothing"
    )


@dataclass
class StageState:
    """What a stage remembers of one session.

    Attributes:
        ended: inputs that have ended.
        ticks: heard and continued so far.
        due: input -> the frame that comes next by its position; what is skipped is lost.
        pending: of the fine stage, the coarse tokens of frames in the making.
        done: finished frames of a tick that is not whole yet.
        generating: the turn is the model's: what was heard before has ended, and what will be waits.
        still: of the fine stage, it does not step: there is no time for it.
        since: the first row (semantic) or frame (fine: of the coarse tokens) of what is heard again that was not begun
            before it was heard.
    """

    slot: int
    out: Outlet
    runner: StageRunner
    ended: set[str] = field(default_factory=set)
    ticks: int = 0
    due: dict[str, int] = field(default_factory=dict)
    pending: dict[int, npt.NDArray[np.int64]] = field(default_factory=dict)
    done: list[Emitted] = field(default_factory=list)
    generating: bool = False
    since: int = 0
    still: bool = False


class StageNode(ModelNode):
    """What the three stages share: take what came, run every row that is possible, give what is finished."""

    merge = "arrival"
    commands = ("set",)
    modes: ClassVar[tuple[Mode, ...]] = ("continue", "duet", "dream", "acoustic_only", "resynthesize")
    hears: ClassVar[str] = ACOUSTIC
    Config = StageSettings
    config: StageSettings

    def __init__(self, config: StageSettings, build: Build) -> None:
        """Load the model and settle how this stage samples."""
        super().__init__(config, build)
        self.spec = self.parts.stages[self.part].spec
        self.sampling = sampling_of(self.parts.sampling[self.part], config.model_dump())
        if self.sampling.guidance != 1:
            self.shared.guided.add(self.part)

    @classmethod
    def check_mode(cls, name: str, mode: Mode, inputs: Iterable[str] = ()) -> None:
        """Refuse a mode that this stage has no part in.

        Raises:
            ConfigError: with the config that does have that mode.
        """
        if mode not in cls.modes:
            message = f"node {name!r} knows the modes {', '.join(cls.modes)}, not {mode!r}"
            raise ConfigError(f"{message}; use the config {mode}_file.yaml, or one without this node")
        if mode == "dream" and cls.hears in inputs:
            message = f"mode 'dream' hears nothing, but {cls.hears} frames lead to node {name!r}"
            raise ConfigError(message + "; use the config dream.yaml, or mode 'continue'")

    def make_runner(self, info: SessionInfo) -> StageRunner:
        """The rows of this stage."""
        return StageRunner(self.spec, info.seed)

    def init_state(self, info: SessionInfo) -> StageState:
        """A fresh stream in the session's slot."""
        self.check_mode(self.name, info.mode, info.inputs)
        runner = self.make_runner(info)
        slot = self.shared.acquire(info.id)
        self.engine.set_sampling(slot, self.part, self.sampling)
        return StageState(slot, Outlet(info, next(iter(self.emits))), runner)

    def close(self, state: StageState) -> None:
        """Give the slot back."""
        if state.runner.late:
            state.out.info.metrics.counters[f"{self.name}.late_frames"] = state.runner.late
        self.shared.release(state.out.info.id)

    def position(self, state: StageState) -> int:
        """Where the next frame will sound, in samples: when a change at that place is due."""
        return (state.runner.row - self.spec.span) * FRAME_SAMPLES

    # -- a step --

    def step(self, frame: Frame, state: StageState, input: str) -> Iterable[Frame]:  # noqa: A002
        """Take a frame; give what is finished then.

        Raises:
            InputError: tokens of another model, or far from their place.
        """
        return self.step_many([(frame, state, input)])[0]

    def step_many(self, batch: Sequence[tuple[Frame, StageState, str]]) -> Sequence[Iterable[Frame]]:
        """One step of several sessions: one call of the engine a row for all of them."""
        refused: dict[int, Iterable[Frame]] = {}
        for frame, state, name in batch:
            try:
                with says_it_as_ours():
                    self._begin(frame, state, name)
            except InputError as error:
                refused[state.slot] = refusing(error)
        states = [state for frame, state, _ in batch if frame.kind != CONTROL and state.slot not in refused]
        done = drive(self.engine, self.part, [(state.slot, state.runner) for state in states])
        return [
            refused.get(state.slot) or self._finish(frame, state, done.get(state.slot, [])) for frame, state, _ in batch
        ]

    def _begin(self, frame: Frame, state: StageState, name: str) -> None:
        if frame.kind == CONTROL:
            self.control(frame, state)
            return
        state.out.follow(frame)
        if frame.heard and frame.payload:
            state.out.info.metrics.mark("prompt_end", again=True)
        self.take(frame, state)
        if frame.last:
            state.ended.add(name)

    def _finish(self, frame: Frame, state: StageState, done: list[Emitted]) -> Iterable[Frame]:
        return () if frame.kind == CONTROL else self.give(frame, state, done)

    @abstractmethod
    def take(self, frame: Frame, state: StageState) -> None:
        """Hand the tokens of a frame to the runner."""

    @abstractmethod
    def give(self, frame: Frame, state: StageState, done: list[Emitted]) -> Iterable[Frame]:
        """The frames that follow from `frame`, which was taken; `done` is what the runner finished then."""

    def begin(self, frame: Frame, state: StageState) -> None:
        """Where `frame` ends what is heard, the ticks that wait may be made from now on."""
        if frame.turns or frame.last:
            state.out.info.load.begin()

    def is_open(self, state: StageState, name: str) -> bool:
        """Whether an input is connected and goes on."""
        return name in state.out.info.inputs and name not in state.ended

    def placed(
        self, frame: Frame, state: StageState, size: int, levels: int, mask: int
    ) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        """`(number, tokens [levels])` of every item of a frame; first mask tokens for those that were lost before it.

        Args:
            frame: the frame; empty ones have no items.
            state: the session's.
            size: samples of one item.
            levels: codebooks it must have.
            mask: the token that stands for a lost one.
        """
        if not frame.payload:
            return
        tokens = frame.array.astype(np.int64).reshape(frame.shape[0], -1)
        if tokens.shape[1] != levels:
            raise InputError(
                f"node {self.name!r} takes {frame.kind} frames of {levels} levels, {tokens.shape[1]} came; "
                "they are of another model"
            )
        first, due = frame.position // size, state.due.get(frame.kind, 0)
        for index in range(due, first):
            state.out.info.metrics.count(f"{self.name}.lost_frames")
            yield index, np.full(levels, mask, np.int64)
        yield from enumerate(tokens, first)
        state.due[frame.kind] = max(due, first + len(tokens))

    def control(self, frame: Frame, state: StageState) -> None:
        """`set` changes how this stage samples; `node` in its values names one stage, else all of them listen.

        None brings a setting back to the config's. What cannot be is counted and left out: a stream goes on.
        """
        values = dict(frame.meta)
        if values.pop("command", None) != "set" or values.pop("node", self.name) not in (self.name, self.part):
            return
        known = {key: getattr(self.sampling, key) if value is None else value for key, value in values.items()
                 if key in SAMPLING}  # fmt: skip
        now: Any = self.engine.sampling(state.slot, self.part)
        try:
            self.engine.set_sampling(state.slot, self.part, replace(now, **known))
        except AudioLMError as error:
            state.out.info.metrics.count(f"{self.name}.refused_controls")
            logger().warning("control", node=self.name, session=state.out.info.id, note=str(error))

    # -- snapshots --

    def save(self, state: StageState) -> Saved:
        """The runner, what it waits for, how it samples, and the part's tensors."""
        own = {
            "ended": sorted(state.ended), "ticks": state.ticks, "seq": state.out.seq, "epoch": state.out.epoch,
            "due": dict(state.due), "generating": state.generating, "since": state.since,
            "still": state.still,
        }  # fmt: skip
        pending = [[frame, *tokens.tolist()] for frame, tokens in state.pending.items()]
        done = [[e.frame, int(e.generated), *e.tokens.tolist()] for e in state.done]
        how = self.engine.sampling(state.slot, self.part)
        sampling = {name: getattr(how, name) for name in SAMPLING}
        part = self.engine.save_part(self.part, state.slot)
        return {
            "own": own, "runner": state.runner.save(), "pending": pending, "done": done,
            "sampling": sampling, "part": part,
        }  # fmt: skip

    def load(self, saved: Saved, info: SessionInfo) -> StageState:
        """The state again.

        Raises:
            ConfigError: it was saved by another model, or sampled with a guidance that this graph has no room for.
        """
        state = self.init_state(info)
        with self.letting_go(info.id):
            self.load_part(state.slot, saved["part"])
            try:
                self.engine.set_sampling(state.slot, self.part, Sampling(**saved["sampling"]))
                state.runner.load(saved["runner"])
            except EngineError as error:
                raise ConfigError(f"node {self.name!r}: {error}") from error
            own = saved["own"]
            state.ended, state.ticks, state.out.seq = set(own["ended"]), int(own["ticks"]), int(own["seq"])
            state.out.epoch, state.since = int(own["epoch"]), int(own["since"])
            state.generating, state.still = bool(own["generating"]), bool(own.get("still"))
            state.due = {str(name): int(index) for name, index in own["due"].items()}
            state.pending = {int(row[0]): np.asarray(row[1:], np.int64) for row in saved["pending"]}
            state.done = [Emitted(int(row[0]), np.asarray(row[2:], np.int64), bool(row[1])) for row in saved["done"]]
        return state
