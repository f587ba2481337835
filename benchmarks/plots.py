"""Pictures of what was measured: `out/*.jsonl` into `docs/plots/*.png`.

`python -m benchmarks.plots [--source FOLDER] [--into FOLDER]`. Of a figure that lies in several files, the newest
counts. A picture without figures is left out, and the command that makes them is said. It measures nothing itself.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Line = Mapping[str, Any]
DOTS = 110  # an inch
LIVE = 40.0  # ms of sound in a tick
COLOURS = ("#2a6f97", "#e07a1f", "#5b8c5a", "#9c4f96", "#8a8a8a")
GRID = {"color": "#dddddd", "linewidth": 0.6}


@dataclass
class Measured:
    """Every figure by name, the peers' rows, and on what it all was measured."""

    figures: dict[str, Line] = field(default_factory=dict)
    peers: list[Line] = field(default_factory=list)
    machine: str = ""

    def of(self, prefix: str) -> dict[str, Line]:
        """The figures whose names begin so, by the rest of their names."""
        return {name[len(prefix) :]: line for name, line in self.figures.items() if name.startswith(prefix)}


@dataclass(frozen=True)
class Picture:
    """A file, its size in inches, the command that measures, and who draws; False: there is nothing to draw."""

    name: str
    size: tuple[float, float]
    command: str
    draw: Callable[[Any, Measured], bool]


def read(folder: Path) -> Measured:
    """All lines of a folder, the older files first; lines that are cut off are left out."""
    found = Measured()
    for path in sorted(folder.glob("*.jsonl"), key=lambda each: each.stat().st_mtime):
        peers = []
        for text in path.read_text(encoding="utf8").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if line.get("name") == "machine":
                found.machine = f"{line['cpu'].split(' (')[0]}, {line['cores']} cores"
            elif "contest" in line:
                peers.append(line)
            elif "value" in line:
                found.figures[line["name"]] = line
        found.peers = peers or found.peers
    return found


def decode(drawing: Any, found: Measured) -> bool:
    """Milliseconds of a decode step, by size and engine, over the floor of that engine's bytes."""
    lines = {tuple(rest.split(".")): line for rest, line in found.of("memory_floor.").items() if rest.count(".") == 1}
    if not lines:
        return False
    engines = list(dict.fromkeys(engine for engine, _ in lines))
    sizes = sorted({size for _, size in lines}, key=lambda size: [int(part) for part in size.split("x")])
    axes, wide = _axes(drawing), 0.8 / len(engines)
    for i, engine in enumerate(engines):
        there = [(k, lines[engine, size]) for k, size in enumerate(sizes) if (engine, size) in lines]
        at = [k + (i - (len(engines) - 1) / 2) * wide for k, _ in there]
        axes.bar(at, [line["value"] for _, line in there], 0.92 * wide, color=COLOURS[i % len(COLOURS)], label=engine)
        floors = [line["peer"] for _, line in there]
        label = "memory floor of its bytes" if i == len(engines) - 1 else None
        axes.hlines(floors, [x - wide / 2 for x in at], [x + wide / 2 for x in at], color="black", label=label)
    axes.set_yscale("log")
    axes.set_xticks(range(len(sizes)), [size.replace("x", " layers, ") for size in sizes])
    _words(axes, "A decode step on one thread", "layers, width", "ms a step")
    axes.legend(fontsize=8, frameon=False)
    return True


def growth(drawing: Any, found: Measured) -> bool:
    """Real-time factor and memory against minutes streamed."""
    rows = sorted(found.of("growth.minutes.").values(), key=lambda line: float(line["more"]["size"]))
    if not rows:
        return False
    left, right = drawing.subplots(1, 2)
    at = [line["more"]["size"] for line in rows]
    left.plot(at, [line["value"] for line in rows], "o-", color=COLOURS[0])
    right.plot(at, [line["more"]["memory_mb"] for line in rows], "o-", color=COLOURS[1])
    for axes in (left, right):
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.grid(**GRID)
    left.set_ylim(top=max(1.0, *(1.1 * line["value"] for line in rows)))
    right.set_ylim(top=1.4 * max(line["more"]["memory_mb"] for line in rows))
    _words(left, "Speed of one stream", "minutes streamed", "real-time factor (1: just in time)")
    _words(right, "Memory of one stream", "minutes streamed", "MB of the process")
    return True


