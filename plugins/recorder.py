"""`recorder`: everything that passes, in files of some minutes, for months: old ones go, and the disk never fills up.

A file that is being written is hidden (`.NAME.xxxxxxxx.part`) and has its name when it is complete. What a crash left
is named `...-unfinished` at the next start or file, a minute later, and can be played: wav to its end, ogg and opus but
for some seconds (FLAC, cut off, not at all). A file that holds generated sound carries the mark from its first byte;
when the first such sound would come into a file without the mark, that file ends and another begins. Gaps between
positions are not filled. Names hold the time in UTC.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from streamer import Build, Frame, InputError, SessionInfo, Settings, Sink, SoundFile, settings_of, sound_file, sound_of

RATE = 16_000
LOOK = 5 * RATE  # samples between two looks at the disk
ABANDONED_S = 60.0  # a hidden file that nobody has written to for so long was left by a crash
MB = 1_000_000
FORMATS = ("wav", "ogg", "opus")


class RecorderSettings(Settings):
    """Settings of `recorder`. What is kept is counted over all sessions, beside the files that are being written."""

    folder: str = Field(min_length=1, description="where the files go; made if it is not there")
    name: str = Field(
        default="",
        pattern=r"^[\w-]*$",
        description="what the files' names begin with, no other recorder's; default: the node's name",
    )
    minutes: float = Field(default=10, gt=0, le=1440, description="length of a file")
    format: Literal["wav", "ogg", "opus"] = Field(default="wav", description="wav: 16 bit; ogg: Vorbis")
    what: Literal["all", "heard", "generated"] = Field(default="all", description="which sound is kept")
    keep_files: int | None = Field(default=None, ge=1, description="complete files that are kept; default: any number")
    keep_days: float | None = Field(default=None, gt=0, description="days that a file is kept; default: for ever")
    keep_mb: float | None = Field(
        default=None, gt=0, description="10^6 bytes that all take, at least one; default: any"
    )
    least_free_mb: float = Field(
        default=1000, ge=0, description="it pauses where the disk has less than this left, and says so"
    )


@dataclass
class Tape:
    """One session: the file that is being written, and how many samples until the disk is looked at again."""

    file: SoundFile | None = None
    look: int = 0
    paused: bool = False


class Recorder(Sink):
    """Records sound to files of some minutes; old ones go, and the disk never fills up.

    Gauges: `file`, `state` (`recording`, `disk full`, `failed: ...`). Counters: `files`, `deleted`, `recovered`,
    `failures`, `lost_samples` (came while it was not recording), `not_finite`.
    """

    type_name = "recorder"
    accepts = ("audio",)
    Config = RecorderSettings
    config: RecorderSettings

    def __init__(self, config: RecorderSettings, build: Build) -> None:
        """Make the folder, and name what a crash left.

        Raises:
            InputError: the folder cannot be made or written to.
        """
        super().__init__(config, build)
        self.folder = Path(build.base) / Path(config.folder).expanduser()
        self.prefix = config.name or re.sub(r"[^\w-]", "_", build.name)
        stem = rf"{re.escape(self.prefix)}\.[\w-]*\.(?P<when>\d{{8}}T\d{{6}}Z)(-(?P<number>\d+))?"
        stem += rf"(-unfinished)?(-\d+)?\.({'|'.join(FORMATS)})"
        self._whole, self._part = re.compile(stem), re.compile(rf"\.(?P<name>{stem})\.[0-9a-f]{{8}}\.part")
        self._tapes: dict[str, Tape] = {}
        self._lock = threading.Lock()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.recovered = self._recover()
        except OSError as error:
            raise InputError(
                f"node {build.name!r} cannot record to {self.folder}: {error.strerror or error}"
            ) from error

    async def write(self, frame: Frame, ctx: SessionInfo, input: str) -> None:  # noqa: A002
        """Add a frame of the sort that is kept; the voice that is only lent never is.

        Where the disk fails, that is said and counted, and tried again some seconds later: the show goes on.

        Raises:
            InputError: another rate than 16 kHz.
        """
        _ = input
        sort = "generated" if frame.generated else "heard"
        if frame.shape[0] and self.config.what in ("all", sort) and frame.meta.get("role") != "voice":
            sound = sound_of(frame, self.name, ctx.metrics)
            await asyncio.to_thread(self._add, sound, ctx, generated=frame.generated)

    async def finish(self, ctx: SessionInfo) -> None:
        """Complete the file.

        Raises:
            InputError: it cannot be completed.
        """
        await asyncio.to_thread(self._close, ctx.id, ctx)

    async def abort(self, ctx: SessionInfo) -> None:
        """Complete the file: what was recorded was there, however the session ended."""
        await self.finish(ctx)

    def shutdown(self) -> None:
        """Complete what is still open."""
        for session in list(self._tapes):
            self._close(session, self.build.session)

    # -- in threads, one call at a time: a session that is cancelled may close while its last sound is being written --

    def _add(self, sound: NDArray[np.float32], ctx: SessionInfo, *, generated: bool) -> None:
        with self._lock:
            try:
                self._put(sound, ctx, generated=generated)
            except (InputError, OSError) as error:
                self._tapes[ctx.id] = Tape(None, LOOK, paused=True)
                ctx.metrics.gauge(f"{self.name}.state", f"failed: {error}")
                ctx.metrics.count(f"{self.name}.failures")
                ctx.metrics.count(f"{self.name}.lost_samples", len(sound))

    def _put(self, sound: NDArray[np.float32], ctx: SessionInfo, *, generated: bool) -> None:
        """Write samples; files end at exact lengths, whatever the chunking."""
        tape = self._tapes.setdefault(ctx.id, Tape())
        length = max(1, round(self.config.minutes * 60 * RATE))
        while len(sound):
            if not self._may_write(tape, ctx):
                tape.look -= len(sound)
                ctx.metrics.count(f"{self.name}.lost_samples", len(sound))
                return
            if tape.file is not None and generated and not tape.file.generated:
                self._end(tape, ctx)
            file = tape.file = tape.file or self._begin(ctx, generated=generated)
            count = min(len(sound), length - file.samples, tape.look)
            file.write(sound[:count])
            sound = sound[count:]
            tape.look -= count
            if file.samples == length:
                self._end(tape, ctx)

    def _may_write(self, tape: Tape, ctx: SessionInfo) -> bool:
        """Whether the disk has room, looked at every few seconds of sound; without, the file ends and none begins."""
        if tape.look <= 0:
            tape.look = LOOK
            self.folder.mkdir(parents=True, exist_ok=True)
            tape.paused = shutil.disk_usage(self.folder).free < self.config.least_free_mb * MB
            if tape.paused:
                self._end(tape, ctx)
                self._tidy(ctx)
            ctx.metrics.gauge(f"{self.name}.state", "disk full" if tape.paused else "recording")
        return not tape.paused

    def _begin(self, ctx: SessionInfo, *, generated: bool) -> SoundFile:
        self.recovered += self._recover()
        ctx.metrics.counters[f"{self.name}.recovered"] = self.recovered
        self._tidy(ctx)
        when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time()))
        session = re.sub(r"[^\w-]", "_", ctx.id)
        path = free(self.folder / f"{self.prefix}.{session}.{when}.{self.config.format}")
        ctx.metrics.gauge(f"{self.name}.file", path.name)
        return sound_file(path, settings_of(ctx, self.build) if generated else None, generated=generated)

    def _end(self, tape: Tape, ctx: SessionInfo) -> None:
        if tape.file is not None:
            file, tape.file = tape.file, None
            file.finish()
            ctx.metrics.count(f"{self.name}.files")
            self._tidy(ctx)

    def _close(self, session: str, ctx: SessionInfo) -> None:
        with self._lock:
            tape = self._tapes.pop(session, None)
            if tape is not None:
                self._end(tape, ctx)

    def _tidy(self, ctx: SessionInfo) -> None:
        """Delete the oldest complete files, beyond what is kept; never any that it did not write."""
        names = [(path, found) for path in self.folder.iterdir() if (found := self._whole.fullmatch(path.name))]
        names.sort(key=lambda pair: (pair[1]["when"], int(pair[1]["number"] or 1), pair[0].name), reverse=True)
        total, oldest = 0, time.time() - (self.config.keep_days or 0) * 86_400
        for place, (path, _) in enumerate(names):
            stat = path.stat()
            total += stat.st_size
            too_many = self.config.keep_files is not None and place >= self.config.keep_files
            too_old = self.config.keep_days is not None and stat.st_mtime < oldest
            too_much = self.config.keep_mb is not None and place > 0 and total > self.config.keep_mb * MB
            if too_many or too_old or too_much:
                path.unlink(missing_ok=True)
                ctx.metrics.count(f"{self.name}.deleted")

    def _recover(self) -> int:
        """Give what a crash left a name; the number of such files."""
        own = {tape.file.path.name for tape in self._tapes.values() if tape.file is not None}
        left = [(path, found["name"]) for path in self.folder.iterdir() if (found := self._part.fullmatch(path.name))]
        dead = [each for each in left if each[1] not in own and time.time() - each[0].stat().st_mtime > ABANDONED_S]
        for path, name in dead:
            path.rename(free(self.folder / f"{Path(name).stem}-unfinished{Path(name).suffix}"))
        return len(dead)


def free(path: Path) -> Path:
    """The path itself, or with a number where there is such a file, hidden or not."""
    number, made = 1, path
    while made.exists() or any(made.parent.glob(f".{made.name}.*.part")):
        number += 1
        made = path.with_stem(f"{path.stem}-{number}")
    return made
