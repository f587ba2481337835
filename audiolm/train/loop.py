"""What every training run shares: a clock, a log, a schedule, the optimizer's step, checkpoints that are safetensors.

It knows nothing of what is trained. Progress goes to the logger ``audiolm.train`` (one short line every few seconds)
and, in full, to ``OUT/NAME.jsonl``.
"""

import json
import logging
import math
import signal
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from audiolm.bundle import weights_of
from audiolm.errors import AudioLMError, InputError

logger = logging.getLogger("audiolm.train")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingError(AudioLMError, RuntimeError):
    """A run cannot go on; the last good checkpoint is intact."""

    exit_code = 1


class StoppedError(AudioLMError):
    """A signal ended a run early; its weights were saved before this was raised."""

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(message, number=int(number))
        self.exit_code = 128 + number


class Run:
    """A run that stops itself: after ``minutes``, after ``steps``, or at the first SIGINT or SIGTERM.

    A context manager. A signal inside only sets :attr:`done`, so that the loop ends as it always does, with a
    checkpoint; then :class:`StoppedError` is raised. A second signal ends the program at once.

    Args:
        out: folder of the log and the checkpoints; made if need be.
        name: of what is trained; the log is ``OUT/NAME.jsonl``.
        minutes: length of the run; schedules follow its clock.
        steps: also an end, for runs that must not depend on the clock.
        every: seconds between lines of the log.
        save_every: seconds between checkpoints.

    Raises:
        InputError: no such length, or a folder that cannot be made.
    """

    def __init__(
        self,
        out: str | Path,
        name: str,
        minutes: float,
        *,
        steps: int | None = None,
        every: float = 20.0,
        save_every: float = 180.0,
    ) -> None:
        if not math.isfinite(minutes) or minutes <= 0:
            raise InputError(f"minutes must be a positive number, got {minutes}", minutes=minutes)
        if steps is not None and steps < 1:
            raise InputError(f"steps must be at least 1, got {steps}; leave it out to train by the clock", steps=steps)
        self.out, self.name, self.steps = Path(out), name, steps
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.out} cannot be made a folder ({error.strerror}); give another") from error
        self.seconds, self.every, self.save_every = minutes * 60, every, save_every
        self.begin = self._logged = self._saved = time.monotonic()
        self.step = 0
        self.signal = 0
        self._handlers: dict[int, Any] = {}
        self._sums: dict[str, float] = {}
        self._count = 0

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._stop) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        if error is not None:
            return
        self._flush()
        if self.signal:
            raise StoppedError(
                f"{self.name} stopped by {signal.Signals(self.signal).name} at step {self.step}; "
                f"its weights are in {self.out}",
                self.signal,
            )

    def _stop(self, number: int, frame: FrameType | None) -> None:
        _ = frame
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    @property
    def progress(self) -> float:
        """Share of the run that is gone, 0 to 1.

        Schedules follow it, so a run of any length ends with its rate at the floor.
        """
        by_clock = (time.monotonic() - self.begin) / self.seconds
        return min(1.0, by_clock if self.steps is None else max(by_clock, self.step / self.steps))

    @property
    def minutes(self) -> float:
        """Minutes that are gone."""
        return (time.monotonic() - self.begin) / 60

    @property
    def done(self) -> bool:
        """Whether the run is over."""
        return bool(self.signal) or self.progress >= 1.0

    def check(self, values: Mapping[str, float]) -> None:
        """Refuse values that are not finite.

        Raises:
            TrainingError: one is NaN or infinite. Nothing has been saved since the last good checkpoint.
        """
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad:
            raise TrainingError(
                f"{', '.join(bad)} of {self.name} became NaN or infinite at step {self.step}; "
                f"lower the rate and go on from the last weights in {self.out}",
                step=self.step,
            )

    def tick(self, losses: Mapping[str, float]) -> None:
        """Count one step and log the running means every few seconds."""
        self.step += 1
        self._count += 1
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        if time.monotonic() - self._logged > self.every:
            self._flush()

    def _flush(self) -> None:
        """Log the means since the last time."""
        if self._count:
            self.log({name: total / self._count for name, total in self._sums.items()})
        self._sums, self._count, self._logged = {}, 0, time.monotonic()

    def log(self, values: Mapping[str, float], details: Mapping[str, float] | None = None) -> None:
        """Append one JSON line to the log and say ``values``; ``details`` go to the log alone."""
        row = {"step": self.step, "minutes": round(self.minutes, 2)}
        row |= {name: round(value, 4) for name, value in {**values, **(details or {})}.items()}
        with (self.out / f"{self.name}.jsonl").open("a", encoding="utf8") as file:
            file.write(json.dumps(row) + "\n")
        means = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        logger.info("%s: %.1f of %.1f min, step %d: %s", self.name, self.minutes, self.seconds / 60, self.step, means)

    def save_due(self) -> bool:
        """Whether it is time for a checkpoint; the clock then starts again."""
        if time.monotonic() - self._saved < self.save_every:
            return False
        self._saved = time.monotonic()
        return True


