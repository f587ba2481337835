"""Structured logs on standard error: aligned for a terminal, `key=value` (logfmt) for everything else.

A file may get them too, always as logfmt; it is renewed when it is full, so that it never fills a disk. What is known
to be secret is left out of both.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Final, Protocol, TextIO, cast

import structlog

from streamer.errors import ConfigError

FILE_BYTES: Final = 5 << 20
FILES: Final = 5  # the one that is written, and those before it
HIDDEN: Final = "(hidden)"
_SECRET: Final = re.compile(r"passw|secret|token|credential", re.IGNORECASE)
_ENVIRONMENT: Final = re.compile(r"STREAMER_\w*(PASSWORD|TOKEN|SECRET)\w*")
_SHORTEST: Final = 4  # characters of a secret that is looked for inside a text


class Stream(Protocol):
    """What a log can be written to."""

    def write(self, text: str, /) -> int:
        """Take text, lines with their ends."""

    def flush(self) -> None:
        """Hold nothing back."""


class _Stderr:
    """Standard error as it is at the moment of writing, since a progress bar may have put itself before it."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


class _File(RotatingFileHandler):
    """A file that says once when it cannot be written, and goes on trying."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=FILE_BYTES, backupCount=FILES - 1, encoding="utf-8")
        self._failed = self._failing = False

    def emit(self, record: logging.LogRecord) -> None:
        self._failing = False
        super().emit(record)
        self._failed = self._failing

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is that of `logging`
        _ = record
        self._failing = True
        if not self._failed:
            sys.stderr.write(f"streamer: the log {self.baseFilename} cannot be written: {sys.exc_info()[1]}\n")


_STDERR = _Stderr()
_files: list[_File] = []  # at most one: where this process writes its logs beside standard error
_LOGFMT = structlog.processors.LogfmtRenderer(key_order=["time", "level", "event"])
_ISO = structlog.processors.TimeStamper(fmt="iso", key="time")


def configure(*, quiet: bool = False, into: Stream | None = None) -> None:
    """Send the logs of this process to standard error; with `quiet`, only errors.

    Args:
        quiet: only errors; a file gets everything all the same.
        into: where they go instead, as for a terminal but without colour.
    """
    terminal = into is not None or sys.stderr.isatty()
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=into is None, timestamp_key="time", sort_keys=False)
        if terminal
        else _LOGFMT
    )
    least = logging.ERROR if quiet else logging.INFO
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            _hide,
            _to_file,
            _Least(least),
            structlog.processors.TimeStamper(fmt="%H:%M:%S", key="time") if terminal else _ISO,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(min(least, logging.INFO) if _files else least),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _STDERR if into is None else into)),
        cache_logger_on_first_use=False,
    )


@contextmanager
def into_file(path: str | None, *, quiet: bool = False) -> Iterator[None]:
    """Inside, logs go to a file too, as logfmt: at most `FILES` files of `FILE_BYTES`. None: they do not.

    Raises:
        ConfigError: it cannot be written.
    """
    if path is None:
        yield
        return
    place = Path(path).expanduser().absolute()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        file = _File(place)
    except OSError as error:
        raise ConfigError(f"--log {path}: {error.strerror}; give a file that can be written") from error
    _files.append(file)
    configure(quiet=quiet)
    try:
        yield
    finally:
        _files.remove(file)
        file.close()
        configure(quiet=quiet)


class _Least:
    """Lets only what is this important go on to standard error."""

    def __init__(self, level: int) -> None:
        self.level = level

    def __call__(self, logger: Any, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        _ = logger
        if logging.getLevelNamesMapping().get(name.upper(), logging.INFO) < self.level:
            raise structlog.DropEvent
        return event


def _to_file(logger: Any, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for file in _files:
        line = _LOGFMT(logger, name, dict(_ISO(logger, name, dict(event))))
        file.handle(logging.makeLogRecord({"msg": line}))
    return event


def _hide(logger: Any, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace what is a secret by its name, and secrets of the environment wherever they stand."""
    _ = logger, name
    secrets = [value for key, value in os.environ.items() if _ENVIRONMENT.fullmatch(key) and len(value) >= _SHORTEST]
    for key, value in event.items():
        if _SECRET.search(key):
            event[key] = HIDDEN
        elif isinstance(value, str) and any(secret in value for secret in secrets):
            for secret in secrets:
                value = value.replace(secret, HIDDEN)  # noqa: PLW2901 - what is left of it
            event[key] = value
    return event
