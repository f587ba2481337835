"""The commands about engines: ``audiolm export`` and ``audiolm eval engines``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audiolm.commands.bench import OUT, Bench, BundleName, Data, Out, Seed, Threads, TokenMinutes, say
from audiolm.errors import InputError

if TYPE_CHECKING:
    from audiolm.eval.report import Section

Precisions = Annotated[str, typer.Option(help="fp32, or int8: matrices in 8 bit, the ears in float32")]
Folder = Annotated[Path | None, typer.Option("--out", help="a folder for the graphs; else the user's cache")]
Engines = Annotated[str, typer.Option(help="to be compared with torch, separated by commas")]


def export(
    bundle: Annotated[str, typer.Argument(help="a shipped bundle's name or a bundle folder")],
    precision: Precisions = "int8",
    out: Folder = None,
) -> None:
    """Write a bundle's ONNX graphs: for its next start, or into a folder for other programs."""
    from audiolm.bundle import load_bundle
    from audiolm.compute.onnx.compute import OnnxCompute
    from audiolm.compute.onnx.graph import PRECISIONS

    chosen = next((known for known in PRECISIONS if known == precision), None)
    if chosen is None:
        raise InputError(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}", precision=precision)
    compute = OnnxCompute(load_bundle(bundle), chosen)
    for name, make in compute.graphs():
        if out is None:
            compute.store.load(name, make)
            path = compute.store.path(name)
        else:
            path = written(out / f"{name}.onnx", make())
        typer.echo(str(path))


def written(path: Path, content: bytes) -> Path:
    """A file of a folder that is made if need be.

    Raises:
        InputError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); give another --out", path=str(path)) from error
    return path


def engines(
    bundle: BundleName,
    data: Data,
    *,
    names: Engines = "onnx,onnx-int8,torch-int8",
    crops: Annotated[int, typer.Option(min=1, help="token crops a stage and corpus")] = 4,
    token_minutes: TokenMinutes = 10.0,
    sounds: Annotated[int, typer.Option(min=1, help="sounds of 10 s a corpus, for codec and tokenizer")] = 6,
    out: Out = OUT,
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """Faster engines beside the reference: logits, likelihood, codes, tokens and sound."""
    from audiolm.eval.clips import excerpts
    from audiolm.eval.engines import engines as compared
    from audiolm.eval.likelihood import held_tokens

    bench = Bench.open(bundle, data, out, seed, threads)

    def make(*, seed: int, names: str, token_minutes: float, sounds: int, **settings: Any) -> "Section":
        parts = bench.model.parts
        say("tokens of the held-out sound")
        sources = {
            each.name: (held_tokens(parts, each.corpus, token_minutes), excerpts(each.corpus, sounds, 10.0, seed))
            for each in bench.held
        }
        return compared(parts, sources, names.split(","), **settings)

    bench.measure("engines", make, names=names, crops=crops, token_minutes=token_minutes, sounds=sounds)
    bench.summary()