class Learner:
    """AdamW with clipped gradients on the schedule of a run: one optimizer step for every recipe."""

    def __init__(
        self,
        run: Run,
        weights: Iterable[Tensor],
        rate: float,
        *,
        betas: tuple[float, float],
        weight_decay: float = 0.01,
    ) -> None:
        self.run, self.rate = run, rate
        self.weights = [weight for weight in weights if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(self.weights, lr=rate, betas=betas, weight_decay=weight_decay)

    def step(self, loss: Tensor, log: Mapping[str, float]) -> None:
        """Change the weights by the gradient of ``loss`` and count the step, with ``log`` for the log.

        Raises:
            TrainingError: the loss, a logged value or the gradient is not finite; the weights are unchanged.
        """
        self.run.check({"loss": float(loss.detach()), **log})
        for group in self.optimizer.param_groups:
            group["lr"] = cosine(self.run.progress, self.rate)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.run.check({"the gradient": float(norm)})
        self.optimizer.step()
        self.run.tick(log)


def cosine(progress: float, top: float, floor: float = 0.02, warm: float = 0.03) -> float:
    """Learning rate at ``progress``: linear warm-up, then a half cosine down to ``floor * top``."""
    if progress < warm:
        return top * max(progress / warm, 0.01)
    return top * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (progress - warm) / (1 - warm))))


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], info: Mapping[str, Any] | None = None) -> None:
    """Write safetensors through a temporary name, so that an interrupted write leaves the last file intact.

    Raises:
        TrainingError: the file cannot be written (no room, no permission); the last one is intact.
    """
    target = Path(path)
    temporary = target.with_suffix(".part")
    data = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    try:
        save_file(data, temporary, {key: json.dumps(value) for key, value in (info or {}).items()})
        temporary.replace(target)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{target} cannot be written ({error}); what was there before is intact") from error
    finally:
        temporary.unlink(missing_ok=True)


def save_weights(path: str | Path, tensors: Mapping[str, Tensor], info: Mapping[str, Any] | None = None) -> None:
    """Like :func:`save_tensors`, for weights: none may be NaN or infinite.

    Raises:
        TrainingError: one is, or the file cannot be written; the last one is intact.
    """
    bad = [name for name, value in tensors.items() if not bool(value.isfinite().all())]
    if bad:
        raise TrainingError(f"{bad[0]} holds NaN or infinity; {path} is left as it was: go on from it at a lower rate")
    save_tensors(path, tensors, info)


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        InputError: it is not there or is no such file.
    """
    if not Path(path).is_file():
        raise InputError(f"{path} is not there; expected weights or tokens that `audiolm train` wrote", path=str(path))
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is not a readable safetensors file ({error}); make it again") from error


def load_weights(path: str | Path, module: nn.Module) -> None:
    """Read weights that a training wrote into ``module``.

    Raises:
        InputError: the file is not there, or its names and shapes are not those that ``module`` is stored with.
    """
    tensors = read_tensors(path)
    given = {name: tuple(value.shape) for name, value in tensors.items()}
    wanted = {name: tuple(value.shape) for name, value in weights_of(module).items()}
    odd = sorted(name for name in given.keys() | wanted.keys() if given.get(name) != wanted.get(name))
    if odd:
        raise InputError(
            f"{path} does not fit: {odd[0]} is {given.get(odd[0], 'not there')}, expected "
            f"{wanted.get(odd[0], 'nothing of this name')}; it is of a {type(module).__name__} of other sizes"
        )
    module.load_state_dict(tensors, strict=False)
