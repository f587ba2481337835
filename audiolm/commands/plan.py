"""What ``audiolm eval all`` takes: every measure as a step, the most telling first, and how much of each.

A new measure is a line of :data:`STEPS`. Knows nothing of how steps are run; see :mod:`audiolm.commands.every`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from audiolm.commands.abx import CELLS, take_abx, take_kept
from audiolm.commands.bench import Bench, say
from audiolm.commands.continuation import DEFAULT, take_continuation
from audiolm.commands.detect import take_detect
from audiolm.commands.pairs import take_sblimp, take_swuggy
from audiolm.commands.reconstruction import take_reconstruction
from audiolm.commands.time import take_diversity, take_hierarchy
from audiolm.commands.watermark import take_watermark
from audiolm.eval.cli import (
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
    examples: int = 2
    shown: float = 4.0
    pairs: int = 0
    long_prompts: int = 6
    long_seconds: float = 60.0
    varied_prompts: int = 4
    seeds: int = 4
    texts: int = 0
    cells: int = CELLS
    judged: int = 24
    judged_seconds: float = 7.0
    other_modes: bool = True
    marked: int = 8
    marked_seconds: float = 10.0
    keys: int = 20


QUICK = Plan(
    clips=4, crops=4, token_minutes=2.0, prompts=4, heard=3.0, seconds=3.0, minutes=1, examples=2, shown=3.0, pairs=60,
    long_prompts=2, long_seconds=10.0, varied_prompts=2, seeds=2, texts=6, cells=1000,
    judged=6, judged_seconds=4.0, other_modes=False, marked=2, marked_seconds=5.0, keys=4,
)  # fmt: skip


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
    zerospeech: Path | None = None
    recognizer: str = DEFAULT
    beside: list[str] = field(default_factory=list)

    @property
    def bare(self) -> Bench:
        """The bench without sound, for measures that bring their own."""
        return replace(self.bench, held=[])


@dataclass(frozen=True)
class Step:
    """A measure: the kinds of sound that it takes, how to take it, and about how many seconds of a core with QUICK."""

    name: str
    kinds: tuple[str, ...]
    take: Callable[[Job], None]
    cost: float = 20.0


def _continuation(job: Job) -> None:
    plan = job.plan
    sizes = plan.prompts, plan.heard, plan.seconds
    meter, known, where = job.recognizer, job.manifest, job.where
    take_continuation(job.bench, *sizes, recognizer=meter, manifest=known, where=where, again=job.again)


def _semantic(job: Job) -> None:
    """Without a manifest: the phones are those of ``abx``."""
    take_semantic(job.bench, None, [], again=job.again)


def _reconstruction(job: Job) -> None:
    take_reconstruction(job.bench, job.plan.clips, 6.0, job.beside, again=job.again)


def _likelihood(job: Job) -> None:
    take_likelihood(job.bench, job.plan.crops, job.plan.token_minutes, job.train_tokens, again=job.again)


def _drift(job: Job) -> None:
    take_drift(job.bench, job.plan.minutes, job.plan.heard, "auto", again=job.again)


def _plots(job: Job) -> None:
    plan = job.plan
    take_plots(job.bench, plan.examples, plan.shown, plan.shown, job.logs, engine="auto", again=job.again)


def _hierarchy(job: Job) -> None:
    plan = job.plan
    take_hierarchy(job.bench, plan.long_prompts, plan.heard, plan.long_seconds, again=job.again)


def _diversity(job: Job) -> None:
    plan = job.plan
    many = plan.varied_prompts, plan.seeds
    take_diversity(job.bench, *many, heard=plan.heard, seconds=plan.seconds, again=job.again)


def _abx(job: Job) -> None:
    """Of the corpora where their texts are given, else of a set that espeak-ng speaks."""
    bench, plan = job.bare if job.manifest is None else job.bench, job.plan
    known, cells, texts = job.manifest, plan.cells, plan.texts
    take_abx(bench, manifest=known, where=job.where, cells=cells, texts=texts, again=job.again)


def _kept(job: Job) -> None:
    plan = job.plan
    known, where, minutes = job.manifest, job.where, 2 * plan.token_minutes
    counts = plan.clips, plan.cells, plan.texts
    take_kept(job.bench, *counts, manifest=known, where=where, minutes=minutes, again=job.again)


def _swuggy(job: Job) -> None:
    take_swuggy(job.bare, job.zerospeech, pairs=job.plan.pairs, again=job.again)


def _sblimp(job: Job) -> None:
    take_sblimp(job.bare, job.zerospeech, pairs=job.plan.pairs, again=job.again)


def _detect(job: Job) -> None:
    """Left out where the bundle has no detector."""
    from audiolm.bundle import find
    from audiolm.detector import FILE

    plan, source = job.plan, job.bench.source
    if not (find(source) / FILE).exists():
        say(f"detect: left out, the bundle has no {FILE}; `audiolm train detector` makes one")
        return
    take_detect(
        job.bench,
        prompts=plan.judged,
        heard=min(plan.heard, 3.0),
        seconds=plan.judged_seconds,
        others=plan.other_modes,
        bundle=source,
        again=job.again,
    )


def _watermark(job: Job) -> None:
    plan = job.plan
    counts, heard = (plan.clips, plan.marked), min(plan.heard, 3.0)
    take_watermark(job.bench, *counts, heard=heard, seconds=plan.marked_seconds, keys=plan.keys, again=job.again)


STEPS = (
    Step("continuation", BOTH, _continuation, 30),
    Step("reconstruction", BOTH, _reconstruction, 33),
    Step("hierarchy", BOTH, _hierarchy, 24),
    Step("detect", BOTH, _detect, 30),
    Step("abx", (SPEECH,), _abx, 20),
    Step("kept", BOTH, _kept, 21),
    Step("semantic", BOTH, _semantic, 8),
    Step("plots", BOTH, _plots, 16),
    Step("swuggy", (SPEECH,), _swuggy, 10),
    Step("sblimp", (SPEECH,), _sblimp, 15),
    Step("likelihood", BOTH, _likelihood, 6),
    Step("diversity", BOTH, _diversity, 18),
    Step("watermark", BOTH, _watermark, 25),
    Step("drift", BOTH, _drift, 34),
)
