"""The commands that look at results: ``audiolm eval listen``, ``audiolm eval heard`` and ``audiolm compare``."""

import json
from pathlib import Path
from typing import Annotated

import typer

from audiolm.commands.bench import Bench, BundleName, Data, Heard, Prompts, Seconds, Seed, Threads, say
from audiolm.errors import InputError

PAGE_NAME = "listen.html"
Tests = Annotated[str, typer.Option(help="real (recording or model), pairs (model or acoustic only), or real,pairs")]
PageOut = Annotated[Path, typer.Option(help="folder of the page")]
Alone = Annotated[bool, typer.Option("--alone", help="only what follows the prompt is heard")]
Raw = Annotated[bool, typer.Option("--raw", help="recordings as they are, not through the codec")]
Beside = Annotated[bool, typer.Option("--beside", help="clips as files beside the page, not in it")]
AsJson = Annotated[bool, typer.Option("--json", help="as JSON")]
Least = Annotated[float, typer.Option(min=0, help="told of figures without an interval: a larger relative change")]


def listen(
    bundle: BundleName,
    data: Data,
    *,
    tests: Tests = "real,pairs",
    prompts: Prompts = 12,
    heard: Heard = 6.0,
    seconds: Seconds = 6.0,
    alone: Alone = False,
    raw: Raw = False,
    beside: Beside = False,
    out: PageOut = Path("out/listen"),
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """A page for a blind listening test: one HTML file that is put before people; `audiolm eval heard` counts."""
    from audiolm.eval.listen import TESTS, make_trials, page

    names = tests.split(",")
    chosen = [test for test in TESTS if test in names]
    if not set(names) <= set(TESTS):
        raise InputError(f"tests is {tests!r}; expected {', '.join(TESTS)} or both with a comma", tests=tests)
    bench = Bench.open(bundle, data, out, seed, threads)
    settings = {"heard": heard, "seconds": seconds, "prompt": not alone, "raw": raw, "seed": seed}
    sources = {"data": [each.name for each in bench.held], "tests": chosen, "prompts": prompts}
    trials = make_trials(
        bench.model, bench.held, chosen, count=prompts, heard=heard, seconds=seconds, prompt=not alone, raw=raw,
        seed=seed, progress=say,
    )  # fmt: skip
    html = page(trials, bundle=bench.bundle, settings=settings | sources, beside=out if beside else None)
    typer.echo(f"{_written(out / PAGE_NAME, html)}: {len(trials)} trials, {len(html) / 1e6:.1f} MB")


def _written(path: Path, text: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf8")
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); give another --out", path=str(path)) from error
    return path


def heard(
    results: Annotated[list[Path], typer.Argument(help="JSON files that listeners saved, all of one page")],
    *,
    as_json: AsJson = False,
) -> None:
    """Join listeners' answers: counts, shares with their intervals, and exact binomial tests."""
    from audiolm.eval import heard as answers

    listeners = [answers.read(path) for path in results]
    answers.check(listeners)
    if as_json:
        typer.echo(json.dumps(answers.summary(listeners), indent=1))
    else:
        typer.echo("\n".join(answers.lines(listeners)))


def compare(
    before: Annotated[Path, typer.Argument(metavar="A", help="report.json of audiolm eval, or its folder")],
    after: Annotated[Path, typer.Argument(metavar="B", help="another")],
    *,
    change: Least = 0.05,
    as_json: AsJson = False,
) -> None:
    """Say what moved beyond noise between two reports of `audiolm eval`, and what was set differently."""
    from audiolm.eval import compare as reports

    found = reports.compare(reports.read(before), reports.read(after))
    if as_json:
        typer.echo(json.dumps(reports.as_dict(found, change), indent=1))
    else:
        typer.echo("\n".join([f"A: {before}", f"B: {after}", *reports.lines(found, change)]))
