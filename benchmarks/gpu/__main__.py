"""Sessions against latency on one GPU: `python -m benchmarks.gpu [--tiny] [--minutes M] [--output FOLDER]`.

First the checks, then what one session costs, the curves of both sizes, time by part, and what graphs and kernels are
worth. One JSON line a figure; with an output folder also `gpu.jsonl` and a table, `gpu.md`. What takes longer than
`--minutes` is left out and named. It needs torch and numpy, and Triton for the kernels.
"""

import argparse
import gc
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from audiolm.compute.device import find_device
from audiolm.compute.fused import Kernels, find_kernels
from audiolm.compute.placed import Types
from audiolm.compute.ring import attend
from audiolm.lockstep import Lockstep
from audiolm.parts import Parts
from benchmarks.common import Result, machine, percentile
from benchmarks.gpu.bounds import Chip, floor, measure_chip, state_bytes
from benchmarks.gpu.checks import Found, checks
from benchmarks.gpu.curve import WAYS, Crowd, by_part, first_sounds
from benchmarks.gpu.sizes import make_parts

SLOTS = {"default": (1024, 1, 256, 2048, 64, 4096, 512, 16), "paper": (256, 1, 512, 64, 1024, 16)}
GOALS = {("default", 1024): 40.0, ("paper", 256): 40.0, ("default", 1): 5.0}
BURST, TOO_SLOW = 16, 120.0
FIRST_SOUND = 50.0
# Which kernel is used no more when a check fails.
WITHOUT: dict[str, dict[str, Any]] = {
    "noise": {"uniforms": None},
    "logits_kernels": {"attend": attend},
    "half_kernels": {"attend": attend},
    "frame": {"emit": None},
}


class Bench:
    """Everything that is measured, on one device.

    Args:
        device: where.
        tiny: a tiny model and few slots.
        minutes: when to stop.
    """

    def __init__(self, device: torch.device, *, tiny: bool, minutes: float) -> None:
        self.device, self.tiny = device, tiny
        self.end = time.monotonic() + 60 * minutes
        on_gpu = device.type == "cuda"
        self.types = Types(torch.bfloat16, torch.bfloat16) if on_gpu else Types()
        self.kernels = find_kernels(device)
        self.sizes = {"tiny": (3,)} if tiny else SLOTS
        self.skipped: list[str] = []
        self.failed: list[str] = []
        self._parts: dict[str, Parts] = {}

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() > self.end

    def parts(self, size: str) -> Parts:
        """A model on the device, made once."""
        if size not in self._parts:
            self._parts[size] = make_parts(size, self.device)
        return self._parts[size]

    def engine(self, size: str, slots: int, **changes: Any) -> Lockstep:
        """A lock-step engine of a size."""
        given: dict[str, Any] = {"types": self.types, "kernels": self.kernels, "burst": min(BURST, slots), **changes}
        return Lockstep(self.parts(size), slots, self.device, **given)

    def attempt(self, name: str, work: Callable[[], Iterable[Result]]) -> Iterator[Result]:
        """The figures of one piece of work; what fails is told and counted, and the rest goes on."""
        if self.late:
            self.skipped.append(name)
            return
        try:
            yield from work()
        except Exception as error:  # noqa: BLE001 - whatever a compiler or a driver raises; it is reported and fails the run
            self.failed.append(f"{name}: {type(error).__name__}: {str(error).strip()[:300]}".replace("\n", " "))
            traceback.print_exc()
        gc.collect()  # engines hold themselves through what they captured
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def results(self) -> Iterator[Result]:
        """All of it, the most wanted first."""
        yield from self.check()
        chip = measure_chip(self.device, tiny=self.tiny)
        yield Result("gpu.bandwidth", chip.bandwidth / 1e9, "GB/s", more={"counted": "read and written"})
        yield Result("gpu.rate", chip.rate / 1e12, "TFLOP/s", more={"of": "bfloat16 products"})
        for size, all_slots in self.sizes.items():
            yield from self.attempt(f"{size}.first_sound", partial(self.first_sound, size))
            for slots in all_slots:
                yield from self.attempt(f"{size}.{slots}", partial(self.point, size, slots, chip))
        for size, all_slots in self.sizes.items():
            for slots in all_slots[:2]:
                yield from self.attempt(f"{size}.{slots}.parts", partial(self.pieces, size, slots))
                yield from self.attempt(f"{size}.{slots}.variants", partial(self.variants, size, slots))

    # -- pieces of work --

    def check(self) -> Iterator[Result]:
        """Comparisons of a model of the default sizes; kernels that fail theirs are used no more."""
        on_cpu = make_parts("tiny" if self.tiny else "default", torch.device("cpu"))
        for name, compare in checks(on_cpu, self.device, lambda: self.kernels, self.types):
            before = len(self.failed)
            yield from self.attempt(f"check.{name}", partial(self.compare, compare))
            if len(self.failed) > before and name in WITHOUT:
                self.kernels = replace(self.kernels, **WITHOUT[name])

    def compare(self, compare: Callable[[], Found]) -> Iterator[Result]:
        """The figures of one check."""
        found = compare()
        for one in found if isinstance(found, list) else [found]:
            if not one.holds:
                self.failed.append(f"{one.name}: {one.value:g} (at most {one.most}, at least {one.least})")
            yield Result(f"gpu.check.{one.name}", one.value, "", more={"holds": one.holds})

    def point(self, size: str, slots: int, chip: Chip) -> Iterator[Result]:
        """One point of the curve, in each way of using it, with its memory and its bounds."""
        used = _memory(self.device)
        engine = self.engine(size, slots)
        each = state_bytes(engine.program.states) / slots
        more = {"reserved": (_memory(self.device) - used) / slots}
        yield Result(f"gpu.{size}.{slots}.memory", each / 1e6, "MB a session", more=more)
        bound, work = floor(engine.parts, self.types, slots, chip)
        for way in WAYS:
            ticks = Crowd(engine, way).timed(0.2 if self.tiny else 5.0, 5 if self.tiny else 400)
            found = ticks.figures()
            p50, p99 = found["p50"], found["p99"]
            yield Result(
                f"gpu.{size}.{slots}.{way}", p50, "ms", max(bound, work), "the larger bound of generating",
                p50 / max(bound, work), n=len(ticks.wall), more={**found, "bandwidth_ms": bound, "operations_ms": work},
            )  # fmt: skip
            yield Result(f"gpu.{size}.{slots}.{way}.p99", p99, "ms", goal=GOALS.get((size, slots)), n=len(ticks.wall))
            if p50 > TOO_SLOW or self.late:
                return

    def first_sound(self, size: str) -> Iterator[Result]:
        """From the end of a prompt of two seconds to the first sound, one session alone."""
        taken = sorted(first_sounds(self.engine(size, 1), 2 if self.tiny else 7, 6 if self.tiny else 50))
        middle = percentile(taken, 0.5)
        yield Result(f"gpu.{size}.first_sound", middle, "ms", goal=FIRST_SOUND, n=len(taken), more={"most": taken[-1]})

    def pieces(self, size: str, slots: int) -> Iterator[Result]:
        """Time by part: rows of coarse and fine are taken twice a tick."""
        for name, taken in by_part(self.engine(size, slots), 2 if self.tiny else 30).items():
            yield Result(f"gpu.{size}.{slots}.part.{name}", taken, "ms")

    def variants(self, size: str, slots: int) -> Iterator[Result]:
        """What graphs, kernels and half precision are worth."""
        exact = Types()
        kinds: dict[str, dict[str, Any]] = {
            "no_graphs": {"graphs": False},
            "no_kernels": {"kernels": Kernels()},
            "no_frame_kernel": {"kernels": Kernels(self.kernels.attend, None, self.kernels.uniforms)},
            "float32": {"types": exact},
        }
        for name, changes in kinds.items():
            if self.late:
                self.skipped.append(f"{size}.{slots}.{name}")
                continue
            ticks = Crowd(self.engine(size, slots, **changes), "going_on").timed(0.2 if self.tiny else 2.0, 100)
            found = ticks.figures()
            yield Result(f"gpu.{size}.{slots}.{name}", found["p50"], "ms", n=len(ticks.wall), more=found)


