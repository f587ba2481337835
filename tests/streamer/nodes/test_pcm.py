"""Raw PCM ends: any pieces, any format; a reader or writer that stands still holds nothing up."""

import asyncio
import os
import threading
import time

import numpy as np
import pytest
import structlog
from pydantic import ValidationError

from streamer.errors import GraphError, InputError
from streamer.frame import AUDIO, GENERATED, HEARD, Frame
from streamer.node import Build, SessionInfo
from streamer.nodes.pcm import PcmSink, PcmSource

TICK = 640


def tone(n, rate=16000):
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(n) / rate)).astype(np.float32)


def int16(samples):
    return np.rint(samples * 32768).astype("<i2")


@pytest.fixture
def pipe():
    read, write = os.pipe()
    closed = set()

    def close(end):
        if end not in closed:
            closed.add(end)
            os.close(end)

    yield read, write, close
    close(read)
    close(write)


def source(path, **settings):
    return PcmSource(PcmSource.Config(path=str(path), **settings), Build("pcm"))


def sink(path, **settings):
    return PcmSink(PcmSink.Config(path=str(path), **settings), Build("pcm"))


async def collect(node, ctx=None):
    return [frame async for frame in node.frames(ctx or SessionInfo())]


def sound(frames):
    return np.concatenate([frame.array for frame in frames])


def feed(write, close, data, sizes=(1, 2, 1281, 5, 4000)):
    """Write bytes in odd pieces from a thread, then end the stream."""

    def work():
        start = 0
        for size in [*sizes, len(data)]:
            os.write(write, data[start : start + size])
            start += size
        close(write)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize(("form", "dtype"), [("s16le", "<i2"), ("f32le", "<f4")])
async def test_a_pipe_in_odd_pieces(pipe, form, dtype):
    read, write, close = pipe
    samples = tone(5 * TICK + 30)
    data = (int16(samples) if dtype == "<i2" else samples).tobytes()
    thread = feed(write, close, data)
    frames = await collect(source(f"/dev/fd/{read}", format=form))
    thread.join()
    np.testing.assert_allclose(sound(frames), samples[: 5 * TICK], atol=2**-15)
    assert [frame.position for frame in frames] == [i * TICK for i in range(6)]
    assert frames[-1].last
    assert frames[-1].shape == (0,)
    assert not any(frame.last for frame in frames[:-1])


async def test_stereo_at_another_rate_is_converted_and_said(tmp_path):
    path = tmp_path / "a.pcm"
    left = tone(48000, 48000)
    path.write_bytes(int16(np.stack([left, np.zeros_like(left)], 1)).tobytes() + b"\x01")
    with structlog.testing.capture_logs() as logs:
        frames = await collect(source(path, rate=48000, channels=2))
    np.testing.assert_allclose(sound(frames)[800:15000], tone(16000)[800:15000] / 2, atol=2e-3)
    notes = [log["note"] for log in logs]
    assert notes == ["down-mixed 2 channels", "resampled 48000 -> 16000 Hz", "1 bytes at the end are no whole sample"]


async def test_bad_samples_do_not_smear_through_the_resampler(tmp_path):
    samples = tone(48000, 48000)
    samples[24000] = np.nan
    (tmp_path / "a.pcm").write_bytes(samples.tobytes())
    frames = await collect(source(tmp_path / "a.pcm", rate=48000, format="f32le"))
    assert np.isfinite(sound(frames)).all()


async def test_prompt_seconds_ends_an_endless_pipe(pipe):
    read, write, _ = pipe
    os.write(write, int16(tone(4 * TICK)).tobytes())
    frames = await collect(source(f"/dev/fd/{read}"), SessionInfo(prompt_seconds=0.12))
    assert len(frames) == 4
    assert frames[-1].last


async def test_a_whole_input_is_padded(tmp_path):
    (tmp_path / "a.pcm").write_bytes(int16(tone(700)).tobytes())
    frames = await collect(source(tmp_path / "a.pcm"), SessionInfo(mode="reconstruct"))
    assert len(frames) == 3
    assert (frames[1].array[60:] == 0).all()


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x00\x01", bytes(2 * TICK - 2)])
async def test_less_than_a_tick_is_refused(tmp_path, data):
    (tmp_path / "a.pcm").write_bytes(data)
    with pytest.raises(InputError, match=r"expected at least 640.*s16le, 1 channel"):
        await collect(source(tmp_path / "a.pcm"))


@pytest.mark.parametrize("name", ["none.pcm", "."])
async def test_what_cannot_be_opened_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="FIFO or a file"):
        await collect(source(tmp_path / name))


async def test_a_silent_pipe_can_be_left(pipe):
    read, _, _ = pipe
    task = asyncio.create_task(collect(source(f"/dev/fd/{read}")))
    await asyncio.sleep(0.05)
    start = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.get_running_loop().shutdown_default_executor()
    assert time.monotonic() - start < 5


