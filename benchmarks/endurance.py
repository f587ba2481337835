"""Ten minutes in one piece: what a tick takes, whether a speaker would ever run dry, and whether memory stays.

`continue_file` with the default bundle, its clock paced as live: real-time factor unpaced first, then minutes of
continuation. A tick's time goes from the clock's permission to its sound at the sink. The whole process has two cores
(`--cores N`, `--one-core`); `--neighbour` burns the last of them with a process of its own; `--engine NAME`.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from audiolm.compute.choose import AUTO, resolve
from benchmarks.common import Result, one_thread, percentile
from benchmarks.stamps import Stamps, alone, graph, resident_mb, session, together
from benchmarks.whole_graph import bundle_in
from streamer import memory
from streamer.commands.outcome import peak_rss_mb

PROMPT = 3.0
TICK_GOAL = 30.0  # ms, the 99th percentile
RTF_GOAL, ONE_CORE_GOAL = 0.30, 0.60
GROWTH_GOAL = 20.0  # MB from the first minute to the last
BURN = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(100_000))\n"


@dataclass(frozen=True)
class Wanted:
    """What is asked for: `engine` None is the config's `auto`, `cores` None all of them."""

    minutes: float = 10.0
    engine: str | None = None
    cores: int | None = 2
    neighbour: bool = False
    tiny: bool = False

    @property
    def about(self) -> dict[str, Any]:
        """What every line says beside its figure."""
        return {"engine": resolve(self.engine or AUTO), "cores": self.cores, "neighbour": self.neighbour}


def results(wanted: Wanted) -> Iterator[Result]:
    """Run, and say what was seen."""
    cores = pin(wanted.cores)
    with tempfile.TemporaryDirectory() as name, burning(cores[-1] if wanted.neighbour and cores else None):
        folder = Path(name)
        bundle = bundle_in(folder, tiny=wanted.tiny)
        about = {**wanted.about, "bundle": bundle if bundle.isidentifier() else "random weights"}
        yield alone(unpaced, folder, bundle, wanted, about)  # its model is none of the memory that is looked at
        yield from paced(folder, bundle, wanted, about)


def pin(count: int | None) -> list[int]:
    """Keep this process, with all its threads, on the first so many of its cores; gives those."""
    if not hasattr(os, "sched_setaffinity"):
        return []
    mine = sorted(os.sched_getaffinity(0))[:count]
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), mine)
    return mine


@contextlib.contextmanager
def burning(core: int | None) -> Iterator[None]:
    """A process that uses up one core, for as long as this lasts; it ends by itself when this one is gone."""
    if core is None:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", BURN]) as process:  # noqa: S603 - our own line
        os.sched_setaffinity(process.pid, [core])
        try:
            yield
        finally:
            process.kill()


def unpaced(folder: Path, bundle: str, wanted: Wanted, about: dict[str, Any]) -> Result:
    """Wall time over prompt and continuation, as fast as it goes; the median of three."""
    prompt, seconds, repeats = (0.4, 0.4, 1) if wanted.tiny else (PROMPT, 6.0, 3)
    found, spent = [], []
    with graph(folder, bundle, prompt=prompt, seconds=seconds, paced=False, engine=wanted.engine) as made:
        for _ in range(repeats):
            one, begin = session(made, Stamps()), time.process_time()
            asyncio.run(together(made, [one]))
            spent.append((time.process_time() - begin) / (prompt + seconds))
            found.append(one.metrics.rtf or 0.0)
    more = {**about, "cpu_s_per_s": statistics.median(spent), "all": sorted(found)}
    goal = ONE_CORE_GOAL if wanted.cores == 1 else RTF_GOAL
    return Result("endurance.rtf", statistics.median(found), "x real time", goal=goal, n=repeats, more=more)


def paced(folder: Path, bundle: str, wanted: Wanted, about: dict[str, Any]) -> Iterator[Result]:
    """Minutes of continuation at the pace of a speaker."""
    prompt, seconds = (0.4, 1.6) if wanted.tiny else (PROMPT, 60 * wanted.minutes)
    stamps, sizes = Stamps(), list[float]()
    with graph(folder, bundle, prompt=prompt, seconds=seconds, paced=True, engine=wanted.engine) as made:
        memory.keep()
        sizes.append(resident_mb())
        one, begin = session(made, stamps), time.process_time()
        asyncio.run(together(made, [one], partial(watch, sizes)))
        spent = time.process_time() - begin
        sizes.append(resident_mb())
    yield from figures(stamps, one.report(), {**about, "minutes": seconds / 60, "cpu_s_per_s": spent / seconds})
    settled = sizes[min(1, len(sizes) - 2)]
    more = {**about, "each_minute_mb": [round(size, 1) for size in sizes], "peak_mb": peak_rss_mb()}
    yield Result("endurance.memory_growth", max(0.0, sizes[-1] - settled), "MB", goal=GROWTH_GOAL, more=more)


async def watch(sizes: list[float]) -> None:
    """Note the memory each minute."""
    while True:
        await asyncio.sleep(60)
        sizes.append(resident_mb())


def figures(stamps: Stamps, report: dict[str, Any], about: dict[str, Any]) -> Iterator[Result]:
    """What the instants say."""
    ticks = stamps.latencies() or [0.0]
    late = sum(tick > 40 for tick in ticks)
    shares = {"p50": percentile(ticks, 0.5), "p95": percentile(ticks, 0.95), "max": max(ticks)}
    more = {**about, **shares, "over_40_ms": late, "left_out": (report.get("load") or {}).get("ticks")}
    yield Result("endurance.tick_p99", percentile(ticks, 0.99), "ms", goal=TICK_GOAL, n=len(ticks), more=more)
    count, silence = stamps.underruns()
    about = {**about, "silence_ms": silence, "dropped": report["dropped"]}
    yield Result("endurance.underruns", count, "underruns", goal=0.0, n=len(ticks), more=about)
    yield Result("endurance.first_sample", report["first_sample_ms"] or 0.0, "ms", goal=60.0, more=about)


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, metavar="M", help="of continuation; default 10")
    parser.add_argument("--engine", metavar="NAME", help="in place of the config's")
    parser.add_argument("--cores", type=int, default=2, metavar="N", help="for the whole process; default 2")
    parser.add_argument("--one-core", action="store_const", dest="cores", const=1, help="the same as --cores 1")
    parser.add_argument("--neighbour", action="store_true", help="another process burns the last of these cores")
    parser.add_argument("--tiny", action="store_true", help="once and small: shows that it runs, not how fast")
    chosen = parser.parse_args()
    one_thread()
    for result in results(Wanted(**vars(chosen))):
        sys.stdout.write(result.line() + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
