"""Whether a figure that was taken minute by minute goes anywhere: its slope, and what the slope is worth."""

import numpy as np

from audiolm.eval.stats import RESAMPLES, Estimate, Values

FEWEST = 8  # minutes; the slope of fewer is noise


def trend(values: Values, minutes: float = 1.0, seed: int = 0, resamples: int = RESAMPLES) -> Estimate | None:
    """Change an hour of values taken every ``minutes``, by least squares, with its 95 % interval; None of fewer than 8.

    Neighbouring minutes are alike, so the residuals are drawn again in blocks of ``n^(1/3)`` (moving block bootstrap,
    Künsch 1989), widened by ``sqrt(n / (n - 2))`` for the two numbers that were fitted. What is not finite is left out.
    """
    y = np.asarray(values, np.float64)
    hours = np.arange(len(y)) * minutes / 60
    there = np.isfinite(y)
    y, hours = y[there], hours[there]
    n = len(y)
    if n < FEWEST:
        return None
    x = hours - hours.mean()
    weights = x / (x @ x)
    slope = float(weights @ y)
    residuals = (y - y.mean() - slope * x) * np.sqrt(n / (n - 2))
    block = max(1, round(n ** (1 / 3)))
    starts = np.random.default_rng(seed).integers(n - block + 1, size=(resamples, -(-n // block)))
    picks = (starts[..., None] + np.arange(block)).reshape(resamples, -1)[:, :n]
    low, high = np.percentile(slope + residuals[picks] @ weights, [2.5, 97.5])
    return Estimate(slope, float(low), float(high), n)