def frames_of(samples, flags=GENERATED):
    return [Frame.of(AUDIO, samples[i : i + TICK], position=i, flags=flags) for i in range(0, len(samples), TICK)]


async def run_sink(node, frames, ctx=None):
    ctx = ctx or SessionInfo()
    for frame in frames:
        await node.write(frame, ctx, AUDIO)
    await node.finish(ctx)
    node.shutdown()


async def test_what_goes_out_comes_in_again(tmp_path):
    path = tmp_path / "a.pcm"
    await run_sink(sink(path), frames_of(tone(3 * TICK)))
    assert path.stat().st_size == 2 * 3 * TICK
    np.testing.assert_array_equal(sound(await collect(source(path))), int16(tone(3 * TICK)) / 32768)


async def test_format_channels_and_rate_out(tmp_path):
    path = tmp_path / "a.pcm"
    await run_sink(sink(path, rate=48000, channels=2, format="f32le"), frames_of(tone(16000)))
    table = np.fromfile(path, "<f4").reshape(-1, 2)
    np.testing.assert_array_equal(table[:, 0], table[:, 1])
    assert abs(len(table) - 48000) <= 1
    np.testing.assert_allclose(table[3000:45000, 0], tone(48000, 48000)[3000:45000], atol=2e-3)


async def test_the_prompt_is_left_out_when_it_is_not_wanted(tmp_path):
    frames = [*frames_of(tone(2 * TICK), HEARD), *frames_of(tone(TICK))]
    await run_sink(sink(tmp_path / "a.pcm"), frames, SessionInfo(include_prompt=False))
    assert (tmp_path / "a.pcm").stat().st_size == 2 * TICK


async def test_bad_samples_are_made_harmless(tmp_path):
    await run_sink(sink(tmp_path / "a.pcm"), frames_of(np.array([np.nan, 2, -2, 0.5], np.float32)))
    assert np.fromfile(tmp_path / "a.pcm", "<i2").tolist() == [0, 32767, -32768, 16384]


async def test_a_reader_that_has_gone_is_said(pipe):
    read, write, close = pipe
    node = sink(f"/dev/fd/{write}")
    await node.write(frames_of(tone(TICK))[0], SessionInfo(), AUDIO)
    close(read)
    with pytest.raises(GraphError, match="has its reader ended"):
        await node.write(frames_of(tone(TICK))[0], SessionInfo(), AUDIO)
    await node.abort(SessionInfo())


async def test_a_slow_reader_makes_it_wait_and_it_can_be_left(pipe):
    _, write, _ = pipe
    node = sink(f"/dev/fd/{write}")
    task = asyncio.create_task(run_sink(node, frames_of(tone(200 * TICK))))
    await asyncio.sleep(0.3)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await node.abort(SessionInfo())
    await asyncio.get_running_loop().shutdown_default_executor()


async def test_a_place_that_cannot_be_written_is_said(tmp_path):
    with pytest.raises(InputError, match="cannot open"):
        await run_sink(sink(tmp_path / "none" / "a.pcm"), frames_of(tone(TICK)))


@pytest.mark.parametrize("bad", [{"rate": 10}, {"channels": 0}, {"format": "mp3"}, {"path": ""}, {"gain": 1}])
def test_nonsense_settings_are_refused(bad):
    for node in (PcmSource, PcmSink):
        with pytest.raises(ValidationError):
            node.Config(**bad)


async def test_a_fifo_without_its_other_end_can_be_left(tmp_path):
    """Opening it must not wait in a thread, or the program could not end."""
    os.mkfifo(tmp_path / "in")
    os.mkfifo(tmp_path / "out")
    writer = PcmSink(PcmSink.Config(path=str(tmp_path / "out")), Build("out"))
    frame = Frame.of("audio", np.zeros(TICK, np.float32), position=0)
    reading = asyncio.create_task(collect(source(tmp_path / "in")))
    writing = asyncio.create_task(writer.write(frame, SessionInfo(), "audio"))
    await asyncio.sleep(0.05)
    for task in (reading, writing):
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_sound_goes_through_a_fifo(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    writer = PcmSink(PcmSink.Config(path=str(tmp_path / "fifo")), Build("out"))
    frame = Frame.of("audio", tone(TICK), position=0)

    async def write():
        for _ in range(40):  # more than a pipe holds
            await writer.write(frame, SessionInfo(), "audio")
        await writer.finish(SessionInfo())

    frames, _ = await asyncio.gather(collect(source(tmp_path / "fifo")), write())
    assert len(frames) == 41
    assert np.abs(frames[39].array - tone(TICK)).max() < 1e-4
