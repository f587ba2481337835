"""What every training run shares: a clock, a log, a schedule, checkpoints that are safetensors and JSON."""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from audiolm.errors import InputError


class TrainingError(RuntimeError):
    """A run cannot go on; the last good checkpoint is intact."""


class Run:
    """A run that stops itself after ``minutes``, logs JSON lines and keeps its last checkpoint in ``out``."""

    def __init__(self, out: str | Path, minutes: float, *, every: float = 20.0, save_every: float = 180.0) -> None:
        if not math.isfinite(minutes) or minutes <= 0:
            raise InputError(f"minutes must be a positive number, got {minutes}")
        self.out = Path(out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.seconds, self.every, self.save_every = minutes * 60, every, save_every
        self.begin = self._logged = self._saved = time.monotonic()
        self.step = 0
        self._sums: dict[str, float] = {}
        self._count = 0

    @property
    def progress(self) -> float:
        """Share of the time that is gone, 0 to 1: schedules follow it, so a run of any length ends with its rate at the floor."""
        return min(1.0, (time.monotonic() - self.begin) / self.seconds)

    @property
    def done(self) -> bool:
        return self.progress >= 1.0

    def tick(self, losses: Mapping[str, float]) -> None:
        """Count one step and log the running means every few seconds."""
        bad = [name for name, value in losses.items() if not math.isfinite(value)]
        if bad:
            raise TrainingError(f"{', '.join(bad)} became NaN or infinite at step {self.step}; lower the rate and resume from {self.out}")
        self.step += 1
        self._count += 1
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        if time.monotonic() - self._logged > self.every:
            self.log({name: total / self._count for name, total in self._sums.items()})
            self._sums, self._count, self._logged = {}, 0, time.monotonic()

    def log(self, values: Mapping[str, float]) -> None:
        row = {"step": self.step, "minutes": round((time.monotonic() - self.begin) / 60, 2)}
        row |= {name: round(value, 4) for name, value in values.items()}
        with (self.out / "log.jsonl").open("a", encoding="utf8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)

    @property
    def save_due(self) -> bool:
        if time.monotonic() - self._saved < self.save_every:
            return False
        self._saved = time.monotonic()
        return True


def cosine(progress: float, top: float, floor: float = 0.02, warm: float = 0.03) -> float:
    """Learning rate at ``progress``: linear warm-up, then a half cosine down to ``floor * top``."""
    if progress < warm:
        return top * max(progress / warm, 0.01)
    return top * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (progress - warm) / (1 - warm))))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def save_weights(path: str | Path, tensors: Mapping[str, Tensor], info: Mapping[str, Any] | None = None) -> None:
    """Write safetensors through a temporary name, so that an interrupted write leaves the last file intact."""
    target = Path(path)
    temporary = target.with_suffix(".part")
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary, {k: json.dumps(v) for k, v in (info or {}).items()})
    os.replace(temporary, target)


def load_weights(path: str | Path, module: nn.Module) -> None:
    """Read weights that :func:`save_weights` wrote into ``module``; names must agree."""
    module.load_state_dict(load_file(path), strict=True)
