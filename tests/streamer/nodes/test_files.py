"""The file ends: whole ticks in, the same whatever the chunking; a complete marked file out, or none."""

import asyncio
import time

import numpy as np
import pytest
import soundfile
import structlog
from pydantic import ValidationError

from audiolm.io import MARK, read_audio, read_metadata
from streamer.errors import InputError
from streamer.frame import AUDIO, GENERATED, HEARD, LAST, Frame
from streamer.node import Build, SessionInfo
from streamer.nodes.files import FileSink, FileSource

TICK = 640


def tone(n, level=0.5):
    return (level * np.sin(2 * np.pi * 440 * np.arange(n) / 16000)).astype(np.float32)


@pytest.fixture
def prompt(tmp_path):
    path = tmp_path / "prompt.wav"
    soundfile.write(path, tone(10 * TICK + 100), 16000, "FLOAT")
    return path


def source(path, shared=None, base=".", **settings):
    return FileSource(FileSource.Config(path=str(path), **settings), Build("file", base=base, shared=shared or {}))


def sink(path, shared=None, **settings):
    shared = {} if shared is None else shared
    return FileSink(FileSink.Config(path=str(path), **settings), Build("out", bundle="/a/tiny", shared=shared))


async def collect(node, ctx=None):
    return [frame async for frame in node.frames(ctx or SessionInfo())]


def sound(frames):
    return np.concatenate([np.zeros(0, np.float32), *(frame.array for frame in frames)])


def check_stream(frames):
    """Ticks at their positions, flagged heard, in sequence, ended by exactly one empty LAST."""
    assert [frame.shape for frame in frames[:-1]] == [(TICK,)] * (len(frames) - 1)
    assert [frame.position for frame in frames] == [i * TICK for i in range(len(frames))]
    assert [frame.seq for frame in frames] == list(range(len(frames)))
    assert all(frame.kind == AUDIO and frame.heard and frame.rate == 16000 for frame in frames)
    assert [frame.last for frame in frames] == [False] * (len(frames) - 1) + [True]
    assert frames[-1].shape == (0,)


async def test_a_prompt_gives_whole_ticks_and_says_what_is_dropped(prompt):
    with structlog.testing.capture_logs() as logs:
        frames = await collect(source(prompt))
    check_stream(frames)
    np.testing.assert_array_equal(sound(frames), tone(10 * TICK))
    assert [log["note"] for log in logs] == ["the last 100 samples do not fill a tick: drop"]


@pytest.mark.parametrize("mode", ["reconstruct", "resynthesize"])
async def test_modes_that_keep_the_whole_input_pad_the_last_tick(prompt, mode):
    shared = {}
    node = source(prompt)
    node.build.shared.clear()
    node = FileSource(node.config, Build("file", shared=shared))
    frames = await collect(node, SessionInfo(id="s", mode=mode))
    check_stream(frames)
    np.testing.assert_array_equal(sound(frames), np.pad(tone(10 * TICK + 100), (0, TICK - 100)))
    assert shared["true_length"] == {"s": 10 * TICK + 100}


@pytest.mark.parametrize("chunk_ms", [0.0625, 7, 40, 333, 60_000])
async def test_the_chunk_size_changes_nothing(tmp_path, chunk_ms):
    path = tmp_path / "a.flac"
    soundfile.write(path, np.stack([tone(9000), tone(9000, 0.1)], 1), 22050)
    expected = await collect(source(path))
    assert await collect(source(path, chunk_ms=chunk_ms)) == expected
    check_stream(expected)


async def test_prompt_seconds_cuts_and_a_shorter_file_is_said(prompt):
    frames = await collect(source(prompt), SessionInfo(prompt_seconds=0.1))
    check_stream(frames)
    np.testing.assert_array_equal(sound(frames), tone(2 * TICK))
    with structlog.testing.capture_logs() as logs:
        assert len(await collect(source(prompt), SessionInfo(prompt_seconds=3))) == 11
    assert "shorter than prompt_seconds 3" in logs[-1]["note"]
    with pytest.raises(InputError, match=r"at least 0\.04"):
        await collect(source(prompt), SessionInfo(prompt_seconds=0.039))


