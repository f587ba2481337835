"""Steps that follow each other, each done once: what is finished is skipped, what was interrupted goes on.

It knows nothing of what the steps do (:mod:`audiolm.train.steps` does). A step is finished when ``FOLDER/NAME.json``
says so for the same settings and the same inputs, and its files are there. Other settings make it afresh, and with it
all that follows from it.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError

from audiolm.errors import AudioLMError, InputError
from audiolm.train.device import Compute
from audiolm.train.faults import StoppedError, TrainingError
from audiolm.train.journal import duration
from audiolm.train.run import SIGNALS

FORMAT = 1
LENGTHS = ("minutes", "steps")  # a run that is given more of them goes on; anything else is another run
logger = logging.getLogger("audiolm.train")


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: of its record; also what ``needs`` of other steps speak of.
        title: what it does, in a few words.
        settings: JSON-able; everything that decides what comes out, besides the needed steps.
        run: does it; called with true when nothing of an earlier try may be used. Returns figures for the card.
        makes: files or folders that are there when it is finished.
        minutes: of training that it may take, for the estimate of the time left.
        shared: all processes of a run take part; else the main one does it and the others wait.
    """

    name: str
    title: str
    settings: Mapping[str, Any]
    run: Callable[[bool], Mapping[str, Any]]
    needs: tuple[str, ...] = ()
    makes: tuple[Path, ...] = ()
    minutes: float = 0.0
    shared: bool = False


