"""The report as one HTML page: goals, tables, plots and sounds in one file that asks nobody for anything.

It is made of ``report.json`` and of the files beside it that the report names. The page has no script; its frame and
its looks stand in ``report.html``. Knows nothing of what a figure means.
"""

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import Any

from audiolm.errors import InputError
from audiolm.eval import report as reports
from audiolm.eval.stats import number

PAGE_NAME = "report.html"
KINDS = {".png": "image/png", ".opus": "audio/ogg", ".ogg": "audio/ogg", ".flac": "audio/flac", ".wav": "audio/wav"}
QUALITY = 55  # of a picture in WebP
LEAD = (
    "Figures in brackets are 95 % intervals by bootstrap. What the measures mean and how to read them is in "
    "docs/evaluation.md."
)


def write_page(folder: str | Path, *, sounds: bool = True) -> Path:
    """Make ``folder/report.html`` of ``folder/report.json`` and the plots and sounds that it names.

    Args:
        folder: of a report.
        sounds: whether the page plays them; without, it is about half as large.

    Raises:
        InputError: there is no report, a file that it names is missing, or the page cannot be written.
    """
    path = Path(folder) / PAGE_NAME
    _write(path, html(_read(folder), Path(folder), sounds=sounds))
    return path


def publish(folder: str | Path, to: str | Path, *, sounds: bool = True) -> list[Path]:
    """The report as ``TO.html``, ``TO.md`` and ``TO.json``, to be kept with a project: the text leaves plots out.

    Raises:
        InputError: as :func:`write_page`.
    """
    found, place = _read(folder), Path(to)
    page = html(found, Path(folder), sounds=sounds)
    bare = {name: {**section, "plots": []} for name, section in found["sections"].items()}
    name = f"{place.name}.html"
    what = "plots and sounds" if sounds else "plots"
    head = f"# {_title(found)}\n\nWith {what}: [{name}]({name}), to be opened in a browser."
    text = f"{head}\n\n{reports.markdown({**found, 'sections': bare})}"
    made = {".html": page, ".md": text, ".json": json.dumps(found, separators=(",", ":")) + "\n"}
    return [_write(place.with_name(place.name + suffix), content) for suffix, content in made.items()]


def _read(folder: str | Path) -> dict[str, Any]:
    found = reports.read(folder)
    if not found["sections"]:
        raise InputError(f"{folder} holds no report; make one with `audiolm eval all`", path=str(folder))
    return found


def _write(path: Path, text: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf8")
    except OSError as error:
        raise InputError(f"the page {path} cannot be written ({error.strerror}); give another --out") from error
    return path


def _title(report: Mapping[str, Any]) -> str:
    return f"{str(report.get('bundle', '')).partition('@')[0]}: does it model sound?"


def html(report: Mapping[str, Any], root: Path, *, sounds: bool = True) -> str:
    """The page's text; ``root`` is the folder of the files that the report names.

    Raises:
        InputError: one of them cannot be read.
    """
    sections: Mapping[str, Any] = report["sections"]
    parts = {
        "title": escape(_title(report)),
        "lead": escape(LEAD),
        "contents": "".join(
            f'<li><a href="#{escape(name)}">{escape(each["title"])}</a></li>' for name, each in sections.items()
        ),
        "goals": _goals(sections),
        "sections": "\n".join(_section(name, each, root, sounds=sounds) for name, each in sections.items()),
        "made": _made(report),
    }
    frame = files("audiolm.eval").joinpath("report.html").read_text(encoding="utf8")
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], frame)


# -- parts --


def _goals(sections: Mapping[str, Any]) -> str:
    goals = [goal for section in sections.values() for goal in section["goals"]]
    if not goals:
        return ""
    rows = [
        f"<tr>{_cells([goal['what'], _value(goal['value']), goal['wanted']])}"
        f'<td class="{"yes" if goal["met"] else "no"}">{"yes" if goal["met"] else "no"}</td></tr>'
        for goal in goals
    ]
    met = sum(bool(goal["met"]) for goal in goals)
    return _frame(f"Goals: {met} of {len(goals)} met", ["goal", "measured", "wanted", "met"], rows)


def _value(value: Any) -> str:
    return number(value) if isinstance(value, int | float) else "-"


def _section(name: str, section: Mapping[str, Any], root: Path, *, sounds: bool) -> str:
    parts = [f'<section aria-labelledby="{escape(name)}">', f'<h2 id="{escape(name)}">{escape(section["title"])}</h2>']
    if section.get("failed"):
        parts.append(f'<p class="failed">Could not be measured: {escape(section["failed"])}</p>')
    parts += [_table(table, f"{section['title']}, table {i + 1}") for i, table in enumerate(section["tables"])]
    parts += [_plot(plot, section, root) for plot in section["plots"]]
    if sounds:
        parts.append(_sounds(section.get("sounds", []), root))
    parts += [f"<p>{_text(note)}</p>" for note in section["notes"]]
    parts.append(_how(section))
    return "\n".join([*parts, "</section>"])


