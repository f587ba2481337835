"""``audiolm train``: the whole recipe in one command, and each step as a command of its own."""

import logging
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from audiolm.commands.options import Device, Precision, PresetName, Sets, Threads, preset_of, setup, text_of
from audiolm.commands.steps import steps_app
from audiolm.errors import InputError

train_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="From a folder of sound to a bundle.")
STEPS = "prepare, codec, encoder, ears, tokenize, semantic, coarse, fine, measure, export"
LICENCES = ("LICENCE", "LICENSE", "LICENCE.txt", "LICENSE.txt", "LICENCE.md", "LICENSE.md")


@train_app.command(name="all")
def everything(
    data: Annotated[Path, typer.Option(help="folder of sound files, or a manifest (CSV with a column file)")],
    out: Annotated[Path, typer.Option(help="folder of the bundle to write")],
    *,
    preset: PresetName = "default",
    sets: Sets = None,
    minutes: Annotated[
        float | None, typer.Option(help="of training in all, divided as in the preset; else the preset's")
    ] = None,
    work: Annotated[Path | None, typer.Option(help="folder of everything in between; else OUT.work")] = None,
    name: Annotated[str | None, typer.Option(help="of the bundle; else the name of its folder")] = None,
    licences: Annotated[
        Path | None, typer.Option(help="text on the data's licences, for the card; else DATA/LICENCE if it is there")
    ] = None,
    phones: Annotated[
        Path | None, typer.Option(help="JSON of phone times of held-out clips, by which the sweep chooses")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="STEP", help=f"end after this step: {STEPS}")] = None,
    threads: Threads = 2,
    device: Device = "cpu",
    precision: Precision = None,
) -> None:
    """A folder of sound becomes a bundle: prepare, train every part, measure, export.

    Called again, it goes on where it was; what is finished is skipped, and what changed settings touch is done again.
    """
    from audiolm.train.device import Compute
    from audiolm.train.export import check_out
    from audiolm.train.job import Job
    from audiolm.train.recipe import Recipe, alone, stoppable
    from audiolm.train.steps import steps

    setup(threads, device)
    check_out(out)
    chosen = preset_of(preset, sets)
    folder = work or out.with_name(f"{out.name}.work")
    job = Job(
        preset=chosen if minutes is None else chosen.within(minutes),
        data=data,
        out=out,
        work=folder,
        name=name or out.resolve().name,
        licences=_licences(licences, data),
        phones=phones,
        command=shareable(sys.argv[1:]),
        device=device,
        precision=precision,
    )
    compute = Compute(device) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else None
    main = compute is None or compute.main
    if not main:
        logging.getLogger("audiolm").setLevel(logging.WARNING)  # one of several processes speaks
    recipe = Recipe(steps(job), job.records, shlex.join(["audiolm", *sys.argv[1:]]), compute)
    known = [step.name for step in recipe.steps]
    if until is not None and until not in known:
        raise InputError(f"unknown step {until!r}; expected one of {', '.join(known)}", step=until)
    with alone(folder) if main else nullcontext(), stoppable("the recipe"):
        recipe.run(until)
    if main and until in (None, known[-1]):
        size = sum(path.stat().st_size for path in out.iterdir()) / 1e6
        typer.echo(f"{size:.1f} MB in {out}; its card is {out / 'CARD.md'}; everything in between is in {folder}")


def _licences(given: Path | None, data: Path) -> str:
    """The text on the licences that was given, or that lies beside the data."""
    if given is not None:
        return text_of(given, "licence")
    beside = data if data.is_dir() else data.parent
    found = [beside / name for name in LICENCES if (beside / name).is_file()]
    return text_of(found[0], "licence") if found else ""


def shareable(arguments: Sequence[str]) -> str:
    """A command for the card: as it was given, but of absolute paths only the last part, which is nobody's business."""
    return shlex.join(["audiolm", *(Path(text).name if Path(text).is_absolute() else text for text in arguments)])


train_app.add_typer(steps_app)
