"""The engine of an accelerator: static memory, masks, captured graphs and one copy out a step.

:class:`DeviceCompute` steps the parts for :class:`audiolm.engine.Engine`; a whole tick of many sessions in one graph is
:class:`audiolm.lockstep.Lockstep`. On a CPU it runs the same operations without capturing them, which is how it is
tested: with the default types its tokens and sound there are those of eager torch, to the bit.

Bits depend on how many slots a step takes, so every step takes them all. ``buckets`` lets few sessions of a large
engine step fewer; what a session makes then depends on how high the highest slot is.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from audiolm.compute.base import Array, Compute, Mask
from audiolm.compute.fused import Kernels
from audiolm.compute.graphs import Captured, Inlet, Outlet, full_state
from audiolm.compute.placed import Placed, RowInputs, Types, fill, narrowed
from audiolm.errors import EngineError
from audiolm.parts import Parts
from audiolm.rows import RowBatch
from audiolm.sampler import Sampling, SamplingTensors
from audiolm.streaming import State


def find_device(device: str | torch.device) -> torch.device:
    """The device of that name, with its index.

    Raises:
        EngineError: it is a GPU, and torch sees none.
    """
    found = torch.device(device)
    if found.type == "cuda" and not torch.cuda.is_available():
        raise EngineError(
            f"engine 'cuda' needs an NVIDIA GPU and a torch built for it; torch {torch.__version__} sees none. "
            "Choose another engine, or install torch for CUDA (https://pytorch.org)",
            device=str(device),
        )
    return torch.device("cuda", found.index or 0) if found.type == "cuda" else found


@dataclass
class Program:
    """One captured step of one state: what goes in, what comes out.

    ``state`` is held so that nobody else gets its identity. ``settings`` are those that the graph reads, ``loaded``
    those last written there.
    """

    state: State
    inlet: Inlet
    mask: Inlet
    outlet: Outlet
    run: Captured
    settings: SamplingTensors | None = None
    loaded: SamplingTensors | None = None


class RowLayout:
    """One row of every slot as one int64 matrix ``[slots, columns]``: one copy in."""

    def __init__(self, levels: int, cond_levels: int) -> None:
        self.widths = [1, levels, levels, levels, cond_levels]  # positions, forced, is_forced, u's bits, cond

    def pack(self, batch: RowBatch) -> Array:
        """The columns side by side."""
        bits = batch.u.view(np.int32)
        return np.concatenate((batch.positions[:, None], batch.forced, batch.is_forced, bits, batch.cond), 1)

    def unpack(self, packed: Tensor, active: Tensor) -> RowInputs:
        """The columns as what they are."""
        positions, forced, is_forced, bits, cond = torch.split(packed, self.widths, 1)
        u = bits.to(torch.int32).view(torch.float32)
        return RowInputs(positions[:, 0], active, forced, is_forced != 0, u, cond if self.widths[-1] else None)


class DeviceCompute(Compute):
    """See the module's text.

    Args:
        parts: the model.
        device: where; ``cpu`` is for tests.
        types: of the stages' weights and caches.
        buckets: numbers of slots that a step may take, smallest first; the states' own number is always one.
        graphs: capture CUDA graphs; without, the same operations run one by one.
        kernels: what replaces torch's operations; None: Triton's where they are.

    Raises:
        EngineError: there is no such device.
    """

    name = "cuda"

    def __init__(
        self,
        parts: Parts,
        device: str | torch.device = "cuda",
        *,
        types: Types | None = None,
        buckets: Sequence[int] = (),
        graphs: bool = True,
        kernels: Kernels | None = None,
    ) -> None:
        super().__init__(parts)
        self.device = find_device(device)
        self.placed = Placed(parts, self.device, types, kernels)
        self.buckets, self.graphs = sorted(buckets), graphs
        self._programs: dict[tuple[object, ...], Program] = {}
        self._lock = threading.Lock()  # one device, one stream: and no graph is captured while another replays
        self._pool = torch.cuda.graph_pool_handle() if self.device.type == "cuda" else None

    def init_state(self, part: str, slots: int, guided: bool = False) -> State:
        """The state of ``slots`` fresh streams, on the device."""
        return full_state(self.placed.init_state(part, guided), slots)

    def settings(self, sampling: Sequence[Sampling]) -> SamplingTensors:
        """How the slots sample; that one of them is greedy costs next to nothing, and needs no other graph."""
        made = super().settings(sampling)
        made.any_greedy = True
        return made

    def bind(self, part: str, state: State) -> None:
        """Capture the steps of a part now, so that no tick has to wait for it."""
        slots = len(next(iter(state.values())))
        nobody = np.zeros(slots, np.bool_)
        if part in self.parts.stages:
            settings = self.settings([self.parts.sampling[part]] * slots)
            batch = RowBatch(self.parts.stages[part].spec, slots, {})
            for batch.levels in (0, self.parts.stages[part].spec.levels):
                self.row(part, batch, state, settings, nobody)
            return
        frames, levels = self.parts.frames_per_tick, self.parts.codec.config.levels
        codes, sound = np.zeros((slots, frames, levels), np.int64), np.zeros((slots, self.parts.tick), np.float32)
        self.step(part, codes if part == "decoder" else sound, state, nobody)

    def step(self, part: str, x: Array, state: State, active: Mask | None) -> Array:
        """One step of the encoder, tokenizer or decoder."""
        n = self._bucket(len(x), active)
        with self._lock:
            program = self._program((id(state), part, n, x.shape[1:]), lambda: self._make_part(part, x[:n], state))
            return self._run(program, x[:n], active, len(x))

    def row(self, stage: str, batch: RowBatch, state: State, settings: SamplingTensors, active: Mask | None) -> Array:
        """One row of a stage; its levels are emitted all or, where all are forced, not at all."""
        n, emits = self._bucket(len(batch.positions), active), batch.levels > 0
        flags = (settings.any_greedy, settings.any_top_k, settings.any_top_p) if emits else ()
        spec = self.parts.stages[stage].spec
        packed = RowLayout(spec.levels, spec.cond_levels).pack(batch)
        with self._lock:
            program = self._program(
                (id(state), stage, n, emits, flags), lambda: self._make_row(stage, n, state, settings, emits=emits)
            )
            if program.settings is not None and program.loaded is not settings:
                fill(program.settings, narrowed(settings, slice(n)))
                program.loaded = settings
            return self._run(program, packed[:n], active, len(packed))

    @torch.inference_mode()
    def teach(self, stage: str, tokens: Array, cond: Array | None) -> Array:
        """Teacher-forced logits, step by step on the device."""
        given = None if cond is None else torch.from_numpy(cond).to(self.device)
        with self._lock:
            logits: Array = (
                self.placed.stages[stage].teach(torch.from_numpy(tokens).to(self.device), given).cpu().numpy()
            )
        return logits

    def _bucket(self, slots: int, active: Mask | None) -> int:
        highest = slots if active is None or not active.any() else int(np.flatnonzero(active)[-1]) + 1
        return next((n for n in self.buckets if highest <= n < slots), slots)

    def _program(self, key: tuple[object, ...], make: Callable[[], Program]) -> Program:
        if key not in self._programs:
            self._programs[key] = make()
        return self._programs[key]

    def _run(self, program: Program, x: Array, active: Mask | None, slots: int) -> Array:
        n = len(x)
        program.inlet.send(x)
        program.mask.send(np.ones(n, np.bool_) if active is None else active[:n])
        program.run()
        out = program.outlet.read()
        return out if n == slots else np.concatenate((out, np.zeros((slots - n, *out.shape[1:]), out.dtype)))

    def _make_part(self, part: str, x: Array, state: State) -> Program:
        n, config = len(x), self.parts.codec.config
        frames = self.parts.frames_per_tick
        shape: tuple[int, ...] = {"encoder": (n, frames, config.levels), "tokenizer": (n,)}.get(
            part, (n, self.parts.tick)
        )
        inlet = Inlet(x.shape, torch.from_numpy(x[:0]).dtype, self.device)
        outlet = Outlet(shape, torch.float32 if part == "decoder" else torch.int64, self.device)
        mask, first = Inlet((n,), torch.bool, self.device), _first(state, n)

        def call() -> None:
            outlet.there.copy_(self.placed.step(part, inlet.there, first, mask.there))

        return Program(state, inlet, mask, outlet, self._capture(call))

    def _make_row(self, stage: str, n: int, state: State, settings: SamplingTensors, *, emits: bool) -> Program:
        placed = self.placed.stages[stage]
        spec, first = placed.spec, _first(state, n)
        layout = RowLayout(spec.levels, spec.cond_levels)
        inlet = Inlet((n, sum(layout.widths)), torch.int64, self.device)
        mask, outlet = (
            Inlet((n,), torch.bool, self.device),
            Outlet((n, spec.levels), torch.int64, self.device),
        )
        static = narrowed(settings, torch.arange(n, device=self.device))  # a copy

        def call() -> None:
            row = layout.unpack(inlet.there, mask.there)
            outlet.there.copy_(placed.step(row, static, first, None if emits else 0))

        return Program(state, inlet, mask, outlet, self._capture(call), static, settings)

    def _capture(self, call: Callable[[], None]) -> Captured:
        return Captured(call, self.device, graph=self.graphs, pool=self._pool)


def _first(state: State, n: int) -> State:
    """Prefix views of the first ``n`` slots."""
    return {key: value[:n] for key, value in state.items()}


def device_compute(parts: Parts, device: str = "cuda", *, half: bool = True) -> DeviceCompute:
    """The engine ``cuda`` of a config: bfloat16 weights and caches in the stages, or float32 when not ``half``.

    Raises:
        EngineError: torch sees no GPU.
    """
    types = Types(torch.bfloat16, torch.bfloat16) if half else Types()
    return DeviceCompute(parts, device, types=types)
