"""The commands ``audiolm eval hierarchy``, ``audiolm eval diversity`` and ``audiolm eval remake``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audiolm.commands.bench import OUT, Bench, BundleName, Data, Heard, Out, Played, Prompts, Seconds, Seed, Threads
from audiolm.errors import InputError

if TYPE_CHECKING:
    from audiolm.eval.report import Section

Seeds = Annotated[int, typer.Option(min=2, help="seeds a prompt")]
Report = Annotated[Path, typer.Argument(help="folder of a report")]


def hierarchy(
    bundle: BundleName,
    data: Data = None,
    *,
    prompts: Prompts = 6,
    heard: Heard = 6.0,
    seconds: Seconds = 60.0,
    engine: Played = "auto",
    out: Out = OUT,
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """Full hierarchy against acoustic tokens alone at 5, 10, 20 and 60 s: key and pace, or the voice; how plausible."""
    bench = Bench.open(bundle, data, out, seed, threads)
    take_hierarchy(bench, prompts, heard, seconds, engine)
    bench.summary()


def take_hierarchy(
    bench: Bench, prompts: int, heard: float, seconds: float, engine: str = "auto", *, again: bool = True
) -> None:
    """Put the section ``hierarchy`` and its picture into the report."""
    from audiolm.eval.hierarchy import TITLES, hierarchy
    from audiolm.eval.time_plots import hierarchy_plot

    player = bench.playing(engine)

    def make(*, prompts: int, **settings: Any) -> "Section":
        section = hierarchy(player, bench.held, count=prompts, **settings)
        bench.draw(section, "hierarchy.png", lambda path: hierarchy_plot(section.figures, TITLES, path))
        return section

    told = {"engine": player.engine}
    bench.measure("hierarchy", make, again=again, told=told, prompts=prompts, heard=heard, seconds=seconds)


def diversity(
    bundle: BundleName,
    data: Data = None,
    *,
    prompts: Prompts = 4,
    seeds: Seeds = 4,
    heard: Heard = 6.0,
    seconds: Seconds = 5.0,
    engine: Played = "auto",
    out: Out = OUT,
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """How different continuations of one prompt are under several seeds, beside those of other prompts."""
    bench = Bench.open(bundle, data, out, seed, threads)
    take_diversity(bench, prompts, seeds, heard=heard, seconds=seconds, engine=engine)
    bench.summary()


def take_diversity(
    bench: Bench,
    prompts: int,
    seeds: int,
    *,
    heard: float,
    seconds: float,
    engine: str = "auto",
    again: bool = True,
) -> None:
    """Put the section ``diversity`` into the report."""
    from audiolm.eval.diversity import diversity

    player = bench.playing(engine)

    def make(*, prompts: int, **settings: Any) -> "Section":
        return diversity(player, bench.held, count=prompts, **settings)

    given: dict[str, Any] = {"prompts": prompts, "seeds": seeds, "heard": heard, "seconds": seconds}
    bench.measure("diversity", make, again=again, told={"engine": player.engine}, **given)


def remake(report: Report) -> None:
    """Write the section of free running again, tables and plot, from the figures that a report holds."""
    from audiolm.eval import report as reports
    from audiolm.eval.drift import drift_section
    from audiolm.eval.plots import drift_plot

    found = reports.read(report)
    before = found["sections"].get("drift", {"figures": {}})
    if not before["figures"]:
        raise InputError(f"{report} holds no free running; make it with `audiolm eval drift`", path=str(report))
    section = drift_section(before["figures"])
    drift_plot(section.figures, report / "drift.png")
    section.plots.append("drift.png")
    reports.put(report, {"drift": {**before, **section.as_dict()}}, bundle=found["bundle"])
    typer.echo("\n".join(reports.section_lines(section.as_dict())))
