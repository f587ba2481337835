"""The engine of ONNX Runtime: every part of a model as graphs, over the reference's own states.

What cannot be written as a graph (stages of the flat pattern) is stepped by torch, as the reference does.
"""

from collections.abc import Callable, Iterator
from typing import Self

from audiolm.compute.base import Array, Compute, Mask
from audiolm.compute.eager import TorchCompute
from audiolm.compute.onnx.codec import decoder_graph, encoder_graph
from audiolm.compute.onnx.graph import Precision
from audiolm.compute.onnx.modules import ModuleSteps
from audiolm.compute.onnx.running import session
from audiolm.compute.onnx.stages import row_graph, supported, temporal_graph
from audiolm.compute.onnx.stepping import StageSteps
from audiolm.compute.onnx.store import Store
from audiolm.compute.onnx.tokenizer import tokenizer_graph
from audiolm.parts import Parts
from audiolm.rows import RowBatch
from audiolm.sampler import SamplingTensors
from audiolm.stage import StageSpec
from audiolm.streaming import State

# The ears stay in float32: a rounded latent is another code.
EXACT = ("encoder", "tokenizer")


class OnnxCompute(Compute):
    """Graphs in float32, or with the matrices of stages and decoder in int8.

    Args:
        parts: the model.
        precision: ``fp32`` or ``int8``.
        store: where graphs are kept; the user's cache when None.
    """

    def __init__(self, parts: Parts, precision: Precision = "int8", store: Store | None = None) -> None:
        super().__init__(parts)
        self.name = "onnx" if precision == "fp32" else "onnx-int8"
        self.precision: Precision = precision
        self.store = store or Store(parts.name, parts.fingerprint)
        self._torch = TorchCompute(parts)
        self._stages: dict[str, StageSteps] = {}
        self._modules: dict[str, ModuleSteps] = {}

    def fresh(self) -> Self:
        """One more, with the same loaded graphs, bound to nothing yet."""
        made = super().fresh()
        made._stages, made._modules = {}, {}  # noqa: SLF001 - of its own kind
        return made

    def bind(self, part: str, state: State) -> None:
        """Load the graphs of a part and bind them to the state that will be stepped."""
        if part not in self.parts.stages:
            loaded = self.store.load(*self._module(part))
            self._modules[part] = ModuleSteps(part, self.parts.module(part), state, loaded)
        elif supported(self.parts.stages[part]):
            self._stages[part] = self._stage(part, state)

    def step(self, part: str, x: Array, state: State, active: Mask | None) -> Array:
        """One step of the encoder, tokenizer or decoder."""
        del state  # it is bound
        return self._modules[part].step(x, active)

    def row(self, stage: str, batch: RowBatch, state: State, settings: SamplingTensors, active: Mask | None) -> Array:
        """One row of a stage."""
        if stage not in self._stages:
            return self._torch.row(stage, batch, state, settings, active)
        return self._stages[stage].row(batch, settings, active)

    def teach(self, stage: str, tokens: Array, cond: Array | None) -> Array:
        """Teacher-forced logits, row by row through the very graphs that are run live."""
        module = self.parts.stages[stage]
        if not supported(module):
            return self._torch.teach(stage, tokens, cond)
        temporal = session(temporal_graph(module, self.precision))
        row = session(row_graph(module, self.precision, module.spec.levels, guided=False, teacher=True))
        steps = StageSteps(module, self.init_state(stage, 1), temporal, {module.spec.levels: row})
        return steps.teach(tokens, cond)

    # -- graphs --

    def _module(self, part: str) -> tuple[str, Callable[[], bytes]]:
        precision: Precision = "fp32" if part in EXACT else self.precision
        makers: dict[str, Callable[[], bytes]] = {
            "encoder": lambda: encoder_graph(self.parts.codec.encoder, precision),
            "decoder": lambda: decoder_graph(self.parts.codec.decoder, precision),
            "tokenizer": lambda: tokenizer_graph(self.parts.tokenizer, precision),
        }
        return f"{part}-{precision}", makers[part]

    def _stage(self, name: str, state: State) -> StageSteps:
        stage, precision = self.parts.stages[name], self.precision
        guided = state["held"].shape[1] == 2
        temporal = self.store.load(f"{name}-temporal-{precision}", lambda: temporal_graph(stage, precision))
        rows = {
            levels: self.store.load(
                f"{name}-row{levels}{'-guided' * guided}-{precision}",
                lambda levels=levels: row_graph(stage, precision, levels, guided=guided),  # type: ignore[misc]
            )
            for levels in rungs(stage.spec)
        }
        return StageSteps(stage, state, temporal, rows)

    def graphs(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """Every graph by name, with what writes it (those with guidance apart): for an export."""
        for part in ("encoder", "tokenizer", "decoder"):
            yield self._module(part)
        for name, stage in self.parts.stages.items():
            if supported(stage):
                yield f"{name}-temporal-{self.precision}", lambda stage=stage: temporal_graph(stage, self.precision)  # type: ignore[misc]
                for levels in rungs(stage.spec):
                    make = lambda stage=stage, n=levels: row_graph(stage, self.precision, n, guided=False)  # noqa: E731
                    yield f"{name}-row{levels}-{self.precision}", make


def rungs(spec: StageSpec) -> list[int]:
    """Numbers of levels that a stage has a graph for: all, and where there are many also fewer by halves.

    A row that samples fewer levels, as under load, then costs less.
    """
    found = [spec.levels]
    while found[-1] > 4 or (len(found) > 1 and found[-1] > 1):
        found.append(found[-1] // 2)
    return found
