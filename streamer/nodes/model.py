"""The model behind the nodes of a graph: loaded once, one engine, one slot a session.

Everything that the model nodes share is here; what each does is in `ears` and `stages`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from audiolm.bundle import load_bundle, read_config
from audiolm.compute.choose import make_compute, resolve
from audiolm.engine import Engine, prepare_thread
from audiolm.errors import AudioLMError, EngineError
from audiolm.parts import Parts
from audiolm.runner import Emitted
from audiolm.sampler import Sampling
from streamer.errors import ConfigError, InputError
from streamer.frame import Frame
from streamer.node import Build, Node, Settings

FRAME_SAMPLES = 320  # samples of one 50 Hz frame
SAMPLING = ("temperature", "top_k", "top_p", "guidance")  # what a stage samples by


class ModelSettings(Settings):
    """What every model node takes."""

    bundle: str | None = Field(default=None, description="name or path of a bundle; default: the config's")


@dataclass
class Shared:
    """One loaded model of a graph: its parts, its engine, and the slot of each session with how many nodes hold it.

    ``name`` is the engine's; what a graph's engine turned out to be stands in ``Build.shared["engine"]``.
    """

    parts: Parts
    slots: int
    name: str
    guided: set[str] = field(default_factory=set)
    held: dict[str, tuple[int, int]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    made: Engine | None = None

    @property
    def engine(self) -> Engine:
        """The engine; made when all nodes are constructed, since by then each has said whether it is guided."""
        if self.made is None:
            self.made = Engine(self.parts, self.slots, self.guided, make_compute(self.name, self.parts))
        return self.made

    def acquire(self, session: str) -> int:
        """The slot of a session; the first node of a session that asks opens it."""
        with self.lock:
            slot, count = self.held.get(session) or (self.engine.open(), 0)
            self.held[session] = (slot, count + 1)
            return slot

    def release(self, session: str) -> None:
        """The last node that lets go closes the slot."""
        with self.lock:
            slot, count = self.held.pop(session)
            if count > 1:
                self.held[session] = (slot, count - 1)
            else:
                self.engine.close(slot)


def bundle_of(config: ModelSettings, build: Build) -> str:
    """The bundle a node uses.

    Raises:
        ConfigError: none is named.
    """
    name = config.bundle or build.bundle
    if not name:
        message = f"node {build.name!r} needs a model"
        raise ConfigError(message + ": set `bundle` in the config or pass --bundle NAME_OR_PATH")
    return name


def describe(config: ModelSettings, build: Build) -> dict[str, Any]:
    """The `config.json` of a node's bundle, for the checks; no weights are read.

    Raises:
        ConfigError: there is no such bundle, or it is damaged.
    """
    try:
        return read_config(bundle_of(config, build))
    except AudioLMError as error:
        raise ConfigError(str(error)) from error


def shared_model(config: ModelSettings, build: Build) -> Shared:
    """The model of a node, loaded by the first node of the graph that needs it.

    Raises:
        ConfigError: the bundle cannot be used, or the engine is unknown.
    """
    try:
        build.shared["engine"] = resolve(build.engine)
    except AudioLMError as error:
        raise ConfigError(str(error), path="engine") from error
    name = bundle_of(config, build)
    models: dict[str, Shared] = build.shared.setdefault("models", {})
    if name not in models:
        prepare_thread()
        try:
            models[name] = Shared(load_bundle(name), build.slots, build.shared["engine"])
        except AudioLMError as error:
            raise ConfigError(str(error)) from error
    return models[name]


class ModelNode(Node):
    """A node that steps one part of the model; `part` is its name in the engine."""

    part: str
    config: ModelSettings

    def __init__(self, config: ModelSettings, build: Build) -> None:
        """Load the model, or find it loaded."""
        super().__init__(config, build)
        self.shared = shared_model(config, build)
        self.parts = self.shared.parts

    @property
    def engine(self) -> Engine:
        """The engine of the graph."""
        return self.shared.engine

    def prepare(self) -> None:
        """Make the engine now: the first session shall not wait for it.

        Raises:
            ConfigError: what the engine needs is not there.
        """
        try:
            self.shared.engine  # noqa: B018 - made when it is asked for
        except AudioLMError as error:
            raise ConfigError(str(error), path="engine") from error

    @contextmanager
    def letting_go(self, session: str) -> Iterator[None]:
        """Give the slot back when what follows fails: a state that was never made is never closed."""
        try:
            yield
        except Exception:
            self.shared.release(session)
            raise

    def load_part(self, slot: int, saved: dict[str, Any]) -> None:
        """Write the part's saved state into a slot.

        Raises:
            ConfigError: it was saved by another model.
        """
        try:
            self.engine.load_part(self.part, slot, {key: np.asarray(value) for key, value in saved.items()})
        except EngineError as error:
            raise ConfigError(f"node {self.name!r}: {error}") from error


def sampling_of(default: Sampling, info: dict[str, Any]) -> Sampling:
    """The bundle's sampling with the settings that are not None.

    Raises:
        ConfigError: a value out of range.
    """
    values = {name: getattr(default, name) if info.get(name) is None else info[name] for name in SAMPLING}
    try:
        return Sampling(**values)
    except AudioLMError as error:
        raise ConfigError(str(error)) from error


def stacked(frames: Iterable[Emitted]) -> npt.NDArray[np.int64]:
    """The tokens of finished frames as `[frames, levels]`."""
    return np.stack([frame.tokens for frame in frames])


def refusing(error: InputError) -> Iterator[Frame]:
    """Raises when its frames are asked for: so one session of a batch is refused, and the others go on."""
    return map(_raise, (error,))


def _raise(error: InputError) -> Frame:
    raise error
