"""The command ``audiolm eval reconstruction``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audiolm.commands.bench import OUT, Bench, BundleName, Clips, Data, Out, Seconds, Seed, Threads

if TYPE_CHECKING:
    from audiolm.eval.report import Section

Beside = Annotated[
    list[str] | None,
    typer.Option(
        "--beside",
        help="encodec=FOLDER (a model for transformers) or lyra=FOLDER (encoder_main, decoder_main); may be repeated",
    ),
]


def reconstruction(
    bundle: BundleName,
    data: Data = None,
    *,
    clips: Clips = 16,
    seconds: Seconds = 6.0,
    beside: Beside = None,
    out: Out = OUT,
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """Codec: PESQ-WB, STOI, SI-SDR, log-mel and STFT distance by bit rate beside Opus, and codebook use."""
    bench = Bench.open(bundle, data, out, seed, threads)
    take_reconstruction(bench, clips, seconds, beside or [])
    bench.summary()


def take_reconstruction(
    bench: Bench, clips: int, seconds: float, beside: Sequence[str] = (), *, again: bool = True
) -> None:
    """Put the section ``reconstruction`` and its picture into the report; ``beside``: see the command."""
    from audiolm.eval.codecs import peer
    from audiolm.eval.reconstruction import TITLES, reconstruction
    from audiolm.eval.time_plots import rate_plot

    def make(**settings: Any) -> "Section":
        peers = [peer(item) for item in given]
        section = reconstruction(bench.model.parts.codec, bench.held, beside=peers, **settings)
        systems = {each.name: section.figures[each.name]["systems"] for each in bench.held}
        bench.draw(section, "reconstruction.png", lambda path: rate_plot(systems, TITLES, path))
        return section

    given = list(beside)
    names = [_without_path(item) for item in given]
    bench.measure("reconstruction", make, again=again, told={"beside": names}, clips=clips, seconds=seconds)


def _without_path(item: str) -> str:
    from pathlib import Path

    kind, _, folder = item.partition("=")
    return f"{kind}={Path(folder).name}"
