"""Means with bootstrap confidence intervals: what a figure is worth when it comes from a few clips."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

Values = Sequence[float] | np.ndarray[Any, Any]
RESAMPLES = 2000
NOTHING = float("nan")


@dataclass(frozen=True)
class Estimate:
    """A mean of ``n`` values and its 95 % interval; all NaN where there was no value."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return "-" if self.n == 0 else f"{number(self.mean)} ({number(self.low)} to {number(self.high)})"

    def as_dict(self) -> dict[str, float | int | None]:
        """For JSON, which knows no NaN."""
        values = asdict(self)
        return values if self.n else {**dict.fromkeys(values), "n": 0}


def number(value: float) -> str:
    """Three significant digits or two places, whichever is more; a plain number for a table."""
    if not np.isfinite(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def estimate(values: Values, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """Mean and percentile bootstrap interval (Efron 1979) of independent values; what is not finite is left out."""
    data = np.asarray(values, np.float64)
    data = data[np.isfinite(data)]
    if not len(data):
        return Estimate(NOTHING, NOTHING, NOTHING, 0)
    rng = np.random.default_rng(seed)
    means = data[rng.integers(len(data), size=(resamples, len(data)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(data.mean()), float(low), float(high), len(data))


def gain(better: Values, worse: Values, seed: int = 0) -> Estimate:
    """Mean of the paired differences ``better - worse``; an interval above zero says the gain is no chance."""
    return estimate(np.asarray(better, np.float64) - np.asarray(worse, np.float64), seed)
