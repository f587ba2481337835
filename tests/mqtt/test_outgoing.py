import asyncio

import pytest

from streamer.nodes.mqtt.outgoing import Letter, Outgoing


def outgoing(**how):
    woken = []
    settings = {"qos": 1, "capacity": 3, "policy": "drop_oldest", "wake": lambda: woken.append(1)} | how
    made = Outgoing("t", **settings)
    made.woken = woken
    return made


def taken(out, now=0.0):
    letters = []
    while (letter := out.take(now)) is not None:
        letters.append(letter)
    return letters


def test_what_is_put_is_taken_in_order():
    out = outgoing()
    for payload in (b"a", b"b"):
        assert out.put_nowait(payload)
    letters = taken(out)
    assert [letter.payload for letter in letters] == [b"a", b"b"]
    assert (out.waiting, out.sent, len(out.woken)) == (2, 0, 2)
    for letter in letters:
        out.done(letter)
    assert (out.waiting, out.sent, out.dropped) == (0, 2, 0)


def test_a_full_one_drops_the_oldest_that_waits():
    out = outgoing()
    for payload in (b"a", b"b", b"c", b"d"):
        out.put_nowait(payload)
    assert (out.dropped, [letter.payload for letter in taken(out)]) == (1, [b"b", b"c", b"d"])
    out.put_nowait(b"e")
    assert (out.dropped, out.waiting) == (2, 3)


def test_what_was_under_way_goes_first_again():
    out = outgoing(capacity=8)
    for payload in (b"a", b"b", b"c"):
        out.put_nowait(payload)
    first, _ = out.take(0.0), out.take(0.0)
    out.done(first)
    out.recall()
    assert [letter.payload for letter in taken(out)] == [b"b", b"c"]
    assert out.dropped == 0


def test_at_qos_0_what_was_under_way_is_lost_and_counted():
    out = outgoing(qos=0)
    out.put_nowait(b"a")
    out.take(0.0)
    out.recall()
    assert (out.waiting, out.dropped) == (0, 1)


def test_a_letter_that_is_done_after_its_recall_counts_once():
    out = outgoing()
    out.put_nowait(b"a")
    letter = out.take(0.0)
    out.recall()
    out.done(letter)
    assert (out.sent, out.waiting) == (0, 1)


def test_what_is_too_old_is_left_out():
    out = outgoing(most_age=0.4)
    out.put_nowait(b"a")
    out.put_nowait(b"b")
    born = out._waiting[1].born
    out._waiting[0].born -= 1
    assert [letter.payload for letter in taken(out, born)] == [b"b"]
    assert out.dropped == 1


def test_the_latest_takes_the_place_of_what_waits():
    out = outgoing()
    for payload in (b"1", b"2"):
        out.put_letter(Letter("status", payload), latest=True)
        out.put_letter(Letter("other", payload))
    assert [(letter.topic, letter.payload) for letter in taken(out)] == [
        ("other", b"1"),
        ("status", b"2"),
        ("other", b"2"),
    ]


async def test_who_waits_for_room_gets_it():
    out = outgoing(policy="block", capacity=1)
    await out.put(b"a")
    assert not out.put_nowait(b"b")
    second, empty = asyncio.create_task(out.put(b"b")), asyncio.create_task(out.drained())
    await asyncio.sleep(0)
    assert not second.done()
    out.done(out.take(0.0))
    await second
    assert not empty.done()
    out.done(out.take(0.0))
    await asyncio.wait_for(empty, 1)
    assert out.sent == 2


@pytest.mark.parametrize("policy", ["block", "drop_oldest"])
def test_nothing_grows(policy):
    out = outgoing(policy=policy)
    for i in range(1000):
        out.put_nowait(b"x")
        if i % 3 == 0:
            out.take(0.0)
        if i % 100 == 0:
            out.recall()
        assert out.waiting <= 3
