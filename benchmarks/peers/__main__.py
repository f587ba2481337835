"""Measure what a user would pick instead beside us: virtual environments, turns, JSON lines, a table.

`python -m benchmarks.peers [NAME ...]`; without names all of them. A peer that does not install or run gives a row that
says why. Times are CPU times of the measuring thread, but for what is paced.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.common import machine, one_thread, rounded
from benchmarks.peers.compare import Contest, Row, run
from benchmarks.peers.contests import FULL_SECONDS, QUICK_SECONDS, contests
from benchmarks.peers.environments import default_folder, say
from benchmarks.peers.report import replaced, table

ENGINES = ("torch", "onnx", "onnx-int8")
CONTINUATION = "audiolm-pytorch"
PRECISION = "`onnx-int8` computes with weights of 8 bits; everything else here is in float32."


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is named; 0 also when a peer failed, since its row says so."""
    chosen = parser().parse_args(argv)
    known = contests(full=chosen.full)
    if chosen.list:
        sys.stdout.write("".join(f"{one.name}: {one.peer}\n" for one in known))
        return 0
    picked = pick(known, chosen.names)
    if chosen.write:
        replaced(chosen.write.read_text(encoding="utf8"), "")  # refused now rather than after an hour
    about = described(argv)
    rows: list[Row] = []
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    with chosen.output.open("w", encoding="utf8") as kept:
        for line in lines(picked, chosen, about, rows):
            kept.write(line + "\n")
            kept.flush()
            sys.stderr.write(line[:400] + "\n")
    text = table(rows, known, about, [*notes(rows, full=chosen.full), PRECISION, *busy(about["load"])])
    sys.stdout.write(text + "\n")
    if chosen.write:
        page = chosen.write.read_text(encoding="utf8")
        chosen.write.write_text(replaced(page, text), encoding="utf8")
    say(f"kept in {chosen.output}")
    return 0


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    made = argparse.ArgumentParser(prog="benchmarks.peers", description=__doc__)
    made.add_argument("names", nargs="*", metavar="NAME", help="contests; --list shows them")
    made.add_argument("--list", action="store_true", help="the names of the contests")
    made.add_argument(
        "--engine", action="append", metavar="NAME", help=f"of ours; may be given again; default: {', '.join(ENGINES)}"
    )
    length = made.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_true", help="a shorter continuation of audiolm-pytorch (the default)")
    length.add_argument("--full", action="store_true", help="its whole 7 s: twenty minutes and more")
    made.add_argument("--tiny", action="store_true", help="once and small: shows that it runs, not how fast")
    made.add_argument("--environments", type=Path, default=default_folder(), help="where they are kept (%(default)s)")
    made.add_argument("--output", type=Path, default=Path("out/peers.jsonl"), help="where JSON lines go (%(default)s)")
    made.add_argument("--write", type=Path, metavar="PAGE", help="put the table between the markers of this page")
    return made


def pick(known: Sequence[Contest], names: Sequence[str]) -> list[Contest]:
    """The contests of these names, all without.

    Raises:
        SystemExit: an unknown name.
    """
    by_name = {one.name: one for one in known}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise SystemExit(f"no contest {unknown[0]!r}; expected some of {', '.join(by_name)}")
    return [by_name[name] for name in names or by_name]


def lines(picked: Iterable[Contest], chosen: argparse.Namespace, about: Any, rows: list[Row]) -> Iterator[str]:
    """JSON: the machine, then a line a row as it is measured; `rows` gathers them."""
    yield json.dumps({"name": "machine", **about})
    for contest in picked:
        say(f"{contest.name}: {contest.peer}")
        for row in run(contest, chosen.engine or ENGINES, chosen.environments, Path(sys.executable), tiny=chosen.tiny):
            rows.append(row)
            yield json.dumps(rounded(row.as_dict()))


def described(argv: Sequence[str] | None) -> dict[str, Any]:
    """The machine, the day and the command."""
    one_thread()
    arguments = " ".join(sys.argv[1:] if argv is None else argv)
    return {
        **machine(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "command": f"scripts/bench_peers.sh {arguments}".strip(),
    }


def notes(rows: Iterable[Row], *, full: bool) -> list[str]:
    """What a short run of audiolm-pytorch says of a long one; marked as worked out, not measured."""
    spent = next((row.more["theirs"] for row in rows if row.contest == CONTINUATION and not row.failed), None)
    if full or spent is None:
        return []
    short, long = (spent.get(f"spent.{seconds:g}") for seconds in QUICK_SECONDS)
    if short is None or long is None:
        return []
    rate = (long - short) / (QUICK_SECONDS[1] - QUICK_SECONDS[0])
    least = long + rate * (FULL_SECONDS - QUICK_SECONDS[1])
    ran = f"audiolm-pytorch ran for {QUICK_SECONDS[0]:g} and {QUICK_SECONDS[1]:g} s of continuation"
    took = f"({short:.1f} and {long:.1f} s of CPU time); its time a second is the difference of the two"
    guess = f"7 s would take {least:.0f} s if the cost of a token stayed as it is there, and it grows"
    return [f"{ran} {took}. Worked out and **not measured**: {guess}. `--full` measures it."]


def busy(load: float) -> list[str]:
    """What a reader should know of a machine that had other things to do."""
    if load < 1:
        return []
    return [
        f"The machine had other work beside this (load {load:g}): take the ratios, and measure again when it is quiet."
    ]


if __name__ == "__main__":
    raise SystemExit(main())
