"""The table of the peers in Markdown, and its place in a page, between two markers."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.peers.compare import Contest, Row

BEGIN, END = "<!-- peers -->", "<!-- /peers -->"
SCALES = {"ms": 1e3, "us": 1e6, "s": 1.0, "x": 1.0, "x real time": 1.0}
HEADS = ("what", "peer", "theirs", "x yardstick", "ours", "engine", "x yardstick", "ours / theirs", "goal")


class MarkerError(Exception):
    """A page has no place for the table."""


def table(rows: Iterable[Row], contests: Sequence[Contest], about: Mapping[str, Any], extra: Sequence[str] = ()) -> str:
    """Where and how it was measured, the rows, what failed, and what differs.

    `extra` are further notes.
    """
    rows = list(rows)
    done, failed = [row for row in rows if not row.failed], [row for row in rows if row.failed]
    lines = [machine_line(about), "", *head()]
    lines += [line(row) for row in done]
    lines += [failure(row) for row in failed]
    shown = {row.contest for row in rows}
    lines += ["", *(f"- **{one.peer}**: {one.differs}" for one in contests if one.name in shown)]
    return "\n".join([*lines, *(f"- {text}" for text in extra)])


def machine_line(about: Mapping[str, Any]) -> str:
    """On what, when, with which command."""
    return (
        f"{about['cpu']}, {about['cores']} cores, load {about['load']}, {about['system']}, Python {about['python']}, "
        f"torch {about['torch']}, one thread; {about['date']}; command: `{about['command']}`."
    )


def head() -> list[str]:
    """The first two lines of the table."""
    return [f"| {' | '.join(HEADS)} |", "|" + "---|" * len(HEADS)]


def line(row: Row) -> str:
    """One row with figures."""
    goal = "" if row.goal is None else shown(row.goal, row.unit) if row.absolute else f"{row.goal:g}x"
    cells = (
        row.figure, f"{row.peer} {row.version}", shown(row.theirs, row.unit), times(row.theirs_x),
        shown(row.ours, row.unit), row.engine, times(row.ours_x), times(row.ratio), goal,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def failure(row: Row) -> str:
    """One row that says why there are no figures."""
    why = " ".join(row.failed.replace("|", "/").split())
    theirs, ours = ("", f"did not run: {why}") if row.engine else (f"did not run: {why}", "")
    return f"| {row.figure} | {row.peer} | {theirs} |  | {ours} | {row.engine} |" + "  |" * (len(HEADS) - 6)


def shown(value: float | None, unit: str) -> str:
    """Three digits and the unit."""
    if value is None:
        return ""
    number = f"{value * SCALES[unit]:#.3g}".rstrip(".")
    return f"{number}x" if unit == "x" else f"{number} {unit}"


def times(value: float | None) -> str:
    """A ratio."""
    if value is None:
        return ""
    return f"{value:.2g}x" if value < 0.1 else f"{value:.2f}x" if value < 10 else f"{value:.0f}x"


def replaced(page: str, section: str) -> str:
    """The page with what lies between its markers replaced.

    Raises:
        MarkerError: not one pair of markers, in order.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise MarkerError(f"expected one {BEGIN} and one {END} after it; put them where the table is to stand")
    before, after = page[: page.index(BEGIN)], page[page.index(END) + len(END) :]
    return f"{before}{BEGIN}\n{section}\n{END}{after}"
