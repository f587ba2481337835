"""The report: one JSON of sections, each with figures, tables, goals and plots, and its text for a model card.

``OUT/report.json`` is added to section by section, so a run that was stopped goes on where it was. The text,
``OUT/report.md``, is made of the JSON alone.
"""

import json
import math
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from audiolm.errors import InputError
from audiolm.eval.stats import Estimate, number

JSON_NAME, TEXT_NAME = "report.json", "report.md"
ORDER = (
    "reconstruction",
    "semantic",
    "abx",
    "kept",
    "likelihood",
    "swuggy",
    "sblimp",
    "continuation",
    "hierarchy",
    "diversity",
    "drift",
    "detect",
    "watermark",
    "engines",
    "plots",
)
BEGIN, END = "<!-- audiolm eval: begin -->", "<!-- audiolm eval: end -->"
LIBRARIES = ("torch", "numpy", "soundfile", "pesq", "pystoi", "resemblyzer", "pocketsphinx")
Cell = str | float | int | Estimate | None
Progress = Callable[[str], None]


def quiet(_: str) -> None:
    """Progress that is told to nobody."""


def within(progress: Progress, name: str) -> Progress:
    """Progress with a name before each line."""
    return lambda text: progress(f"{name}: {text}")


@dataclass(frozen=True)
class Goal:
    """A figure and what it should be: ``above`` or ``below`` a number."""

    what: str
    value: float
    above: float | None = None
    below: float | None = None

    @property
    def met(self) -> bool:
        """Whether it holds; a figure that could not be measured does not."""
        high = self.above is None or self.value > self.above
        low = self.below is None or self.value < self.below
        return math.isfinite(self.value) and high and low

    @property
    def wanted(self) -> str:
        """The goal in words."""
        both = (("above", self.above), ("below", self.below))
        return " and ".join(f"{word} {number(limit)}" for word, limit in both if limit is not None)


@dataclass(frozen=True)
class Took:
    """Seconds that a measure took by the clock, and of the processor."""

    seconds: float
    cpu: float


NO_TIME = Took(0.0, 0.0)


@dataclass
class Section:
    """One measure's part of the report.

    Attributes:
        name: key in the report; see ``ORDER``.
        title: heading.
        figures: everything measured, by name, as plain JSON or :class:`~audiolm.eval.stats.Estimate`.
        tables: ``{"title", "columns", "rows"}`` each, see :meth:`table`.
        goals: figures that have a goal.
        notes: sentences that say how to read the figures.
        plots: names of PNG files beside the report.
        sounds: files beside the report that the page plays: ``{"file", "of", "what", "generated"}`` each.
        failed: why it could not be measured; nothing else is there then.
    """

    name: str
    title: str
    figures: dict[str, Any] = field(default_factory=dict)
    tables: list[dict[str, Any]] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    plots: list[str] = field(default_factory=list)
    sounds: list[dict[str, Any]] = field(default_factory=list)
    failed: str = ""

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """Add a table; numbers and estimates are written as in a card."""
        self.tables.append({"title": title, "columns": list(columns), "rows": [[_cell(c) for c in r] for r in rows]})

    def as_dict(self) -> dict[str, Any]:
        """The section as plain JSON."""
        goals = [
            {**asdict(goal), "value": _plain(goal.value), "wanted": goal.wanted, "met": goal.met} for goal in self.goals
        ]
        return {
            "title": self.title,
            "figures": _plain(self.figures),
            "tables": self.tables,
            "goals": goals,
            "notes": self.notes,
            "plots": self.plots,
            **({"sounds": self.sounds} if self.sounds else {}),
            **({"failed": self.failed} if self.failed else {}),
        }


def _cell(value: Cell) -> str:
    if isinstance(value, float):
        return number(value)
    return "" if value is None else str(value)


def _plain(value: Any) -> Any:
    """As JSON holds it: estimates as objects, keys as strings, no NaN."""
    if isinstance(value, Estimate):
        return _plain(value.as_dict())
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 5) if math.isfinite(value) else None
    return value


def versions() -> dict[str, str]:
    """Of Python and of the libraries whose figures may change with them; those that are installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """What it was measured on: processor, cores and system, as far as they are known."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf8", errors="replace").splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = named[0] if named else platform.processor() or platform.machine()
    return {"processor": processor, "cores": os.cpu_count(), "system": f"{platform.system()} {platform.machine()}"}


