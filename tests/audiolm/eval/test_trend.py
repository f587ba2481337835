"""Trends whose slope is known."""

import numpy as np
import pytest

from audiolm.eval.trend import trend


def test_a_line_has_its_slope_and_no_doubt():
    found = trend(3 + 0.5 * np.arange(60) / 60)
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    assert found.n == 60
    assert trend(np.arange(10.0), minutes=30).mean == pytest.approx(2)


@pytest.mark.parametrize(("alike", "least"), [(0.0, 0.88), (0.4, 0.75)])
def test_the_interval_holds_the_slope_as_often_as_it_says(alike, least):
    """Noise that remembers the minute before is harder; then the interval may be somewhat too narrow."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(200):
        noise = rng.standard_normal(60)
        for i in range(1, 60):
            noise[i] += alike * noise[i - 1]
        found = trend(2 + 1.5 * np.arange(60) / 60 + noise, resamples=400)
        held += found.low <= 1.5 <= found.high
    assert least < held / 200 <= 1


def test_a_few_minutes_have_no_trend_and_gaps_are_left_out():
    assert trend([1.0] * 7) is None
    values = 2 * np.arange(12.0) / 60
    values[3] = np.nan
    assert trend(values).mean == pytest.approx(2)
    assert trend(values).n == 11
    assert trend([np.nan] * 20) is None