async def test_a_voice_comes_first_in_whole_ticks_and_marked(tmp_path, prompt):
    voice = tmp_path / "voice.wav"
    soundfile.write(voice, tone(3 * TICK + 5, 0.2), 16000, "FLOAT")
    ctx = SessionInfo(mode="resynthesize", voice=str(voice), prompt_seconds=0.08)
    frames = await collect(source(prompt), ctx)
    check_stream(frames)
    assert [frame.meta.get("role") for frame in frames] == ["voice"] * 3 + [None] * 3
    np.testing.assert_array_equal(sound(frames[:3]), tone(3 * TICK, 0.2))
    np.testing.assert_array_equal(sound(frames[3:]), tone(2 * TICK))
    assert len(await collect(source(prompt), SessionInfo(voice=str(voice)))) == 11


async def test_real_time_gives_ticks_by_the_wall_clock(prompt):
    start = time.monotonic()
    frames = await collect(source(prompt, realtime=True), SessionInfo(prompt_seconds=0.2))
    assert time.monotonic() - start >= 0.2
    assert frames == await collect(source(prompt), SessionInfo(prompt_seconds=0.2))


async def test_reading_does_not_block_the_loop(tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(44100 * 20), 44100)
    beats = 0

    async def beat():
        nonlocal beats
        while True:
            await asyncio.sleep(0)
            beats += 1

    heart = asyncio.create_task(beat())
    assert len(await collect(source(path))) == 501
    heart.cancel()
    assert beats > 20


@pytest.mark.parametrize("name", ["", "none.wav", "empty.wav", "one.wav", "."])
def test_what_cannot_be_read_is_refused_when_the_graph_is_built(tmp_path, name):
    (tmp_path / "empty.wav").touch()
    soundfile.write(tmp_path / "one.wav", np.zeros(1), 16000)
    with pytest.raises(InputError) as caught:
        source(tmp_path / name if name else "")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("bad", [{"chunk_ms": 0}, {"chunk_ms": -1}, {"rest": "keep"}, {"speed": 2}, {"chunk_ms": 1e9}])
def test_nonsense_settings_are_refused(bad):
    with pytest.raises(ValidationError):
        FileSource.Config(**bad)


def test_a_path_is_found_from_the_config_too(prompt):
    assert source(prompt.name, base=str(prompt.parent)).path == prompt
    assert source(prompt, base="/nowhere").path == prompt


def frames_of(samples, flags=GENERATED, position=0, **meta):
    return [
        Frame.of(AUDIO, samples[i : i + TICK], position=position + i, flags=flags, meta=meta)
        for i in range(0, len(samples), TICK)
    ]


async def run_sink(node, frames, ctx):
    for frame in frames:
        await node.write(frame, ctx, AUDIO)
    await node.write(Frame.end(AUDIO, position=0), ctx, AUDIO)
    await node.finish(ctx)
    node.shutdown()


async def test_a_sound_is_written_with_its_mark_and_settings(tmp_path):
    ctx = SessionInfo(seed=7, seconds=2, voice="/home/me/voice.wav", extra={"settings": {"temperature": 0.8}})
    await run_sink(sink(tmp_path / "out.wav"), frames_of(tone(5 * TICK)), ctx)
    np.testing.assert_allclose(read_audio(tmp_path / "out.wav"), tone(5 * TICK), atol=2**-15)
    found = read_metadata(tmp_path / "out.wav")
    assert found.mark == MARK
    assert found.settings == {
        "bundle": "tiny",
        "engine": "auto",
        "include_prompt": True,
        "mode": "continue",
        "prompt_seconds": None,
        "seconds": 2,
        "seed": 7,
        "temperature": 0.8,
        "voice": "voice.wav",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["out.wav"]


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, [1, 2]),
        ({"include_prompt": False}, [2]),
        ({"mode": "resynthesize"}, [2]),
        ({"mode": "reconstruct", "include_prompt": False}, [1, 2]),
    ],
)
async def test_what_is_kept_of_prompt_and_continuation(tmp_path, settings, kept):
    parts = {1: np.full(2 * TICK, 0.25, np.float32), 2: np.full(TICK, 0.5, np.float32)}
    voice = frames_of(np.full(TICK, 0.75, np.float32), GENERATED, role="voice")
    frames = [*voice, *frames_of(parts[1], HEARD), *frames_of(parts[2])]
    await run_sink(sink(tmp_path / "a.wav"), frames, SessionInfo(**settings))
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav"), np.concatenate([parts[i] for i in kept]))


