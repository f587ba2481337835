"""The command ``audiolm eval``: what a bundle is worth on held-out sound, printed and kept as one report.

::

    audiolm eval all piano --data data/piano_dev --out out/eval       # every measure; goes on where it was stopped
    audiolm eval reconstruction speech --data data/dev=speech         # one of them
    audiolm eval card out/eval CARD.md                                # the report into a model card

``OUT/report.json`` holds every figure, ``OUT/report.md`` its text. Everything heavy is imported by the measure itself.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audiolm.errors import InputError

if TYPE_CHECKING:
    from audiolm.eval.clips import Held
    from audiolm.eval.report import Section
    from audiolm.model import AudioLM

eval_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Measure a bundle on held-out sound: one report, in text and JSON. Needs the extra eval.",
)

BundleName = Annotated[str, typer.Argument(help="a shipped bundle's name or a bundle folder")]
Data = Annotated[
    list[str], typer.Option("--data", help="held-out corpus folder, or FOLDER=speech, FOLDER=music; may be repeated")
]
Out = Annotated[Path, typer.Option(help="folder of the report")]
Seed = Annotated[int, typer.Option(min=0, help="of clips, prompts and sampling")]
Threads = Annotated[int, typer.Option(min=1, help="of torch")]
Clips = Annotated[int, typer.Option(min=1, help="crops a corpus")]
Seconds = Annotated[float, typer.Option(min=0.2, help="of a crop, or of a continuation")]
Heard = Annotated[float, typer.Option(min=0.2, help="seconds of a prompt")]
Prompts = Annotated[int, typer.Option(min=1, help="prompts a corpus")]
Minutes = Annotated[int, typer.Option(min=1, help="of free running")]
Crops = Annotated[int, typer.Option(min=1, help="token crops a stage")]
TokenMinutes = Annotated[float, typer.Option(min=0.05, help="of sound that is tokenized")]
TrainTokens = Annotated[Path | None, typer.Option(help="token file of the training data, for the unigram")]
Logs = Annotated[
    list[Path] | None, typer.Option("--log", help="JSONL log of a training, for its curve; may be repeated")
]
Manifest = Annotated[
    Path | None, typer.Option(help="CSV with the columns file and text: phone ABX of clips with English text")
]
Where = Annotated[
    list[str] | None, typer.Option(metavar="COLUMN=VALUE", help="only such rows of the manifest; may be repeated")
]
OUT = Path("out/eval")


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


QUICK = Plan(clips=6, crops=6, token_minutes=4.0, prompts=4, heard=3.0, seconds=3.0, minutes=1, examples=1)


@dataclass(frozen=True)
class Bench:
    """What is measured, on what, and where the report goes."""

    model: "AudioLM"
    held: "list[Held]"
    out: Path
    seed: int
    bundle: str

    @classmethod
    def open(cls, bundle: str, data: list[str], out: Path, seed: int, threads: int) -> "Bench":
        """Load everything, so that what is wrong is told before anything is measured."""
        import hashlib

        import torch

        from audiolm.bundle import find
        from audiolm.eval.clips import Held
        from audiolm.model import AudioLM

        torch.set_num_threads(threads)
        held = [Held.open(item) for item in data]
        names = [each.name for each in held]
        if len(set(names)) != len(names):
            raise InputError(f"the corpora need different names, got {', '.join(names)}; rename a folder")
        model = AudioLM.load(bundle, engine="torch")  # figures of cards are the reference's
        state = hashlib.sha256((find(bundle) / "config.json").read_bytes()).hexdigest()[:12]
        return cls(model, held, out, seed, f"{model.parts.name}@{state}")

    def measure(self, name: str, make: "Callable[..., Section]", *, again: bool = True, **settings: Any) -> None:
        """Take a measure, print it and put it into the report; with ``again`` false only if it is not there yet.

        ``settings`` go to ``make`` and, with the data and the seed, say which measure it is.
        """
        from audiolm.eval import report as reports

        known = {**settings, "data": [each.name for each in self.held], "seed": self.seed}
        before = reports.read(self.out)
        if not again and before.get("bundle") == self.bundle and reports.made_with(before, name, known):
            say(f"{name}: in the report already")
            section = before["sections"][name]
        else:
            made = make(seed=self.seed, progress=say, **settings)
            command = self._command(name, settings)
            report = reports.add(self.out, made, bundle=self.bundle, command=command, settings=known)
            section = report["sections"][name]
        typer.echo("\n".join([f"### {section['title']}", "", *reports.section_lines(section)]))

    def _command(self, name: str, settings: dict[str, Any]) -> str:
        """As one would type it, folders by their names alone: paths of one machine say nothing on another."""
        data = [f"--data {each.name}={each.kind}" for each in self.held]
        data += [f"--data {settings['folder']}"] if settings.get("folder") else []
        typed = {key.replace("_", "-"): value for key, value in settings.items() if isinstance(value, int | float)}
        options = [
            f"--{key}" if value is True else f"--{key} {value}" for key, value in typed.items() if value is not False
        ]
        return " ".join([f"audiolm eval {name} {self.model.parts.name}", *data, *options, f"--seed {self.seed}"])

    def summary(self) -> None:
        """The goals and where the report is."""
        from audiolm.eval import report as reports

        typer.echo("\n".join(reports.goal_lines(reports.read(self.out)["sections"])))
        typer.echo(f"{self.out / reports.TEXT_NAME}, {self.out / reports.JSON_NAME}")


def say(text: str) -> None:
    """Progress, apart from the figures."""
    typer.echo(text, err=True)


def _reconstruction(bench: Bench, clips: int, seconds: float, *, again: bool = True) -> None:
    from audiolm.eval.reconstruction import reconstruction

    def make(**settings: Any) -> "Section":
        return reconstruction(bench.model.parts.codec, bench.held, **settings)

    bench.measure("reconstruction", make, again=again, clips=clips, seconds=seconds)


def _likelihood(bench: Bench, crops: int, minutes: float, train_tokens: Path | None, *, again: bool = True) -> None:
    from audiolm.eval.likelihood import held_tokens, likelihood
    from audiolm.train.tokens import Tokens

    train = None if train_tokens is None else Tokens.open(train_tokens)

    def make(*, seed: int, train_tokens: str, token_minutes: float, **settings: Any) -> "Section":
        del seed, train_tokens  # crops are always the same; the tokens are open already
        parts = bench.model.parts
        say("tokens of the held-out sound")
        sources = [(each.name, held_tokens(parts, each.corpus, token_minutes)) for each in bench.held]
        return likelihood(parts, sources, train, **settings)

    name = "" if train_tokens is None else train_tokens.name
    bench.measure("likelihood", make, again=again, crops=crops, token_minutes=minutes, train_tokens=name)


def _semantic(bench: Bench, manifest: Path | None, where: list[str], *, again: bool = True) -> None:
    from audiolm.eval.semantic import semantic

    rows = dict(item.partition("=")[::2] for item in where)

    def make(*, manifest: str, where: list[str], **settings: Any) -> "Section":
        del manifest, where  # the report keeps the name; the path is known here
        return semantic(bench.model.parts, bench.held, manifest=path, where=rows, **settings)

    path, name = manifest, "" if manifest is None else manifest.name
    bench.measure("semantic", make, again=again, manifest=name, where=where)


def _continuation(bench: Bench, prompts: int, heard: float, seconds: float, *, again: bool = True) -> None:
    from audiolm.eval.continuation import continuation

    def make(*, prompts: int, **settings: Any) -> "Section":
        return continuation(bench.model, bench.held, count=prompts, **settings)

    bench.measure("continuation", make, again=again, prompts=prompts, heard=heard, seconds=seconds)


def _drift(bench: Bench, minutes: int, heard: float, *, dream: bool = False, again: bool = True) -> None:
    from audiolm.eval.drift import drift
    from audiolm.eval.plots import drift_plot

    def make(**settings: Any) -> "Section":
        section = drift(bench.model, bench.held, **settings)
        bench.out.mkdir(parents=True, exist_ok=True)
        drift_plot(section.figures, bench.out / "drift.png")
        section.plots.append("drift.png")
        return section

    bench.measure("drift", make, again=again, minutes=minutes, heard=heard, dream=dream)


def _plots(bench: Bench, examples: int, heard: float, seconds: float, logs: list[Path], *, again: bool = True) -> None:
    from audiolm.eval.plots import plots

    def make(*, examples: int, logs: list[str], **settings: Any) -> "Section":
        del logs  # their paths are known here; the report keeps their names
        return plots(bench.model, bench.held, bench.out, count=examples, logs=paths, **settings)

    paths, names = logs, [path.name for path in logs]
    bench.measure("plots", make, again=again, examples=examples, heard=heard, seconds=seconds, logs=names)


@eval_app.command()
def reconstruction(
    bundle: BundleName,
    data: Data,
    *,
    clips: Clips = 16,
    seconds: Seconds = 6.0,
    out: Out = OUT,
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """Codec: PESQ-WB, STOI, SI-SDR, log-mel and STFT distance by bit rate beside Opus, and codebook use."""
    bench = Bench.open(bundle, data, out, seed, threads)
    _reconstruction(bench, clips, seconds)
    bench.summary()


@eval_app.command()
def semantic(
    bundle: BundleName,
    data: Data,
    *,
    manifest: Manifest = None,
    where: Where = None,
    out: Out = OUT,
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """Semantic tokens: phone ABX and speaker, or notes and onsets, beside MFCC and the codec's tokens."""
    bench = Bench.open(bundle, data, out, seed, threads)
    _semantic(bench, manifest, where or [])
    bench.summary()


