"""The ring between two threads: order, bounds, counters."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.nodes.ring import Ring


def numbers(start, count, channels=1):
    return np.arange(start * channels, (start + count) * channels, dtype=np.float32).reshape(count, channels)


def test_what_went_in_comes_out_in_order_and_beyond_the_end():
    ring = Ring(8, 2)
    assert (ring.level, ring.free) == (0, 8)
    assert ring.push(numbers(0, 6, 2)) == 6
    assert np.array_equal(ring.pop(4), numbers(0, 4, 2))
    assert ring.push(numbers(6, 5, 2)) == 5
    assert (ring.level, ring.free, ring.pushed, ring.popped) == (7, 1, 11, 4)
    assert np.array_equal(ring.pop(100), numbers(4, 7, 2))
    assert ring.pop(3).shape == (0, 2)


def test_what_does_not_fit_is_dropped_and_counted():
    ring = Ring(4)
    assert ring.push(np.arange(6, dtype=np.float32)) == 4
    assert ring.push(np.ones(3, np.float32)) == 0
    assert ring.overruns == 5
    assert np.array_equal(ring.pop(9)[:, 0], [0, 1, 2, 3])


def test_pop_into_leaves_the_rest_alone():
    ring = Ring(4)
    ring.push(np.array([1, 2], np.float32))
    out = np.full(4, 9, np.float32)
    assert ring.pop_into(out) == 2
    assert np.array_equal(out, [1, 2, 9, 9])


def test_clear_throws_away_what_waits():
    ring = Ring(4)
    ring.push(np.ones(3, np.float32))
    assert ring.clear() == 3
    assert (ring.level, ring.free, ring.popped, ring.overruns) == (0, 4, 3, 0)


def test_refuses_what_it_cannot_hold():
    with pytest.raises(ValueError, match="expected at least 1"):
        Ring(0)
    with pytest.raises(ValueError, match="expected at least 1"):
        Ring(4, 0)
    with pytest.raises(ValueError, match="2 channel"):
        Ring(4, 2).push(np.zeros((3, 1), np.float32))
    with pytest.raises(ValueError, match="1 channel"):
        Ring(4).pop_into(np.zeros((1, 1, 1), np.float32))


@settings(deadline=None, database=None)
@given(st.integers(1, 40), st.lists(st.tuples(st.booleans(), st.integers(0, 50)), max_size=60))
def test_behaves_like_a_bounded_list(capacity, moves):
    ring, model, at, lost = Ring(capacity), [], 0, 0
    for push, count in moves:
        if push:
            block = numbers(at, count)
            at += count
            taken = min(count, capacity - len(model))
            assert ring.push(block) == taken
            model += list(block[:taken, 0])
            lost += count - taken
        else:
            got = ring.pop(count)[:, 0]
            assert list(got) == model[:count]
            del model[:count]
        assert (ring.level, ring.free, ring.overruns) == (len(model), capacity - len(model), lost)


def test_two_threads_lose_and_repeat_nothing():
    ring, total, got = Ring(257), 60_000, []

    def produce():
        at = 0
        while at < total:
            at += ring.push(numbers(at, min(37, ring.free, total - at)))

    thread = threading.Thread(target=produce)
    thread.start()
    while sum(map(len, got)) < total:
        block = ring.pop(53)
        if len(block):
            got.append(block)
    thread.join()
    assert np.array_equal(np.concatenate(got), numbers(0, total))
    assert ring.overruns == 0
