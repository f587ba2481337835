"""The command ``audiolm eval all``: every measure of :mod:`audiolm.commands.plan`, into one report and one page.

::

    audiolm eval all piano --quick --out out/eval                     # on a small set of our own, in a few minutes
    audiolm eval all --bundle piano --data data/piano_dev             # all of each, on held-out sound

What the report holds already, with the same settings, is not measured again, so a run that was stopped goes on. A
measure that cannot be taken is told, in the report too, and the others are taken; the exit code says so at the end.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import cpu_count
from pathlib import Path
from typing import Annotated

import typer

from audiolm.commands.bench import OUT, Bench, Data, Logs, Manifest, Out, Seed, Threads, TrainTokens, Where, say
from audiolm.commands.continuation import DEFAULT, Meter
from audiolm.commands.plan import QUICK, STEPS, Job, Plan, Step
from audiolm.commands.reconstruction import Beside
from audiolm.errors import AudioLMError, InputError

Name = Annotated[str | None, typer.Argument(metavar="BUNDLE", help="a shipped bundle's name or a bundle folder")]
Named = Annotated[str | None, typer.Option("--bundle", help="the same, as an option")]
Quick = Annotated[bool, typer.Option("--quick", help="little of each: a first look in five minutes on two cores")]
Only = Annotated[str | None, typer.Option("--steps", help="only these measures, with commas between")]
Without = Annotated[str | None, typer.Option(help="all but these measures, with commas between")]
Jobs = Annotated[int, typer.Option(min=0, help="processes that measure; 0: two with --quick on two cores, else one")]
Again = Annotated[bool, typer.Option("--again", help="measure what is in the report already, too")]
Zero = Annotated[Path | None, typer.Option(help="folder of ZeroSpeech 2021, for swuggy and sblimp")]
MOST_JOBS = 2


def every(
    context: typer.Context,
    name: Name = None,
    *,
    bundle: Named = None,
    data: Data = None,
    quick: Quick = False,
    steps: Only = None,
    without: Without = None,
    prompts: Annotated[int | None, typer.Option(min=1, help="prompts a corpus")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.2, help="of a continuation")] = None,
    minutes: Annotated[int | None, typer.Option(min=1, help="of free running")] = None,
    train_tokens: TrainTokens = None,
    manifest: Manifest = None,
    where: Where = None,
    zerospeech: Zero = None,
    recognizer: Meter = DEFAULT,
    beside: Beside = None,
    log: Logs = None,
    jobs: Jobs = 0,
    again: Again = False,
    out: Out = OUT,
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """Every measure, into one report and one page. Without --data on a small set of our own."""
    start, chosen = time.monotonic(), _steps(steps, without)
    given = {"prompts": prompts, "seconds": seconds, "minutes": minutes}
    plan = replace(QUICK if quick else Plan(), **{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]
    bench = Bench.open(_bundle(name, bundle), data, out, seed, threads)
    fitting = [step for step in chosen if _held(bench, step)]
    if not fitting:
        raise InputError(f"none of {', '.join(step.name for step in chosen)} takes such sound; give other --data")
    files = {
        "manifest": manifest,
        "where": where or [],
        "train_tokens": train_tokens,
        "logs": log or [],
        "zerospeech": zerospeech,
        "recognizer": recognizer,
        "beside": beside or [],
    }
    job = Job(bench, plan, again, **files)  # type: ignore[arg-type]
    count = min(jobs or (min(MOST_JOBS, cpu_count() or 1) if quick else 1), len(fitting))
    found = _beside(context, job, fitting, count, start) if count > 1 else run(job, fitting, start)
    _end(bench, found, len(fitting), start)


def _bundle(name: str | None, bundle: str | None) -> str:
    if (name is None) == (bundle is None):
        raise InputError("give the bundle once: audiolm eval all BUNDLE, or audiolm eval all --bundle BUNDLE")
    return str(name or bundle)


def _steps(names: str | None, without: str | None) -> list[Step]:
    wanted, left = (each.split(",") if each else [] for each in (names, without))
    known = [step.name for step in STEPS]
    if wrong := [each for each in wanted + left if each not in known]:
        raise InputError(f"unknown measure {wrong[0]!r}; expected some of {', '.join(known)}")
    return [step for step in STEPS if (not wanted or step.name in wanted) and step.name not in left]


def _held(bench: Bench, step: Step) -> bool:
    return any(each.kind in step.kinds for each in bench.held)


@dataclass(frozen=True)
class Found:
    """What could not be taken, and why; errors that nobody foresaw are kept whole."""

    failed: dict[str, str]
    crashes: list[Exception]


def run(job: Job, steps: Sequence[Step], start: float) -> Found:
    """Take the steps one after the other, and go on where one fails."""
    found = Found({}, [])
    for i, step in enumerate(steps):
        say(f"[{i + 1}/{len(steps)}] {step.name}, {_clock(time.monotonic() - start)}")
        held = [each for each in job.bench.held if each.kind in step.kinds]
        try:
            step.take(replace(job, bench=replace(job.bench, held=held)))
        except AudioLMError as error:
            _failed(job.bench, step, str(error), found)
        except Exception as error:  # noqa: BLE001 - raised when the others are done
            found.crashes.append(error)
            _failed(job.bench, step, f"an error in the program, {type(error).__name__}: {error}", found)
    return found


def _failed(bench: Bench, step: Step, why: str, found: Found) -> None:
    say(f"{step.name} could not be measured: {why}")
    found.failed[step.name] = why
    bench.failed(step.name, why)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _beside(context: typer.Context, job: Job, steps: Sequence[Step], count: int, start: float) -> Found:
    """The steps dealt to ``count`` processes, this one and others that are called as it was; they share the report."""
    shares: list[list[Step]] = [[] for _ in range(count)]
    for step in sorted(steps, key=lambda step: -step.cost):
        min(shares, key=lambda share: sum(each.cost for each in share)).append(step)
    mine, *theirs = [[step for step in steps if step in share] for share in shares]
    others = [(subprocess.Popen(_call(context, share)), share) for share in theirs]  # noqa: S603 - this very command
    try:
        found = run(job, mine, start)
        for process, _ in others:
            process.wait()
    finally:
        for process, _ in others:
            process.terminate()
    for process, share in others:
        _told(job.bench, share, process.returncode, found)
    return found


def _call(context: typer.Context, steps: Sequence[Step]) -> list[str]:
    """This command as it was given, for some of the steps."""
    typed = {**context.params, "steps": ",".join(step.name for step in steps), "without": None, "jobs": 1}
    words = [sys.executable, "-m", "audiolm.cli", "eval", "all"]
    for parameter in context.command.params:
        value = typed.get(str(parameter.name))
        values = value if isinstance(value, list | tuple) else [] if value is None or value is False else [value]
        option = parameter.opts[:1] if parameter.param_type_name == "option" else []
        words += [word for each in values for word in (*option, *([] if each is True else [str(each)]))]
    return words


def _told(bench: Bench, steps: Sequence[Step], code: int | None, found: Found) -> None:
    """What another process could not take: as it wrote into the report, or nothing at all where it died."""
    from audiolm.eval import report as reports

    sections = reports.read(bench.out)["sections"]
    for step in steps:
        if step.name not in sections:
            _failed(bench, step, f"its process ended with code {code}", found)
        elif why := sections[step.name].get("failed"):
            found.failed[step.name] = why


def _end(bench: Bench, found: Found, count: int, start: float) -> None:
    from audiolm.eval.page import write_page

    bench.summary()
    typer.echo(str(write_page(bench.out)))
    say(f"{count} measures, {len(found.failed)} of them failed, {_clock(time.monotonic() - start)}")
    if found.crashes:
        raise found.crashes[0]
    if found.failed:
        raise InputError(
            f"{len(found.failed)} of {count} measures could not be taken: {', '.join(found.failed)}; the report in "
            f"{bench.out} says why and has the others",
            failed=found.failed,
        )
