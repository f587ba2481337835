"""The main job: `continue_file.yaml` with the default bundle, from a sound file to a sound file.

Unpaced first, three times, for the real-time factor; then paced by the wall clock, as live. One thread steps the
language models, one the codec and the tokenizer. The default bundle is the shipped one, else random weights of its
sizes; which one it was stands in `more.bundle`.
"""

import asyncio
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Result, run
from streamer import Graph, Session
from streamer import run as run_graph

PROMPT_SECONDS, SECONDS = 3.0, 6.0
RATE = 16_000
RTF_GOAL, FIRST_SAMPLE_GOAL = 1.0, 150.0


def results(tiny: bool = False) -> Iterator[Result]:
    """Real-time factor, first sample, tick, and each node's step."""
    prompt, seconds, repeats = (0.4, 0.4, 1) if tiny else (PROMPT_SECONDS, SECONDS, 3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = bundle_in(folder, tiny=tiny)
        write_prompt(folder / "prompt.wav", prompt)
        paced = [f"nodes.{node}.realtime=true" for node in ("input", "clock")]
        fast = [once(folder, bundle, seconds, []) for _ in range(repeats)]
        live = once(folder, bundle, seconds, paced)
    about = {"bundle": bundle if bundle.isidentifier() else "random weights", "prompt_s": prompt, "seconds": seconds}
    yield rtf(fast, about)
    yield first_sample("unpaced", fast, about)
    yield first_sample("paced", [live], about)
    yield ticks("unpaced", fast, about)
    yield ticks("paced", [live], about)
    for node in fast[-1]["nodes"]:
        yield step(node, fast, seconds + prompt)


def bundle_in(folder: Path, *, tiny: bool) -> str:
    """The bundle's name or path. Random weights are made by another process, so that they do not count as memory."""
    command = [sys.executable, "-m", "benchmarks.models", str(folder), *(["--tiny"] if tiny else [])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - our own module
    return done.stdout.strip()


def write_prompt(path: Path, seconds: float) -> None:
    """A sound to continue: a broken chord with a little noise, 16 bit at 16 kHz."""
    rng = np.random.default_rng(0)
    at = np.arange(round(seconds * RATE)) / RATE
    notes = 220 * 2 ** (np.array([0, 4, 7, 12])[(4 * at).astype(int) % 4] / 12)
    sound = 0.2 * np.sin(2 * np.pi * np.cumsum(notes) / RATE) * np.exp(-3 * (at % 0.25))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.round(32767 * (sound + 0.001 * rng.standard_normal(len(at)))).astype("<i2").tobytes())


def once(folder: Path, bundle: str, seconds: float, more: list[str]) -> Mapping[str, Any]:
    """Run the config once; what the session measured."""
    ends = [f"nodes.input.path={folder / 'prompt.wav'}", f"nodes.output.path={folder / 'out.wav'}"]
    overrides = [f"bundle={bundle}", f"session.seconds={seconds}", "session.seed=1", *ends, *more]
    with Graph.load("continue_file", overrides=overrides) as graph:
        session = Session(graph)
        begin = time.process_time()
        asyncio.run(run_graph(graph, session))
        spent = time.process_time() - begin
    report = session.report()
    return {**report, "cpu_share": spent / report["audio_seconds"]}


def rtf(runs: list[Mapping[str, Any]], about: Mapping[str, Any]) -> Result:
    """Wall time over prompt and continuation; beside it the CPU time of all threads, and the memory it took."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    values = [run["rtf"] for run in runs]
    cpu = statistics.median(run["cpu_share"] for run in runs)
    more = {
        **about,
        "cpu_s_per_s": cpu,
        "peak_rss_mb": peak,
        "all": sorted(values),
        "dropped": sum(run["dropped"] for run in runs),
    }
    return Result("whole_graph.rtf", statistics.median(values), "x real time", goal=RTF_GOAL, n=len(runs), more=more)


def first_sample(name: str, runs: list[Mapping[str, Any]], about: Mapping[str, Any]) -> Result:
    """From the last prompt tick entering the stages' lane to the first continued sample."""
    value = statistics.median(run["first_sample_ms"] for run in runs)
    return Result(f"whole_graph.first_sample.{name}", value, "ms", goal=FIRST_SAMPLE_GOAL, n=len(runs), more=about)


def ticks(name: str, runs: list[Mapping[str, Any]], about: Mapping[str, Any]) -> Result:
    """Wall time between ticks of the continuation at the sink."""
    shares = {share: statistics.median(run["tick_ms"][share] for run in runs) for share in ("p50", "p95", "p99")}
    count = sum(int(run["tick_ms"]["count"]) for run in runs)
    return Result(f"whole_graph.tick.{name}", shares["p50"], "ms", goal=40.0, n=count, more={**shares, **about})


def step(node: str, runs: list[Mapping[str, Any]], seconds: float) -> Result:
    """A node's step, and how much of real time it took in all."""
    each = [run["nodes"][node] for run in runs]
    shares = {share: statistics.median(one[share] for one in each) for share in ("p50", "p95", "p99")}
    total = statistics.median(one["total_s"] for one in each)
    more = {**shares, "total_s": total, "share_of_real_time": total / seconds}
    return Result(f"whole_graph.step.{node}", shares["p50"], "ms", n=sum(int(one["count"]) for one in each), more=more)


def main() -> int:
    """Print the figures."""
    return run(results)


if __name__ == "__main__":
    raise SystemExit(main())