@pytest.mark.parametrize(
    ("mode", "length"), [("reconstruct", 4 * TICK - 77), ("resynthesize", 4 * TICK - 77), ("continue", 4 * TICK)]
)
async def test_padding_is_cut_where_the_input_ended(tmp_path, mode, length):
    shared = {"true_length": {"main": 4 * TICK - 77}}
    await run_sink(sink(tmp_path / "a.wav", shared), frames_of(tone(4 * TICK)), SessionInfo(mode=mode))
    assert len(read_audio(tmp_path / "a.wav")) == length


async def test_source_and_sink_together_give_the_same_length(tmp_path, prompt):
    shared = {"any": 1}
    ctx = SessionInfo(mode="reconstruct")
    frames = await collect(source(prompt, shared), ctx)
    await run_sink(sink(tmp_path / "a.wav", shared), frames[:-1], ctx)
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), tone(10 * TICK + 100), atol=2**-15)


async def test_an_aborted_session_leaves_nothing(tmp_path):
    node, ctx = sink(tmp_path / "a.wav"), SessionInfo()
    for frame in frames_of(tone(5 * TICK)):
        await node.write(frame, ctx, AUDIO)
    await node.abort(ctx)
    await node.abort(ctx)
    assert list(tmp_path.iterdir()) == []


async def test_a_graph_that_is_closed_early_leaves_nothing(tmp_path):
    node = sink(tmp_path / "a.wav")
    await node.write(frames_of(tone(TICK))[0], SessionInfo(), AUDIO)
    node.shutdown()
    assert list(tmp_path.iterdir()) == []


async def test_sessions_write_to_files_of_their_own(tmp_path):
    node = sink(tmp_path / "{session}.flac")
    one, two = SessionInfo(id="one"), SessionInfo(id="two")
    await node.write(frames_of(tone(TICK))[0], one, AUDIO)
    await node.write(frames_of(tone(TICK, 0.1))[0], two, AUDIO)
    await node.finish(one)
    await node.abort(two)
    assert [path.name for path in tmp_path.iterdir()] == ["one.flac"]


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
async def test_save_and_load_give_the_same_file(tmp_path, suffix):
    ctx = SessionInfo(seed=3)
    frames = frames_of(tone(9 * TICK + 50))
    await run_sink(sink(tmp_path / f"whole{suffix}"), frames, ctx)
    first = sink(tmp_path / f"cut{suffix}")
    for frame in frames[:4]:
        await first.write(frame, ctx, AUDIO)
    saved = first.save(ctx)
    first.shutdown()
    second = sink(tmp_path / f"cut{suffix}")
    second.load(saved, ctx)
    second.load(saved, ctx)
    await run_sink(second, frames[4:], ctx)
    assert (tmp_path / f"cut{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()


async def test_saving_needs_what_was_kept(tmp_path):
    node = sink(tmp_path / "a.wav", snapshots=False)
    assert node.save(SessionInfo()) == {}
    await node.write(frames_of(tone(TICK))[0], SessionInfo(), AUDIO)
    with pytest.raises(InputError, match=r"nodes\.out\.snapshots=true"):
        node.save(SessionInfo())
    node.shutdown()


async def test_another_rate_is_written_but_not_changed_midway(tmp_path):
    node = sink(tmp_path / "a.wav")
    await node.write(Frame.of(AUDIO, tone(960), position=0, rate=24000), SessionInfo(), AUDIO)
    with pytest.raises(InputError, match="from 24000 to 16000"):
        await node.write(frames_of(tone(TICK))[0], SessionInfo(), AUDIO)
    await node.finish(SessionInfo())
    assert soundfile.info(tmp_path / "a.wav").samplerate == 24000


@pytest.mark.parametrize("name", ["", "a.mp4", "none/a.wav", "."])
def test_what_cannot_be_written_is_refused_when_the_graph_is_built(tmp_path, name):
    with pytest.raises(InputError) as caught:
        sink(tmp_path / name if name else "")
    assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


async def test_an_empty_stream_gives_a_file_without_sound(tmp_path):
    await run_sink(sink(tmp_path / "a.wav"), [Frame.end(AUDIO, position=0, flags=LAST)], SessionInfo())
    assert soundfile.info(tmp_path / "a.wav").frames == 0
