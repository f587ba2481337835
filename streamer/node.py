"""What a node is: `Node` computes, `Source` and `Sink` are the asynchronous ends.

The contract of every stream: frames in the order of their positions, then exactly one frame with `LAST` (its payload
may be empty), then nothing. `control` alone has no `LAST`. This module knows no graph, lane or port.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from streamer.frame import Frame
from streamer.load import Load
from streamer.metrics import Metrics

Mode = Literal["continue", "duet", "resynthesize", "reconstruct", "dream", "acoustic_only"]
MODES: tuple[Mode, ...] = ("continue", "duet", "resynthesize", "reconstruct", "dream", "acoustic_only")
Inputs = Collection[str] | Mapping[str, Collection[str]]
State = Any  # whatever `init_state` returns; only its node looks inside
Saved = dict[str, Any]  # ndarrays, numbers, text, bytes, None, and dicts and lists of these


class Settings(BaseModel):
    """Base of every node's `Config`: unknown keys are errors, values never change, numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """What a node may know of the session it serves.

    Attributes:
        id: name of the session.
        mode: one of `MODES`.
        seed: of the noise.
        seconds: length of the continuation; None: until stopped.
        prompt_seconds: how much of the prompt is used; None: all.
        voice: file whose voice is forced before the start, or None.
        include_prompt: whether the output holds the decoded prompt.
        shed: whether something may be left out where paced ticks would come too late.
        watermark: whether generated sound is marked.
        metrics: the session's metrics; nodes may count and mark there.
        load: how late its paced ticks are, and what is left out of them.
        inputs: names of this node's inputs that are connected.
        extra: free values given by the program that opened the session.
    """

    id: str = "main"
    mode: Mode = "continue"
    seed: int = 0
    seconds: float | None = None
    prompt_seconds: float | None = None
    voice: str | None = None
    include_prompt: bool = True
    shed: bool = True
    watermark: bool = True
    metrics: Metrics = field(default_factory=Metrics, compare=False)
    load: Load = field(default_factory=Load, compare=False)
    inputs: frozenset[str] = frozenset()
    extra: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Build:
    """What a node may know of the graph it is built for.

    Attributes:
        name: the node's name in the config.
        bundle: name or path of the bundle, or None.
        engine: name of the engine; what `auto` turned out to be stands in `shared["engine"]` once a model is loaded.
        session: the session section of the config, as the defaults of every session.
        slots: how many sessions the graph should be ready for.
        base: folder that relative paths of the config start from.
        shared: one dict per graph, so that nodes can share a loaded model.
        live: a source of the graph goes by the wall clock, and is the clock of all that follows.
        mqtt: the `mqtt` section of the config (`streamer.settings.MqttSettings`), or None.
        instance: name of this program on the broker: what the section says, else the config's name.
    """

    name: str
    bundle: str | None = None
    engine: str = "auto"
    session: SessionInfo = field(default_factory=SessionInfo)
    slots: int = 1
    base: str = "."
    shared: dict[str, Any] = field(default_factory=dict, compare=False)
    live: bool = False
    mqtt: Any = None
    instance: str = "main"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the static checks need to know of one node with its settings, before it is built.

    Attributes:
        inputs: input name -> kinds it takes.
        emits: kinds it gives.
        optional: inputs that may stay unconnected.
        delay: samples at 16 kHz by which the output lags behind the input.
        lead: input -> samples by which it must be ahead of the others before they are taken.
        levels_in: input -> codebooks a frame must have, or (least, most).
        levels_out: kind -> codebooks a frame has.
        rates_in, rates_out: input or kind -> items a second; only what differs from the kind's usual rate.
        tick: samples of one frame on its edges, for capacities.
    """

    inputs: Mapping[str, frozenset[str]]
    emits: frozenset[str]
    optional: frozenset[str] = frozenset()
    delay: int = 0
    lead: Mapping[str, int] = field(default_factory=dict)
    levels_in: Mapping[str, int | tuple[int, int]] = field(default_factory=dict)
    levels_out: Mapping[str, int] = field(default_factory=dict)
    rates_in: Mapping[str, int] = field(default_factory=dict)
    rates_out: Mapping[str, int] = field(default_factory=dict)
    tick: int = 640


def named_inputs(accepts: Inputs) -> dict[str, frozenset[str]]:
    """`accepts` as a mapping: a bare collection of kinds means one input per kind, named after it."""
    if isinstance(accepts, Mapping):
        return {name: frozenset([kinds] if isinstance(kinds, str) else kinds) for name, kinds in accepts.items()}
    return {kind: frozenset([kind]) for kind in sorted(accepts)}