@dataclass(frozen=True)
class Record:
    """What is known of a step that was begun: ``FOLDER/NAME.json``.

    ``key`` stands for settings and inputs, ``base`` for the same without the lengths of runs.
    """

    key: str
    base: str
    settings: Mapping[str, Any]
    finished: bool = False
    seconds: float = 0.0
    figures: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Record | None":
        """The record, or None when there is none of this format; a step without one is simply done again."""
        try:
            values = json.loads(path.read_text(encoding="utf8"))
            format_ = values.pop("format")
            return cls(**values) if format_ == FORMAT else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write(self, path: Path) -> None:
        """Write through a temporary name.

        Raises:
            TrainingError: there is no room or no permission; the record that was there is intact.
        """
        part = path.with_suffix(".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=1) + "\n", "utf8")
            part.replace(path)
        except OSError as error:
            raise TrainingError(f"{path} cannot be written ({error.strerror}); is there room?") from error


def digest(*values: Any) -> str:
    """A short hash of JSON-able values."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plain(value: Any) -> Any:
    """``value`` (dataclasses too) as JSON would give it back."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    return json.loads(json.dumps(value))


def flat(values: Any, where: str = "") -> dict[str, Any]:
    """Nested mappings as ``a.b.c: value``."""
    if not isinstance(values, Mapping):
        return {where: values}
    rows = [flat(value, f"{where}.{key}" if where else str(key)) for key, value in values.items()]
    return {key: value for row in rows for key, value in row.items()}


class Recipe:
    """Steps in order, and the folder of their records.

    Args:
        steps: each after those that it needs.
        folder: of the records.
        again: the command that goes on after a stop or a failure; it stands at the end of every error.
        compute: the processes that work together; None when there is but one.
    """

    def __init__(self, steps: Sequence[Step], folder: Path, again: str, compute: Compute | None = None) -> None:
        self.steps, self.folder, self.again, self.compute = list(steps), folder, again, compute
        self.keys: dict[str, str] = {}
        self.bases: dict[str, str] = {}
        for step in self.steps:
            settings, needed = plain(step.settings), [self.keys[name] for name in step.needs]
            self.keys[step.name] = digest(FORMAT, step.name, settings, needed)
            lengthless = {k: v for k, v in flat(settings).items() if k.rpartition(".")[2] not in LENGTHS}
            self.bases[step.name] = digest(FORMAT, step.name, lengthless, needed)

    def record(self, name: str) -> Record | None:
        """What is known of a step."""
        return Record.read(self.folder / f"{name}.json")

    def figures(self, name: str) -> Mapping[str, Any]:
        """The figures of a finished step; of none when it is not."""
        known = self.record(name)
        return known.figures if known is not None and known.finished else {}

    def seconds(self, name: str) -> float:
        """How long a step took, all tries together."""
        known = self.record(name)
        return known.seconds if known is not None else 0.0

    def missing(self, step: Step) -> str:
        """Why a step must be run; nothing when it is finished."""
        known = self.record(step.name)
        if known is None:
            return "not begun"
        if known.key != self.keys[step.name]:
            return self._changed(step, known)
        if not known.finished:
            return "not finished"
        gone = [path for path in step.makes if not path.exists()]
        return f"{gone[0]} is gone" if gone else ""

    def _changed(self, step: Step, known: Record) -> str:
        was, now = flat(known.settings), flat(plain(step.settings))
        odd = [key for key in {**was, **now} if was.get(key) != now.get(key)]
        if not odd:
            return "what it is made from changed"
        shown = [f"{key} {_short(was.get(key))} -> {_short(now.get(key))}" for key in odd[:3]]
        return "other settings: " + ", ".join(shown) + (f" and {len(odd) - 3} more" if len(odd) > 3 else "")

    def run(self, until: str | None = None) -> None:
        """Do what is not done yet, up to and with the step ``until``.

        Raises:
            AudioLMError: of the kind that a step raised; says which step, what is kept and how to go on.
            StoppedError: a signal came; the same.
        """
        for number, step in enumerate(self.steps, 1):
            begun = f"[{number}/{len(self.steps)}] {step.name}: {step.title}"
            why, fresh = self._agreed(step)
            if not why:
                logger.info("%s: done before (%s)", begun, duration(self.seconds(step.name)))
            else:
                logger.info("%s%s%s", begun, f" ({why})" if why != "not begun" else "", self._left(number - 1))
                self._run(step, number, fresh=fresh)
            if step.name == until:
                break

    def _agreed(self, step: Step) -> tuple[str, bool]:
        """Why a step must be run, and whether afresh; in several processes what the main one finds."""
        why, known = self.missing(step), self.record(step.name)
        fresh = known is None or known.base != self.bases[step.name]
        if self.compute is None:
            return why, fresh
        said = self.compute.same(torch.tensor([bool(why), fresh], dtype=torch.int64))
        return (why or "not begun") if said[0] else "", bool(said[1])

    def _left(self, first: int) -> str:
        """The training that is left, from the step ``first``."""
        minutes = sum(step.minutes for step in self.steps[first:] if self.missing(step))
        return f"; up to {duration(60 * minutes)} of training left" if minutes else ""

    def _run(self, step: Step, number: int, *, fresh: bool) -> None:
        with self._blaming(step, number):
            if self.compute is None or self.compute.main:
                self._run_and_record(step, fresh=fresh)
                return
            if step.shared:
                step.run(fresh)
            while self.missing(step):  # until the main process is done; if that fails, torchrun ends this one too
                time.sleep(0.2)

    def _run_and_record(self, step: Step, *, fresh: bool) -> None:
        path, known = self.folder / f"{step.name}.json", self.record(step.name)
        key, base = self.keys[step.name], self.bases[step.name]
        before, begin = known.seconds if known is not None and not fresh else 0.0, time.monotonic()
        begun = Record(key, base, plain(step.settings), seconds=before)
        begun.write(path)
        try:
            figures = plain(step.run(fresh))
        finally:
            begun = dataclasses.replace(begun, seconds=round(before + time.monotonic() - begin, 1))
            with contextlib.suppress(TrainingError):  # the error of the step says more
                begun.write(path)
        dataclasses.replace(begun, finished=True, figures=figures).write(path)

    @contextlib.contextmanager
    def _blaming(self, step: Step, number: int) -> Iterator[None]:
        """What goes wrong inside is said with its step and the way on."""
        where = f"step {number} of {len(self.steps)} ({step.name})"
        kept = f"what is finished is kept; go on with: {self.again}"
        try:
            yield
        except AudioLMError as error:
            verb = "stopped" if isinstance(error, StoppedError) else "failed"
            raise type(error)(f"{where} {verb}: {error.message}; {kept}", **error.data) from error
        except OSError as error:
            full = "; make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
            raise TrainingError(f"{where} failed: {error}{full}; {kept}") from error
        except SafetensorError as error:
            raise TrainingError(f"{where} failed: weights cannot be written ({error}); {kept}") from error
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            text = str(error).partition("\n")[0] or "memory is full"
            raise TrainingError(f"{where} failed: {text}; try a smaller batch (--set). {kept}") from error


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else text[:37] + "..."


@contextlib.contextmanager
def stoppable(what: str) -> Iterator[None]:
    """Inside, SIGINT and SIGTERM raise :class:`StoppedError`; a training run has its own way and keeps it."""

    def stop(number: int, frame: FrameType | None) -> None:
        _ = frame
        raise StoppedError(f"{what} stopped by {signal.Signals(number).name}", number)

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process; the hold ends with the process, however it ends.

    Raises:
        InputError: another process holds it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("a", encoding="utf8")
    except OSError as error:
        raise InputError(f"{folder} cannot be made a folder ({error.strerror}); give another --work") from error
    with file:
        if not _hold(file.fileno()):
            raise InputError(f"another `audiolm train` works in {folder}; wait for it or give another --work")
        yield


def _hold(number: int) -> bool:
    if os.name != "posix":
        return True
    import fcntl

    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