@eval_app.command()
def likelihood(
    bundle: BundleName,
    data: Data,
    *,
    crops: Crops = 24,
    token_minutes: TokenMinutes = 15.0,
    train_tokens: TrainTokens = None,
    out: Out = OUT,
    threads: Threads = 1,
) -> None:
    """Stages: held-out nats a token against a unigram and against no conditioning, and by level."""
    bench = Bench.open(bundle, data, out, 0, threads)
    _likelihood(bench, crops, token_minutes, train_tokens)
    bench.summary()


@eval_app.command()
def continuation(
    bundle: BundleName,
    data: Data,
    *,
    prompts: Prompts = 12,
    heard: Heard = 6.0,
    seconds: Seconds = 6.0,
    out: Out = OUT,
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """Whether key and pace, or the speaker, are kept: against another's continuation, acoustic-only and the truth."""
    bench = Bench.open(bundle, data, out, seed, threads)
    _continuation(bench, prompts, heard, seconds)
    bench.summary()


@eval_app.command()
def drift(
    bundle: BundleName,
    data: Data,
    *,
    minutes: Minutes = 5,
    heard: Heard = 6.0,
    dream: Annotated[bool, typer.Option("--dream", help="begin from nothing, not from a prompt")] = False,
    out: Out = OUT,
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """Free running, minute by minute: entropy, loops, silence, level, beside the data's."""
    bench = Bench.open(bundle, data, out, seed, threads)
    _drift(bench, minutes, heard, dream=dream)
    bench.summary()


@eval_app.command()
def plots(
    bundle: BundleName,
    data: Data,
    *,
    examples: Prompts = 2,
    heard: Heard = 4.0,
    seconds: Seconds = 4.0,
    log: Logs = None,
    out: Out = OUT,
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """Spectrograms of recordings, reconstructions and continuations side by side, and training curves."""
    bench = Bench.open(bundle, data, out, seed, threads)
    _plots(bench, examples, heard, seconds, log or [])


@eval_app.command("all")
def every(
    bundle: BundleName,
    data: Data,
    *,
    quick: Annotated[bool, typer.Option("--quick", help="little of each: a first look in a few minutes")] = False,
    prompts: Annotated[int | None, typer.Option(min=1, help="prompts a corpus")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.2, help="of a continuation")] = None,
    minutes: Annotated[int | None, typer.Option(min=1, help="of free running")] = None,
    train_tokens: TrainTokens = None,
    manifest: Manifest = None,
    where: Where = None,
    log: Logs = None,
    again: Annotated[bool, typer.Option("--again", help="measure what is in the report already, too")] = False,
    out: Out = OUT,
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """Every measure. What the report holds already, with the same settings, is not measured again."""
    given = {"prompts": prompts, "seconds": seconds, "minutes": minutes}
    plan = replace(QUICK if quick else Plan(), **{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]
    bench = Bench.open(bundle, data, out, seed, threads)
    _reconstruction(bench, plan.clips, 6.0, again=again)
    _semantic(bench, manifest, where or [], again=again)
    _likelihood(bench, plan.crops, plan.token_minutes, train_tokens, again=again)
    _continuation(bench, plan.prompts, plan.heard, plan.seconds, again=again)
    _drift(bench, plan.minutes, plan.heard, again=again)
    _plots(bench, plan.examples, plan.heard, plan.seconds, log or [], again=again)
    bench.summary()


@eval_app.command()
def card(
    report: Annotated[Path, typer.Argument(help="folder of a report")],
    card: Annotated[Path, typer.Argument(help="the model card; what an earlier report wrote there is replaced")],
) -> None:
    """Write a report into a model card, and its plots beside it."""
    from audiolm.eval import report as reports

    found = reports.read(report)
    if not found["sections"]:
        raise InputError(f"{report} holds no report; make one with `audiolm eval all`", path=str(report))
    reports.into_card(found, card)
    names = [name for section in found["sections"].values() for name in section["plots"]]
    try:
        for name in names:
            shutil.copyfile(report / name, card.parent / name)
    except OSError as error:
        raise InputError(f"the plots cannot be copied to {card.parent} ({error.strerror})") from error
    typer.echo(json.dumps({"card": str(card), "sections": list(found["sections"]), "plots": names}))