def _memory(device: torch.device) -> int:
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else 0


def about(device: torch.device) -> dict[str, Any]:
    """On what it was measured."""
    found: dict[str, Any] = {**machine(), "device": str(device)}
    if device.type == "cuda":
        found |= {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    return found


def table(results: Iterable[Result], bench: Bench) -> str:
    """The figures as Markdown, with what failed and what there was no time for."""
    lines = [f"Measured by `python3 scripts/gpu_bench.py` on: {about(bench.device)}", ""]
    lines += ["| figure | value | p99 | goal | bound | times the bound |", "|---|---|---|---|---|---|"]
    for one in results:
        cells = [
            one.name,
            f"{one.value:.4g} {one.unit}",
            *map(_cell, (one.more.get("p99"), one.goal, one.peer, one.ratio)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "Failed: " + ("; ".join(bench.failed) or "nothing"),
        "",
        "No time for: " + (", ".join(bench.skipped) or "nothing"),
    ]
    return "\n".join(lines) + "\n"


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def main() -> int:
    """Measure, print, write; 1 when something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a tiny model and few slots: shows that it runs")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    bench = Bench(find_device(args.device), tiny=args.tiny, minutes=args.minutes)
    found: list[Result] = []
    for result in bench.results():
        found.append(result)
        sys.stdout.write(result.line() + "\n")
        sys.stdout.flush()
        if args.output is not None:  # after each figure: a run that is cut off leaves what it had
            args.output.mkdir(parents=True, exist_ok=True)
            (args.output / "gpu.jsonl").write_text("".join(one.line() + "\n" for one in found), encoding="utf8")
            (args.output / "gpu.md").write_text(table(found, bench), encoding="utf8")
    sys.stdout.write(table(found, bench))
    return 1 if bench.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
