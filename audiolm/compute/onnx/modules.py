"""Encoder, tokenizer and decoder by their graphs, over the same state as the reference has.

It knows nothing of what the graphs compute, but for the tokenizer's positions, which the host counts.
"""

from typing import Any

import numpy as np

from audiolm.codec import CodecDecoder
from audiolm.compute.base import Array, Mask
from audiolm.compute.onnx.running import Bound
from audiolm.compute.onnx.stepping import look
from audiolm.streaming import State, StreamingModule
from audiolm.tokenizer import SemanticTokenizer

OWN = ("mel", "pitch", "features")  # states of the tokenizer that go on while there is no token yet


class ModuleSteps:
    """Steps one module over one state.

    Args:
        part: ``encoder``, ``tokenizer`` or ``decoder``.
        module: whose step is taken.
        state: of its ``init_state``; its arrays are read and written where they lie.
        loaded: the loaded graph of the module.
    """

    def __init__(self, part: str, module: StreamingModule, state: State, loaded: Any) -> None:
        self.part, self.module = part, module
        arrays = {name: tensor.numpy() for name, tensor in state.items()}
        self.slots = len(next(iter(arrays.values())))
        names = {end.name for end in loaded.get_inputs()}
        given = {name: array for name, array in arrays.items() if name in names}
        self.graph = Bound(loaded, given, {"B": self.slots, "R": self.slots})
        new = self.graph.outputs
        self.small = {name: (array, new[f"new.{name}"]) for name, array in given.items() if f"new.{name}" in new}
        self.rings = [(array, new[f"new_{name}"]) for name, array in given.items() if f"new_{name}" in new]
        self._all = np.arange(self.slots)
        self._positions = (state["held"], arrays["heard"]) if isinstance(module, SemanticTokenizer) else None

    def step(self, x: Array, active: Mask | None) -> Array:
        """One tick of all slots, as the module's own ``step``."""
        if isinstance(self.module, SemanticTokenizer):
            return self._tokens(self.module, x, active)
        entry = self.graph.inputs["x"]
        if isinstance(self.module, CodecDecoder):
            entry[..., x.shape[-1] :] = self.module.rvq.cardinality
            entry[..., : x.shape[-1]] = x
        else:
            entry[:] = x
        y = self.graph.run()["y"].copy()
        self._write(tuple(self.small), active)
        return y

    def _tokens(self, module: SemanticTokenizer, x: Array, active: Mask | None) -> Array:
        """The tokenizer's tick: tokens ``[slots]``, -1 while the look-ahead fills."""
        assert self._positions is not None  # noqa: S101 - for the type checker: a tokenizer has them
        held, heard = self._positions
        positions = heard - module.config.lookahead
        ready = positions >= 0 if active is None else (positions >= 0) & active
        on = None if ready.all() else ready
        inputs = self.graph.inputs
        inputs["x"][:] = x
        index = look(module.ring, held, positions.clip(0), on, inputs)
        y = np.where(ready, self.graph.run()["y"], -1)
        self._write(OWN, active)
        self._write(tuple(name for name in self.small if name not in OWN), on)
        rows = self._all if on is None else self._all[on]
        for ring, new in self.rings:
            ring[rows, :, index[rows]] = new[rows, :, 0]
        heard += 1 if active is None else active
        return y

    def _write(self, names: tuple[str, ...], active: Mask | None) -> None:
        """Write new states where the slots are active."""
        for name in names:
            if name in self.small:
                state, new = self.small[name]
                if active is None:
                    state[:] = new
                else:
                    state[active] = new[active]
