"""From a device's ring to ticks: mixed down, at 16 kHz, without the echo. Knows no event loop, no session, no frame."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from audiolm.ticks import SAMPLE_RATE, TICK, Samples
from streamer.nodes.lines import Capture

__all__ = ["BLOCK", "Inlet"]

BLOCK: Final = SAMPLE_RATE // 100  # samples of 10 ms, what the echo canceller takes
MOST_SECONDS: Final = 0.4  # what may wait in the ring before the oldest goes, so that a delay never stays
KEPT_SECONDS: Final = 0.04  # what is left of it then
SOONEST: Final = 0.002  # seconds; the shortest wait, so that nothing is ever busy
FADE: Final = BLOCK // 2  # samples at 16 kHz by which sound fades in after some was lost
Clean = Callable[[Samples], Samples]


class Inlet:
    """Ticks of 640 samples at 16 kHz, as soon as their last sample is there.

    The filter of the resampler looks 12.5 ms ahead at 48 kHz, and blocks of the device come every 10 ms; there is no
    other delay. soxr's variable-rate mode is used at a fixed rate because it gives 10 ms for 10 ms: the usual one works
    in blocks of 30 to 70 ms.

    Args:
        capture: the stream, of any rate and number of channels.
        channel: which channel is taken, from 1; None: their mean.
        clean: takes and gives 160 samples; the echo canceller.

    Attributes:
        lost: samples at 16 kHz that were thrown away since the start, because nobody took them in time.
    """

    def __init__(self, capture: Capture, channel: int | None, clean: Clean) -> None:
        self.capture, self.channel, self._clean = capture, channel, clean
        self.lost = 0
        self._block = max(1, capture.rate // 100)
        self._overruns = 0
        self.restart()

    def restart(self) -> None:
        """Forget what was heard: the next tick begins with what is heard from now on."""
        self.capture.ring.clear()
        self._overruns = self.capture.ring.overruns
        self._resampler: Any = None
        if self.capture.rate != SAMPLE_RATE:
            import soxr

            self._resampler = soxr.ResampleStream(
                self.capture.rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ", vr=True
            )
        self._aligned = False
        self._fading = True
        self._raw: Samples = np.zeros(0, np.float32)
        self._made: list[Samples] = []

    def take(self) -> Samples | None:
        """The next tick, float32 `[640]`; None when it is not whole yet."""
        self._trim()
        ring = self.capture.ring
        while len(self._made) < TICK // BLOCK and ring.level >= self._block:
            self._push(self._mixed(ring.pop(self._block)))
        return self._cut(TICK // BLOCK) if len(self._made) >= TICK // BLOCK else None

    def rest(self) -> Samples:
        """What there is of the next tick, filled up with silence; for when the device has gone away."""
        short = TICK // BLOCK - len(self._made)
        self._made += [np.zeros(BLOCK, np.float32) for _ in range(short)]
        self.capture.ring.clear()
        return self._cut(TICK // BLOCK)

    def wait(self) -> float:
        """Seconds until the next tick can be whole, if the device keeps its rate."""
        blocks = math.ceil((TICK - BLOCK * len(self._made) - len(self._raw)) / BLOCK)
        missing = blocks * self._block - self.capture.ring.level
        return max(SOONEST, missing / self.capture.rate)

    def _cut(self, blocks: int) -> Samples:
        tick = np.concatenate(self._made[:blocks])
        del self._made[:blocks]
        return tick

    def _trim(self) -> None:
        """Count what the ring could not hold, and let the oldest go when too much waits."""
        ring, rate = self.capture.ring, self.capture.rate
        missed = ring.overruns - self._overruns
        self._overruns += missed
        if ring.level > MOST_SECONDS * rate or missed:
            missed += len(ring.pop(max(0, ring.level - round(KEPT_SECONDS * rate))))
        if missed:
            self.lost += round(missed * SAMPLE_RATE / rate)
            self._fading = True

    def _mixed(self, block: NDArray[np.float32]) -> Samples:
        """One finite channel."""
        one = block[:, self.channel - 1] if self.channel else block.mean(axis=1)
        return np.nan_to_num(np.asarray(one, np.float32), posinf=0.0, neginf=0.0)

    def _push(self, block: Samples) -> None:
        """Resample a block of the device and clean what is whole."""
        if self._resampler is not None:
            block = self._resampler.resample_chunk(block)
            if not self._aligned and len(block):  # whole blocks from here on, so that none waits for its rest
                self._aligned = True
                block = block[len(block) % BLOCK :]
        joined = np.concatenate([self._raw, block])
        whole = len(joined) // BLOCK
        self._raw = joined[whole * BLOCK :]
        for piece in joined[: whole * BLOCK].reshape(-1, BLOCK):
            self._made.append(self._clean(self._faded(piece)))

    def _faded(self, piece: Samples) -> Samples:
        if not self._fading:
            return piece
        self._fading = False
        made = piece.copy()
        made[:FADE] *= np.linspace(0, 1, FADE, endpoint=False, dtype=np.float32)
        return made
