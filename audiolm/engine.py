"""The engine: batched states of every part of a model for a fixed number of slots, stepped a tick (or a row) at a time.

Sessions hold a slot number; ``open`` and ``close`` hand slots out and back. Every call takes any subset of the slots,
the others keep their state to the bit, and a slot's output does not depend on its neighbours. Numpy goes in and comes
out, so that callers need no torch.

Any thread may call anything: each part has a lock of its own, so a codec and a language model may step side by side.
"""

import threading
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from audiolm.compute.base import Compute
from audiolm.compute.eager import TorchCompute
from audiolm.errors import EngineError
from audiolm.parts import Parts
from audiolm.rows import RowBatch
from audiolm.runner import Row, Tokens
from audiolm.sampler import Sampling
from audiolm.streaming import State, check_slot, copy_slot, load_slot, save_slot

Audio = npt.NDArray[np.float32]
Saved = dict[str, np.ndarray[Any, Any]]
MOST_SLOTS = 1024
_thread = threading.local()


def prepare_thread() -> None:
    """One intra-op thread and no denormals, set once in each thread that steps a model.

    Both settings are per thread in torch. Two threads collapse when the second core is busy, and fading sound in a
    codec is a factory of denormals.
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
        guided: names of stages that keep a second cache row for classifier-free guidance; those that the bundle itself
            guides are added.
        compute: what steps the parts; eager torch when None.

    Raises:
        EngineError: less than one slot, or a stage that is not there.
    """

    def __init__(
        self, parts: Parts, slots: int = 1, guided: Collection[str] = (), compute: Compute | None = None
    ) -> None:
        if isinstance(slots, bool) or not isinstance(slots, int) or not 1 <= slots <= MOST_SLOTS:
            raise EngineError(f"an engine has 1 to {MOST_SLOTS} slots, got {slots!r}")
        unknown = sorted(set(guided) - set(parts.stages))
        if unknown:
            raise EngineError(f"guided names the unknown stage {unknown[0]!r}; stages: {', '.join(parts.stages)}")
        self.parts, self.slots = parts, slots
        self.compute = compute or TorchCompute(parts)
        self.guided = frozenset(guided) | {name for name, how in parts.sampling.items() if how.guidance != 1}
        self._open: set[int] = set()
        self._opening = threading.Lock()
        self._locks = {name: threading.Lock() for name in parts.names}
        prepare_thread()
        with torch.inference_mode():
            self._states: dict[str, State] = {name: self._fresh(name, slots) for name in parts.names}
            for name, state in self._states.items():
                self.compute.bind(name, state)
        self._sampling = {name: [parts.sampling[name]] * slots for name in parts.stages}
        self._tensors = {name: self.compute.settings(settings) for name, settings in self._sampling.items()}

    def _fresh(self, name: str, slots: int) -> State:
        return self.compute.init_state(name, slots, name in self.guided)

    # -- slots --

    @property
    def free(self) -> int:
        """How many slots are not taken."""
        return self.slots - len(self._open)

    def open(self) -> int:
        """Reserve the lowest free slot, with a fresh state.

        Raises:
            EngineError: all slots are taken.
        """
        with self._opening:
            slot = next((slot for slot in range(self.slots) if slot not in self._open), None)
            if slot is None:
                raise EngineError(
                    f"all {self.slots} slots are taken; close a session or make the engine with more slots",
                    slots=self.slots,
                )
            self._open.add(slot)
        self.reset(slot)
        return slot

    def close(self, slot: int) -> None:
        """Hand a slot back.

        Raises:
            EngineError: it is not open.
        """
        with self._opening:
            self._check((slot,))
            self._open.remove(slot)

    @torch.inference_mode()
    def reset(self, slot: int) -> None:
        """Make the state of ``slot`` that of a fresh stream, with the bundle's sampling."""
        self._check((slot,))
        for name in self._states:
            self.reset_part(name, slot)
        for name in self.parts.stages:
            self.set_sampling(slot, name, self.parts.sampling[name])

    @torch.inference_mode()
    def reset_part(self, part: str, slot: int) -> None:
        """Make the state of one part that of a fresh stream; how it samples stays."""
        self._check((slot,))
        with self._locks[part]:
            copy_slot(self._states[part], slot, self._fresh(part, 1))

    def sampling(self, slot: int, name: str) -> Sampling:
        """How stage ``name`` samples in ``slot``."""
        self._check_stage(name)
        return self._sampling[name][slot]

    def set_sampling(self, slot: int, name: str, sampling: Sampling) -> None:
        """Change how stage ``name`` samples in ``slot``.

        Raises:
            EngineError: an unknown stage, or guidance in a stage that was made without its second cache row.
        """
        self._check((slot,))
        self._check_stage(name)
        if sampling.guidance != 1 and name not in self.guided:
            raise EngineError(
                f"guidance {sampling.guidance:g} needs an engine made with guided={{{name!r}}}; "
                f"this one has {sorted(self.guided)}",
                stage=name,
            )
        with self._locks[name]:
            self._sampling[name][slot] = sampling
            self._tensors[name] = self.compute.settings(self._sampling[name])

    def save(self, slot: int) -> Saved:
        """Copy the state of a slot out, as arrays under ``part.name``."""
        saved = {part: self.save_part(part, slot) for part in self._states}
        return {f"{part}.{key}": value for part, state in saved.items() for key, value in state.items()}

    @torch.inference_mode()
    def load(self, slot: int, saved: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Write a saved state into a slot: all of it, or nothing when it does not fit.

        Raises:
            EngineError: the state is of another model, or the slot is not open.
        """
        self._check((slot,))
        split = {part: below(saved, f"{part}.") for part in self._states}
        odd = sorted(set(saved) - {f"{part}.{key}" for part, state in split.items() for key in state})
        if odd:
            raise EngineError(f"the saved state holds {odd[0]!r}, which this model has not")
        for part, state in split.items():
            self._fits(part, slot, state)
        for part, state in split.items():
            self.load_part(part, slot, state)

    @torch.inference_mode()
    def save_part(self, part: str, slot: int) -> Saved:
        """Copy the state of one part alone out: what a node of a graph owns."""
        self._check((slot,))
        with self._locks[part]:
            return save_slot(self._states[part], slot)

    @torch.inference_mode()
    def load_part(self, part: str, slot: int, saved: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Write one part's state back.

        Raises:
            EngineError: the state is of another model, or the slot is not open.
        """
        self._check((slot,))
        self._fits(part, slot, saved)
        with self._locks[part]:
            load_slot(self._states[part], slot, saved)

    def _fits(self, part: str, slot: int, saved: Mapping[str, np.ndarray[Any, Any]]) -> None:
        try:
            check_slot(self._states[part], slot, saved)
        except ValueError as error:
            raise EngineError(f"part {part!r}: {error}", part=part) from error

    def _check(self, slots: Iterable[int]) -> None:
        for slot in slots:
            if slot not in self._open:
                raise EngineError(f"slot {slot} is not open; slots come from open()", slot=slot)

    def _check_stage(self, name: str) -> None:
        if name not in self.parts.stages:
            raise EngineError(f"unknown stage {name!r}; stages: {', '.join(self.parts.stages)}", stage=name)

    # -- steps --

    def encode(self, audio: Mapping[int, Audio]) -> dict[int, Tokens]:
        """One tick of sound a slot, ``[640]`` float32 -> acoustic tokens ``[2, 12]`` int64.

        Raises:
            EngineError: another shape or type, or a slot that is not open; no state has changed. So for all steps.
        """
        return self._tick("encoder", audio, np.zeros((self.slots, self.parts.tick), np.float32))

    def listen(self, audio: Mapping[int, Audio]) -> dict[int, int | None]:
        """One tick of sound a slot -> the semantic token of ``lookahead`` ticks before, None while there is none."""
        tokens = self._tick("tokenizer", audio, np.zeros((self.slots, self.parts.tick), np.float32))
        return {slot: None if token < 0 else int(token) for slot, token in tokens.items()}

    def decode(self, codes: Mapping[int, Tokens]) -> dict[int, Audio]:
        """One tick of tokens a slot, ``[2, n]`` with any ``n`` up to all levels -> ``[640]`` float32.

        Slots with different ``n`` are stepped apart: fewer levels is another shape.
        """
        config, frames = self.parts.codec.config, self.parts.codec.decoder.frame_size
        for slot, value in codes.items():
            if value.ndim != 2 or not 1 <= value.shape[1] <= config.levels:
                raise EngineError(
                    f"the decoder takes tokens [{frames}, 1 to {config.levels}] a tick, "
                    f"got {list(value.shape)} in slot {slot}"
                )
            if value.size and not 0 <= value.min() <= value.max() < config.cardinality:
                raise EngineError(
                    f"tokens from {value.min()} to {value.max()} came in slot {slot}; "
                    f"expected 0 to {config.cardinality - 1}"
                )
        out: dict[int, Audio] = {}
        for levels in sorted({value.shape[1] for value in codes.values()}):
            group = {slot: value for slot, value in codes.items() if value.shape[1] == levels}
            out |= self._tick("decoder", group, np.zeros((self.slots, frames, levels), np.int64))
        return out

    @torch.inference_mode()
    def _tick(self, part: str, inputs: Mapping[int, np.ndarray[Any, Any]], x: np.ndarray[Any, Any]) -> dict[int, Any]:
        """Step one part on ``x`` ``[slots, ...]``, filled in where there is an input."""
        prepare_thread()
        self._check(inputs)
        for slot, value in inputs.items():
            if value.shape != x.shape[1:] or value.dtype.kind not in ("f" if x.dtype.kind == "f" else "iu"):
                raise EngineError(
                    f"{part} takes {x.dtype} {list(x.shape[1:])} a tick, "
                    f"got {value.dtype} {list(value.shape)} in slot {slot}"
                )
            x[slot] = value
        active = None if len(inputs) == self.slots else self._mask(inputs)
        with self._locks[part]:
            y = self.compute.step(part, x, self._states[part], active)
        return {slot: y[slot] for slot in inputs}

    def _mask(self, slots: Collection[int]) -> npt.NDArray[np.bool_]:
        mask = np.zeros(self.slots, np.bool_)
        mask[list(slots)] = True
        return mask

    @torch.inference_mode()
    def rows(self, name: str, rows: Mapping[int, Row]) -> dict[int, Tokens]:
        """Take one row of stage ``name`` in each of the given slots; ``[levels]`` int64 tokens come back."""
        prepare_thread()
        self._check_stage(name)
        self._check(rows)
        batch = RowBatch(self.parts.stages[name].spec, self.slots, rows)
        active = None if len(rows) == self.slots else self._mask(rows)
        with self._locks[name]:
            tokens = self.compute.row(name, batch, self._states[name], self._tensors[name], active)
        return {slot: tokens[slot] for slot in rows}


def below(saved: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The entries whose names start with ``prefix``, under the rest of their names."""
    return {key[len(prefix) :]: value for key, value in saved.items() if key.startswith(prefix)}
