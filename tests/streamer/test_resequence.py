import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.resequence import FAR, Resequencer


def counts(made):
    return {
        name: getattr(made, name)
        for name in ("duplicates", "late", "lost", "reordered", "refused", "strays")
        if getattr(made, name)
    }


def test_what_is_in_order_goes_through():
    made = Resequencer()
    for i in range(5):
        assert made.push(i, f"item {i}", 0.0) == [(i, f"item {i}")]
    assert (counts(made), made.held, made.due) == ({}, 0, None)


def test_what_is_early_waits_for_what_is_before_it():
    made = Resequencer(wait=0.1)
    assert made.push(1, "b", 0.0) == []
    assert (made.due, made.since()) == (0.1, 0.0)
    assert made.push(0, "a", 0.05) == [(0, "a"), (1, "b")]
    assert counts(made) == {"reordered": 1}


def test_what_does_not_come_in_time_is_given_up():
    made = Resequencer(wait=0.1)
    made.push(2, "c", 0.0)
    assert made.poll(0.09) == []
    assert made.poll(0.1) == [(2, "c")]
    assert made.push(1, "b", 0.2) == []
    assert counts(made) == {"lost": 2, "late": 1}


def test_each_hole_has_its_own_time():
    made = Resequencer(wait=0.1)
    made.push(1, "b", 0.0)
    made.push(3, "d", 0.05)
    assert made.poll(0.1) == [(1, "b")]
    assert made.due == pytest.approx(0.15)
    assert made.poll(made.due) == [(3, "d")]


def test_what_comes_twice_goes():
    made = Resequencer()
    made.push(0, "a", 0.0)
    made.push(2, "c", 0.0)
    assert made.push(0, "a", 0.0) == made.push(2, "c", 0.0) == []
    assert counts(made) == {"duplicates": 2}


def test_holding_has_an_end():
    made = Resequencer(wait=100.0, most=3)
    for i in (2, 4, 6):
        assert made.push(i, i, 0.0) == []
    assert made.push(8, 8, 0.0) == [(2, 2)]
    assert (made.held, made.lost) == (3, 2)


def test_patience_without_end_loses_nothing():
    made = Resequencer(wait=None, most=2)
    assert [made.push(i, i, 0.0) for i in (1, 2, 3)] == [[], [], []]
    assert (made.poll(1e9), made.due) == ([], None)
    assert made.push(0, 0, 0.0) == [(0, 0), (1, 1), (2, 2)]
    assert made.push(3, 3, 0.0) == [(3, 3)]
    assert counts(made) == {"refused": 1, "reordered": 1}


def test_one_number_far_ahead_is_not_believed():
    made = Resequencer(wait=0.0)
    assert made.push(2**62, "x", 0.0) == []
    assert made.push(0, "a", 0.0) == [(0, "a")]
    assert counts(made) == {"strays": 1}


def test_three_in_a_row_are():
    made = Resequencer(wait=0.0)
    start = FAR + 50
    for i in range(3):
        made.push(start + i, i, 0.0)
    assert made.poll(0.0) == [(start + 2, 2)]
    assert made.push(start + 3, 3, 0.0) == [(start + 3, 3)]


@given(st.permutations(range(20)), st.lists(st.integers(0, 19), max_size=10))
def test_any_order_with_repeats_comes_out_in_order(order, repeats):
    made, got = Resequencer(wait=None, most=64), []
    for number in [*order, *repeats]:
        got += made.push(number, number, 0.0)
    assert got == [(i, i) for i in range(20)]
    assert made.duplicates == len(repeats)


@given(st.lists(st.integers(0, 60), max_size=80), st.integers(1, 5))
def test_whatever_comes_is_given_once_and_rising(numbers, most):
    made, got = Resequencer(wait=1.0, most=most), []
    for at, number in enumerate(numbers):
        got += made.push(number, number, float(at)) + made.poll(float(at))
        assert made.held <= most
    given_ = [number for number, _ in got]
    assert given_ == sorted(set(given_))
    assert len(given_) + made.held + made.duplicates + made.late == len(numbers)
