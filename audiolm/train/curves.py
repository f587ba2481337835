"""The curves of training runs, out of their JSON lines: as a small table of text and, with matplotlib, as a picture."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

Row = Mapping[str, float]
FIXED = ("step", "minutes")
SPEED = "steps_per_second"


def read_log(path: Path) -> list[Row]:
    """The rows of ``NAME.jsonl``, in order; none when it is not there. A last line that was cut off is left out."""
    if not path.is_file():
        return []
    rows: list[Row] = []
    for line in path.read_text(encoding="utf8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and all(isinstance(row.get(key), (int, float)) for key in FIXED):
            rows.append({key: value for key, value in row.items() if isinstance(value, (int, float))})
    return rows


def names(rows: Sequence[Row]) -> list[str]:
    """What the rows tell of, in the order of first mention; details by level (``dev_3``) are left out."""
    found = dict.fromkeys(key for row in rows for key in row if key not in (*FIXED, SPEED))
    return [name for name in found if not name.rpartition("_")[2].isdigit()]


def sampled(rows: Sequence[Row], most: int = 8) -> list[list[float | None]]:
    """At most ``most`` rows ``[minutes, step, values...]``, spread evenly over the steps, the last one included.

    A value that a row lacks is the last one known.
    """
    if not rows:
        return []
    last = max(row["step"] for row in rows)
    wanted = [last * (i + 1) / most for i in range(most)]
    known: dict[str, float] = {}
    picked: list[list[float | None]] = []
    for i, row in enumerate(rows):
        known |= row
        following = rows[i + 1]["step"] if i + 1 < len(rows) else last + 1
        if len(picked) < most and row["step"] >= wanted[len(picked)] - 1e-6 and following > row["step"]:
            picked.append([known["minutes"], known["step"], *(known.get(name) for name in names(rows))])
    return picked


def table(rows: Sequence[Row]) -> list[str]:
    """The curves as lines of a Markdown table."""
    head = ["minutes", "step", *names(rows)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for minutes, step, *values in sampled(rows):
        cells = [f"{minutes:.1f}", f"{step:.0f}", *("" if value is None else f"{value:.4g}" for value in values)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def last(rows: Sequence[Row]) -> dict[str, float]:
    """The last known value of everything."""
    known: dict[str, float] = {}
    for row in rows:
        known |= row
    return known


def picture(logs: Mapping[str, Sequence[Row]], path: Path) -> bool:
    """Draw the curves of every run into a PNG; false, and nothing drawn, where there is no matplotlib.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    shown = {name: rows for name, rows in logs.items() if rows}
    if not shown:
        return False
    figure = Figure(figsize=(3.2 * len(shown), 2.8), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, rows) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
        for key in names(rows):
            points = [(row["step"], row[key]) for row in rows if key in row]
            axes.plot(*zip(*points, strict=True), marker="." if len(points) < 12 else None, label=key)
        axes.set_title(name)
        axes.set_xlabel("step")
        axes.legend(fontsize="small")
    # Without date and version the same curves give the same file.
    figure.savefig(path, dpi=90, metadata={"Software": None})
    return True
