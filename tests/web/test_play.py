"""The shipped configs of the page, with a tiny bundle, through a real server: what each mode gives each visitor."""

import asyncio

import numpy as np
import pytest

from streamer.web.rooms import CONFIGS

WAITING = 6  # ticks that may wait at the server, so that none is lost where the machine is slow


@pytest.fixture
async def shipped(serve):
    """A server that has every mode, and waits for the end of a session."""
    return await serve(choices=CONFIGS, leave=60.0, visit=None)


async def play(server, samples, *later, **hello):
    """One visit: sound tick by tick, `later` when something generated has come, then bye; gives what came."""
    page = await server.connect()
    welcome = await page.hello(**hello)
    players = [visitor.player for visitor in server.service.visitors]
    (player,) = [each for each in players if each._session is not None and each._session.info.id == welcome.session]
    got = []

    async def read():
        while (frame := await page.read()).meta.get("command") != "bye":
            got.append(frame)

    reading = asyncio.create_task(read())
    for number, tick in enumerate(np.concatenate((samples, *later)).reshape(-1, 640)):
        while number * 640 == len(samples) and not any(frame.generated for frame in sounds(got)):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await page.tick(tick, number * 640)
        while player._expected != (number + 1) * 640 or len(player._link.inbox) > WAITING:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.005)
    await page.say("bye")
    await reading
    return got


def tone(seconds, pitch):
    return (8000 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * 16_000)) / 16_000)).astype(np.int16)


def sounds(frames):
    return [frame for frame in frames if frame.kind == "audio" and frame.payload]


def joined(frames):
    return np.concatenate([frame.array for frame in sounds(frames)])


async def test_reconstruct_gives_each_visitor_their_own_sound(shipped):
    pitches = 220, 1760
    alone = [await play(shipped, tone(1.0, pitch), mode="reconstruct") for pitch in pitches]
    got = [[], []]

    async def one(index):
        got[index] = await play(shipped, tone(1.0, pitches[index]), mode="reconstruct")

    await asyncio.gather(one(0), one(1))
    for together, single in zip(got, alone, strict=True):
        assert len({frame.session for frame in sounds(together)}) == 1
        assert len(joined(together)) == 16_000
        assert np.array_equal(joined(together), joined(single))
    assert not np.array_equal(joined(got[0]), joined(got[1]))


async def test_continue_goes_on_when_the_sound_stops(shipped):
    samples = np.concatenate((tone(1.2, 330), np.zeros(32_000, np.int16)))
    got = await play(shipped, samples, mode="continue", detector="music", seed=3, temperature=0.9)
    kinds = {(frame.kind, frame.flags & 3) for frame in got if frame.payload}
    assert {("audio", 1), ("audio", 2), ("acoustic", 1), ("semantic", 2), ("coarse", 2), ("fine", 2)} <= kinds
    assert [frame.position for frame in sounds(got)] == [640 * i for i in range(len(sounds(got)))]
    turn = [frame.generated for frame in sounds(got)]
    assert turn == sorted(turn)


async def test_barge_in_is_told_and_the_new_sound_is_heard(shipped):
    samples = np.concatenate((tone(1.0, 330), np.zeros(24_320, np.int16)))
    got = await play(shipped, samples, tone(0.64, 440), mode="continue", detector="music", seed=3)
    order = [frame.meta["command"] if frame.kind == "control" else frame.flags & 3 for frame in got
             if frame.meta.get("command") == "interrupt" or (frame.kind == "audio" and frame.payload)]  # fmt: skip
    stop = order.index("interrupt")
    assert set(order[:stop]) == {1, 2}
    assert set(order[stop + 1 :]) == {1}


async def test_duet_plays_in_the_pauses(shipped):
    samples = np.concatenate((tone(0.8, 330), np.zeros(16_000, np.int16)))
    got = await play(shipped, samples, mode="duet", detector="music")
    assert {frame.flags & 3 for frame in sounds(got)} == {1, 2}


async def test_the_same_seed_and_sound_give_the_same_continuation(shipped):
    samples = np.concatenate((tone(0.8, 330), np.zeros(16_000, np.int16)))
    first, second = [await play(shipped, samples, detector="music", seed=4) for _ in range(2)]
    assert np.array_equal(joined(first), joined(second))
    other = await play(shipped, samples, detector="music", seed=5)
    assert not np.array_equal(joined(first), joined(other))
