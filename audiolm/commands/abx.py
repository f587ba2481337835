"""The commands ``audiolm eval abx`` and ``audiolm eval kept``, and what ``eval all`` takes of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audiolm.commands.bench import OUT, Bench, BundleName, Manifest, Out, Seed, Threads, TokenMinutes, Where, say
from audiolm.errors import InputError

if TYPE_CHECKING:
    from audiolm.eval.items import Spoken
    from audiolm.eval.report import Section

Sounds = Annotated[
    Path | None,
    typer.Option("--data", help="folder of sounds with item files, as phonetic/ of ZeroSpeech 2021; else espeak-ng"),
]
Items = Annotated[Path | None, typer.Option(help="an item file for the sounds under --data; else those beside them")]
Corpora = Annotated[
    list[str] | None, typer.Option("--corpus", help="prepared corpus, FOLDER=speech, for --manifest; may be repeated")
]
Held = Annotated[
    list[str] | None,
    typer.Option("--data", help="held-out corpus folder, or FOLDER=speech, FOLDER=music; may be repeated"),
]
Cells = Annotated[int, typer.Option("--cells", min=0, help="ABX cases a side, drawn by the seed; 0: all")]
Crops = Annotated[int, typer.Option("--clips", min=2, help="crops a corpus that are rebuilt")]
WriteItems = Annotated[Path | None, typer.Option("--write-items", help="write the items found into an item file")]
Fast = Annotated[bool, typer.Option("--fastabx", help="fastabx beside, where it is installed (Python 3.12)")]
CELLS, CLIPS, MINUTES = 5000, 16, 30.0


def abx(
    bundle: BundleName,
    *,
    data: Sounds = None,
    items: Items = None,
    corpus: Corpora = None,
    manifest: Manifest = None,
    where: Where = None,
    cells: Cells = CELLS,
    write_items: WriteItems = None,
    fastabx: Fast = False,
    out: Out = OUT,
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """Phones: ABX error of tokens, of every layer, of MFCC and of the codec; within and across speakers."""
    if manifest is not None and not corpus:
        raise InputError("--manifest says what a corpus says; give the corpus, --corpus FOLDER=speech")
    if items is not None and data is None:
        raise InputError("--items names sounds; give their folder with --data")
    bench = Bench.open(bundle, corpus or [], out, seed, threads)
    rows = where or []
    take_abx(
        bench, data=data, items=items, manifest=manifest, where=rows, cells=cells, write=write_items, fastabx=fastabx
    )
    bench.summary()


def take_abx(
    bench: Bench,
    *,
    again: bool = True,
    data: Path | None = None,
    items: Path | None = None,
    manifest: Path | None = None,
    where: Sequence[str] = (),
    cells: int = CELLS,
    texts: int = 0,
    write: Path | None = None,
    fastabx: bool = False,
) -> None:
    """Measure the section ``abx``.

    Items come from ``data``, or from ``manifest`` and the bench's corpora of speech, or else from espeak-ng; of the
    latter ``texts`` a voice and take, if not 0. A bundle for music is not measured unless sound is given.
    """
    if data is None and manifest is None and not speaks(bench):
        say("abx: left out, since the bundle is for music")
        return

    def make(*, seed: int, progress: Any, cells: int, fastabx: bool) -> "Section":
        from audiolm.eval.items import from_files, write_items
        from audiolm.eval.layers import abx_plot, abx_section, sweep

        spoken = from_files(data, items) if data is not None else _spoken(bench, manifest, where, texts)
        if write is not None:
            write_items(write, [item for each in spoken for item in each.items])
        counted = {"cells": cells or None, "fastabx": fastabx, "seed": seed, "progress": progress}
        found = [sweep(bench.model.parts, each, **counted) for each in spoken]

        def plot(figures: Any) -> str:
            bench.out.mkdir(parents=True, exist_ok=True)
            abx_plot(figures, bench.out / "abx.png")
            return "abx.png"

        return abx_section(bench.model.parts, found, plot)

    told = {
        "own": str(texts or ""),
        "folder": "" if data is None else data.name,
        "items": "" if items is None else items.name,
        "manifest": "" if manifest is None else manifest.name,
        "where": list(where),
    }
    bench.measure("abx", make, again=again, told=told, cells=cells, fastabx=fastabx)


def kept(
    bundle: BundleName,
    *,
    data: Held = None,
    manifest: Manifest = None,
    where: Where = None,
    clips: Crops = CLIPS,
    cells: Cells = CELLS,
    token_minutes: TokenMinutes = MINUTES,
    out: Out = OUT,
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """What semantic and acoustic tokens keep: phones, the speaker, notes and onsets, and the sound."""
    bench = Bench.open(bundle, data or [], out, seed, threads)
    take_kept(bench, manifest=manifest, where=where or [], clips=clips, cells=cells, minutes=token_minutes)
    bench.summary()


def take_kept(
    bench: Bench,
    clips: int = CLIPS,
    cells: int = CELLS,
    texts: int = 0,
    *,
    again: bool = True,
    manifest: Path | None = None,
    where: Sequence[str] = (),
    minutes: float = MINUTES,
) -> None:
    """Measure the section ``kept`` on the bench's corpora, or on what espeak-ng speaks.

    Phones are those of ``manifest``, else of espeak-ng. A bundle for music is not measured without a corpus.
    """
    if not bench.held and not speaks(bench):
        say("kept: left out, since the bundle is for music and no music is given")
        return

    def make(*, seed: int, progress: Any, clips: int, cells: int, token_minutes: float) -> "Section":
        from audiolm.eval.kept import kept as measured

        spoken = _spoken(bench, manifest, where, texts) if speaks(bench) else []
        counted: dict[str, Any] = {"clips": clips, "cells": cells or None, "minutes": token_minutes}
        return measured(bench.model.parts, bench.held, spoken, seed=seed, progress=progress, **counted)

    told = {"manifest": "" if manifest is None else manifest.name, "where": list(where), "own": str(texts or "")}
    bench.measure("kept", make, again=again, told=told, clips=clips, cells=cells, token_minutes=minutes)


def speaks(bench: Bench) -> bool:
    """Whether there is speech to measure: a corpus of it, or, with no corpus, a bundle that hears no pitches."""
    kinds = {each.kind for each in bench.held}
    return "speech" in kinds if kinds else not bench.model.parts.tokenizer.config.pitches


def _spoken(bench: Bench, manifest: Path | None, where: Sequence[str], texts: int = 0) -> "list[Spoken]":
    """Items by alignment where a manifest has the texts, else our own."""
    from audiolm.eval.items import from_corpus

    if manifest is None:
        return [own_items(bench.out, texts)]
    rows = dict(item.partition("=")[::2] for item in where)
    speech = [each for each in bench.held if each.kind == "speech"]
    if not speech:
        raise InputError("--manifest says what speech says, and no corpus is speech; give --corpus FOLDER=speech")
    return [from_corpus(each, manifest, rows, say, bench.out) for each in speech]


def own_items(out: Path, texts: int = 0) -> "Spoken":
    """Our own set, made once beside the report; of ``texts`` texts a voice and take, if not 0.

    It appears when it is whole, since another process may make it at the same time.
    """
    import os
    from dataclasses import replace
    from shutil import rmtree

    from audiolm.eval.items import from_files
    from audiolm.eval.spoken_items import DONE, VERSION, speak_items

    folder = out / (f"spoken-items-{VERSION}-{texts}" if texts else f"spoken-items-{VERSION}")
    if not (folder / DONE).exists():
        part = speak_items(folder.with_name(f"{folder.name}.{os.getpid()}"), most=texts or None, progress=say)
        try:
            part.rename(folder)
        except OSError as error:
            rmtree(part)
            if not (folder / DONE).exists():  # else another process was first
                raise InputError(f"{folder} is there but not whole ({error.strerror}); remove it") from error
    how = "A set of our own, spoken by espeak-ng, which gives the times; see docs/evaluation.md."
    return replace(from_files(folder)[0], how=how, made=True)
