"""One row of a stage by its two graphs, over the same state as the reference has.

The mask hides the entry that the new position will take (what lies there is a window old), the graph looks at the new
position beside the ring, and only then is it written into the ring.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from audiolm.attention import Ring, angles
from audiolm.compute.base import Mask
from audiolm.compute.onnx.running import Arrays, Bound
from audiolm.rows import RowBatch
from audiolm.runner import Row
from audiolm.sampler import Sampling, SamplingTensors
from audiolm.stage import Stage
from audiolm.streaming import State

NEVER = np.float32(-np.inf)


class StageSteps:
    """Steps one stage over one state.

    Args:
        stage: whose row is taken.
        state: of ``Stage.init_state``; its arrays are read and written where they lie.
        temporal: the loaded graph of a temporal step.
        rows: loaded graphs of a row's tokens, by how many levels they emit.
    """

    def __init__(self, stage: Stage, state: State, temporal: Any, rows: Mapping[int, Any]) -> None:
        self.state, self.spec, self.ring = state, stage.spec, stage.temporal.ring
        self.slots, self.copies = state["held"].shape[:2]
        self.held, self.last = state["held"].flatten(0, 1), state["last"].numpy()
        flat = {key: state[key].flatten(0, 1).numpy() for key in state if key not in ("held", "last")}
        sizes = {"R": self.slots * self.copies, "B": self.slots}
        self.temporal = Bound(temporal, flat, sizes)
        self.rows = {levels: Bound(loaded, {"h": self.temporal.outputs["h"]}, sizes) for levels, loaded in rows.items()}
        self.caches = [(flat[f"{name}.{i}"], self.temporal.outputs[f"new_{name}.{i}"])
                       for i in range(stage.spec.layers) for name in ("k", "v")]  # fmt: skip
        self._told: SamplingTensors | None = None
        self._all = np.arange(self.slots * self.copies)

    def row(self, batch: RowBatch, settings: SamplingTensors, active: Mask | None) -> np.ndarray[Any, Any]:
        """One row: tokens ``[slots, levels]`` int64."""
        self._advance(batch, active)
        tokens = self._emit(batch, settings) if batch.levels else batch.forced
        if active is None:
            self.last[:] = tokens
        else:
            self.last[active] = tokens[active]
        return tokens

    def _advance(self, batch: RowBatch, active: Mask | None) -> None:
        """One temporal step of all rows, its result in the bound ``h``."""
        x, copies = self.temporal.inputs, self.copies
        positions = batch.positions if copies == 1 else batch.positions.repeat(copies)
        on = active if active is None or copies == 1 else active.repeat(copies)
        x["last"][:] = self.last if copies == 1 else self.last.repeat(copies, 0)
        if "cond" in x:
            x["cond"][::copies] = batch.cond
            if copies == 2:
                x["cond"][1::2] = self.spec.cond_mask
        index = look(self.ring, self.held, positions, on, x)
        self.temporal.run()
        rows = self._all
        if on is not None:
            rows, index = rows[on], index[on]
        for cache, new in self.caches:
            cache[rows, :, index] = new[rows, :, 0]

    def _emit(self, batch: RowBatch, settings: SamplingTensors) -> np.ndarray[Any, Any]:
        """The row's tokens: the levels that some slot samples by a graph, those behind as they are forced."""
        levels = next(n for n in sorted(self.rows) if n >= batch.levels)
        graph = self.rows[levels]
        if self._told is not settings:
            for each in self.rows.values():
                tell(each.inputs, settings)
            self._told = settings
        x = graph.inputs
        x["u"][:] = batch.u[:, :levels]
        x["forced"][:] = np.where(batch.is_forced, batch.forced, -1)[:, :levels]
        tokens = graph.run()["tokens"]
        if levels == self.spec.levels:
            return tokens.copy()
        return np.concatenate((tokens, batch.forced[:, levels:]), 1)

    def teach(self, tokens: np.ndarray[Any, Any], cond: np.ndarray[Any, Any] | None) -> np.ndarray[Any, Any]:
        """Logits ``[T, levels, cardinality]`` of forced rows of a fresh stream; its row graph is a teacher's."""
        settings, levels = SamplingTensors([Sampling()]), self.spec.levels
        out = np.empty((*tokens.shape, self.spec.cardinality), np.float32)
        for i, forced in enumerate(tokens):
            row = Row(i, None if cond is None else cond[i], forced, np.ones(levels, np.bool_), None)
            batch = RowBatch(self.spec, 1, {0: row})
            batch.levels = levels
            self.row(batch, settings, None)
            out[i] = self.rows[levels].outputs["logits"][0]
        return out


def look(ring: Ring, held: Tensor, positions: np.ndarray[Any, Any], on: Mask | None, x: Arrays) -> Any:
    """Enter ``positions`` ``[R]`` into ``held``, fill in mask and angles, and return the entries that they take."""
    index, bias = ring.enter(held.numpy(), positions, on)
    bias[np.arange(len(index)), index] = NEVER
    x["bias"][:, 0, 0] = bias
    x["cos"][:, 0], x["sin"][:, 0] = angles(positions, ring.head_width)
    return index


def tell(x: Arrays, settings: SamplingTensors) -> None:
    """Write how the slots sample into the inputs of a graph."""
    x["divisor"][:] = settings.divisor.numpy()
    x["greedy"][:, 0] = settings.greedy.numpy()
    x["top_k"][:], x["top_p"][:] = settings.top_k.numpy(), settings.top_p.numpy()
    x["truncated"][...] = settings.any_top_k or settings.any_top_p
    if "guidance" in x:
        x["guidance"][:] = settings.guidance.numpy()
