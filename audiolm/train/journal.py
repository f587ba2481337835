"""The log of a run: one JSON line each time, the same for TensorBoard, and one short line for people.

``OUT/NAME.jsonl`` is the record that cards and plots are made of; ``tensorboard --logdir OUT/tensorboard`` shows the
same curves live. The short line goes to the logger ``audiolm.train``.
"""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from audiolm.train.faults import TrainingError

logger = logging.getLogger("audiolm.train")
_said: set[str] = set()


class Journal:
    """The log of the run ``name`` in the folder ``out``; mute with ``on`` false, in all processes but the main one."""

    def __init__(self, out: Path, name: str, *, on: bool = True) -> None:
        self.path, self.name, self.on = out / f"{name}.jsonl", name, on
        self.curves = out / "tensorboard" / name
        self._from = 0
        self._board: Any = None

    def begin(self, step: int) -> None:
        """Go on after ``step``: rows of later steps, which are going to be run again, are left out; 0 begins anew.

        Raises:
            TrainingError: the log cannot be written.
        """
        self._from = step
        if not (self.on and self.path.is_file()):
            return
        try:
            lines = self.path.read_text(encoding="utf8").splitlines(keepends=True)
            temporary = self.path.with_suffix(".part")
            temporary.write_text("".join(line for line in lines if _step(line) <= step and step), encoding="utf8")
            temporary.replace(self.path)
        except OSError as error:
            raise self._unwritable(error) from error

    def write(self, row: Mapping[str, float]) -> None:
        """Append a row, which holds ``step``.

        Raises:
            TrainingError: the log cannot be written.
        """
        if not self.on:
            return
        try:
            with self.path.open("a", encoding="utf8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise self._unwritable(error) from error
        self._draw(row)

    def say(self, text: str) -> None:
        """One line for people."""
        if self.on:
            logger.info("%s: %s", self.name, text)

    def close(self) -> None:
        """Let go of TensorBoard's file."""
        if self._board is not None:
            with suppress(OSError):  # a full disk, of which the .jsonl has told
                self._board.close()
            self._board = None

    def _unwritable(self, error: OSError) -> TrainingError:
        return TrainingError(f"{self.path} cannot be written ({error.strerror}); the last checkpoint is intact")

    def _draw(self, row: Mapping[str, float]) -> None:
        """The same row for TensorBoard; without it, or without room for it, the run goes on and says so once."""
        try:
            if self._board is None:
                from torch.utils.tensorboard import SummaryWriter

                self._board = SummaryWriter(str(self.curves), purge_step=self._from + 1, flush_secs=30)
            for name, value in row.items():
                if name != "step":
                    self._board.add_scalar(f"{self.name}/{name}", value, int(row["step"]))
        except ImportError:
            self._once("no TensorBoard here (pip install tensorboard); the curves are in the .jsonl alone")
        except OSError as error:
            self._once(f"TensorBoard's file cannot be written ({error.strerror}); the curves are in the .jsonl alone")

    def _once(self, text: str) -> None:
        if text not in _said:
            _said.add(text)
            logger.info("%s", text)


def _step(line: str) -> int:
    """The step of a row; a line that an interrupted write left is of no step that is kept."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 1 << 62


def duration(seconds: float) -> str:
    """A length of time for people: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