def _table(table: Mapping[str, Any], untitled: str) -> str:
    return _frame(table["title"] or untitled, table["columns"], [f"<tr>{_cells(row)}</tr>" for row in table["rows"]])


def _frame(caption: str, columns: Sequence[str], rows: Iterable[str]) -> str:
    """A table that may be wider than the screen: it can be reached and scrolled by keyboard."""
    head = "".join(f'<th scope="col">{_text(column)}</th>' for column in columns)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}"><table><caption>{_text(caption)}'
        f"</caption><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cells(row: Sequence[str]) -> str:
    first, *rest = row or [""]
    return f'<th scope="row">{_text(first)}</th>' + "".join(f"<td>{_text(cell)}</td>" for cell in rest)


def _plot(name: str, section: Mapping[str, Any], root: Path) -> str:
    what = Path(name).stem.replace("_", " ").replace("-", " ")
    alt = f"{section['title']}, {what}: the figures of the plot are in the tables and in {reports.JSON_NAME}"
    return (
        f'<figure><img src="{_data(root / name)}" alt="{escape(alt)}"><figcaption>{escape(what.capitalize())}'
        "</figcaption></figure>"
    )


def _sounds(sounds: Sequence[Mapping[str, Any]], root: Path) -> str:
    """The players, what belongs together side by side; what was generated is marked in words and by its frame."""
    parts = []
    for of, group in groupby(sounds, key=lambda sound: str(sound["of"])):
        players = [_player(each, root) for each in group]
        parts.append(f'<h3>{escape(of)}</h3><div class="sounds">{"".join(players)}</div>')
    return "\n".join(parts)


def _player(sound: Mapping[str, Any], root: Path) -> str:
    what = str(sound["what"])
    said = f"{what} (generated)" if sound["generated"] else what
    frame = ' class="generated"' if sound["generated"] else ""
    label, source = escape(f"{sound['of']}: {said}"), _data(root / str(sound["file"]))
    return (
        f"<figure{frame}><figcaption>{escape(said.capitalize())}</figcaption>"
        f'<audio controls preload="metadata" aria-label="{label}" src="{source}"></audio></figure>'
    )


def _data(path: Path) -> str:
    """A file as a data URI; a picture as WebP where that is smaller."""
    try:
        data, kind = path.read_bytes(), KINDS[path.suffix]
    except OSError as error:
        raise InputError(
            f"{path}, which the report names, cannot be read ({error.strerror}); measure again with --again",
            path=str(path),
        ) from error
    if kind == "image/png" and len(smaller := _webp(data)) < len(data):
        data, kind = smaller, "image/webp"
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _webp(data: bytes) -> bytes:
    """A PNG as WebP, which makes a spectrogram a fifth as long; itself where Pillow is not there."""
    try:
        from PIL import Image
    except ImportError:
        return data
    file = BytesIO()
    with Image.open(BytesIO(data)) as image:
        image.convert("RGB").save(file, "WEBP", quality=QUALITY, method=6)
    return file.getvalue()


def _how(section: Mapping[str, Any]) -> str:
    """The command that made a section, when, and for how long."""
    made = section.get("made", {})
    parts = [f"<code>{escape(section['command'])}</code>"] if section.get("command") else []
    parts += [f"{escape(str(made['date']))}, {made['seconds']:g} s"] if made else []
    parts += [f"{made['cpu']:g} s of a core"] if made.get("cpu") else []
    return f'<p class="made">{", ".join(parts)}</p>' if parts else ""


def _made(report: Mapping[str, Any]) -> str:
    """Bundle, machine and versions."""
    machine, versions = report.get("machine", {}), report.get("versions", {})
    rows = {
        "bundle": report.get("bundle", ""),
        "machine": ", ".join(f"{machine[key]} cores" if key == "cores" else str(machine[key]) for key in machine),
        "versions": ", ".join(f"{name} {value}" for name, value in versions.items()),
        "all figures": f"{reports.JSON_NAME}, beside this page",
    }
    return "<dl>" + "".join(f"<dt>{key}</dt><dd>{escape(str(value))}</dd>" for key, value in rows.items()) + "</dl>"


def _text(text: Any) -> str:
    """Escaped, with `code` in its own letters."""
    parts = escape(str(text)).split("`")
    if len(parts) % 2 == 0:
        return "`".join(parts)
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))
