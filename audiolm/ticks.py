"""The tick: how samples of any chunking become the 640-sample steps that the model takes.

One tick is 40 ms at 16 kHz: two acoustic frames, one semantic token. This module knows nothing of models or files.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from audiolm.errors import InputError

__all__ = ["SAMPLE_RATE", "TICK", "TICKS_PER_SECOND", "Samples", "TickAssembler", "as_samples"]

SAMPLE_RATE = 16_000  # Hz, the clock of everything
TICK = 640  # samples in one step, 40 ms
TICKS_PER_SECOND = SAMPLE_RATE // TICK

Samples = NDArray[np.float32]
INT16_SCALE = np.float32(1 / 32768)


def as_samples(chunk: Any, what: str = "audio") -> Samples:
    """Return `chunk` as float32 `[n]`; int16 is scaled to -1..1, float64 is narrowed.

    Raises:
        InputError: it is not one-dimensional, or of another type; integers of other widths have no agreed scale.
    """
    array = np.asarray(chunk)
    if array.ndim != 1:
        raise InputError(
            f"{what} has shape {list(array.shape)}; expected one channel [samples]: take .mean(axis=...) first",
            shape=array.shape,
        )
    if array.dtype == np.int16:
        return array.astype(np.float32) * INT16_SCALE
    if array.dtype in (np.float32, np.float64):
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, which the door counts
            return array.astype(np.float32)
    raise InputError(f"{what} has type {array.dtype}; expected float32, float64 or int16", dtype=str(array.dtype))


class TickAssembler:
    """Takes chunks of any size, gives whole ticks: the same ones whatever the chunking.

    At most one tick less one sample is held back between calls.
    """

    def __init__(self, tick: int = TICK) -> None:
        """Make ticks of `tick` samples."""
        if tick < 1:
            raise InputError(f"a tick of {tick} samples was asked for; expected at least 1", tick=tick)
        self.tick = tick
        self._held: Samples = np.zeros(0, np.float32)

    @property
    def held(self) -> int:
        """How many samples wait for the rest of their tick."""
        return len(self._held)

    def push(self, chunk: Any) -> list[Samples]:
        """Add samples (float or int16, `[n]`) and return the ticks that are now whole, each float32 `[tick]`.

        Raises:
            InputError: the chunk is not one channel of float or int16; nothing of it was taken.
        """
        samples = as_samples(chunk)
        joined = np.concatenate([self._held, samples]) if self.held else samples
        whole = len(joined) // self.tick * self.tick
        self._held = joined[whole:].copy()
        return list(joined[:whole].reshape(-1, self.tick))

    def flush(self, rest: Literal["drop", "pad"] = "drop") -> list[Samples]:
        """End the stream: drop the samples held back, or pad them with zeros to a last tick. Then start afresh."""
        if rest not in ("drop", "pad"):
            raise InputError(f"unknown treatment of the last part tick {rest!r}; expected 'drop' or 'pad'", rest=rest)
        held, self._held = self._held, np.zeros(0, np.float32)
        if rest == "drop" or not len(held):
            return []
        return [np.concatenate([held, np.zeros(self.tick - len(held), np.float32)])]

    def save(self) -> dict[str, NDArray[Any]]:
        """Copy the state out."""
        return {"held": self._held.copy()}

    def load(self, saved: dict[str, NDArray[Any]]) -> None:
        """Put a saved state back.

        Raises:
            InputError: more is held than a tick of this size can leave over.
        """
        held = as_samples(saved["held"], "the saved rest")
        if len(held) >= self.tick:
            raise InputError(f"the saved rest has {len(held)} samples; expected fewer than {self.tick}", held=len(held))
        self._held = held
