"""What ``audiolm eval all`` takes: every measure as a step, the most telling first, and how much of each.

A new measure is a line of :data:`STEPS`. Knows nothing of how steps are run; see :mod:`audiolm.commands.every`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from audiolm.commands.bench import Bench
from audiolm.commands.reconstruction import take_reconstruction
from audiolm.eval.cli import (
    take_continuation,
    take_drift,
    take_likelihood,
    take_plots,
    take_semantic,
)

SPEECH, MUSIC = "speech", "music"
BOTH = (SPEECH, MUSIC)


@dataclass(frozen=True)
class Plan:
    """How much of each measure ``all`` takes."""

    clips: int = 16
    crops: int = 24
    token_minutes: float = 15.0
    prompts: int = 12
    heard: float = 6.0
    seconds: float = 6.0
    minutes: int = 5
    examples: int = 3


QUICK = Plan(clips=4, crops=4, token_minutes=2.0, prompts=4, heard=3.0, seconds=3.0, minutes=1, examples=2)


@dataclass(frozen=True)
class Job:
    """A bench with only the sound that a step takes, the plan, and the files that were given."""

    bench: Bench
    plan: Plan
    again: bool = False
    manifest: Path | None = None
    where: list[str] = field(default_factory=list)
    train_tokens: Path | None = None
    logs: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class Step:
    """A measure: the kinds of sound that it takes, how to take it, and about how long, beside the others."""

    name: str
    kinds: tuple[str, ...]
    take: Callable[[Job], None]
    cost: float = 1.0


def _continuation(job: Job) -> None:
    plan = job.plan
    take_continuation(job.bench, plan.prompts, plan.heard, plan.seconds, again=job.again)


def _semantic(job: Job) -> None:
    take_semantic(job.bench, job.manifest, job.where, again=job.again)


def _reconstruction(job: Job) -> None:
    take_reconstruction(job.bench, job.plan.clips, 6.0, again=job.again)


def _likelihood(job: Job) -> None:
    take_likelihood(job.bench, job.plan.crops, job.plan.token_minutes, job.train_tokens, again=job.again)


def _drift(job: Job) -> None:
    take_drift(job.bench, job.plan.minutes, job.plan.heard, "auto", again=job.again)


def _plots(job: Job) -> None:
    plan = job.plan
    take_plots(job.bench, plan.examples, plan.heard, plan.seconds, job.logs, engine="auto", again=job.again)


STEPS = (
    Step("continuation", BOTH, _continuation, 3),
    Step("semantic", BOTH, _semantic, 2),
    Step("reconstruction", BOTH, _reconstruction, 2),
    Step("plots", BOTH, _plots, 2),
    Step("likelihood", BOTH, _likelihood, 1),
    Step("drift", BOTH, _drift, 3),
)
