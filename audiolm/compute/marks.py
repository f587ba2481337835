"""The watermark of many sessions side by side, on their device; what it is stands in :mod:`audiolm.watermark`.

It gives what a :class:`~audiolm.watermark.Marker` gives a session, but for the rounding of float32 transforms. It is a
few operations outside the captured graphs.
"""

import numpy as np
import torch
from torch import Tensor

from audiolm.streaming import State
from audiolm.watermark import CELL, CELLS, PAST, SIZE, TICK, envelope, filters

PER = TICK // CELL


class Marks:
    """The markers of all slots.

    Args:
        slots: how many.
        device: where the sound is.

    Attributes:
        state: ``past`` float32 ``[slots, 255]`` and ``cell`` int64 ``[slots]``.
    """

    def __init__(self, slots: int, device: torch.device) -> None:
        self.state: State = {
            "past": torch.zeros((slots, PAST), device=device),
            "cell": torch.zeros(slots, dtype=torch.int64, device=device),
        }
        self._filters = torch.from_numpy(filters().astype(np.complex64)).to(device)
        self._envelope = torch.from_numpy(np.tile(envelope(), PER).astype(np.float32)).to(device)

    def step(self, sound: Tensor, on: Tensor, marked: Tensor | None) -> None:
        """Pass a tick of every slot on, in place.

        Args:
            sound: float32 ``[slots, 640]``.
            on: bool ``[slots]``, who takes one; the others keep their state.
            marked: bool ``[slots]``, whose is marked; None: nobody's.
        """
        past, cell = self.state["past"], self.state["cell"]
        line = torch.cat((past, sound), 1)
        if marked is not None:
            added = self._added(torch.fft.rfft(line, SIZE), cell) * self._envelope
            sound += torch.where(marked[:, None], added, 0.0)
        past.copy_(torch.where(on[:, None], line[:, -PAST:], past))
        cell.copy_(torch.where(on, (cell + PER) % CELLS, cell))

    def _added(self, spectrum: Tensor, cell: Tensor) -> Tensor:
        """What the cells of this tick would add at full height, ``[slots, 640]``."""
        pieces = []
        for i in range(PER):
            made = torch.fft.irfft(spectrum * self._filters[(cell + i) % CELLS], SIZE)
            pieces.append(made[:, PAST + i * CELL : PAST + (i + 1) * CELL])
        return torch.cat(pieces, 1)

    def reset(self, slot: int) -> None:
        """A fresh stream in ``slot``."""
        for value in self.state.values():
            value[slot].zero_()
