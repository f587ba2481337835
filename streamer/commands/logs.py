"""Structured logs on standard error: aligned for a terminal, `key=value` (logfmt) for everything else."""

from __future__ import annotations

import logging
import sys
from typing import Any, Protocol, TextIO, cast

import structlog


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


_STDERR = _Stderr()


def configure(*, quiet: bool = False, into: Stream | None = None) -> None:
    """Send the logs of this process to standard error; with `quiet`, only errors.

    Args:
        quiet: only errors.
        into: where they go instead, as for a terminal but without colour.
    """
    terminal = into is not None or sys.stderr.isatty()
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=into is None, timestamp_key="time", sort_keys=False)
        if terminal
        else structlog.processors.LogfmtRenderer(key_order=["time", "level", "event"])
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if terminal else "iso", key="time"),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR if quiet else logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _STDERR if into is None else into)),
        cache_logger_on_first_use=False,
    )