class End(ABC):  # noqa: B024 - its three children have the abstract methods
    """What nodes, sources and sinks have in common.

    Attributes:
        type_name: the name used in configs.
        accepts: kinds (one input per kind, named after it) or input name -> kinds.
        emits: kinds it gives.
        optional: inputs that may stay unconnected.
        delay: samples by which the output lags.
        merge: with several inputs, `position` steps them in the order of their positions, waiting for the one behind
            (the result then never depends on timing); `arrival` takes what is there.
        live: of a source or sink: it goes by the wall clock and ends only when it is told to (a microphone).
        commands: what control frames can tell it (`mute`, `set`), so that it is known which make sense for a graph.
        Config: its settings, a subclass of `Settings`.
    """

    type_name: ClassVar[str] = ""
    accepts: ClassVar[Inputs] = ()
    emits: ClassVar[Collection[str]] = ()
    optional: ClassVar[Collection[str]] = ()
    delay: ClassVar[int] = 0
    merge: ClassVar[Literal["position", "arrival"]] = "position"
    live: ClassVar[bool] = False
    commands: ClassVar[Collection[str]] = ()
    Config: ClassVar[type[BaseModel]] = Settings

    def __init__(self, config: Any, build: Build) -> None:
        """Load what is heavy here: this runs once per graph, after all checks, before anything starts."""
        self.config = config
        self.build = build
        self.name = build.name

    @classmethod
    def facts(cls, config: Any, build: Build) -> Facts:
        """What the checks must know. Override when it depends on the settings or the bundle; must be cheap."""
        _ = config, build
        return Facts(named_inputs(cls.accepts), frozenset(cls.emits), frozenset(cls.optional), cls.delay)

    @classmethod
    def is_live(cls, config: Any) -> bool:
        """Whether a source or sink with these settings goes by the wall clock. Override when they decide."""
        _ = config
        return cls.live

    def prepare(self) -> None:
        """Load what needs to know of all nodes: called once when every node of the graph is constructed."""
        return

    def shutdown(self) -> None:
        """Release what the whole graph shares; called once when the graph is closed."""
        return


class Node(End):
    """A synchronous step of computation. Its state belongs to the session; it does no I/O and hides nothing.

    Attributes:
        restorable: whether a restored session goes on as if nothing had been. Where a library keeps its state to
            itself, say False: `save` then gives what can be had, and without a `save` of its own the node begins anew.
    """

    restorable: ClassVar[bool] = True

    def init_state(self, info: SessionInfo) -> State:
        """The state of one new session."""
        _ = info
        return None

    @abstractmethod
    def step(self, frame: Frame, state: State, input: str) -> Iterable[Frame]:  # noqa: A002
        """Take one frame and give any number of frames.

        A generator is resumed only when every port behind it has room, so a burst of any size stays bounded and what
        is behind already works on the first frame while the second is made.

        Args:
            frame: the frame; must not be changed.
            state: this session's state, changed in place.
            input: name of the input it came in by.
        """

    def step_many(self, batch: Sequence[tuple[Frame, State, str]]) -> Sequence[Iterable[Frame]]:
        """One step of several sessions, in order. Override to batch; the default steps them one by one.

        What it raises ends every session of the batch, since whose fault it was cannot be told; what one of its
        iterables raises ends that session only. So what depends on one session's frame is best checked there.
        """
        return [self.step(frame, state, name) for frame, state, name in batch]

    def wants(self, state: State) -> frozenset[str] | None:
        """Names of the inputs it will take now; None: all. What it does not want waits in the bounded inbox.

        One name reads that input next, whatever else is there. Several names are merged as `merge` says, among those
        of them that have not ended. Control is always wanted.
        """
        _ = state
        return None

    def position(self, state: State) -> int | None:
        """The node's own clock in samples, which tells when a control frame is due; None: by the frames it took."""
        _ = state
        return None

    def save(self, state: State) -> Saved:
        """The state as arrays, numbers, text and bytes."""
        if state is None:
            return {}
        if isinstance(state, dict):
            return dict(state)
        msg = f"{type(self).__name__} keeps a {type(state).__name__} and must define save() and load()"
        raise TypeError(msg)

    def load(self, saved: Saved, info: SessionInfo) -> State:
        """The state again, from what `save` gave."""
        _ = info
        return saved or None

    def close(self, state: State) -> None:
        """Release what the state holds (a slot); called once per session, also after an error."""
        _ = state


class Source(End):
    """Where frames come from. One call of `frames` per session."""

    @abstractmethod
    def frames(self, ctx: SessionInfo) -> AsyncIterator[Frame]:
        """An async generator of frames, each stream ended by `LAST`; it must be the same again for a restore."""

    def save(self, ctx: SessionInfo) -> Saved:
        """What a restore needs beside the number of frames given so far; usually nothing."""
        _ = ctx
        return {}


class Sink(End):
    """Where frames end. `write` may wait: what feeds it then waits, or drops by the policy of its edge."""

    @abstractmethod
    async def write(self, frame: Frame, ctx: SessionInfo, input: str) -> None:  # noqa: A002
        """Take one frame, the `LAST` one included."""

    async def finish(self, ctx: SessionInfo) -> None:
        """Every input has ended: complete the output. Not called after an error."""
        _ = ctx

    async def abort(self, ctx: SessionInfo) -> None:
        """The session failed or was cancelled: leave nothing half written."""
        _ = ctx

    def save(self, ctx: SessionInfo) -> Saved:
        """What a restored session needs to go on writing."""
        _ = ctx
        return {}

    def load(self, saved: Saved, ctx: SessionInfo) -> None:
        """Go on from what `save` gave."""
        _ = saved, ctx
