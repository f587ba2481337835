"""The engine: batched states of every part of the model for a fixed number of slots, stepped a tick (or a row) at a time.

Sessions hold a slot number; ``open`` and ``close`` hand slots out and back. Every call takes any subset of the slots, the others keep
their state to the bit, and a slot's output does not depend on its neighbours. Numpy goes in and comes out, so that callers need no torch.

Each part may be stepped from a thread of its own (one at a time a part); ``open``, ``close``, ``save`` and ``load`` belong between steps.
"""

import threading
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from audiolm.errors import EngineError
from audiolm.parts import Parts
from audiolm.runner import Row, Tokens
from audiolm.sampler import Sampling, SamplingTensors
from audiolm.stage import Stage
from audiolm.streaming import State, copy_slot, load_slot, save_slot

Audio = npt.NDArray[np.float32]
Saved = dict[str, np.ndarray[Any, Any]]
_thread = threading.local()


def prepare_thread() -> None:
    """One intra-op thread and no denormals, set once in each thread that steps a model.

    Both settings are per thread in torch. Two threads collapse when the second core is busy, and fading sound in a codec is a factory of
    denormals.
    """
    if not getattr(_thread, "ready", False):
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        _thread.ready = True


class Engine:
    """See the module's text.

    Args:
        parts: the model.
        slots: sessions at once.
        guided: names of stages that keep a second cache row for classifier-free guidance.
    """

    def __init__(self, parts: Parts, slots: int = 1, guided: Collection[str] = ()) -> None:
        if slots < 1:
            raise EngineError(f"an engine needs at least one slot, got {slots}")
        self.parts, self.slots, self.guided = parts, slots, frozenset(guided)
        self._free = list(range(slots))
        self._lock = threading.Lock()
        prepare_thread()
        with torch.inference_mode():
            self._states: dict[str, State] = {name: self._fresh(name, slots) for name in parts.names}
        self._sampling = {name: [parts.sampling[name]] * slots for name in parts.stages}
        self._tensors = {name: SamplingTensors(settings) for name, settings in self._sampling.items()}

    def _fresh(self, name: str, slots: int) -> State:
        if name in self.parts.stages:
            return self.parts.stages[name].init_state(slots, name in self.guided)
        return self.parts.module(name).init_state(slots)

    # -- slots ---------------------------------------------------------------------------------------------------------------------

    def open(self) -> int:
        """Reserve a slot with a fresh state.

        Raises:
            EngineError: all slots are taken.
        """
        with self._lock:
            if not self._free:
                raise EngineError(f"all {self.slots} slots are taken; close a session or make the engine with more slots")
            slot = self._free.pop(0)
        self.reset(slot)
        return slot

    def close(self, slot: int) -> None:
        """Hand a slot back."""
        self._check(slot)
        with self._lock:
            self._free.append(slot)
            self._free.sort()

    @torch.inference_mode()
    def reset(self, slot: int) -> None:
        """Make the state of ``slot`` that of a fresh stream, with the bundle's sampling."""
        for name, state in self._states.items():
            copy_slot(state, slot, self._fresh(name, 1))
        for name in self.parts.stages:
            self.set_sampling(slot, name, self.parts.sampling[name])

    def set_sampling(self, slot: int, name: str, sampling: Sampling) -> None:
        """Change how stage ``name`` samples in ``slot``.

        Raises:
            EngineError: guidance other than 1 in a stage that was made without its second cache row.
        """
        if sampling.guidance != 1 and name not in self.guided:
            raise EngineError(f"guidance {sampling.guidance:g} needs an engine made with guided={{{name!r}}}; this one has {sorted(self.guided)}")
        self._sampling[name][slot] = sampling
        self._tensors[name] = SamplingTensors(self._sampling[name])

    @torch.inference_mode()
    def save(self, slot: int) -> Saved:
        """Copy the state of a slot out, as arrays under ``part.name``."""
        self._check(slot)
        return {f"{part}.{key}": value for part, state in self._states.items() for key, value in save_slot(state, slot).items()}

    @torch.inference_mode()
    def load(self, slot: int, saved: Saved) -> None:
        """Write a saved state into a slot.

        Raises:
            EngineError: the state is of another model.
        """
        self._check(slot)
        try:
            for part, state in self._states.items():
                load_slot(state, slot, {k[len(part) + 1 :]: v for k, v in saved.items() if k.startswith(part + ".")})
        except ValueError as error:
            raise EngineError(str(error)) from error

    def save_part(self, part: str, slot: int) -> Saved:
        """The state of one part alone: what a node of a graph owns."""
        with torch.inference_mode():
            return save_slot(self._states[part], slot)

    def load_part(self, part: str, slot: int, saved: Saved) -> None:
        """Write one part's state back."""
        try:
            with torch.inference_mode():
                load_slot(self._states[part], slot, saved)
        except ValueError as error:
            raise EngineError(f"part {part!r}: {error}") from error

    def _check(self, slot: int) -> None:
        if not 0 <= slot < self.slots or slot in self._free:
            raise EngineError(f"slot {slot} is not open; slots come from open()")

    # -- steps ---------------------------------------------------------------------------------------------------------------------

    def encode(self, audio: Mapping[int, Audio]) -> dict[int, Tokens]:
        """One tick of sound a slot, ``[640]`` float32 -> acoustic tokens ``[2, 12]``."""
        return self._tick("encoder", audio, torch.zeros(self.slots, self.parts.tick))

    def listen(self, audio: Mapping[int, Audio]) -> dict[int, int | None]:
        """One tick of sound a slot -> the semantic token of ``lookahead`` ticks before, None while there is none."""
        tokens = self._tick("tokenizer", audio, torch.zeros(self.slots, self.parts.tick))
        return {slot: None if token < 0 else int(token) for slot, token in tokens.items()}

    def decode(self, codes: Mapping[int, Tokens]) -> dict[int, Audio]:
        """One tick of tokens a slot, ``[2, n]`` with any ``n`` up to all levels -> ``[640]`` float32.

        Slots with different ``n`` are stepped apart: fewer levels is another shape.
        """
        out: dict[int, Audio] = {}
        for levels in sorted({value.shape[1] for value in codes.values()}):
            group = {slot: value for slot, value in codes.items() if value.shape[1] == levels}
            frames = self.parts.codec.decoder.frame_size
            out |= self._tick("decoder", group, torch.zeros(self.slots, frames, levels, dtype=torch.int64))
        return out

    @torch.inference_mode()
    def _tick(self, part: str, inputs: Mapping[int, np.ndarray[Any, Any]], x: Tensor) -> dict[int, Any]:
        prepare_thread()
        for slot, value in inputs.items():
            if value.shape != tuple(x.shape[1:]):
                raise EngineError(f"{part} takes {tuple(x.shape[1:])} a tick, got {value.shape} in slot {slot}")
            x[slot] = torch.from_numpy(np.ascontiguousarray(value))
        active = None if len(inputs) == self.slots else torch.from_numpy(self._mask(inputs))
        y = self.parts.module(part).step(x, self._states[part], active).numpy()
        return {slot: y[slot] for slot in inputs}

    def _mask(self, slots: Collection[int]) -> npt.NDArray[np.bool_]:
        mask = np.zeros(self.slots, np.bool_)
        mask[list(slots)] = True
        return mask

    @torch.inference_mode()
    def rows(self, name: str, rows: Mapping[int, Row]) -> dict[int, Tokens]:
        """Take one row of stage ``name`` in each of the given slots; ``[levels]`` tokens come back."""
        prepare_thread()
        stage: Stage = self.parts.stages[name]
        spec, size = stage.spec, self.slots
        positions = np.zeros(size, np.int64)
        forced = np.zeros((size, spec.levels), np.int64)
        is_forced = np.ones((size, spec.levels), np.bool_)
        cond = np.full((size, spec.cond_levels), spec.cond_mask, np.int64)
        u = np.full((size, spec.levels), 0.5, np.float32)
        for slot, row in rows.items():
            positions[slot], forced[slot], is_forced[slot] = row.position, row.forced, row.is_forced
            if row.cond is not None:
                cond[slot] = row.cond
            if row.u is not None:
                u[slot] = row.u
        tokens = stage.step(
            torch.from_numpy(cond) if spec.cond_levels else None,
            torch.from_numpy(forced),
            torch.from_numpy(is_forced),
            torch.from_numpy(u),
            self._tensors[name],
            self._states[name],
            positions,
            active=None if len(rows) == size else self._mask(rows),
            sampling=any(row.sampling for row in rows.values()),
        ).numpy()
        return {slot: tokens[slot] for slot in rows}
