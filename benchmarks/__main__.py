"""Run the benchmarks, each in a process of its own: one JSON line a figure, then a table.

`python -m benchmarks [NAME ...] [--tiny] [--output FILE]`; without names all but the long ones, one after the other.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.common import machine

NAMES = (
    "frames",
    "graph_hop",
    "decode_step",
    "depth_step",
    "codec_step",
    "memory_floor",
    "whole_graph",
    "start",
    "growth",
    "shedding",
    "detectors",
    "echo",
    "mqtt",
)
LONG = ("live", "endurance")  # ten minutes and more: only when it is named


def run(name: str, *, tiny: bool) -> tuple[list[dict[str, Any]], bool]:
    """The figures of one benchmark, printed as they come, and whether it failed (it has said why on standard error)."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *(["--tiny"] if tiny else [])]
    figures = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own modules
        for line in process.stdout or ():
            sys.stdout.write(line)
            sys.stdout.flush()
            figures.append(json.loads(line))
    if process.returncode:
        sys.stderr.write(f"benchmark {name} failed with exit code {process.returncode}; the others go on\n")
    return figures, bool(process.returncode)


def table(figures: Iterable[dict[str, Any]]) -> Table:
    """The figures for people."""
    made = Table(title="medians; ratio: ours over the peer, taken in one run", title_justify="left")
    for head, side in (("figure", "left"), ("value", "right"), ("ratio", "right"), ("goal", "right"), ("peer", "left")):
        made.add_column(head, justify=side)  # type: ignore[arg-type]
    for one in figures:
        ratio, peer, goal = one["ratio"], one["peer"], one["goal"]
        beside = "" if peer is None else f"{one['peer_name']}, {peer:g} {one['unit']}"
        made.add_row(one["name"], f"{one['value']:g} {one['unit']}", _text(ratio), _text(goal), beside)
    return made


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is named and print it."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", choices=[*NAMES, *LONG, []], metavar="NAME", help=", ".join((*NAMES, *LONG))
    )
    parser.add_argument("--tiny", action="store_true", help="once and small: shows that it runs, not how fast")
    parser.add_argument("--output", type=Path, default=Path("out/bench.jsonl"), help="where the JSON lines are kept")
    chosen = parser.parse_args(argv)
    about = {"name": "machine", **machine()}
    sys.stdout.write(json.dumps(about) + "\n")
    ran = [run(name, tiny=chosen.tiny) for name in chosen.names or NAMES]
    figures, failed = [one for made, _ in ran for one in made], any(bad for _, bad in ran)
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text("".join(json.dumps(line) + "\n" for line in (about, *figures)), encoding="utf8")
    Console(width=None if sys.stdout.isatty() else 140).print(table(figures))
    sys.stdout.write(f"on {about['cpu']}, {about['cores']} cores, load {about['load']}; kept in {chosen.output}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
