"""The command ``audiolm eval``: what a bundle is worth on held-out sound, printed and kept as one report.

::

    audiolm eval semantic speech --data data/dev=speech               # one measure
    audiolm eval likelihood piano                                     # on the small set of our own

``OUT/report.json`` holds every figure, ``OUT/report.md`` its text. Every measure at once is ``audiolm eval all``
(:mod:`audiolm.commands.every`). Everything heavy is imported by the measure itself.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audiolm.commands.bench import (
    OUT,
    Bench,
    BundleName,
    Crops,
    Data,
    Heard,
    Logs,
    Manifest,
    Minutes,
    Out,
    Played,
    Prompts,
    Seconds,
    Seed,
    Threads,
    TokenMinutes,
    TrainTokens,
    Where,
    say,
)

if TYPE_CHECKING:
    from audiolm.eval.report import Section

eval_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Measure a bundle on held-out sound: one report, in text and JSON. Needs the extra eval.",
)


def take_likelihood(bench: Bench, crops: int, minutes: float, train_tokens: Path | None, *, again: bool = True) -> None:
    """Put the section `likelihood` into the report."""
    from audiolm.eval.likelihood import held_tokens, likelihood
    from audiolm.train.tokens import Tokens

    train = None if train_tokens is None else Tokens.open(train_tokens)

    def make(*, seed: int, token_minutes: float, **settings: Any) -> "Section":
        del seed  # crops are always the same
        parts = bench.model.parts
        say("tokens of the held-out sound")
        sources = [(each.name, held_tokens(parts, each.corpus, token_minutes)) for each in bench.held]
        return likelihood(parts, sources, train, **settings)

    told = {"train_tokens": "" if train_tokens is None else train_tokens.name}
    bench.measure("likelihood", make, again=again, told=told, crops=crops, token_minutes=minutes)


def take_semantic(bench: Bench, manifest: Path | None, where: list[str], *, again: bool = True) -> None:
    """Put the section `semantic` into the report."""
    from audiolm.eval.semantic import semantic

    rows = dict(item.partition("=")[::2] for item in where)

    def make(**settings: Any) -> "Section":
        return semantic(bench.model.parts, bench.held, manifest=path, where=rows, **settings)

    path = bench.texts if manifest is None else manifest
    told = {"manifest": "" if path is None else path.name, "where": where}
    bench.measure("semantic", make, again=again, told=told)


def take_drift(
    bench: Bench, minutes: int, heard: float, engine: str, *, dream: bool = False, again: bool = True
) -> None:
    """Put the section `drift` and its plot into the report."""
    from audiolm.eval.drift import drift
    from audiolm.eval.plots import drift_plot

    player = bench.playing(engine)

    def make(**settings: Any) -> "Section":
        section = drift(player, bench.held, **settings)
        bench.draw(section, "drift.png", lambda path: drift_plot(section.figures, path))
        return section

    told = {"engine": player.engine}
    bench.measure("drift", make, again=again, told=told, minutes=minutes, heard=heard, dream=dream)


def take_plots(
    bench: Bench, examples: int, heard: float, seconds: float, logs: list[Path], *, engine: str, again: bool = True
) -> None:
    """Put the section `plots` and its pictures into the report."""
    from audiolm.eval.plots import plots

    player = bench.playing(engine)

    def make(*, examples: int, **settings: Any) -> "Section":
        return plots(player, bench.held, bench.out, count=examples, logs=logs, **settings)

    told = {"logs": [path.name for path in logs], "engine": player.engine}
    bench.measure("plots", make, again=again, told=told, examples=examples, heard=heard, seconds=seconds)


@eval_app.command()
def semantic(
    bundle: BundleName,
    data: Data = None,
    *,
    manifest: Manifest = None,
    where: Where = None,
    out: Out = OUT,
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """Semantic tokens: phone ABX and speaker, or notes and onsets, beside MFCC and the codec's tokens."""
    bench = Bench.open(bundle, data, out, seed, threads)
    take_semantic(bench, manifest, where or [])
    bench.summary()


@eval_app.command()
def likelihood(
    bundle: BundleName,
    data: Data = None,
    *,
    crops: Crops = 24,
    token_minutes: TokenMinutes = 15.0,
    train_tokens: TrainTokens = None,
    out: Out = OUT,
    threads: Threads = 1,
) -> None:
    """Stages: held-out nats a token against a unigram and against no conditioning, and by level."""
    bench = Bench.open(bundle, data, out, 0, threads)
    take_likelihood(bench, crops, token_minutes, train_tokens)
    bench.summary()


@eval_app.command()
def drift(
    bundle: BundleName,
    data: Data = None,
    *,
    minutes: Minutes = 5,
    heard: Heard = 6.0,
    dream: Annotated[bool, typer.Option("--dream", help="begin from nothing, not from a prompt")] = False,
    engine: Played = "auto",
    out: Out = OUT,
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """Free running, minute by minute: entropy, loops, silence, level, beside the data's."""
    bench = Bench.open(bundle, data, out, seed, threads)
    take_drift(bench, minutes, heard, engine, dream=dream)
    bench.summary()


@eval_app.command()
def plots(
    bundle: BundleName,
    data: Data = None,
    *,
    examples: Prompts = 2,
    heard: Heard = 4.0,
    seconds: Seconds = 4.0,
    log: Logs = None,
    engine: Played = "auto",
    out: Out = OUT,
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """Spectrograms and sounds of recordings, reconstructions and continuations side by side, and training curves."""
    bench = Bench.open(bundle, data, out, seed, threads)
    take_plots(bench, examples, heard, seconds, log or [], engine=engine)
