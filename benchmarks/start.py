"""From nothing to sound: `streamer run continue_file` as a process of its own, by engine.

Process start to ready (its sources begin), the prompt's end to the first continued sample, and the most memory it ever
held. The first process of an engine, which may have to make its exports, is run before and stands in `more.first`.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.common import Result, run

PROMPT, SECONDS = 3.0, 2.0
READY_GOAL, FIRST_SAMPLE_GOAL, MEMORY_GOAL = 3.0, 60.0, 700.0  # s, ms, MB
REPEATS = 5


def results(tiny: bool = False) -> Iterator[Result]:
    """Three figures an engine."""
    from benchmarks.whole_graph import bundle_in, write_prompt

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = bundle_in(folder, tiny=tiny)
        write_prompt(folder / "prompt.wav", 0.4 if tiny else PROMPT)
        for engine in engines(tiny=tiny):
            yield from figures(
                engine, bundle, [once(folder, bundle, engine) for _ in range(2 if tiny else 1 + REPEATS)]
            )


def engines(*, tiny: bool) -> tuple[str, ...]:
    """Those that run here; of a tiny run the reference."""
    import torch

    from audiolm.compute.choose import ENGINES

    onnx = find_spec("onnxruntime") is not None and find_spec("onnx") is not None
    here = [
        name
        for name in ENGINES
        if (onnx or not name.startswith("onnx")) and (name != "cuda" or torch.cuda.is_available())
    ]
    return ("torch",) if tiny else tuple(here)


def once(folder: Path, bundle: str, engine: str) -> dict[str, float]:
    """What one process measured of itself. It is told when it was started, on a clock that processes share."""
    command = [sys.executable, "-m", "benchmarks.start", "--once", str(folder), bundle, engine]
    done = subprocess.run(  # noqa: S603 - our own module
        [*command, repr(time.monotonic())], check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def figures(engine: str, bundle: str, runs: list[dict[str, float]]) -> Iterator[Result]:
    """Medians of all runs but the first."""
    first, *rest = runs
    about: dict[str, Any] = {"bundle": bundle if bundle.isidentifier() else "random weights"}
    medians = {key: statistics.median(one[key] for one in rest) for key in first}
    parts = {key: medians[key] for key in ("imports_s", "checked_s", "built_s", "cpu_s")}
    goals = {"ready": ("s", READY_GOAL), "first_sample": ("ms", FIRST_SAMPLE_GOAL), "memory": ("MB", MEMORY_GOAL)}
    for key, (unit, goal) in goals.items():
        more = {**about, "first": first[key], "all": sorted(one[key] for one in rest)}
        more |= parts if key == "ready" else {}
        yield Result(f"start.{key}.{engine}", medians[key], unit, goal=goal, n=len(rest), more=more)


def started(folder: Path, bundle: str, engine: str, begin: float) -> dict[str, float]:
    """What the command does, with a look at the clock in between: all seconds count from the process's start."""
    at: dict[str, float] = {}

    def note(what: str) -> None:
        at[what] = time.monotonic() - begin

    import streamer.cli  # noqa: F401 - is loaded by the command, so its time counts
    from streamer.commands import logs
    from streamer.commands.load import Request, graph_for
    from streamer.commands.outcome import peak_rss_mb
    from streamer.commands.run import play
    from streamer.session import Session

    note("imports_s")
    logs.configure(quiet=True)
    request = Request(
        "continue_file",
        (f"engine={engine}",),
        bundle=bundle,
        input=str(folder / "prompt.wav"),
        output=str(folder / "out.wav"),
        seconds=SECONDS,
        seed=1,
    )
    made = graph_for(request)
    note("checked_s")
    made.build()
    note("built_s")
    cpu, session = time.process_time(), Session(made)
    play(made, session)
    shift = time.monotonic() - time.perf_counter()  # the marks are on the other clock
    ready = session.metrics.marks["start"] + shift - begin
    return {
        **at,
        "ready": ready,
        "cpu_s": cpu,
        "first_sample": session.metrics.first_sample_ms or 0.0,
        "memory": peak_rss_mb(),
    }


def main() -> int:
    """Print the figures; `--once FOLDER BUNDLE ENGINE BEGIN` is the process that is measured."""
    if sys.argv[1:2] == ["--once"]:
        folder, bundle, engine, begin = sys.argv[2:]
        sys.stdout.write(json.dumps(started(Path(folder), bundle, engine, float(begin))) + "\n")
        return 0
    return run(results)


if __name__ == "__main__":
    raise SystemExit(main())
