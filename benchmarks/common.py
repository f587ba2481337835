"""How every benchmark measures and speaks.

Machines that tests run on are shared and noisy. So two things that are compared take turns in short bursts, the ratio
is the median of the ratios of neighbouring bursts, and the CPU time of the measuring thread stands beside wall time.
"""

import argparse
import contextlib
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Work = Callable[[], object]
FIELDS = ("name", "value", "unit", "peer", "peer_name", "ratio", "goal", "n", "more")


@dataclass(frozen=True)
class Result:
    """One figure.

    Attributes:
        value: the median, in `unit`.
        peer: what it is compared with, in the same unit, and its name: a plain loop, or a floor.
        ratio: `value` over `peer`, taken within one run.
        goal: the largest value (or ratio, where there is a peer) that the project wants; None: none is set.
        n: how many bursts or steps the median is over.
        more: whatever else was seen.
    """

    name: str
    value: float
    unit: str
    peer: float | None = None
    peer_name: str | None = None
    ratio: float | None = None
    goal: float | None = None
    n: int = 1
    more: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """The figure as one line of JSON."""
        return json.dumps(rounded(asdict(self)))


def rounded(value: Any) -> Any:
    """Four significant digits: more would only be noise."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Times:
    """Seconds a call in each burst: `cpu` of the thread, and `wall`."""

    cpu: list[float]
    wall: list[float]

    @property
    def cpu_s(self) -> float:
        """Median CPU seconds a call."""
        return statistics.median(self.cpu)

    @property
    def wall_s(self) -> float:
        """Median wall seconds a call."""
        return statistics.median(self.wall)


def interleave(works: Mapping[str, Work], *, bursts: int, calls: int) -> dict[str, Times]:
    """Time some works in turns: `bursts` rounds of `calls` calls of each, always in the same order.

    Turning the order round would let the last of a round begin the next with warm caches.

    Returns:
        the times by name; burst `i` of one name ran beside burst `i` of the others.
    """
    made = {name: Times([], []) for name in works}
    with quiet():
        for work in works.values():
            for _ in range(calls):
                work()
        for _ in range(bursts):
            for name, work in works.items():
                cpu, wall = _burst(work, calls)
                made[name].cpu.append(cpu)
                made[name].wall.append(wall)
    return made


def _burst(work: Work, calls: int) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.thread_time()
    for _ in range(calls):
        work()
    return (time.thread_time() - cpu) / calls, (time.perf_counter() - wall) / calls


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios of bursts that ran side by side: what slows both of a pair cancels."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No garbage collection in the middle of a burst."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def percentile(values: Iterable[float], share: float) -> float:
    """The value below which `share` of them lie; 0 without any."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def machine() -> dict[str, Any]:
    """On what it was measured; never the machine's name."""
    import numpy as np
    import torch

    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "threads": torch.get_num_threads(),
    }


def _cpu_model() -> str:
    """The processor's name, with family and model number: in virtual machines the name alone says little."""
    known: dict[str, str] = {}
    info = Path("/proc/cpuinfo")
    for line in info.read_text(encoding="utf8").splitlines() if info.is_file() else ():
        key, _, value = line.partition(":")
        known.setdefault(key.strip(), value.strip())
    if "model name" not in known:
        return platform.processor() or platform.machine()
    return f"{known['model name']} (family {known.get('cpu family', '?')}, model {known.get('model', '?')})"


def run(results: Callable[[bool], Iterable[Result]], argv: Sequence[str] | None = None) -> int:
    """The `main` of a benchmark: `--tiny` runs it once and small, to see that it works."""
    parser = argparse.ArgumentParser(description=sys.modules[results.__module__].__doc__)
    parser.add_argument("--tiny", action="store_true", help="once and small: shows that it runs, not how fast")
    tiny: bool = parser.parse_args(argv).tiny
    one_thread()
    for result in results(tiny):
        sys.stdout.write(result.line() + "\n")
        sys.stdout.flush()
    return 0


def one_thread() -> None:
    """What the engine's threads have: one torch thread, no denormals."""
    import torch

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
