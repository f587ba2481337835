"""The command ``audiolm eval watermark``: whether the mark of generated sound is found, and only there."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from audiolm.commands.bench import (
    OUT,
    Bench,
    BundleName,
    Clips,
    Data,
    Heard,
    Out,
    Played,
    Prompts,
    Seconds,
    Seed,
    Threads,
)

if TYPE_CHECKING:
    from audiolm.eval.report import Section

Keys = Annotated[int, typer.Option(min=0, help="other keys that each marked sound is searched by")]


def watermark(
    bundle: BundleName,
    data: Data = None,
    *,
    clips: Clips = 16,
    prompts: Prompts = 8,
    heard: Heard = 3.0,
    seconds: Seconds = 10.0,
    keys: Keys = 20,
    engine: Played = "auto",
    out: Out = OUT,
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """Watermark of generated sound: found after Opus, MP3, resampling and cuts, false alarms, change of the sound."""
    bench = Bench.open(bundle, data, out, seed, threads)
    take_watermark(bench, clips, prompts, heard=heard, seconds=seconds, keys=keys, engine=engine)
    bench.summary()


def take_watermark(
    bench: Bench,
    clips: int = 16,
    prompts: int = 8,
    *,
    heard: float = 3.0,
    seconds: float = 10.0,
    keys: int = 20,
    engine: str = "auto",
    again: bool = True,
) -> None:
    """Put the section ``watermark`` into the report."""
    from audiolm.eval.watermark import watermark as measured

    player = bench.playing(engine)

    def make(*, prompts: int, **settings: Any) -> "Section":
        return measured(player, bench.held, count=prompts, **settings)

    given: dict[str, Any] = {"clips": clips, "prompts": prompts, "heard": heard, "seconds": seconds, "keys": keys}
    bench.measure("watermark", make, again=again, told={"engine": player.engine}, **given)
