"""How far a run is, on standard error, once it takes longer than two seconds.

A thread of its own looks at the session's metrics, so that neither the event loop nor a lane spends time on it.
"""

from __future__ import annotations

import sys
import threading
from typing import Final, Self

import structlog

from streamer.frame import SAMPLE_RATE
from streamer.session import Session

PATIENCE: Final = 2.0  # seconds before anything is shown
REFRESH: Final = 0.2
LINES_EVERY: Final = 10.0  # seconds between log lines where there is no terminal


class Watch:
    """Shows progress while it is open; with `enabled` false it does nothing."""

    def __init__(self, *, enabled: bool = True) -> None:
        self.session: Session | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._show, name="progress", daemon=True) if enabled else None

    def __enter__(self) -> Self:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()

    def follow(self, session: Session) -> None:
        """From now on, show this session."""
        self.session = session

    def state(self) -> tuple[str, float, float | None]:
        """What it is at, the seconds done, and of how many (None when that is not known)."""
        if self.session is None or self.session.status == "new":
            return "loading", 0.0, None
        metrics, info = self.session.metrics, self.session.info
        if metrics.generated_samples:
            return "continuing", metrics.generated_samples / SAMPLE_RATE, info.seconds
        return "listening", metrics.audio_samples / SAMPLE_RATE, info.prompt_seconds

    def _show(self) -> None:
        if self._done.wait(PATIENCE):
            return
        if sys.stderr.isatty():
            self._bar()
        else:
            self._lines()

    def _bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description:>10}"), BarColumn(), TextColumn("{task.fields[sound]}"))
        with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as shown:
            task = shown.add_task("loading", total=None, sound="")
            while not self._done.wait(REFRESH):
                what, done, total = self.state()
                shown.update(task, description=what, completed=done, total=total, sound=_of(done, total))

    def _lines(self) -> None:
        while True:
            what, done, total = self.state()
            structlog.get_logger().info("progress", at=what, sound=_of(done, total))
            if self._done.wait(LINES_EVERY):
                return


def _of(done: float, total: float | None) -> str:
    return f"{done:.1f} s" if total is None else f"{done:.1f} of {total:.1f} s"
