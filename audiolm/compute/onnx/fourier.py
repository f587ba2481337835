"""Fourier transforms of short real windows as products with constant matrices. It knows nothing of what is in them.

A transform of ``rows * columns`` samples is done in two steps (Cooley and Tukey, 1965), each of them one product: at
480 samples that is a seventh of the time of one product with the whole matrix. Spectra come out in an order of their
own, which :attr:`Fourier.bins` tells; what lies before or behind is written in that order.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from audiolm.compute.onnx.graph import Graph, array

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Fourier:
    """The transform of real windows of ``size`` samples, and back.

    Sound is ``[N, rows, columns]``, a spectrum ``[N, places, 1, 2 * turns]``: for every place the real parts, then the
    imaginary ones.

    Args:
        size: samples of a window.
        wanted: the bins that are wanted, all when None; only then is there a way back.
        within: ``columns`` divides this, so that so many samples are whole rows.

    Attributes:
        bins: the bin of every entry ``[places, turns]``, between 0 and ``size / 2``; some come twice.
        repeats: how often the bin of an entry comes, ``[places, turns]``.
    """

    def __init__(self, size: int, wanted: Ints | None = None, within: int = 0) -> None:
        wanted = np.arange(size // 2 + 1) if wanted is None else wanted
        splits = [n for n in range(1, size + 1) if size % n == 0 and (within or size) % (size // n) == 0]
        self.size, self.rows = size, min(splits, key=lambda rows: self._cost(size, rows, wanted))
        self.columns = size // self.rows
        self.places, turns = _entries(size, self.rows, wanted)
        self._numbers = self.places[:, None] + self.rows * turns
        self.bins = np.minimum(self._numbers, size - self._numbers)
        self.repeats = np.bincount(self.bins.ravel())[self.bins]

    @staticmethod
    def _cost(size: int, rows: int, wanted: Ints) -> int:
        """Multiplications of a split."""
        places, turns = _entries(size, rows, wanted)
        return 2 * len(places) * (size + 2 * size // rows * len(turns))

    def spread(self, values: Tensor) -> Tensor:
        """Values of bins ``[..., size / 2 + 1] -> [..., places, turns]`` in the order of the spectra."""
        return values[..., torch.from_numpy(self.bins)]

    def shared(self, values: Tensor) -> Tensor:
        """The same for weights in a sum over a spectrum: a bin that comes twice has half of its weight each time."""
        return self.spread(values) / torch.from_numpy(self.repeats)

    def shaped(self, g: Graph, window: Tensor) -> str:
        """A constant of ``size`` samples, to multiply sound by."""
        return g.constant(array(window).reshape(self.rows, self.columns))

    def forward(self, g: Graph, sound: str) -> str:
        """The spectra of sound."""
        inner = g.op("MatMul", g.constant(self._inner()), sound)
        inner = g.reshape(inner, -1, len(self.places), 1, 2 * self.columns)
        return g.op("MatMul", inner, g.constant(self._outer().swapaxes(1, 2)))

    def inverse(self, g: Graph, spectrum: str) -> str:
        """The sound of spectra; all bins are there."""
        both = (2 - (self._numbers * 2 % self.size == 0)) / (self.repeats * self.size)
        outer = self._outer() * np.tile(both, 2)[:, :, None]
        inner = g.op("MatMul", spectrum, g.constant(outer))
        return g.op("MatMul", g.constant(self._inner().T), g.reshape(inner, -1, 2 * len(self.places), self.columns))

    def _inner(self) -> Doubles:
        """``[2 * places, rows]``: along the rows."""
        angle = _angle(self.places[:, None] * np.arange(self.rows), self.rows)
        return np.stack((np.cos(angle), -np.sin(angle)), 1).reshape(-1, self.rows)

    def _outer(self) -> Doubles:
        """``[places, 2 * turns, 2 * columns]``: along the columns, of each place by itself."""
        angle = _angle(self._numbers[:, :, None] * np.arange(self.columns), self.size)
        real, imaginary = np.cos(angle), np.sin(angle)
        return np.concatenate(
            (np.concatenate((real, imaginary), 2), np.concatenate((-imaginary, real), 2)), 1
        )  # fmt: skip


def _entries(size: int, rows: int, wanted: Ints) -> tuple[Ints, Ints]:
    """The places and turns that bins come from: bin ``k`` is ``place + rows * turn``, or else ``size - k`` is."""
    number = np.where(wanted % rows <= rows // 2, wanted, size - wanted)
    return np.unique(number % rows), np.unique(number // rows)


def _angle(numbers: Ints, size: int) -> Doubles:
    """``2 pi numbers / size``, reduced before it is rounded."""
    reduced: Doubles = numbers % size * np.float64(2 * np.pi / size)
    return reduced
