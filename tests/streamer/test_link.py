"""The two boxes between a session and a visitor: bounded, in order, and never waited for by who puts."""

import asyncio

import numpy as np
import pytest

from streamer import GENERATED, LAST, TURN, Frame
from streamer.link import Inbox, Outbox


def audio(number, epoch=0, flags=GENERATED):
    return Frame.of("audio", np.zeros(640, np.int16), position=number * 640, epoch=epoch, flags=flags)


def tokens(number):
    return Frame.of("semantic", [1], position=number * 640, flags=GENERATED)


def taken(outbox):
    found = []
    while (frame := outbox.take()) is not None:
        found.append((frame.kind, frame.position // 640))
    return found


async def test_an_inbox_gives_in_order_and_ends():
    inbox = Inbox()
    for number in range(3):
        inbox.put(audio(number))
    inbox.end()
    inbox.put(audio(9))
    assert [(await inbox.get()).position for _ in range(3)] == [0, 640, 1280]
    assert await inbox.get() is None
    assert await inbox.get() is None


async def test_a_full_inbox_loses_the_oldest_and_counts():
    inbox = Inbox(2)
    for number in range(5):
        inbox.put(audio(number))
    assert (len(inbox), inbox.dropped) == (2, 3)
    assert (await inbox.get()).position == 3 * 640


@pytest.mark.parametrize("end", [False, True])
async def test_who_waits_for_an_inbox_is_woken(end):
    inbox = Inbox()
    waiting = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    if end:
        inbox.end()
    else:
        inbox.put(audio(0))
    assert ((await waiting) is None) is end


def test_an_outbox_gives_in_order_whatever_the_kind():
    outbox = Outbox()
    frames = [audio(0), tokens(1), Frame.control("pong", position=2 * 640), tokens(3), audio(4)]
    for frame in frames:
        outbox.put(frame)
    assert len(outbox) == 5
    assert [number for _, number in taken(outbox)] == [0, 1, 2, 3, 4]


def test_a_full_outbox_loses_the_oldest_tokens_then_the_oldest_sound_and_no_control():
    outbox = Outbox(capacity=4)
    outbox.put(Frame.control("interrupt"))
    for frame in (audio(0), tokens(1), tokens(2), audio(3), audio(4), audio(5), audio(6)):
        outbox.put(frame)
    assert outbox.dropped == 3
    assert taken(outbox) == [("control", 0), ("audio", 3), ("audio", 4), ("audio", 5), ("audio", 6)]


def test_the_ends_of_turns_and_streams_stay():
    outbox = Outbox(capacity=1)
    outbox.put(Frame.end("audio", position=640))
    outbox.put(Frame.turn("audio", position=1280))
    for number in range(3, 6):
        outbox.put(audio(number))
    assert outbox.take().flags & LAST
    assert outbox.take().flags & TURN
    assert taken(outbox) == [("audio", 5)]


def test_only_the_newest_status_waits():
    outbox = Outbox()
    for number in range(100):
        outbox.put(Frame.control("status", position=number * 640))
    assert taken(outbox) == [("control", 99)]
    assert not outbox.overrun


def test_control_that_nobody_reads_is_bounded_and_noticed():
    outbox = Outbox(controls=3)
    for number in range(5):
        outbox.put(Frame.control("pong", position=number * 640))
    assert (len(outbox), outbox.overrun) == (3, True)


def test_an_interruption_takes_back_generated_sound_of_older_epochs_alone():
    outbox = Outbox()
    for frame in (audio(0, 0), audio(1, 1), audio(2, 0, flags=1), tokens(3)):
        outbox.put(frame)
    outbox.interrupt(1)
    assert [number for _, number in taken(outbox)] == [1, 2, 3]


async def test_who_waits_for_an_outbox_is_woken():
    outbox = Outbox()
    waiting = asyncio.create_task(outbox.get())
    await asyncio.sleep(0)
    outbox.put(tokens(1))
    assert (await waiting).position == 640
