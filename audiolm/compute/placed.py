"""A model placed on a device: its parts' steps without a way back to the host, for any slots of batched states.

:class:`Placed` knows how a part is stepped there and in which types; what is captured, and when a step is taken, is
for :mod:`audiolm.compute.device` and :mod:`audiolm.lockstep`.
"""

from collections.abc import Callable
from copy import copy, deepcopy
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from audiolm.compute.depth_kernel import Frame, PackedDepth
from audiolm.compute.fused import Kernels, find_kernels
from audiolm.compute.ring import begin, radians, through
from audiolm.depth import DepthTransformer
from audiolm.parts import Parts
from audiolm.sampler import MOST, SamplingTensors
from audiolm.stage import Pick, Stage, picker
from audiolm.streaming import State, assign
from audiolm.tokenizer import SemanticTokenizer

CACHES = ("k", "v")
Module = TypeVar("Module", bound=nn.Module)


@dataclass
class RowInputs:
    """One row of a stage in some slots, as tensors on the device.

    Attributes:
        positions: ``[B]`` int64; ``active`` ``[B]`` bool.
        forced, is_forced, u: ``[B, levels]`` int64, bool and float32.
        cond: ``[B, cond_levels]`` int64, None for a stage without.
        rows: ``[B]`` int64, whose they are; None: all slots in their order.
    """

    positions: Tensor
    active: Tensor
    forced: Tensor
    is_forced: Tensor
    u: Tensor
    cond: Tensor | None = None
    rows: Tensor | None = None


@dataclass(frozen=True)
class Types:
    """Number types: of the stages' weights, and of their caches of keys and values."""

    weights: torch.dtype = torch.float32
    caches: torch.dtype = torch.float32


class PlacedStage:
    """A stage on a device.

    Args:
        stage: the module, there already.
        types: of its weights and caches.
        kernels: for attention and frames.
    """

    def __init__(self, stage: Stage, types: Types, kernels: Kernels | None = None) -> None:
        self.module, self.spec, self.types = stage, stage.spec, types
        self.device = stage.tokens.offsets.device
        kernels = kernels or Kernels()
        self._attend = kernels.attend_for(stage.temporal.ring.head_width)
        self._emit = kernels.emit_for(stage.spec, types.weights)
        self._packed = PackedDepth(stage.depth, types.weights) if self._emit and stage.depth else None
        self._radians = radians(stage.temporal.ring, self.device)

    def init_state(self, guided: bool = False) -> State:
        """The state of one fresh stream."""
        made = self.module.init_state(1, guided)
        return {key: _cast(key, value, self.types.caches).to(self.device) for key, value in made.items()}

    def step(self, row: RowInputs, settings: SamplingTensors, state: State, levels: int | None = None) -> Tensor:
        """Take one row; ``[B, levels]`` int64 tokens. As :meth:`audiolm.stage.Stage.step`, on the device throughout."""
        guided = state["held"].shape[1] == 2
        pick = picker(row.forced, row.is_forced, row.u, settings, guided)
        if self._emit is not None and self._packed is not None and not guided and levels in (None, self.spec.levels):
            return self._step_fused(row, settings, state, pick, partial(self._emit, self._packed))
        return self._take(row, pick, state, levels)

    def _step_fused(
        self, row: RowInputs, settings: SamplingTensors, state: State, pick: Pick, emit: Callable[[Frame], Tensor]
    ) -> Tensor:
        """A row whose frame is emitted by one kernel.

        It knows no truncation. Where a slot wants that, its frame is emitted the long way as well, and the kernel's
        stands for all others, so that none notices what its neighbour wants.
        """
        last, module = self._last(row, state), self.module
        h = self._advance(module.conditioned(module.tokens(last), row.cond, guided=False), state, row.positions, row)
        depth: DepthTransformer = module.depth  # type: ignore[assignment]
        tokens = emit(Frame(depth.inputs(h), row.forced, row.is_forced, row.u, settings))
        if settings.any_top_k or settings.any_top_p:
            truncates = (settings.top_k < MOST) | (settings.top_p < 1)
            tokens = torch.where(truncates, depth.emit(h, pick), tokens)
        return self._keep(tokens, last, row, state)

    @staticmethod
    def _last(row: RowInputs, state: State) -> Tensor:
        return state["last"] if row.rows is None else state["last"][row.rows]

    @staticmethod
    def _keep(tokens: Tensor, last: Tensor, row: RowInputs, state: State) -> Tensor:
        """Write a row's tokens into the state of the active slots."""
        if row.rows is None:
            assign(state, "last", tokens, row.active)
        else:
            state["last"][row.rows] = torch.where(row.active[:, None], tokens, last)
        return tokens

    def teach(self, tokens: Tensor, cond: Tensor | None) -> Tensor:
        """Teacher-forced logits ``[T, levels, cardinality]`` of a fresh stream, step by step.

        ``tokens`` ``[T, levels]`` and ``cond`` ``[T, cond_levels]`` int64.
        """
        state, nothing = self.init_state(), torch.zeros(1, self.spec.levels, device=self.device)
        seen: list[Tensor] = []
        on = torch.ones(1, dtype=torch.bool, device=self.device)
        for t in range(len(tokens)):
            forced = tokens[t : t + 1]

            def pick(logits: Tensor, q: int, forced: Tensor = forced) -> Tensor:
                seen.append(logits.float())
                return forced[:, q]

            at = torch.full((1,), t, device=self.device)
            given = None if cond is None else cond[t : t + 1]
            self._take(RowInputs(at, on, forced, on[:, None], nothing, given), pick, state, None)
        return torch.cat(seen).view(len(tokens), self.spec.levels, -1)

    def _take(self, row: RowInputs, pick: Pick, state: State, levels: int | None) -> Tensor:
        guided = state["held"].shape[1] == 2
        last = self._last(row, state)

        def advance(x: Tensor, positions: Tensor) -> Tensor:
            return self._advance(self.module.conditioned(x, row.cond, guided), state, positions, row)

        tokens = self.module.make_row(
            row.forced, pick, last, advance, positions=row.positions, levels=levels, guided=guided
        )
        return self._keep(tokens, last, row, state)

    def _advance(self, x: Tensor, state: State, positions: Tensor, row: RowInputs) -> Tensor:
        """One temporal step of all rows; the state's two leading dimensions are seen as one."""
        each, rows, active = state["held"].shape[1], row.rows, row.active
        flat = {key: value.view(-1, *value.shape[2:]) for key, value in state.items() if key != "last"}
        if each > 1:
            positions, active = positions.repeat_interleave(each), active.repeat_interleave(each)
            rows = None if rows is None else (rows[:, None] * each + torch.arange(each, device=rows.device)).flatten()
        at = begin(
            self.module.temporal.ring,
            flat["held"],
            positions,
            active,
            rows=rows,
            radians=self._radians,
            dtype=self.types.caches,
        )
        return through(self.module.temporal, x, flat, at, self._attend)


