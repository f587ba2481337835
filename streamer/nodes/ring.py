"""A ring of samples between two threads: one pushes, one pops, nobody waits.

This is what a device's callback may touch: no lock, no allocation but the returned array, bounded. It knows no device,
no rate and no clock. Each counter has one writer (`pushed`: the producer, `popped`: the consumer) and is written after
the samples were copied, so that the other side sees either the old state or the whole block.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Block", "Ring"]

Block = NDArray[np.float32]


class Ring:
    """Float32 samples `[n, channels]`, at most `capacity` of them; what does not fit is dropped and counted.

    Attributes:
        capacity: most samples a channel.
        channels: columns of every block.
        pushed: samples taken in since the start; written by the producer only.
        popped: samples given out or cleared since the start; written by the consumer only.
        overruns: samples dropped because the ring was full; written by the producer only.
    """

    __slots__ = ("_table", "capacity", "channels", "overruns", "popped", "pushed")

    def __init__(self, capacity: int, channels: int = 1) -> None:
        if capacity < 1 or channels < 1:
            raise ValueError(f"a ring of {capacity} samples and {channels} channels; expected at least 1 of each")
        self.capacity, self.channels = capacity, channels
        self.pushed = self.popped = self.overruns = 0
        self._table: Block = np.zeros((capacity, channels), np.float32)

    @property
    def level(self) -> int:
        """Samples that wait; exact for the side that asks, as the other side can only make it better for it."""
        return self.pushed - self.popped

    @property
    def free(self) -> int:
        """Samples that `push` would take."""
        return self.capacity - self.level

    def push(self, block: Block) -> int:
        """Take samples; for the producer.

        Args:
            block: `[n, channels]`, or `[n]` when there is one channel.

        Returns:
            How many were taken, the first ones; the others are lost and counted in `overruns`.
        """
        table = self._columns(block)
        count = min(len(table), self.free)
        start = self.pushed % self.capacity
        first = min(count, self.capacity - start)
        self._table[start : start + first] = table[:first]
        self._table[: count - first] = table[first:count]
        self.overruns += len(table) - count
        self.pushed += count
        return count

    def pop_into(self, out: Block) -> int:
        """Fill the beginning of `out`, `[n, channels]` or `[n]`, with the oldest samples; for the consumer.

        Returns:
            How many were there; the rest of `out` is left as it is.
        """
        table = self._columns(out)
        count = min(len(table), self.level)
        start = self.popped % self.capacity
        first = min(count, self.capacity - start)
        table[:first] = self._table[start : start + first]
        table[first:count] = self._table[: count - first]
        self.popped += count
        return count

    def pop(self, count: int) -> Block:
        """The `count` oldest samples, `[<= count, channels]`, fewer when there are fewer; for the consumer."""
        made: Block = np.empty((max(0, min(count, self.level)), self.channels), np.float32)
        self.pop_into(made)
        return made

    def clear(self) -> int:
        """Throw away what waits; for the consumer. Returns how many samples that were."""
        count = self.level
        self.popped += count
        return count

    def _columns(self, block: Block) -> Block:
        """The block as `[n, channels]`, without a copy."""
        table = block[:, None] if block.ndim == 1 else block
        if table.ndim != 2 or table.shape[1] != self.channels:
            raise ValueError(f"a block of shape {block.shape} for a ring of {self.channels} channel(s)")
        return table
