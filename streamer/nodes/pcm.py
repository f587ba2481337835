"""Raw PCM on standard input and output, so that `arecord | streamer run ... | aplay` works.

`path` may also name a FIFO or a file. Reading and writing run in a thread that looks up four times a second, so that a
stream that stands still never holds up the end of the program.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from audiolm.resample import Resampler
from audiolm.ticks import SAMPLE_RATE, TICK, Samples, as_samples
from streamer.errors import GraphError, InputError
from streamer.frame import AUDIO, Frame
from streamer.node import Build, SessionInfo, Settings, Sink, Source
from streamer.nodes.feed import Rest, TickFeed, keeps, prompt_limit, rest_for, say, true_length

__all__ = ["PcmSink", "PcmSource"]

LOOK_UP = 0.25  # seconds a thread waits for the other side before it looks whether it is still wanted
READ_BYTES = 1 << 16
WRITE_BYTES = 4096  # what a pipe takes at once when it says that it is ready (PIPE_BUF)
FORMATS: dict[str, np.dtype[Any]] = {"s16le": np.dtype("<i2"), "f32le": np.dtype("<f4")}


class PcmSettings(Settings):
    """What raw PCM does not say of itself."""

    path: str = Field(default="-", min_length=1, description="`-`: standard input or output; else a FIFO or a file")
    format: Literal["s16le", "f32le"] = Field(default="s16le", description="of one sample, little-endian")
    rate: int = Field(default=SAMPLE_RATE, ge=1000, le=768_000, description="samples a second and channel")
    channels: int = Field(default=1, ge=1, le=64, description="interleaved; down-mixed on the way in")


class PcmSourceConfig(PcmSettings):
    """Settings of `pcm_in`."""

    rest: Rest = Field(
        default="auto", description="the last part tick: drop, pad, or auto: pad where the whole input is kept"
    )


class PcmSource(Source):
    """Reads raw PCM until it ends or `prompt_seconds` are heard; gives audio frames of one tick."""

    type_name: ClassVar[str] = "pcm_in"
    emits = (AUDIO,)
    Config = PcmSourceConfig
    config: PcmSourceConfig

    async def frames(self, ctx: SessionInfo) -> AsyncIterator[Frame]:
        """Give what is read as it comes, then `LAST`.

        Raises:
            InputError: it cannot be opened, or ends before one tick.
        """
        feed = TickFeed(ctx, limit=prompt_limit(ctx))
        decoder = _Decoder(self.config)
        async for data in _read(self.config.path):
            for samples in decoder.push(data):
                for frame in feed.push(samples):
                    yield frame
            if feed.full:
                break
        else:
            for samples in decoder.finish():
                for frame in feed.push(samples):
                    yield frame
        self._note(feed, decoder, ctx)
        for frame in feed.finish(rest_for(self.config.rest, ctx.mode)):
            yield frame

    def _note(self, feed: TickFeed, decoder: _Decoder, ctx: SessionInfo) -> None:
        """Say what was done; refuse what is too short."""
        where = "standard input" if self.config.path == "-" else self.config.path
        if feed.taken < TICK:
            raise InputError(
                f"{where} ended after {feed.taken} samples; expected at least {TICK} at {SAMPLE_RATE} Hz (40 ms): "
                f"is it {self.config.format}, {self.config.channels} channel(s), {self.config.rate} Hz?"
            )
        true_length(self.build)[ctx.id] = feed.taken
        say(self.name, ctx.id, where, decoder.notes())


class _Decoder:
    """Bytes in any pieces to mono float32 at 16 kHz."""

    def __init__(self, config: PcmSettings) -> None:
        self.config = config
        self.dtype = FORMATS[config.format]
        self.cleaned = 0
        self._held = b""
        self._resampler = Resampler(config.rate) if config.rate != SAMPLE_RATE else None

    def push(self, data: bytes) -> list[Samples]:
        """Take bytes; give blocks of samples that are ready."""
        size = self.dtype.itemsize * self.config.channels
        joined = self._held + data
        whole = len(joined) // size * size
        self._held = joined[whole:]
        table = np.frombuffer(joined[:whole], self.dtype).reshape(-1, self.config.channels)
        mono = _down_mix(table)
        return [mono] if self._resampler is None else self._resampler.push(self._tame(mono))

    def finish(self) -> list[Samples]:
        """Give what the resampler still holds."""
        return self._resampler.finish() if self._resampler is not None else []

    def notes(self) -> list[str]:
        """What was done to the input, in words."""
        config = self.config
        made = [f"down-mixed {config.channels} channels"] if config.channels > 1 else []
        made += [f"resampled {config.rate} -> {SAMPLE_RATE} Hz"] if config.rate != SAMPLE_RATE else []
        made += [f"{self.cleaned} samples not finite or beyond full scale"] if self.cleaned else []
        return made + ([f"{len(self._held)} bytes at the end are no whole sample"] if self._held else [])

    def _tame(self, block: Samples) -> Samples:
        """A resampler would smear one bad sample over its whole block, so here it goes before."""
        clean = np.clip(np.nan_to_num(block, posinf=0, neginf=0), np.float32(-1), np.float32(1))
        self.cleaned += int((clean != block).sum())
        return clean


def _down_mix(table: NDArray[Any]) -> Samples:
    """Interleaved `[n, channels]` to float32 `[n]`."""
    flat = as_samples(table.ravel().astype(table.dtype.newbyteorder("=")))
    channels = table.shape[1]
    return flat if channels == 1 else np.asarray(flat.reshape(-1, channels).mean(axis=1), np.float32)


class PcmSinkConfig(PcmSettings):
    """Settings of `pcm_out`."""


class PcmSink(Sink):
    """Writes audio frames as raw PCM as soon as they come."""

    type_name: ClassVar[str] = "pcm_out"
    accepts = (AUDIO,)
    Config = PcmSinkConfig
    config: PcmSinkConfig

    def __init__(self, config: PcmSinkConfig, build: Build) -> None:
        """Nothing is opened before the first sound comes."""
        super().__init__(config, build)
        self._pipes: dict[str, _Pipe] = {}
        self._resamplers: dict[str, Resampler] = {}

    async def write(self, frame: Frame, ctx: SessionInfo, input: str) -> None:  # noqa: A002
        """Write a frame, unless it is the forced voice or a prompt that is not wanted.

        Raises:
            InputError: it cannot be opened.
            GraphError: the reader has gone away.
        """
        _ = input
        if not frame.shape[0] or not keeps(frame, ctx):
            return
        if ctx.id not in self._resamplers:
            self._resamplers[ctx.id] = Resampler(frame.rate, self.config.rate)
        await self._put(ctx.id, self._resamplers[ctx.id].push(as_samples(frame.array)))

    async def finish(self, ctx: SessionInfo) -> None:
        """Write what the resampler still holds, and close."""
        if ctx.id in self._resamplers:
            await self._put(ctx.id, self._resamplers.pop(ctx.id).finish())
        self._close(ctx.id)

    async def abort(self, ctx: SessionInfo) -> None:
        """Close; what was written cannot be taken back."""
        self._resamplers.pop(ctx.id, None)
        self._close(ctx.id)

    def shutdown(self) -> None:
        """Close what is still open."""
        for session in list(self._pipes):
            self._close(session)

    async def _put(self, session: str, blocks: list[Samples]) -> None:
        if session not in self._pipes:
            self._pipes[session] = _Pipe(self.config.path, await _opened(self.config.path, "wb"))
        pipe = self._pipes[session]
        for block in blocks:
            await asyncio.to_thread(pipe.write, _encoded(block, self.config))

    def _close(self, session: str) -> None:
        if session in self._pipes:
            self._pipes.pop(session).close()


def _encoded(samples: Samples, config: PcmSettings) -> bytes:
    clean = np.clip(np.nan_to_num(samples), -1, 1)
    if config.format == "s16le":
        clean = np.clip(np.rint(clean * 32768), -32768, 32767)
    return np.repeat(clean.astype(FORMATS[config.format]), config.channels).tobytes()


class _Pipe:
    """One place to write bytes to. `close` ends a `write` that waits in another thread."""

    def __init__(self, path: str, file: int) -> None:
        self.path = path
        self._closed = False
        self._file = file

    def write(self, data: bytes) -> None:
        """Write everything, waiting for the reader where it is slow."""
        rest = memoryview(data)
        while rest and not self._closed:
            try:
                _, ready, _ = select.select([], [self._file], [], LOOK_UP)
                rest = rest[os.write(self._file, rest[:WRITE_BYTES]) :] if ready else rest
            except OSError as error:
                where = "standard output" if self.path == "-" else self.path
                raise GraphError(f"cannot write PCM to {where}: {error.strerror}; has its reader ended?") from error

    def close(self) -> None:
        """Stop writing; standard output stays open."""
        self._closed = True
        if self.path != "-":
            os.close(self._file)


async def _opened(path: str, how: Literal["rb", "wb"]) -> int:
    """A file descriptor, once a FIFO that is written to has a reader; waiting for it can be cancelled."""
    while (file := await asyncio.to_thread(_open, path, how)) is None:  # noqa: ASYNC110 - nothing tells when it comes
        await asyncio.sleep(LOOK_UP)
    return file


def _open(path: str, how: Literal["rb", "wb"]) -> int | None:
    """A file descriptor, that of the program itself for `-`; None for a FIFO that nobody reads yet. Never waits."""
    if path == "-":
        return 0 if how == "rb" else 1
    flags = os.O_RDONLY if how == "rb" else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        return os.open(Path(path).expanduser(), flags | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise InputError(f"cannot open {path}: {error.strerror}; expected a FIFO or a file of raw PCM") from error


async def _read(path: str) -> AsyncIterator[bytes]:
    """Bytes as they come, until the end."""
    file = await _opened(path, "rb")
    try:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise InputError(f"{path} is a folder; expected a FIFO or a file of raw PCM")
        while (data := await asyncio.to_thread(_read_some, file)) != b"":
            if data is not None:
                yield data
    finally:
        if path != "-":
            os.close(file)


def _read_some(file: int) -> bytes | None:
    """What is there; None when nothing has come yet, empty at the end."""
    ready, _, _ = select.select([file], [], [], LOOK_UP)
    return os.read(file, READ_BYTES) if ready else None
