"""The state of a live run in a folder: its last two snapshots, and how the run before ended.

Every file is written beside its place, brought to the disk and then given its name, and says its own checksum: what a
power cut leaves half written is found out and put aside. Order is by number, never by time, since the clock of a small
computer is wrong after a power cut. Knows bytes and plain values; what is in a snapshot is `streamer.snapshot`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgpack
import structlog

from streamer.errors import ConfigError, SnapshotError

KEPT: Final = 2  # snapshots, and as many that were put aside
MAGIC: Final = b"streamer state 1\n"
SUM: Final = 32  # bytes of a SHA-256
MOST_BYTES: Final = 1 << 31
_NAME: Final = re.compile(r"(\d{1,15})\.state")
_ASIDE: Final = re.compile(r"aside-(\d{1,15})\.state")


@dataclass(frozen=True, slots=True)
class Kept:
    """One snapshot, and what belongs to the run beside it.

    Attributes:
        data: the bytes of the session.
        taken: when, in seconds since 1970 by the clock of that moment.
        made_by: what it fits: program, config, bundle; see `keeper.fingerprint`.
        changes: settings that every session has in place of the config's: mode, seed and so on.
        standing: name -> (command, values) that every session is told at its beginning.
    """

    data: bytes = field(repr=False)
    taken: float
    made_by: Mapping[str, str] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)
    standing: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)

    @property
    def when(self) -> str:
        """`taken` as ISO 8601, UTC, to the second."""
        return iso(self.taken)


@dataclass(frozen=True, slots=True)
class Run:
    """What is known of a run while it goes, in case it does not live to say more.

    Attributes:
        ended: why it ended by itself; None: it has not, or was cut off.
        tries: sessions in a row that were restored and died soon.
        valid_from: number of the first snapshot that still holds; those before were given up by a reset.
    """

    ended: str | None = None
    tries: int = 0
    valid_from: int = 0


def iso(seconds: float) -> str:
    """A time as ISO 8601, UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