class PlacedTokenizer:
    """The tokenizer on a device, in float32: its tokens are decisions."""

    def __init__(self, tokenizer: SemanticTokenizer) -> None:
        self.module = tokenizer
        self._radians = radians(tokenizer.ring, tokenizer.centroids.device)

    def step(self, x: Tensor, state: State, active: Tensor) -> Tensor:
        """One tick ``[B, tick]`` float32 -> ``[B]`` int64, as :meth:`SemanticTokenizer.step`."""
        module = self.module
        stacked = module.next_features(x, state, active)
        positions = state["heard"] - module.config.lookahead
        assign(state, "heard", state["heard"] + 1, active)
        ready = (positions >= 0) & active
        at = begin(
            module.ring,
            state["held"],
            positions.clamp_min(0),
            ready,
            rows=None,
            radians=self._radians,
            dtype=torch.float32,
        )
        return torch.where(ready, module.assign_clusters(module.run(stacked, state, at)), -1)


class Placed:
    """All parts on a device.

    Args:
        parts: the model; its own modules are used where they need no other device or type, copies elsewhere.
        device: where.
        types: of the stages; codec and tokenizer stay in float32.
        kernels: what replaces torch's operations; None: the best that are there.
    """

    def __init__(
        self, parts: Parts, device: torch.device, types: Types | None = None, kernels: Kernels | None = None
    ) -> None:
        self.parts, self.device, self.types = parts, device, types or Types()
        self.kernels = find_kernels(device) if kernels is None else kernels
        codec = _placed(parts.codec, device, torch.float32)
        self.encoder, self.decoder = codec.encoder, codec.decoder
        self.tokenizer = PlacedTokenizer(_placed(parts.tokenizer, device, torch.float32))
        self.stages = {
            name: PlacedStage(_placed(stage, device, self.types.weights), self.types, self.kernels)
            for name, stage in parts.stages.items()
        }

    def init_state(self, part: str, guided: bool = False) -> State:
        """The state of one fresh stream of a part, on the device."""
        if part in self.stages:
            return self.stages[part].init_state(guided)
        module = {"encoder": self.encoder, "decoder": self.decoder, "tokenizer": self.tokenizer.module}[part]
        return {key: value.to(self.device) for key, value in module.init_state(1).items()}

    def step(self, part: str, x: Tensor, state: State, active: Tensor) -> Tensor:
        """One step of the encoder, tokenizer or decoder."""
        out: Tensor = getattr(self, part).step(x, state, active)
        return out


def narrowed(settings: SamplingTensors, rows: Tensor | slice) -> SamplingTensors:
    """The settings of some slots."""
    some = copy(settings)
    for name, value in vars(settings).items():
        if isinstance(value, Tensor):
            setattr(some, name, value[rows])
    return some


def fill(settings: SamplingTensors, new: SamplingTensors) -> None:
    """Write ``new`` into the tensors of ``settings``, which a graph reads; the flags must be alike."""
    for name, value in vars(settings).items():
        if isinstance(value, Tensor):
            value.copy_(getattr(new, name))


def _cast(key: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if key.partition(".")[0] in CACHES else value


def _placed(module: Module, device: torch.device, dtype: torch.dtype) -> Module:
    if all(value.device == device and value.dtype == dtype for value in module.parameters()):
        return module
    return deepcopy(module).to(device, dtype)
