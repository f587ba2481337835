"""How the command and a worker talk: one JSON line out when it is ready, then one for each line in.

A worker runs in a peer's environment (or in ours) and holds one peer and a yardstick. The command holds several workers
and asks them in turns, so that what slows the machine down slows all of them. This module imports the standard library
alone, since every environment runs it; it knows nothing of what is measured.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TextIO

ROOT = Path(__file__).parents[2]
Figures = dict[str, float]


@dataclass(frozen=True)
class Prepared:
    """What a worker has when it is ready.

    Attributes:
        version: of the peer, as its package says it.
        round: measures once; the figures by name, times in seconds.
        about: sizes and what else a reader should know.
    """

    version: str
    round: Callable[[], Mapping[str, float]]
    about: Mapping[str, Any] = field(default_factory=dict)


def serve(make: Callable[[argparse.Namespace], Prepared], parser: argparse.ArgumentParser | None = None) -> int:
    """The `main` of a worker: get ready, say so, and measure once for every line that comes in.

    Standard output is kept for these lines; whatever a library prints goes to standard error.
    """
    parser = parser or argparse.ArgumentParser()
    parser.add_argument("--tiny", action="store_true", help="once and small: shows that it runs, not how fast")
    chosen = parser.parse_args()
    with os.fdopen(os.dup(1), "w", encoding="utf8") as out:
        os.dup2(2, 1)
        prepared = make(chosen)
        _say(out, {"version": prepared.version, "python": platform.python_version(), "about": dict(prepared.about)})
        for _ in sys.stdin:
            _say(out, {"figures": dict(prepared.round())})
    return 0


def _say(out: TextIO, value: Mapping[str, Any]) -> None:
    out.write(json.dumps(value) + "\n")
    out.flush()


class WorkerError(Exception):
    """A worker did not start, failed, or took too long; the text holds its last words."""


class Worker:
    """The command's end of one worker: a process, asked for a round at a time.

    Args:
        python: the interpreter of its environment.
        module: what it runs, with arguments.
        limit_s: the longest that it may be silent.

    Raises:
        WorkerError: it did not get ready.
    """

    def __init__(self, python: Path | str, module: Sequence[str], limit_s: float = 600.0) -> None:
        self.name, self.limit_s, self._late = module[0].rsplit(".", 1)[-1], limit_s, False
        self._errors = tempfile.TemporaryFile("w+", encoding="utf8", errors="replace")  # noqa: SIM115 - closed below
        self._process = subprocess.Popen(  # noqa: S603 - our own modules
            [str(python), "-m", *module],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            text=True, cwd=ROOT, env=environment(),
        )  # fmt: skip
        try:
            hello = self._read()
            self.version, self.about = str(hello["version"]), dict(hello["about"])
        except BaseException:
            self.close()
            raise

    def round(self) -> Figures:
        """Let it measure once.

        Raises:
            WorkerError: it failed, or was silent for too long and has been ended.
        """
        try:
            self._pipe(self._process.stdin).write("round\n")
            self._pipe(self._process.stdin).flush()
        except OSError as error:
            raise WorkerError(f"{self.name} has gone: {self._last_words()}") from error
        return {name: float(value) for name, value in self._read()["figures"].items()}

    def _read(self) -> dict[str, Any]:
        timer = threading.Timer(self.limit_s, self._end)
        timer.start()
        try:
            line = self._pipe(self._process.stdout).readline()
        finally:
            timer.cancel()
        if not line:
            self._process.wait()
            late = f" was silent for {self.limit_s:g} s and was ended" if self._late else " failed"
            raise WorkerError(f"{self.name}{late}: {self._last_words()}")
        try:
            value = json.loads(line)
        except ValueError as error:
            raise WorkerError(f"{self.name} said {line[:80]!r}; expected a line of JSON") from error
        if not isinstance(value, dict):
            raise WorkerError(f"{self.name} said {line[:80]!r}; expected an object")
        return value

    def _end(self) -> None:
        self._late = True
        self._process.kill()

    @staticmethod
    def _pipe(pipe: Any) -> TextIO:
        if pipe is None:
            raise WorkerError("a worker has no pipe; it was not started by this class")
        return pipe  # type: ignore[no-any-return]

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
        return lines[-1][:300] if lines else "it said nothing"

    def close(self) -> None:
        """End the process; closing again does nothing."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue  # it held a line that nobody will read
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def environment() -> dict[str, str]:
    """Of every worker: one thread, our modules on the path, no model hub."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **one, **quiet, "PYTHONPATH": str(ROOT), "PYTHONNOUSERSITE": "1"}
