"""The microphone on a fake sound system: ticks, sessions that come and go, and a device that goes and comes."""

import asyncio
import contextlib
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from pydantic import ValidationError

sys.path.insert(0, str(Path(__file__).parent))

from fake_sound import LOUD, MIC, System

from streamer.errors import InputError
from streamer.frame import HEARD
from streamer.node import Build, SessionInfo
from streamer.nodes import host, lines, microphone
from streamer.nodes.host import Host
from streamer.nodes.microphone import MicrophoneSource


@pytest.fixture(autouse=True)
def steady(monkeypatch):
    """No test depends on how busy the machine is: silence is only what a test makes of it."""
    monkeypatch.setattr(host, "LOOK", 0.002)
    monkeypatch.setattr(host, "FIRST_DELAY", 0.005)
    monkeypatch.setattr(host, "MOST_DELAY", 0.01)
    monkeypatch.setattr(lines, "FIRST", 10**9)
    monkeypatch.setattr(lines, "SILENT", 10**9)
    monkeypatch.setattr(microphone, "STALE", 60.0)


@pytest.fixture
def system(monkeypatch):
    made = System(MIC, LOUD)
    found = Host(made.backend())
    monkeypatch.setattr(Host, "shared", lambda: found)
    yield made
    for line in list(found._lines):
        line.close()


@pytest.fixture
def mic(system):
    """`mic(**settings)`: a microphone on the fake system, at 16 kHz, so that samples come through as they are."""
    made = []

    def make(**settings):
        config = MicrophoneSource.Config(**{"rate": 16_000, "echo": "off"} | settings)
        made.append(MicrophoneSource(config, Build("mic")))
        return made[-1]

    yield make
    for each in made:
        each.shutdown()


@contextlib.asynccontextmanager
async def playing(system, sound, *, pace=0.01):
    """Inside, the device hears `sound`, `[n]` or `[n, channels]`, over and over, block by block."""
    table = np.asarray(sound, np.float32).reshape(len(sound), -1)

    async def play():
        position = 0
        while True:
            streams = [each for each in system.running("USB Mic") if each.active]
            if streams:
                rows = np.arange(position, position + streams[0].frames)
                streams[0].pulse(np.take(table, rows, axis=0, mode="wrap"))
                position += streams[0].frames
            await asyncio.sleep(pace)

    task = asyncio.create_task(play())
    try:
        yield
    finally:
        task.cancel()


async def some(frames, count):
    """The next `count` frames."""
    return [await anext(frames) for _ in range(count)]


async def test_it_gives_ticks_of_what_is_heard(mic, system):
    ramp = np.arange(16_000) / 32_768
    info = SessionInfo("s")
    async with playing(system, ramp), contextlib.aclosing(mic().frames(info)) as frames:
        found = await some(frames, 8)
    assert [frame.position for frame in found] == [640 * i for i in range(8)]
    assert [frame.seq for frame in found] == list(range(8))
    assert all(frame.flags == HEARD and frame.session == "s" and frame.meta == {} for frame in found)
    sound = np.concatenate([frame.array for frame in found])[160:]
    assert np.allclose(np.diff(sound), 1 / 32_768, atol=1e-6)
    assert info.metrics.gauges["mic.device"] == "USB Mic"
    assert info.metrics.gauges["mic.connected"] is True
    assert -60 < info.metrics.gauges["mic.level_db"] < 0
    assert info.metrics.counters["mic.lost_samples"] == 0


async def test_sessions_come_and_go_on_one_open_device(mic, system):
    source = mic()
    async with playing(system, np.linspace(0, 0.5, 16_000)):
        async with contextlib.aclosing(source.frames(SessionInfo("one"))) as frames:
            last = (await some(frames, 5))[-1]
        await asyncio.sleep(0.1)
        async with contextlib.aclosing(source.frames(SessionInfo("two"))) as frames:
            first, second = await some(frames, 2)
    assert (first.position, first.session) == (0, "two")
    assert second.array[0] > last.array[-1] + 640 * 0.5 / 16_000
    assert len(system.streams) == 1
    source.shutdown()
    assert system.streams[0].closed


async def test_a_new_session_takes_it_over(mic, system):
    source = mic()
    async with playing(system, np.full(16_000, 0.5)):
        old = source.frames(SessionInfo("old"))
        await some(old, 2)
        new = source.frames(SessionInfo("new"))
        await some(new, 1)
        (end,) = [frame async for frame in old]
        assert end.last
        assert end.position == 1280
        assert (await some(new, 3))[-1].position == 1920
        await new.aclose()


