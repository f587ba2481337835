"""A log of frames: `record` writes one, `replay` gives it back, frame for frame.

The file is a sequence of entries: 4 bytes with the length (little-endian), then the frame in its packed form.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import Field

from streamer.errors import FrameError, InputError, unknown
from streamer.frame import CONTROL, KINDS, LIMITS, Frame
from streamer.node import Build, Facts, Saved, SessionInfo, Settings, Sink, Source

_LENGTH = struct.Struct("<I")
MAX_ENTRY = LIMITS.payload_bytes + (1 << 18)


class RecordSettings(Settings):
    """Where the log goes."""

    path: str = Field(min_length=1, description="file to write; {session} stands for the session's name")


class ReplaySettings(Settings):
    """Which log, and what of it."""

    path: str = Field(min_length=1, description="file that `record` wrote; {session} stands for the session's name")
    kinds: list[str] | None = Field(default=None, description="kinds to give; default: all")


@dataclass(slots=True)
class _Log:
    file: BinaryIO
    final: Path
    part: Path


class RecordSink(Sink):
    """Writes every frame it gets, one input per kind, in the order of their positions.

    The file appears under its name when all inputs have ended; until then it is `NAME.part`.
    """

    type_name = "record"
    accepts = KINDS
    optional = KINDS
    Config = RecordSettings
    config: RecordSettings

    def __init__(self, config: RecordSettings, build: Build) -> None:
        super().__init__(config, build)
        self._logs: dict[str, _Log] = {}

    def _log(self, ctx: SessionInfo, offset: int = 0) -> _Log:
        if ctx.id not in self._logs:
            final = _resolve(self.build, self.config.path, ctx)
            part = final.with_name(final.name + ".part")
            try:
                final.parent.mkdir(parents=True, exist_ok=True)
                file = _open_at(part, offset)
            except OSError as error:
                raise InputError(f"cannot write the log {final.name!r}: {error.strerror or error}") from error
            self._logs[ctx.id] = _Log(file, final, part)
        return self._logs[ctx.id]

    async def write(self, frame: Frame, ctx: SessionInfo, input: str) -> None:  # noqa: A002
        """Append one entry."""
        _ = input
        data = frame.pack()
        self._log(ctx).file.write(_LENGTH.pack(len(data)) + data)

    async def finish(self, ctx: SessionInfo) -> None:
        """Give the file its name."""
        log = self._log(ctx)
        log.file.close()
        log.part.replace(log.final)
        del self._logs[ctx.id]

    async def abort(self, ctx: SessionInfo) -> None:
        """Remove the unfinished file."""
        log = self._logs.pop(ctx.id, None)
        if log is not None:
            log.file.close()
            log.part.unlink(missing_ok=True)

    def save(self, ctx: SessionInfo) -> Saved:
        """How much is written; the `.part` file has to go with the snapshot."""
        log = self._log(ctx)
        log.file.flush()
        return {"offset": log.file.tell()}

    def load(self, saved: Saved, ctx: SessionInfo) -> None:
        """Go on behind what was written."""
        log = self._logs.pop(ctx.id, None)
        if log is not None:
            log.file.close()
        self._log(ctx, int(saved["offset"]))

    def shutdown(self) -> None:
        """Close what is still open."""
        for log in self._logs.values():
            log.file.close()
        self._logs.clear()


def _open_at(part: Path, offset: int) -> BinaryIO:
    if not offset:
        return part.open("wb")
    if not part.is_file() or part.stat().st_size < offset:
        raise InputError(f"{part.name!r} must hold the {offset} bytes written before the snapshot; copy it here")
    file = part.open("r+b")
    file.truncate(offset)
    file.seek(offset)
    return file


def _resolve(build: Build, path: str, ctx: SessionInfo) -> Path:
    return Path(build.base) / Path(path.replace("{session}", ctx.id)).expanduser()


class ReplaySource(Source):
    """Gives the frames of a log again, in their order, under this session's name."""

    type_name = "replay"
    emits = KINDS
    Config = ReplaySettings
    config: ReplaySettings

    @classmethod
    def facts(cls, config: ReplaySettings, build: Build) -> Facts:
        """What it emits is what `kinds` names."""
        _ = build
        for kind in config.kinds or ():
            if kind not in KINDS:
                raise InputError(unknown("kind", kind, KINDS))
        return Facts({}, frozenset(config.kinds or KINDS))

    async def frames(self, ctx: SessionInfo) -> AsyncIterator[Frame]:
        """The frames of the log that `kinds` names.

        Raises:
            InputError: the log is damaged, holds none of a kind that is named, or ends before one of its streams does.
        """
        wanted = frozenset(self.config.kinds or KINDS)
        path = _resolve(self.build, self.config.path, ctx)
        left = set(self.config.kinds or ()) - {CONTROL}
        for frame in read_log(path):
            if frame.kind not in wanted:
                continue
            if frame.last:
                left.discard(frame.kind)
            elif frame.kind != CONTROL:
                left.add(frame.kind)
            yield frame if frame.session == ctx.id else frame.replace(session=ctx.id)
        if left:
            kinds = ", ".join(sorted(left))
            raise InputError(f"the log {path.name!r} has no LAST frame of {kinds}: it is cut off, or never held them")


def read_log(path: str | Path) -> Iterator[Frame]:
    """The frames of a log file.

    Raises:
        InputError: no such file, cut off, or damaged; with the number of the entry.
    """
    path = Path(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"cannot read the log {path.name!r}: {error.strerror or error}") from error
    with file:
        number = 0
        while head := file.read(_LENGTH.size):
            yield _entry(file, head, f"log {path.name!r}, entry {number}")
            number += 1
        if not number:
            raise InputError(f"the log {path.name!r} is empty")


def _entry(file: Any, head: bytes, where: str) -> Frame:
    length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else 0
    if not 0 < length <= MAX_ENTRY:
        raise InputError(f"{where}: not a log of frames (length {length}, expected 1 to {MAX_ENTRY})")
    data = file.read(length)
    if len(data) != length:
        raise InputError(f"{where}: cut off after {len(data)} of {length} bytes")
    try:
        return Frame.unpack(data)
    except FrameError as error:
        raise InputError(f"{where}: {error}") from error
