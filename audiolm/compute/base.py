"""The interface behind which a model's parts are stepped. It knows nothing of sessions, slots' owners or threads."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from audiolm.parts import Parts
from audiolm.rows import RowBatch
from audiolm.sampler import Sampling, SamplingTensors
from audiolm.streaming import State

Array = np.ndarray[Any, Any]
Mask = npt.NDArray[np.bool_]


class Compute(ABC):
    """Steps the parts of one model over batched states.

    States have the same names, shapes and types under every engine, so a state that one has saved another can load.
    Slots are independent: what a step gives for one does not depend on what stands in the others.

    Attributes:
        name: as in the config's ``engine``.
        device: where the states live.
    """

    name: str
    device: torch.device = torch.device("cpu")

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def init_state(self, part: str, slots: int, guided: bool = False) -> State:
        """The state of ``slots`` fresh streams; ``guided`` stages keep a second cache row a slot."""
        if part in self.parts.stages:
            return self.parts.stages[part].init_state(slots, guided)
        return self.parts.module(part).init_state(slots)

    def fresh(self) -> Self:
        """One more like this for another engine; what was loaded is shared, states are not."""
        return copy(self)

    def bind(self, part: str, state: State) -> None:
        """Told once for each part which state will be stepped, before the first step: time to prepare."""
        del part, state  # the reference needs no preparation

    def settings(self, sampling: Sequence[Sampling]) -> SamplingTensors:
        """How the slots sample, where this engine wants it."""
        return SamplingTensors(list(sampling), self.device)

    @abstractmethod
    def step(self, part: str, x: Array, state: State, active: Mask | None) -> Array:
        """One step of the encoder, tokenizer or decoder on ``x`` ``[slots, ...]``, changing ``state`` in place.

        ``active`` ``[slots]``; None means all. The others keep their state to the bit.
        """

    @abstractmethod
    def row(self, stage: str, batch: RowBatch, state: State, settings: SamplingTensors, active: Mask | None) -> Array:
        """One row of a stage: tokens ``[slots, levels]`` int64, changing ``state`` in place."""

    @abstractmethod
    def teach(self, stage: str, tokens: Array, cond: Array | None) -> Array:
        """This engine's teacher-forced logits ``[T, levels, cardinality]`` of the first ``T`` rows of a stream.

        ``tokens`` ``[T, levels]`` and ``cond`` ``[T, cond_levels]`` int64. It is for comparisons: no state changes.
        """