def read(folder: str | Path) -> dict[str, Any]:
    """The report in ``folder``, or an empty one.

    Raises:
        InputError: what is there is no report.
    """
    path = Path(folder) / JSON_NAME
    if not path.exists():
        return {"sections": {}}
    try:
        report = json.loads(path.read_text(encoding="utf8"))
        sections = {name: _complete(section) for name, section in report["sections"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is no report of audiolm eval ({error}); give another folder", path=str(path)
        ) from error
    return {**report, "sections": sections}


def _complete(section: dict[str, Any]) -> dict[str, Any]:
    """A section as it is; KeyError where a part of it is missing."""
    return {**section, **{key: section[key] for key in ("title", "figures", "tables", "goals", "notes", "plots")}}


def add(
    folder: str | Path,
    section: Section,
    *,
    bundle: str,
    command: str = "",
    settings: Mapping[str, Any] | None = None,
    took: Took = NO_TIME,
) -> dict[str, Any]:
    """Put a section into the report of ``folder``, JSON and text, and return the report.

    ``bundle`` names exactly what was measured; a report of another bundle is not mixed with this one. ``command`` and
    ``settings`` are those that made the section, ``took`` what time it took. Two processes may add at once.

    Raises:
        InputError: the folder holds the report of another bundle, or cannot be written.
    """
    made = {**section.as_dict(), "command": command, "settings": _plain(dict(settings or {}))}
    made["made"] = {"date": datetime.now(UTC).date().isoformat(), "seconds": round(took.seconds, 1)}
    made["made"]["cpu"] = round(took.cpu, 1)
    return put(folder, {section.name: made}, bundle=bundle)


def put(folder: str | Path, sections: Mapping[str, Any], *, bundle: str) -> dict[str, Any]:
    """Put sections, as the JSON has them, into the report of ``folder``; see :func:`add`."""
    root = Path(folder)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _alone(root):
            report = _joined(root, sections, bundle)
            _write(root / JSON_NAME, json.dumps(report, indent=1) + "\n")
            _write(root / TEXT_NAME, markdown(report))
    except OSError as error:
        raise InputError(f"the report cannot be written to {root} ({error.strerror}); give another --out") from error
    return report


def _joined(root: Path, sections: Mapping[str, Any], bundle: str) -> dict[str, Any]:
    report = read(root)
    before = report.get("bundle", bundle)
    if before != bundle:
        raise InputError(f"{root} holds the report of {before}, not of {bundle}; give another --out")
    found = {**report["sections"], **sections}
    order = sorted(found, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
    kept = {name: found[name] for name in order}
    return {"bundle": bundle, "versions": versions(), "machine": machine(), "sections": kept}


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """No other process changes the report meanwhile; where there are no such locks, nobody is kept out."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write(path: Path, text: str) -> None:
    """At once, so that an interruption leaves the old file."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf8")
    part.replace(path)


def made_with(report: Mapping[str, Any], name: str, settings: Mapping[str, Any]) -> bool:
    """Whether the report has the section ``name`` with just these settings."""
    return name in report["sections"] and report["sections"][name].get("settings") == _plain(dict(settings))


# -- text --


def markdown(report: dict[str, Any], level: int = 2) -> str:
    """The report as Markdown, headings from ``level`` on."""
    lines = [f"{'#' * level} Measured by audiolm eval", ""]
    commands = dict.fromkeys(f"`{each['command']}`" for each in report["sections"].values() if each.get("command"))
    if commands:
        lines += [f"By {', '.join(commands)}.{_on(report)} Intervals are 95 %, by bootstrap.", ""]
    lines += goal_lines(report["sections"])
    for section in report["sections"].values():
        lines += [f"{'#' * (level + 1)} {section['title']}", "", *section_lines(section)]
    return "\n".join(lines).rstrip() + "\n"


def _on(report: Mapping[str, Any]) -> str:
    """The machine and the day, where the report has them."""
    dates = sorted({each["made"]["date"] for each in report["sections"].values() if each.get("made")})
    days = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}" if dates else ""
    found = report.get("machine", {})
    where = f" On {found['cores']} cores of {found['processor']}" if {"cores", "processor"} <= set(found) else ""
    return f"{where}, {days}." if where and days else ""


def goal_lines(sections: Mapping[str, Any]) -> list[str]:
    """The goals of all sections as a table: what was measured, what was wanted, whether it is met."""
    goals = [goal for section in sections.values() for goal in section["goals"]]
    if not goals:
        return []
    rows = [[g["what"], _cell(g["value"]) or "-", g["wanted"], "yes" if g["met"] else "no"] for g in goals]
    return [*table_lines(["goal", "measured", "wanted", "met"], rows), ""]


def section_lines(section: dict[str, Any]) -> list[str]:
    """Tables, notes and plots of a section's JSON as lines of Markdown."""
    lines = [f"Could not be measured: {section['failed']}", ""] if section.get("failed") else []
    for table in section["tables"]:
        lines += [
            *([f"{table['title']}:", ""] if table["title"] else []),
            *table_lines(table["columns"], table["rows"]),
            "",
        ]
    lines += [line for note in section["notes"] for line in (note, "")]
    return lines + [line for name in section["plots"] for line in (f"![{Path(name).stem}]({name})", "")]


def table_lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    return [_row(columns), "|" + "---|" * len(columns), *(_row(row) for row in rows)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def into_card(report: dict[str, Any], card: str | Path) -> None:
    """Write the report into a model card: between the marks of an earlier one, or at the end.

    Raises:
        InputError: the card cannot be read or written.
    """
    path = Path(card)
    try:
        text = path.read_text(encoding="utf8") if path.exists() else ""
        head, begin, rest = text.partition(BEGIN)
        tail = rest.partition(END)[2] if begin else ""
        body = f"{BEGIN}\n{markdown(report)}{END}"
        path.write_text(f"{head.rstrip()}\n\n{body}\n{tail.lstrip()}".lstrip(), encoding="utf8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the card {path} cannot be written ({error})", path=str(path)) from error
