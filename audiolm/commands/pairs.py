"""The commands ``audiolm eval swuggy`` and ``audiolm eval sblimp``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audiolm.commands.bench import OUT, Bench, BundleName, Out, Seed, Threads, say
from audiolm.errors import InputError

if TYPE_CHECKING:
    from audiolm.eval.pairs import Gold, Scorer, Task
    from audiolm.eval.report import Section

Layout = Annotated[
    Path | None,
    typer.Option("--data", help="folder in the layout of ZeroSpeech 2021; else a small set that espeak-ng speaks"),
]
Split = Annotated[str, typer.Option(help="dev or test")]
Most = Annotated[int, typer.Option("--pairs", min=0, help="at most so many pairs, drawn by the seed; 0: all")]
Beside = Annotated[
    list[str] | None,
    typer.Option("--beside", help="another bundle, as of another number of clusters; may be repeated"),
]


def swuggy(
    bundle: BundleName,
    *,
    data: Layout = None,
    split: Split = "dev",
    pairs: Most = 0,
    beside: Beside = None,
    out: Out = OUT,
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """Spot the word: how often a word is likelier than a non-word that sounds alike."""
    bench = Bench.open(bundle, [], out, seed, threads)
    take_swuggy(bench, data, split=split, pairs=pairs, beside=beside or [])
    bench.summary()


def sblimp(
    bundle: BundleName,
    *,
    data: Layout = None,
    split: Split = "dev",
    pairs: Most = 0,
    beside: Beside = None,
    out: Out = OUT,
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """Grammar: how often a sentence is likelier than its broken twin."""
    bench = Bench.open(bundle, [], out, seed, threads)
    take_sblimp(bench, data, split=split, pairs=pairs, beside=beside or [])
    bench.summary()


def take_swuggy(
    bench: Bench,
    data: Path | None = None,
    *,
    split: str = "dev",
    pairs: int = 0,
    beside: Sequence[str] = (),
    again: bool = True,
) -> None:
    """Put the section ``swuggy`` into the report; without ``data`` of the small set that espeak-ng speaks."""
    from audiolm.eval.pairs import SWUGGY

    _take(bench, SWUGGY, data, split=split, pairs=pairs, beside=list(beside), again=again)


def take_sblimp(
    bench: Bench,
    data: Path | None = None,
    *,
    split: str = "dev",
    pairs: int = 0,
    beside: Sequence[str] = (),
    again: bool = True,
) -> None:
    """Put the section ``sblimp`` into the report, as :func:`take_swuggy`."""
    from audiolm.eval.pairs import SBLIMP

    _take(bench, SBLIMP, data, split=split, pairs=pairs, beside=list(beside), again=again)


def _take(
    bench: Bench, task: "Task", data: Path | None, *, split: str, pairs: int, beside: list[str], again: bool
) -> None:
    from audiolm.eval.pairs import load, pairs_section, score_files

    folder = _spoken(bench, split) if data is None else data
    gold = load(folder, task, split).some(pairs or None, bench.seed)
    scorers, clusters = _scorers(bench, beside)

    def make(*, seed: int, progress: Any) -> "Section":
        scores, faults = score_files(gold, scorers, progress=progress)
        section = pairs_section(gold, scores, faults, clusters=clusters, seed=seed)
        if data is None:
            section.notes.append("The pairs are a small set of our own, spoken by espeak-ng; see docs/evaluation.md.")
        _submit(bench.out, gold, split, scores[next(iter(scores))])
        return section

    told = {"folder": "" if data is None else data.name, "split": split, "pairs": pairs, "beside": beside}
    bench.measure(task.name, make, again=again, told=told)


def _spoken(bench: Bench, split: str) -> Path:
    """Our own set, made once beside the report."""
    from audiolm.eval.spoken import VERSION, speak

    if split != "dev":
        raise InputError(f"the split is {split!r}, and the set that espeak-ng speaks has only dev; give --data")
    folder = bench.out / f"spoken-{VERSION}"
    if not (folder / "done").exists():
        speak(folder, progress=say)
    return folder


def _scorers(bench: Bench, beside: list[str]) -> "tuple[dict[str, Scorer], dict[str, int]]":
    """The bundle's scorer and those beside it, and each one's number of clusters, by names that differ."""
    from functools import partial

    from audiolm.bundle import load_bundle
    from audiolm.eval.listened import listened

    models = {bench.model.parts.name: bench.model.parts}
    for item in beside:
        parts = load_bundle(item)
        models[parts.name if parts.name not in models else item] = parts
    if len(models) <= len(beside):
        raise InputError("a bundle was given twice; give each bundle once")
    scorers: dict[str, Scorer] = {name: partial(listened, parts) for name, parts in models.items()}
    return scorers, {name: parts.tokenizer.config.clusters for name, parts in models.items()}


def _submit(out: Path, gold: "Gold", split: str, scores: Any) -> None:
    """The scores as ZeroSpeech's own tool reads them: ``OUT/lexical/dev.txt``."""
    from audiolm.eval.pairs import submission

    path = out / gold.task.folder / f"{split}.txt"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(submission(scores), encoding="utf8")
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); give another --out", path=str(path)) from error
