"""The commands that take a report somewhere: ``audiolm eval page``, ``audiolm eval card`` and ``audiolm eval join``."""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from audiolm.errors import InputError

Folder = Annotated[Path, typer.Argument(help="folder of a report")]
Sounds = Annotated[bool, typer.Option("--sounds/--no-sounds", help="whether the page plays its sounds")]
To = Annotated[Path | None, typer.Option(metavar="NAME", help="write NAME.html, NAME.md and NAME.json instead")]
Sections = Annotated[list[str] | None, typer.Option("--section", help="only this one; may be repeated")]


def page(report: Folder, *, sounds: Sounds = True, to: To = None) -> None:
    """Make the page of a report again, REPORT/report.html; or, with --to, the three files of a report to keep."""
    from audiolm.eval.page import publish, write_page

    made = [write_page(report, sounds=sounds)] if to is None else publish(report, to, sounds=sounds)
    typer.echo("\n".join(f"{path}: {path.stat().st_size / 1e6:.2f} MB" for path in made))


def join(
    into: Annotated[Path, typer.Argument(metavar="INTO", help="folder of the report that takes the sections")],
    source: Annotated[Path, typer.Argument(metavar="FROM", help="folder of a report of the same bundle")],
    *,
    section: Sections = None,
) -> None:
    """Take sections of one report, with their plots and sounds, into another of the same bundle, and make its page."""
    from audiolm.eval import report as reports
    from audiolm.eval.page import write_page

    found = reports.read(source)
    names = section or list(found["sections"])
    if missing := [name for name in names if name not in found["sections"]]:
        raise InputError(f"{source} has no section {missing[0]!r}; it has {', '.join(found['sections']) or 'none'}")
    taken = {name: found["sections"][name] for name in names}
    copy_files(taken.values(), source, into)
    reports.put(into, taken, bundle=found["bundle"])
    write_page(into)
    typer.echo(json.dumps({"into": str(into), "sections": names}))


def card(
    report: Folder,
    card: Annotated[Path, typer.Argument(help="the model card; what an earlier report wrote there is replaced")],
) -> None:
    """Write a report into a model card, and its plots beside it."""
    from audiolm.eval import report as reports

    found = reports.read(report)
    if not found["sections"]:
        raise InputError(f"{report} holds no report; make one with `audiolm eval all`", path=str(report))
    reports.into_card(found, card)
    names = copy_files(found["sections"].values(), report, card.parent, sounds=False)
    typer.echo(json.dumps({"card": str(card), "sections": list(found["sections"]), "plots": names}))


def copy_files(sections: Iterable[Mapping[str, Any]], source: Path, into: Path, *, sounds: bool = True) -> list[str]:
    """Copy the files that sections name from one folder to another, and return their names.

    Raises:
        InputError: one cannot be copied.
    """
    names = [name for section in sections for name in _files_of(section, sounds=sounds)]
    try:
        for name in names:
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            if (source / name).resolve() != (into / name).resolve():
                shutil.copyfile(source / name, into / name)
    except OSError as error:
        raise InputError(f"the plots cannot be copied to {into} ({error.strerror})") from error
    return names


def _files_of(section: Mapping[str, Any], *, sounds: bool) -> list[str]:
    return [*section["plots"], *(each["file"] for each in section.get("sounds", []) if sounds)]