def sessions(drawing: Any, found: Measured) -> bool:
    """A tick against the number of sessions in one process."""
    rows = sorted(found.of("growth.sessions.").values(), key=lambda line: float(line["more"]["size"]))
    if not rows:
        return False
    axes, at = _axes(drawing), [line["more"]["size"] for line in rows]
    for share, colour, mark in (("p50_ms", COLOURS[0], "o-"), ("p99_ms", COLOURS[1], "s--")):
        axes.plot(at, [line["more"][share] for line in rows], mark, color=colour, label=share.removesuffix("_ms"))
    axes.axhline(LIVE, color="black", linewidth=0.8, label="40 ms of sound")
    axes.set_xticks(at)
    axes.set_ylim(bottom=0)
    _words(axes, "Sessions in one process", "sessions, as fast as they can", "ms from a tick to the next")
    axes.legend(fontsize=8, frameon=False)
    return True


def peers(drawing: Any, found: Measured) -> bool:
    """Our time over each peer's, in one run; left of the line we are faster."""
    rows = [line for line in found.peers if line.get("ratio") and line["unit"] != "x"]  # x: what is itself a ratio
    if not rows:
        return False
    labels = list(dict.fromkeys(f"{line['peer']}: {line['figure']}" for line in rows))[::-1]
    engines = list(dict.fromkeys(line["engine"] for line in rows))
    drawing.set_figheight(1.4 + 0.24 * len(labels))
    axes = _axes(drawing)
    for i, engine in enumerate(engines):
        mine = [line for line in rows if line["engine"] == engine]
        at = [labels.index(f"{line['peer']}: {line['figure']}") for line in mine]
        colour = COLOURS[i % len(COLOURS)]
        axes.plot([line["ratio"] for line in mine], at, "o", color=colour, label=engine or "no model", markersize=5)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks(range(len(labels)), [label if len(label) < 64 else label[:61] + "..." for label in labels])
    axes.tick_params(axis="y", labelsize=7)
    _words(axes, "Ours beside the peers", "our time over theirs (left of 1: faster)", "")
    axes.legend(fontsize=7, frameon=False)
    return True


PICTURES = (
    Picture("decode_step", (6.4, 3.4), "scripts/bench.sh memory_floor", decode),
    Picture("growth", (6.8, 2.8), "scripts/bench.sh growth", growth),
    Picture("sessions", (4.4, 3.0), "scripts/bench.sh growth", sessions),
    Picture("peers", (7.6, 4.6), "make bench-peers", peers),
)


def _axes(drawing: Any) -> Any:
    axes = drawing.subplots()
    axes.grid(**GRID)
    axes.set_axisbelow(True)
    return axes


def _words(axes: Any, title: str, across: str, up: str) -> None:
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(across, fontsize=8)
    axes.set_ylabel(up, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def draw(picture: Picture, found: Measured, folder: Path) -> Path | None:
    """Write one picture; None when there is nothing to draw. Equal figures give equal files.

    Raises:
        ImportError: matplotlib is not installed; it is one of the extras `dev`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=picture.size, dpi=DOTS, layout="constrained", facecolor="white")
    canvas = FigureCanvasAgg(drawing)
    if not picture.draw(drawing, found):
        return None
    caption = f"{picture.command}, {found.machine}" if found.machine else picture.command
    drawing.supxlabel(caption, fontsize=6.5, color="#777777", x=0.99, ha="right")
    path = folder / f"{picture.name}.png"
    folder.mkdir(parents=True, exist_ok=True)
    canvas.print_png(str(path), metadata={"Software": None})  # type: ignore[no-untyped-call]
    return path


def main(argv: Sequence[str] | None = None) -> int:
    """Draw all that there are figures for."""
    parser = argparse.ArgumentParser(prog="benchmarks.plots", description=__doc__)
    parser.add_argument("--source", type=Path, default=Path("out"), help="folder of JSON lines (%(default)s)")
    parser.add_argument("--into", type=Path, default=Path("docs/plots"), help="folder of the pictures (%(default)s)")
    chosen = parser.parse_args(argv)
    found = read(chosen.source)
    for picture in PICTURES:
        path = draw(picture, found, chosen.into)
        missing = f"{picture.name}: no figures in {chosen.source}; {picture.command} makes them"
        sys.stdout.write(f"{path or missing}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
