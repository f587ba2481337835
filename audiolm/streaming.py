"""The streaming contract that every part of the model keeps.

A :class:`StreamingModule` has one step, of one fixed shape, with its state handed in and out. Batch use, file prefill
and catch-up loop over that step, so they are equal to the bit whatever pieces the sound came in. ``forward`` is the
parallel twin used for training; it agrees with the steps to 1e-4. This module knows nothing of sound, codes or
sessions.

A state is a flat dictionary of tensors, each with a leading slot dimension; slots are independent streams that share
the weights.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

State = dict[str, Tensor]


class StreamingModule(nn.Module, ABC):
    """A causal module with explicit state.

    Attributes:
        frame_size: input positions that one step takes.
        delay: input positions by which the output of a step lags behind its input.
        rate_in, rate_out: positions per second on either side.
    """

    frame_size: int
    delay: int = 0
    rate_in: float
    rate_out: float

    @abstractmethod
    def init_state(self, slots: int) -> State:
        """Return the state of ``slots`` fresh streams; every tensor has shape ``[slots, ...]``."""

    @abstractmethod
    def step(self, x: Tensor, state: State, active: Tensor | None = None) -> Tensor:
        """Take one step in place.

        ``active`` is a bool ``[slots]`` mask; slots outside it keep their state to the bit.
        """

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return next(self.parameters()).device


def assign(state: State, key: str, value: Tensor, active: Tensor | None) -> None:
    """Write ``value`` to ``state[key]`` for the active slots only."""
    if active is None:
        state[key].copy_(value)
        return
    mask = active.view(-1, *[1] * (value.dim() - 1))
    state[key].copy_(torch.where(mask, value, state[key]))


def scoped(state: State, prefix: str) -> State:
    """Return the entries below ``prefix.`` under their short names; the tensors are shared, not copied."""
    start = prefix + "."
    return {key[len(start) :]: value for key, value in state.items() if key.startswith(start)}


def nested(states: Mapping[str, State]) -> State:
    """Join the states of several children into one flat dictionary, the inverse of :func:`scoped`."""
    return {f"{name}.{key}": value for name, state in states.items() for key, value in state.items()}


def save_slot(state: State, slot: int) -> dict[str, np.ndarray[Any, Any]]:
    """Copy one slot out as arrays without the slot dimension; bfloat16, which numpy has not, as float32."""
    return {key: value[slot].detach().to(_numpy_type(value)).cpu().numpy().copy() for key, value in state.items()}


def _numpy_type(value: Tensor) -> torch.dtype:
    return torch.float32 if value.dtype == torch.bfloat16 else value.dtype


def load_slot(state: State, slot: int, saved: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write one slot back, all of it or, when something does not fit, nothing.

    Raises:
        ValueError: a name, shape or type differs, so the snapshot is of another model.
    """
    check_slot(state, slot, saved)
    for key, value in saved.items():
        state[key][slot].copy_(torch.from_numpy(np.array(value)))


def check_slot(state: State, slot: int, saved: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Raise what :func:`load_slot` would raise, without writing."""
    if set(saved) != set(state):
        odd = sorted(set(saved) ^ set(state))
        raise ValueError(
            f"the saved state does not fit: {odd[:4]} on one side only; restore it into the model that saved it"
        )
    for key, value in saved.items():
        target = state[key][slot]
        wanted = (tuple(target.shape), str(_numpy_type(target)).removeprefix("torch."))
        got = (tuple(np.shape(value)), str(np.asarray(value).dtype))
        if got != wanted:
            raise ValueError(f"saved state {key!r} is {got[1]} {got[0]}, this model needs {wanted[1]} {wanted[0]}")


def copy_slot(state: State, slot: int, fresh: State) -> None:
    """Reset one slot from a one-slot state."""
    for key, value in fresh.items():
        state[key][slot].copy_(value[0])