class State:
    """The folder of one live run; a context manager. Its methods may be called from any thread.

    Args:
        folder: made if it is not there; only its owner may look into it, since it holds what was heard.

    Attributes:
        before: what the run before left; None: there was none.
        run: what this one is at.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open the folder and say that a run has begun.

        Raises:
            ConfigError: it cannot be made or written to, or another run uses it.
        """
        self.folder = Path(folder).expanduser().absolute()
        self._writing = threading.RLock()
        self._lock: int | None = None
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"--state {self.folder}: {error.strerror}; give a folder that can be written") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.before = self._read_run()
            self._number = max([0, *self._numbers(_NAME)])
            self.run = Run() if self.before is None else replace(self.before, ended=None)
            self._begin()
        except OSError as error:
            self.close()
            busy = isinstance(error, BlockingIOError)
            why = "another run uses it; give each a folder of its own" if busy else f"{error.strerror}"
            raise ConfigError(f"--state {self.folder}: {why}") from error

    def _begin(self) -> None:
        """Say on the disk that a run has begun; a full disk does not hold it up."""
        try:
            self.note(ended=None)
        except OSError as error:
            structlog.get_logger().warning("state", folder=str(self.folder), note=f"cannot be written: {error}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let another run have the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def cut_off(self) -> bool:
        """Whether there was a run before that could not say that it ended: a power cut, a kill, a crash."""
        return self.before is not None and self.before.ended is None

    def note(self, **changes: Any) -> None:
        """Change what is known of this run, and bring it to the disk.

        Raises:
            OSError: it cannot be written.
        """
        with self._writing:
            self.run = replace(self.run, **changes)
            self._put("run.json", json.dumps(asdict(self.run)).encode())

    def forget(self) -> None:
        """The snapshots so far are not to be restored any more.

        Raises:
            OSError: it cannot be written.
        """
        with self._writing:
            self.note(valid_from=self._number + 1)

    def write(self, kept: Kept) -> int:
        """Keep a snapshot, and of those before only the last; gives the bytes on the disk.

        Raises:
            OSError: it cannot be written; what was there before is still there.
        """
        data = _packed(kept)
        with self._writing:
            self._number += 1
            self._put(f"{self._number:06d}.state", data)
            self._prune(_NAME)
        return len(data)

    def read(self) -> Kept | None:
        """The newest snapshot that is whole; those that are not are put aside. None when there is none."""
        for number in sorted(self._numbers(_NAME), reverse=True):
            if number < self.run.valid_from:
                break
            path = self._path(number)
            try:
                if path.stat().st_size > MOST_BYTES:
                    raise SnapshotError(f"larger than {MOST_BYTES} bytes")  # noqa: TRY301 - put aside like the others
                return _unpacked(path.read_bytes())
            except (OSError, SnapshotError) as error:
                self.aside(number, f"it cannot be used: {error}")
        return None

    def aside(self, number: int | None, why: str) -> None:
        """Put a snapshot aside, where nothing looks for it but a person; None: all of them."""
        log = structlog.get_logger()
        with self._writing:
            for each in self._numbers(_NAME) if number is None else [number]:
                path = self._path(each)
                log.warning("state", put_aside=path.name, why=why, folder=str(self.folder))
                try:
                    path.replace(self.folder / f"aside-{each:06d}.state")
                except OSError as error:
                    log.warning("state", file=path.name, note=f"cannot be put aside: {error.strerror}")
            self._prune(_ASIDE)

    # -- files --

    def _path(self, number: int) -> Path:
        found = [path for path in self.folder.iterdir() if _number(_NAME, path) == number]
        return found[0] if found else self.folder / f"{number:06d}.state"

    def _numbers(self, pattern: re.Pattern[str]) -> list[int]:
        found = [_number(pattern, path) for path in self.folder.iterdir()]
        return sorted(number for number in found if number is not None)

    def _prune(self, pattern: re.Pattern[str]) -> None:
        """Leave only the last of a kind."""
        for path in sorted(self.folder.iterdir(), key=lambda each: _number(pattern, each) or 0)[:-KEPT]:
            if _number(pattern, path) is not None:
                path.unlink(missing_ok=True)

    def _put(self, name: str, data: bytes) -> None:
        """Write a file so that it is either there as a whole, or not at all."""
        part = self.folder / f"{name}.part"
        file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(file, rest) :]
            os.fsync(file)
        finally:
            os.close(file)
        part.replace(self.folder / name)
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _read_run(self) -> Run | None:
        """What the run before left; one that cannot be read was cut off."""
        path = self.folder / "run.json"
        if not path.exists():
            return Run() if self._numbers(_NAME) else None
        try:
            found = json.loads(path.read_bytes())
            ended = found["ended"]
            return Run(None if ended is None else str(ended), int(found["tries"]), int(found["valid_from"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            structlog.get_logger().warning("state", file=path.name, note=f"cannot be read: {error}")
            return Run()


def _number(pattern: re.Pattern[str], path: Path) -> int | None:
    found = pattern.fullmatch(path.name)
    return None if found is None else int(found[1])


def _packed(kept: Kept) -> bytes:
    body: bytes = msgpack.packb(asdict(kept))
    return MAGIC + hashlib.sha256(body).digest() + body


def _unpacked(data: bytes) -> Kept:
    """The snapshot in a file.

    Raises:
        SnapshotError: it is not one, of another form, or not whole.
    """
    if not data.startswith(MAGIC):
        raise SnapshotError(f"it does not begin with {MAGIC!r}")
    body = memoryview(data)[len(MAGIC) + SUM :]
    if hashlib.sha256(body).digest() != data[len(MAGIC) : len(MAGIC) + SUM]:
        raise SnapshotError(f"its checksum is wrong: only a part of it was written ({len(data)} bytes)")
    try:
        found = msgpack.unpackb(body, max_ext_len=0, max_bin_len=MOST_BYTES)
        standing = {str(name): (str(command), dict(values)) for name, (command, values) in found["standing"].items()}
        return Kept(
            bytes(found["data"]), float(found["taken"]), dict(found["made_by"]), dict(found["changes"]), standing
        )
    except (ValueError, TypeError, KeyError, AttributeError, msgpack.exceptions.UnpackException) as error:
        raise SnapshotError(f"it is of another form: {type(error).__name__}: {error}") from error
