"""What grows and what does not: minutes streamed, sessions in one process, the prompt's length, nodes of a graph.

Each row stands beside the first of its table. Minutes: the real-time factor of each stretch of one unpaced run.
Sessions: the time from a session's tick to its next while all of them run as fast as they can (live up to 40 ms).
Prompts: their end to the first continued sample. Nodes: a hop in a chain of empty ones. Memory, in `more`, is that of
the process then; each run has a process of its own.
"""

import asyncio
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from audiolm.compute.choose import AUTO, resolve
from benchmarks import graph_hop
from benchmarks.common import Result, interleave, percentile, run
from benchmarks.stamps import Stamps, alone, graph, resident_mb, session, together
from benchmarks.whole_graph import bundle_in

TICKS = 25  # in a second


@dataclass(frozen=True)
class Sizes:
    """The rows of each table, and how long the runs of two of them are."""

    minutes: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
    sessions: tuple[int, ...] = (1, 2, 4, 8)
    prompts: tuple[float, ...] = (3.0, 10.0, 30.0, 60.0)
    nodes: tuple[int, ...] = (6, 12, 24, 48)
    prompt: float = 3.0
    seconds: float = 3.0
    bursts: int = 40
    frames: int = 200


TINY = Sizes((0.01, 0.02), (1, 2), (0.4, 0.8), (2, 4), prompt=0.4, seconds=0.4, bursts=2, frames=5)


def results(tiny: bool = False) -> Iterator[Result]:
    """Four tables."""
    sizes = TINY if tiny else Sizes()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = bundle_in(folder, tiny=tiny)
        call = here if tiny else alone
        yield from beside_the_first(call(minutes, folder, bundle, sizes))
        for table, rows in ((sessions, sizes.sessions), (prompts, sizes.prompts)):
            yield from beside_the_first(call(table, folder, bundle, sizes, size)[0] for size in rows)
        yield from beside_the_first(call(nodes, sizes))


def here(work: Callable[..., list[Result]], *arguments: Any) -> list[Result]:
    """Just call it: a process a row takes longer than a tiny row."""
    return work(*arguments)


def beside_the_first(rows: Iterable[Result]) -> Iterator[Result]:
    """The same rows, each with the first as its peer."""
    first: Result | None = None
    for row in rows:
        if first is None:
            first = row
            yield row
            continue
        share = row.value / first.value if first.value else 0.0
        peer = first.name.removeprefix("growth.")
        yield Result(row.name, row.value, row.unit, first.value, peer, share, n=row.n, more=row.more)


def minutes(folder: Path, bundle: str, sizes: Sizes) -> list[Result]:
    """The real-time factor of each stretch, from the end of the one before."""
    marks = {max(2, round(60 * TICKS * each)): each for each in sizes.minutes}
    seen: dict[int, float] = {}
    stamps = Stamps(every=lambda k: seen.update({k: resident_mb()}) if k in marks else None)
    with graph(folder, bundle, prompt=sizes.prompt, seconds=max(marks) / TICKS, paced=False) as made:
        asyncio.run(together(made, [session(made, stamps)]))
    rows = []
    for begin, end in pairwise((1, *marks)):
        waits = gaps(stamps.came[begin - 1 : end])
        factor = sum(waits) / 1e3 / (len(waits) / TICKS)
        rows.append(row("minutes", marks[end], (factor, "x real time"), waits, memory_mb=seen[end]))
    return rows


def sessions(folder: Path, bundle: str, sizes: Sizes, count: int) -> list[Result]:
    """So many sessions side by side: a tick of one is a tick of all."""
    every = [Stamps() for _ in range(count)]
    with graph(folder, bundle, prompt=sizes.prompt, seconds=sizes.seconds, paced=False, slots=count) as made:
        listed = [session(made, stamps, f"s{i}") for i, stamps in enumerate(every)]
        asyncio.run(together(made, listed))
        memory = resident_mb()
    waits = [wait for stamps in every for wait in gaps(stamps.came)]
    value, factor = percentile(waits, 0.5), max(one.metrics.rtf or 0.0 for one in listed)
    return [row("sessions", count, (value, "ms"), waits, memory_mb=memory, rtf=factor, a_session_ms=value / count)]


def prompts(folder: Path, bundle: str, sizes: Sizes, seconds: float) -> list[Result]:
    """The prompt's end to the first continued sample: what was heard before must not matter."""
    stamps = Stamps()
    with graph(folder, bundle, prompt=seconds, seconds=min(1.0, sizes.seconds), paced=False) as made:
        one = session(made, stamps)
        asyncio.run(together(made, [one]))
        memory = resident_mb()
    first = one.metrics.first_sample_ms or 0.0
    return [row("prompt_seconds", seconds, (first, "ms"), gaps(stamps.came), memory_mb=memory, rtf=one.metrics.rtf)]


def nodes(sizes: Sizes) -> list[Result]:
    """A hop inside a lane, and beside it from source to sink of the whole chain, paced."""
    rows = []
    for count in sizes.nodes:
        times = interleave({"lane": graph_hop.lane_work(count)}, bursts=sizes.bursts, calls=sizes.bursts)["lane"]
        chain = graph_hop.graph(count, packed=False)
        waits = [1e3 * wait for wait in asyncio.run(graph_hop.through(chain, sizes.frames, 0.002))]
        rows.append(row("nodes", count, (1e6 * times.cpu_s / count, "us"), waits, memory_mb=resident_mb()))
    return rows


def gaps(came: Sequence[float]) -> list[float]:
    """Milliseconds from each instant to the next."""
    return [1e3 * (b - a) for a, b in pairwise(came)]


def row(table: str, size: float, figure: tuple[float, str], waits: Sequence[float], **more: Any) -> Result:
    """One row; `waits` are the milliseconds whose percentiles stand beside it."""
    shares = {
        "engine": resolve(AUTO),
        "size": size,
        "p50_ms": percentile(waits, 0.5),
        "p99_ms": percentile(waits, 0.99),
    }
    return Result(f"growth.{table}.{size:g}", *figure, n=max(1, len(waits)), more={**shares, **more})


def main() -> int:
    """Print the figures."""
    return run(results)


if __name__ == "__main__":
    raise SystemExit(main())
