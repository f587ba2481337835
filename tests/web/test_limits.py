"""Buckets and places."""

import pytest

from streamer.web.admission import Admission
from streamer.web.limits import Bucket, Limits
from streamer.web.protocol import Closed


def test_a_bucket_gives_a_burst_and_then_its_rate():
    now = [0.0]
    bucket = Bucket(2.0, 3, clock=lambda: now[0])
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    now[0] = 0.5
    assert [bucket.take() for _ in range(2)] == [True, False]
    now[0] = 100.0
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]


def test_a_bucket_that_refuses_takes_nothing():
    bucket = Bucket(0.0, 10, clock=lambda: 0.0)
    assert not bucket.take(11)
    assert bucket.take(10)


def test_places_are_given_back_however_a_visit_ends():
    admission = Admission(Limits(sessions=1))
    place = admission.place("here")
    place.__enter__()
    assert admission.full
    with pytest.raises(ZeroDivisionError):
        place.gen.throw(ZeroDivisionError)
    with admission.place("here"), pytest.raises(Closed, match="1 places"), admission.place("there"):
        pass
    assert admission.playing == 0


def test_one_address_has_its_share():
    admission = Admission(Limits(sessions=3, per_address=1))
    with admission.place("here"):
        with pytest.raises(Closed, match="your address") as caught, admission.place("here"):
            pass
        assert caught.value.code == "full"
        with admission.place("there"):
            assert admission.playing == 2
    assert not admission._by_address


def test_nobody_comes_in_while_the_machine_is_too_slow_for_those_who_are_there():
    slow = [True]
    admission = Admission(Limits(sessions=3), lambda: slow[0])
    with pytest.raises(Closed, match="too slow for one more visitor") as caught, admission.place("here"):
        pass
    assert caught.value.code == "busy"
    slow[0] = False
    with admission.place("here"):
        assert admission.playing == 1


def test_nobody_comes_in_at_the_end():
    admission = Admission(Limits())
    admission.closing = True
    for door in (admission.waiting(), admission.place("here")):
        with pytest.raises(Closed) as caught, door:
            pass
        assert caught.value.code == "busy"
