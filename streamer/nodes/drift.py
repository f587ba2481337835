"""Two clocks that differ a little: a resampler whose ratio moves slowly, so that what waits between stays the same.

Sound is made by one clock (the microphone's, at 16 kHz) and used up by another (the device's). `LevelControl` turns the
level of what waits into a small correction of the rate, `DriftResampler` plays it. Knows no buffer, thread or device.

The resampler is soxr's variable-rate stream. What was measured of it (soxr 1.1.0, 16 kHz to 8 to 48 kHz): `quality` has
no effect in this mode; it holds back `HELD` of its input; the pass band ends at 7.2 kHz; a pure tone comes out with
all else 112 dB below it or lower, at a fixed ratio, and a changed ratio never makes a step, since the phase goes on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_PPM", "DriftResampler", "LevelControl"]

Samples = NDArray[np.float32]
MOST_PPM = 5000.0  # half a percent, 9 cents: what nobody hears as out of tune
HELD = 0.015  # seconds of input that the resampler holds back
HELD_LOW = 0.0375  # the same, at most, where it may have to halve the rate (devices of 8 kHz)


class LevelControl:
    """A slow PI controller: seconds that wait -> correction of the rate in ppm, at most `MOST_PPM` either way.

    The level falls by 1e-6 s per second and ppm, so the loop is of second order. `GAIN` (ppm per second of error, over
    1e6) makes 10 ms too much a correction of 200 ppm; the integral is set for critical damping and settles in some
    minutes on the difference of the clocks. What waits has the saw-tooth of its blocks, which the smoothing takes out.
    The integral learns only near the target and inside the limits, else one long stall would be taken for a fast clock.
    """

    GAIN = 0.02
    INTEGRAL = GAIN * GAIN / 4
    SMOOTH = 2.0  # seconds
    NEAR = 0.04  # seconds of error within which the integral learns

    def __init__(self, target: float) -> None:
        """Keep `target` seconds waiting."""
        self.target = target
        self.ppm = 0.0
        self.clock_ppm = 0.0  # the integral: how much faster the maker's clock is than the device's, as learnt so far
        self._level = target

    def update(self, level: float, seconds: float) -> float:
        """Take the level now, `seconds` after the last time, while sound flows; gives the correction in ppm."""
        self._level += (level - self._level) * min(1.0, seconds / self.SMOOTH)
        error = self._level - self.target
        wanted = self.clock_ppm + 1e6 * self.GAIN * error
        if abs(error) < self.NEAR and abs(wanted) < MOST_PPM:
            self.clock_ppm += 1e6 * self.INTEGRAL * error * seconds
        self.ppm = max(-MOST_PPM, min(MOST_PPM, wanted))
        return self.ppm

    def rest(self) -> float:
        """Nothing flows: what was learnt of the clocks stays, the level is forgotten."""
        self._level = self.target
        self.ppm = self.clock_ppm
        return self.ppm


class DriftResampler:
    """16 kHz mono to the device's rate, a little faster or slower as `ppm` says.

    Attributes:
        rate_in, rate_out: samples a second at 0 ppm.
        ppm: how much faster than nominal the input is used up.
        held: seconds of input that it holds back, at most.
    """

    def __init__(self, rate_in: int, rate_out: int) -> None:
        import soxr

        self.rate_in, self.rate_out, self.ppm = rate_in, rate_out, 0.0
        fastest = rate_in * (1 + 1.01e-6 * MOST_PPM)  # soxr must know the largest ratio beforehand
        self.held = HELD if fastest <= 2 * rate_out else HELD_LOW
        self._stream: Any = soxr.ResampleStream(fastest, rate_out, 1, dtype="float32", vr=True)
        self._stream.set_io_ratio(rate_in, rate_out, 0)

    def push(self, samples: Samples, ppm: float) -> Samples:
        """Resample `[n]` samples while the ratio goes evenly from where it is to `ppm`; gives `[m]` samples."""
        if ppm != self.ppm:
            self.ppm = max(-MOST_PPM, min(MOST_PPM, ppm))
            self._stream.set_io_ratio(self.rate_in * (1 + 1e-6 * self.ppm), self.rate_out, len(samples))
        made: Samples = self._stream.resample_chunk(np.ascontiguousarray(samples, np.float32))
        return made
