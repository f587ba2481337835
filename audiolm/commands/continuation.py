"""The command ``audiolm eval continuation``."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audiolm.commands.bench import (
    OUT,
    Bench,
    BundleName,
    Data,
    Heard,
    Manifest,
    Out,
    Played,
    Prompts,
    Seconds,
    Seed,
    Threads,
    Where,
    say,
)
from audiolm.errors import InputError

if TYPE_CHECKING:
    from audiolm.eval.clips import Held
    from audiolm.eval.report import Section
    from audiolm.eval.words import Words

Meter = Annotated[
    str,
    typer.Option("--recognizer", help="of words: pocketsphinx, a plugin's name, module:function, or none"),
]
DEFAULT, NONE = "pocketsphinx", "none"


def take_continuation(
    bench: Bench,
    prompts: int,
    heard: float,
    seconds: float,
    *,
    engine: str = "auto",
    recognizer: str = DEFAULT,
    manifest: Path | None = None,
    where: list[str] | None = None,
    again: bool = True,
) -> None:
    """Put the section `continuation` into the report; texts are those of ``manifest`` or else of the bench.

    Raises:
        InputError: the recognizer or the manifest cannot be used.
    """
    from audiolm.eval.continuation import continuation

    player, path = bench.playing(engine), manifest or bench.texts
    words, why = _words(bench, recognizer, path, where or [])

    def make(*, prompts: int, **settings: Any) -> "Section":
        section = continuation(player, bench.held, count=prompts, words=words, **settings)
        section.notes += [f"Words were not measured: {why}"] if why else []
        return section

    texts = {"recognizer": recognizer, "manifest": "" if path is None else path.name, "where": where or []}
    told = {"engine": player.engine, **texts}
    bench.measure("continuation", make, again=again, told=told, prompts=prompts, heard=heard, seconds=seconds)


def _words(bench: Bench, name: str, manifest: Path | None, where: list[str]) -> "tuple[Words | None, str]":
    """The recognizer and the texts; none without speech, where none is wanted, or, with a reason, where none is."""
    from audiolm.eval.phones import english_texts
    from audiolm.eval.recognize import BUILT_IN, pocketsphinx, recognizer
    from audiolm.eval.words import Words

    if name == NONE or not any(each.kind == "speech" for each in bench.held):
        return None, ""
    rows = dict(item.partition("=")[::2] for item in where)
    texts = {} if manifest is None else english_texts(manifest, **rows)
    try:
        narrow = pocketsphinx if name == BUILT_IN else None
        return Words(recognizer(name), name, texts, lambda: _spoken(bench), narrow), ""
    except InputError as error:
        if name != DEFAULT:
            raise
        return None, str(error)


def _spoken(bench: Bench) -> "tuple[Held, Mapping[str, str]]":
    """Sentences of espeak-ng, made once beside the report."""
    from audiolm.eval.own import own_set, texts_of
    from audiolm.eval.phones import read_texts

    held = own_set("speech", bench.out, say)
    path = texts_of(held, bench.out)
    return held, {} if path is None else read_texts(path)


def continuation(
    bundle: BundleName,
    data: Data = None,
    *,
    prompts: Prompts = 12,
    heard: Heard = 6.0,
    seconds: Seconds = 6.0,
    engine: Played = "auto",
    recognizer: Meter = DEFAULT,
    manifest: Manifest = None,
    where: Where = None,
    out: Out = OUT,
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """What is kept of a prompt, against another's continuation, acoustic-only and chance; and of speech the words."""
    bench = Bench.open(bundle, data, out, seed, threads)
    take_continuation(
        bench, prompts, heard, seconds, engine=engine, recognizer=recognizer, manifest=manifest, where=where
    )
    bench.summary()
