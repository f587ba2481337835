"""A training run: its clock, its log, its end, and the state that it resumes from; it knows not what is trained."""

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import torch

from audiolm.errors import InputError
from audiolm.train.checkpoint import (
    Part,
    State,
    TorchNoise,
    apply_state,
    check_settings,
    collect,
    read_state,
    write_state,
)
from audiolm.train.device import Compute
from audiolm.train.faults import StoppedError, TrainingError
from audiolm.train.journal import Journal, duration

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Run(Compute):
    """A run that stops itself: after ``minutes``, after ``steps``, or at the first SIGINT or SIGTERM.

    A context manager, and inside it an iterator over steps. A signal only sets :attr:`done`, so that the loop ends as
    it always does, with a checkpoint; then :class:`StoppedError` is raised. A second signal ends the program at once.
    With :meth:`resume` the run writes its whole state every few minutes and at its end, and goes on from it.

    Attributes:
        step: optimizer steps so far, those of earlier calls included.
        finished: the run was over before it began, since the state is of a run of this length.

    Args:
        out: folder of the log and the checkpoints; made if need be.
        name: of what is trained; the log is ``OUT/NAME.jsonl``, the state ``OUT/NAME.state.safetensors``.
        minutes: length of the run, over all calls; schedules follow its clock. None: as long as ``steps`` take.
        steps: also an end, for runs that must not depend on the clock.
        every: seconds between lines of the log.
        save_every: seconds between checkpoints.
        device: cpu or cuda.
        precision: no or bf16, see :class:`audiolm.train.device.Compute`, whose methods a run has.
        settings: JSON values that a state must have been made with, see :func:`settings_of`.
        weights_from: the weights the run starts from; a state that started from others is left aside.
        restart: leave any state aside.

    Raises:
        InputError: no such length or device, or a folder that cannot be made.
        ConfigError: several processes without accelerate.
    """

    def __init__(
        self,
        out: str | Path,
        name: str,
        minutes: float | None,
        *,
        steps: int | None = None,
        every: float = 20.0,
        save_every: float = 180.0,
        device: str = "cpu",
        precision: str = "no",
        settings: Mapping[str, Any] | None = None,
        weights_from: str | Path | None = None,
        restart: bool = False,
    ) -> None:
        self.seconds = _seconds(minutes, steps)
        self.out, self.name, self.steps = Path(out), name, steps
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.out} cannot be made a folder ({error.strerror}); give another") from error
        super().__init__(device, precision)
        self.journal = Journal(self.out, name, on=self.main)
        self.settings = json.loads(json.dumps(settings or {}, default=str))
        self.weights_from = None if weights_from is None else str(weights_from)
        self.restart, self.finished = restart, False
        self.every, self.save_every = every, save_every
        self.begin = self._logged = time.monotonic()
        self.step = self.signal = self._first_step = 0
        self._shared = self._saved = self._first = 0.0  # seconds on the run's clock
        self._reason: str | None = None
        self._parts: dict[str, Part] = {}
        self._export: Callable[[], None] | None = None
        self._inside = ExitStack()
        self._handlers: dict[int, Any] = {}
        self._caught = 0
        self._sums: dict[str, float] = {}
        self._count = 0

    # -- begin and end --

    def __enter__(self) -> Self:
        self._inside.enter_context(self.matmuls())
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._stop) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._flush()
                self.save()
        finally:
            self._restore()
            self._inside.close()
            self.journal.close()
        if error is None and self.signal:
            raise StoppedError(
                f"{self.name} stopped by {signal.Signals(self.signal).name} at step {self.step}; "
                f"its weights are in {self.out}" + ("; run the same command to go on" if self._parts else ""),
                self.signal,
            )

    def _stop(self, number: int, frame: FrameType | None) -> None:
        _ = frame
        self._caught = number
        if self.processes == 1:  # several processes agree on it at the end of their step
            self.signal = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def __iter__(self) -> Iterator[int]:
        """Numbers of the steps that are left; the state is saved between them when it is time."""
        while not self.done:
            yield self.step
            if self.save_due():
                self.save()

    def finish(self, reason: str) -> None:
        """End the run before its time, by decision; it counts as finished when it is called again."""
        self._reason = reason
        self.journal.say(f"ends at step {self.step}: {reason}")

    # -- the clock --

    @property
    def elapsed(self) -> float:
        """Seconds of training so far, those of earlier calls included.

        In several processes the main one's, as of the last step.
        """
        return time.monotonic() - self.begin if self.processes == 1 else self._shared

    @property
    def progress(self) -> float:
        """Share of the run that is gone, 0 to 1.

        Schedules follow it, so a run of any length ends with its rate at the floor.
        """
        by_clock = self.elapsed / self.seconds
        return min(1.0, by_clock if self.steps is None else max(by_clock, self.step / self.steps))

    @property
    def minutes(self) -> float:
        """Minutes that are gone."""
        return self.elapsed / 60

    @property
    def done(self) -> bool:
        """Whether the run is over; the same in all processes."""
        return bool(self.signal) or self._reason is not None or self.progress >= 1.0

    def save_due(self) -> bool:
        """Whether it is time for a checkpoint; the clock then starts again."""
        if self.elapsed - self._saved < self.save_every:
            return False
        self._saved = self.elapsed
        return True

    def _agree(self) -> None:
        """All processes take the main one's clock and any one's signal."""
        if self.processes > 1:
            clock = time.monotonic() - self.begin if self.main else 0.0
            mine = torch.tensor([clock, float(self._caught)], dtype=torch.float64, device=self.device)
            self._shared, caught = self.largest(mine).tolist()
            self.signal = int(caught)

    # -- the log --

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
        self._agree()
        if time.monotonic() - self._logged > self.every:
            self._flush()

    def _flush(self) -> None:
        """Log the means since the last time."""
        if self._count:
            rate = self._count / max(time.monotonic() - self._logged, 1e-9)
            means = {name: total / self._count for name, total in self._sums.items()}
            self.log(means, {"steps_per_second": rate})
        self._sums, self._count, self._logged = {}, 0, time.monotonic()

    def log(self, values: Mapping[str, float], details: Mapping[str, float] | None = None) -> None:
        """Append one JSON line to the log and say ``values``; ``details`` go to the log alone.

        Raises:
            TrainingError: the log cannot be written.
        """
        row = {"step": self.step, "minutes": round(self.minutes, 2)}
        row |= {name: round(value, 4) for name, value in {**values, **(details or {})}.items()}
        self.journal.write(row)
        means = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        self.journal.say(f"{self._place()}, step {self.step}: {means}")

    def _place(self) -> str:
        """How far the run is, how fast, and how long it will still take."""
        spent, steps = self.elapsed - self._first, self.step - self._first_step
        rate = steps / spent if spent > 0 else 0.0
        left = self.seconds - self.elapsed
        if self.steps is not None and rate:
            left = min(left, (self.steps - self.step) / rate)
        whole = f"{self.minutes:.1f}" + (f" of {self.seconds / 60:.1f}" if math.isfinite(self.seconds) else "")
        end = f", {duration(max(0.0, left))} left" if math.isfinite(left) else ""
        return f"{whole} min, {rate:.3g} steps/s{end}"

    # -- the state --

    @property
    def state_path(self) -> Path:
        """The file that the run resumes from."""
        return self.out / f"{self.name}.state.safetensors"

    def resume(self, parts: Mapping[str, Part], export: Callable[[], None] | None = None) -> bool:
        """From now on save the state of ``parts``; give them the state of an earlier call where there is one.

        Args:
            parts: by name: modules, generators of torch and numpy, learners, or anything :class:`Resumable`. Torch's
                global generator is always one more.
            export: writes what others read (the weights); called in the main process before each state is written.

        Returns:
            Whether there was a state.

        Raises:
            InputError: the state is damaged, or of other settings or sizes; it says so and names ``--restart``.
            TrainingError: several processes see different states, or the log cannot be written.
        """
        self._parts, self._export = {**parts, "torch": TorchNoise()}, export
        state = None if self.restart else read_state(self.state_path)
        if state is not None and not self._other_start(state):
            check_settings(self.state_path, state, self.settings)
            apply_state(self.state_path, state, self._parts)
            self._take(state.facts)
        self._check_same_start()
        self.journal.begin(self.step)
        return self.step > 0

    def _check_same_start(self) -> None:
        """Processes that went on from different steps would wait for each other for ever."""
        if self.processes > 1:
            most, least = self.largest(torch.tensor([self.step, -self.step], device=self.device)).tolist()
            if most != -least:
                raise TrainingError(
                    f"the processes of {self.name} resume at steps {-least} to {most}; all must see the same "
                    f"{self.out}: share the folder, or give --restart"
                )

    def _other_start(self, state: State) -> bool:
        """Whether other weights to start from are asked for than the state's, and so a new run."""
        other = self.weights_from is not None and self.weights_from != state.facts["weights_from"]
        if other:
            self.journal.say(f"starts afresh from {self.weights_from}; the state of the last run is replaced")
        return other

    def _take(self, facts: Mapping[str, Any]) -> None:
        """Go on where the state was."""
        self.step = self._first_step = int(facts["step"])
        self._shared = self._saved = self._first = float(facts["seconds"])
        self.begin = time.monotonic() - self._first
        longer = self.seconds > (facts["limit"] or math.inf) or (self.steps or 0) > (facts["steps"] or math.inf)
        self._reason = None if longer else facts["reason"]
        self.finished = self.done
        at = f"step {self.step} ({duration(self._first)} of training)"
        why = self._reason or "give more minutes or steps to go on, or --restart to begin anew"
        self.journal.say(f"finished before, at {at}: {why}" if self.finished else f"resumes at {at}")

    def save(self) -> None:
        """Export, then write the state, in the main process; nothing if there is none to save.

        Raises:
            TrainingError: something is NaN or infinite, or cannot be written; the last state is intact.
        """
        if not self._parts or self.finished or not self.main:
            return
        state = collect(self._parts, self._facts())
        if self._export is not None:
            self._export()
        write_state(self.state_path, state)

    def _facts(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "seconds": self.elapsed,
            "limit": self.seconds if math.isfinite(self.seconds) else None,
            "steps": self.steps,
            "reason": self._reason,
            "settings": self.settings,
            "weights_from": self.weights_from,
        }


def _seconds(minutes: float | None, steps: int | None) -> float:
    """The length of a run on the clock."""
    if steps is not None and steps < 1:
        raise InputError(f"steps must be at least 1, got {steps}; leave it out to train by the clock", steps=steps)
    if minutes is None:
        if steps is None:
            raise InputError("a run needs a length; give minutes, or steps")
        return math.inf
    if not math.isfinite(minutes) or minutes <= 0:
        raise InputError(f"minutes must be a positive number, got {minutes}", minutes=minutes)
    return minutes * 60
