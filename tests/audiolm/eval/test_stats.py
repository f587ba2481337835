"""Means and their intervals."""

import numpy as np
import pytest

from audiolm.eval.stats import estimate, gain, number


def test_values_that_agree_leave_no_doubt():
    found = estimate([2.0] * 9)
    assert (found.mean, found.low, found.high, found.n) == (2.0, 2.0, 2.0, 9)


def test_the_interval_covers_the_mean_of_the_source_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = [f.low < 1 < f.high for f in (estimate(rng.normal(1, 2, 40), seed=i) for i in range(200))]
    assert 0.87 < np.mean(hits) < 0.99


def test_what_is_not_finite_is_left_out_and_nothing_gives_nothing():
    assert estimate([1.0, float("nan"), 3.0]).n == 2
    empty = estimate([float("nan")])
    assert empty.n == 0
    assert str(empty) == "-"
    assert empty.as_dict() == {"mean": None, "low": None, "high": None, "n": 0}


def test_pairs_show_a_gain_that_the_spread_would_hide():
    rng = np.random.default_rng(1)
    base = rng.normal(0, 10, 30)
    paired = gain(base + 0.5 + rng.normal(0, 0.1, 30), base)
    assert paired.low > 0.4
    assert estimate(base + 0.5).low < 0


@pytest.mark.parametrize(("value", "text"), [(0.12345, "0.123"), (1.239, "1.24"), (707.3, "707"), (float("nan"), "-")])
def test_numbers_of_a_table(value, text):
    assert number(value) == text
