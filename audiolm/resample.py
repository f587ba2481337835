"""Change of sample rate as a stream, equal to the bit whatever the chunking.

soxr's state cannot be saved and its rounding may depend on how the input is cut, so it is always fed blocks of one
size: 20 ms of input. soxr is imported when a resampler is made; training runs without it.
"""

from __future__ import annotations

from audiolm.errors import InputError
from audiolm.ticks import SAMPLE_RATE, Samples, TickAssembler

__all__ = ["HIGHEST_RATE", "LOWEST_RATE", "Resampler", "check_rate"]

LOWEST_RATE = 1_000
HIGHEST_RATE = 768_000


def check_rate(rate: int, what: str = "the sound") -> int:
    """Return `rate` (Hz) when it is one that sound has.

    Raises:
        InputError: it is not between 1 and 768 kHz.
    """
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise InputError(f"{what} has {rate} samples a second; expected {LOWEST_RATE} to {HIGHEST_RATE}", rate=rate)
    return rate


class Resampler:
    """From one rate to another, streaming: `push` gives what is ready, `finish` the rest.

    The output has its delay removed, so sample 0 comes out at sample 0; about n * to_rate / from_rate samples in all.
    """

    def __init__(self, from_rate: int, to_rate: int = SAMPLE_RATE) -> None:
        """Prepare the filter; equal rates pass through untouched."""
        self.from_rate = check_rate(from_rate, "the input")
        self.to_rate = check_rate(to_rate, "the output")
        self._blocks = TickAssembler(max(1, from_rate // 50))
        self._stream = None
        if from_rate != to_rate:
            import soxr

            self._stream = soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32", quality="HQ")

    def push(self, samples: Samples) -> list[Samples]:
        """Take float32 `[n]` at `from_rate`; return blocks at `to_rate`, possibly none. Samples must be finite."""
        blocks = self._blocks.push(samples)
        if self._stream is None:
            return blocks
        return [out for out in map(self._stream.resample_chunk, blocks) if len(out)]

    def finish(self) -> list[Samples]:
        """End the input; return what was still inside. The resampler is spent afterwards."""
        rest = self._blocks.save()["held"]
        self._blocks.flush()
        if self._stream is not None:
            rest = self._stream.resample_chunk(rest, last=True)
        return [rest] if len(rest) else []