async def test_while_the_device_is_away_there_is_silence(mic, system):
    info = SessionInfo()
    async with playing(system, np.full(16_000, 0.5)), contextlib.aclosing(mic(device="USB Mic").frames(info)) as frames:
        assert (await some(frames, 3))[-1].array[-1] == 0.5
        system.unplug("USB Mic")
        away = [frame async for frame in until_gap(frames)][-1:] + await some(frames, 5)
        assert all(frame.meta == {"gap": True} for frame in away)
        assert not np.concatenate([frame.array for frame in away[1:]]).any()
        assert info.metrics.gauges["mic.connected"] is False
        system.plug(MIC)
        back = [frame async for frame in until_gap(frames, gap=False)][-1]
        assert back.array[0] == 0  # it begins softly
        assert back.array[-1] == 0.5
        assert info.metrics.gauges["mic.connected"] is True
        assert (await anext(frames)).position == back.position + 640


async def until_gap(frames, *, gap=True):
    """Frames up to the first that is a gap, or is none."""
    while True:
        frame = await anext(frames)
        yield frame
        if bool(frame.meta) == gap:
            return


async def test_silence_keeps_the_pace_of_the_clock(mic, system, monkeypatch):
    monkeypatch.setattr(microphone, "STALE", 0.01)
    loop = asyncio.get_running_loop()
    async with contextlib.aclosing(mic().frames(SessionInfo())) as frames:
        await anext(frames)
        start = loop.time()
        assert all(frame.meta["gap"] for frame in await some(frames, 5))
        assert loop.time() - start >= 0.19


async def test_a_silent_device_is_taken_as_away_until_it_sounds(mic, system, monkeypatch):
    monkeypatch.setattr(microphone, "STALE", 0.01)
    async with contextlib.aclosing(mic().frames(SessionInfo())) as frames:
        assert (await anext(frames)).meta == {"gap": True}
        monkeypatch.setattr(microphone, "STALE", 60.0)
        async with playing(system, np.full(16_000, 0.5)):
            back = [frame async for frame in until_gap(frames, gap=False)][-1]
    assert back.array[-1] == 0.5


async def test_it_may_end_when_the_device_goes(mic, system):
    async with playing(system, np.full(16_000, 0.5)):
        frames = mic(device="USB Mic", away="end").frames(SessionInfo())
        await some(frames, 2)
        system.unplug("USB Mic")
        rest = [frame async for frame in frames]
    assert rest[-1].last
    assert rest[-1].position == 640 * (len(rest) + 1)


async def test_what_nobody_took_in_time_is_lost_and_counted(mic, system):
    info = SessionInfo()
    async with contextlib.aclosing(mic().frames(info)) as frames:
        async with playing(system, np.full(16_000, 0.25)):
            await some(frames, 1)
        for _ in range(100):  # a second at once, as after a pause of the event loop
            system.streams[0].pulse(np.full((160, 1), 0.75, np.float32))
        found = await some(frames, 1)
    assert found[0].array[-1] == 0.75
    assert info.metrics.counters["mic.lost_samples"] >= 16_000 - 640


async def test_the_voice_comes_first(mic, system, tmp_path):
    voice = np.full(1300, 0.125)
    soundfile.write(tmp_path / "voice.wav", voice, 16_000, subtype="FLOAT")
    info = SessionInfo(mode="resynthesize", voice=str(tmp_path / "voice.wav"))
    async with playing(system, np.full(16_000, 0.5)), contextlib.aclosing(mic().frames(info)) as frames:
        found = await some(frames, 4)
    assert [frame.meta.get("role") for frame in found] == ["voice", "voice", None, None]
    assert [frame.position for frame in found] == [0, 640, 1280, 1920]
    assert found[1].array[0] == 0.125
    assert found[3].array[0] == 0.5


async def test_a_voice_that_is_missing_is_said(mic, system):
    frames = mic().frames(SessionInfo(mode="resynthesize", voice="nowhere.wav"))
    with pytest.raises(InputError, match=r"nowhere\.wav"):
        await anext(frames)


async def test_one_channel_of_several(mic, system):
    sound = np.tile([0.125, 0.75], (16_000, 1))
    async with playing(system, sound), contextlib.aclosing(mic(channel=2).frames(SessionInfo())) as frames:
        assert (await some(frames, 2))[1].array[-1] == 0.75


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"device": "bogus"}, "no sound input is named 'bogus'"),
        ({"device": "Speakers"}, "'Speakers' has no inputs"),
        ({"device": 7}, "there is no sound device 7"),
    ],
)
def test_a_device_that_is_not_there_is_refused_before_anything_is_loaded(mic, settings, said):
    with pytest.raises(InputError, match=said):
        mic(**settings)


async def test_a_device_that_cannot_do_it_is_refused_when_it_is_opened(mic, system):
    frames = mic(channels=3).frames(SessionInfo())
    with pytest.raises(InputError, match=r"with 3 channel\(s\); it has 2"):
        await anext(frames)


def test_settings():
    assert MicrophoneSource.Config(echo=False).echo == "off"  # YAML's bare `off`
    with pytest.raises(ValidationError, match="channel 3 of 2 channels"):
        MicrophoneSource.Config(channel=3, channels=2)
    with pytest.raises(ValidationError, match="echo"):
        MicrophoneSource.Config(echo="loud")
