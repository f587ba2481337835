"""Live through the virtual sound card: how soon it goes on, how soon it is silent, and whether it ever runs dry.

`mic_continue` runs in this process on PulseAudio's null sinks (`tests/live/card.py`). Phrases are played into the
virtual microphone, each into the continuation of the one before; microphone and speaker are recorded and every block is
stamped when it comes, so that all instants are on one clock. A sample can only be stamped late (by the recorder, some
10 ms), so what is measured from a decision of the program is an upper bound. `python -m benchmarks.live --minutes 10`.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from benchmarks.common import Result, one_thread
from benchmarks.whole_graph import bundle_in
from streamer import Graph, Running, Session, memory

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "live"))

from card import Card, missing  # type: ignore[import-not-found]  # noqa: E402 - a module of the tests

RATE = 48_000
PATIENCE = 30.0
AROUND = 1.0
SOUND_GOAL, SILENCE_GOAL = 250.0, 100.0  # ms
Samples = npt.NDArray[np.float32]


class Recorder:
    """What one PulseAudio source gives, with the instant at which each block came."""

    def __init__(self, card: Any, source: str) -> None:
        """Begin."""
        command = [
            "parec",
            "--raw",
            "--format=s16le",
            f"--rate={RATE}",
            "--channels=1",
            "--latency-msec=10",
            "-d",
            source,
        ]
        self.process = subprocess.Popen(command, env=card.env, stdout=subprocess.PIPE)  # noqa: S603 - our own command
        self.blocks: list[bytes] = []
        self.stamps: list[float] = []  # the instant of sample 0, as each block had it
        self._size = 0
        self._thread = threading.Thread(target=self._read, name=f"record-{source}")
        self._thread.start()

    def _read(self) -> None:
        while self.process.stdout is not None and (data := os.read(self.process.stdout.fileno(), 1 << 16)):
            self.blocks.append(data)
            self._size += len(data)
            self.stamps.append(time.perf_counter() - self._size / 2 / RATE)

    def close(self) -> None:
        """End."""
        self.process.terminate()
        self.process.wait()
        self._thread.join()

    def sounding(self) -> npt.NDArray[np.float64]:
        """The instant of every sample that is not 0: the card itself gives zeros, a soft continuation does not."""
        samples = np.frombuffer(b"".join(self.blocks)[: self._size // 2 * 2], "<i2")
        sizes = np.array([len(block) for block in self.blocks])
        begins = least_around(np.array(self.stamps), np.cumsum(sizes) / 2 / RATE)
        return (np.repeat(begins, sizes // 2) + np.arange(sizes.sum() // 2) / RATE)[np.flatnonzero(samples)]


def least_around(stamps: npt.NDArray[np.float64], at: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The least of the stamps within `AROUND` seconds of each: a card's clock drifts, and may jump after a hiccup."""
    first, last = np.searchsorted(at, at - AROUND), np.searchsorted(at, at + AROUND)
    return np.array([stamps[begin:end].min() for begin, end in zip(first, last, strict=True)])


@dataclass
class Seen:
    """Instants of one run, on the clock of `time.perf_counter`.

    Attributes:
        continued: of each decision to go on. stopped: of each decision to yield, and the next one to go on.
        report: the session's own. endured: seconds of continuation in one piece.
    """

    continued: list[float] = field(default_factory=list)
    stopped: list[tuple[float, float]] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)
    endured: float = 0.0


def results(phrases: int, minutes: float, *, tiny: bool) -> Iterator[Result]:
    """Run once and say what was seen."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = bundle_in(folder, tiny=tiny)
        card = Card(folder)
        card.start()
        os.environ.update({key: value for key, value in card.env.items() if os.environ.get(key) != value})
        heard, played = Recorder(card, "vmic"), Recorder(card, "speaker.monitor")
        try:
            seen = asyncio.run(play(card, bundle, phrases, minutes * 60))
        finally:
            heard.close()
            played.close()
            card.stop()
    yield from figures(seen, heard.sounding(), played.sounding())


async def play(card: Any, bundle: str, phrases: int, seconds: float) -> Seen:
    """Phrases into the microphone, one after another, and then nothing for a while."""
    seen = Seen()
    async with session_on(bundle) as session:
        for number in range(phrases):
            await say(card, session, seen, 2.0 + 0.13 * number)
            await asyncio.sleep(1.5)
        began = time.perf_counter()
        await asyncio.sleep(seconds)
        seen.endured = time.perf_counter() - began
        seen.report = session.report()
    return seen


async def say(card: Any, session: Session, seen: Seen, seconds: float) -> None:
    """Play one phrase until it is continued; a busy machine, or the gate of the canceller, may break one up.

    Raises:
        TimeoutError: it never was.
    """
    counters, marks = session.metrics.counters, session.metrics.marks
    for _ in range(5):
        continued, interrupted = counters.get("turns.continued", 0), counters.get("turns.interrupted", 0)
        await asyncio.to_thread(card.play, phrase(seconds))
        goes_on = partial(_more, counters, "turns.continued", continued)
        with contextlib.suppress(TimeoutError):
            await until(goes_on, "the continuation to begin", 3.0)
            seen.continued.append(marks["decided_continue"])
            if seen.continued[1:] and counters.get("turns.interrupted", 0) == interrupted + 1:
                seen.stopped.append((marks["decided_stop"], marks["decided_continue"]))
            return
    raise TimeoutError("no phrase was continued; is the machine too busy?")


def _more(counters: Mapping[str, int], name: str, than: int) -> bool:
    return counters.get(name, 0) > than


@contextlib.asynccontextmanager
async def session_on(bundle: str) -> AsyncIterator[Session]:
    """A session of `mic_continue` that runs until this ends."""
    graph = Graph.load(
        "mic_continue", overrides=[f"bundle={bundle}", "session.seconds=null", "nodes.turns.detector=music"]
    )
    with graph:
        async with Running(graph) as running:
            memory.keep()
            session = Session(graph)
            task = asyncio.create_task(running.run(session))
            await until(lambda: task.done() or session.metrics.gauges.get("mic.connected"), "the microphone")
            await asyncio.sleep(1.0)
            yield session
            session.stop()
            await task


async def until(true: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Look every 5 ms.

    Raises:
        TimeoutError: it never came true.
    """
    end = time.perf_counter() + patience
    while not true():
        if time.perf_counter() > end:
            raise TimeoutError(f"waited {patience:g} s for {what}")
        await asyncio.sleep(0.005)


def phrase(seconds: float) -> Samples:
    """The beginning of the shipped piano prompt at 48 kHz, cut off within 10 ms."""
    sound, rate = soundfile.read(ROOT / "assets" / "prompt_piano.flac", dtype="float32")
    sounding = sound[np.argmax(np.abs(sound) > 0.02) :]
    made: Samples = np.asarray(soxr.resample(sounding, rate, RATE), np.float32)[: round(seconds * RATE)]
    made[-480:] *= np.linspace(1, 0, 480, dtype=np.float32)
    return made


def figures(seen: Seen, heard: npt.NDArray[np.float64], played: npt.NDArray[np.float64]) -> Iterator[Result]:
    """Every figure of one run."""
    sounds = [first_after(played, at) - at for at in seen.continued]
    ends = [first_after(played, at) - last_before(heard, at) for at in seen.continued]
    silences = [max(0.0, last_before(played, after) - at) for at, after in seen.stopped]  # 0: it was silent already
    onsets = [max(0.0, last_before(played, after) - onset_before(heard, at)) for at, after in seen.stopped]
    latency = seen.report["latency_ms"]
    own = {name: round(found["p50"], 1) for name, found in latency.items()}
    yield of("decision_to_sound", sounds, SOUND_GOAL, own)
    yield of("end_of_sound_to_sound", ends, None, {"with": "the detector's hang-over of 520 ms"})
    if silences:
        yield of("decision_to_silence", silences, SILENCE_GOAL, own)
        yield of("onset_to_silence", onsets, None, {})
    counters = seen.report["counters"]
    lost = {name: count for name, count in counters.items() if "lost" in name or "underrun" in name}
    yield Result(
        "live.underruns", counters.get("speaker.underruns", 0), "underruns", goal=0,
        more={"seconds": seen.endured, "drift_ppm": seen.report["gauges"].get("speaker.drift_ppm"), **lost},
    )  # fmt: skip
    ticks = seen.report["tick_ms"]
    yield Result("live.tick_p99", ticks["p99"], "ms", more={name: ticks[name] for name in ("p50", "p95", "max")})
    for name, found in seen.report["nodes"].items():
        yield Result(f"live.step_{name}", found["p50"], "ms", n=max(1, int(found["count"])), more={"p99": found["p99"]})


def of(name: str, seconds: Sequence[float], goal: float | None, more: dict[str, Any]) -> Result:
    """The median of some durations in milliseconds."""
    each = [1000 * value for value in seconds]
    spread = {"least": min(each), "most": max(each), "own": more}
    return Result(f"live.{name}", statistics.median(each), "ms", goal=goal, n=len(each), more=spread)


def first_after(instants: npt.NDArray[np.float64], at: float) -> float:
    """The first instant that is not before `at`."""
    return float(instants[np.searchsorted(instants, at)])


def last_before(instants: npt.NDArray[np.float64], at: float) -> float:
    """The last instant before `at`."""
    return float(instants[np.searchsorted(instants, at) - 1])


def onset_before(instants: npt.NDArray[np.float64], at: float) -> float:
    """Where the sound begins that is there at `at`: the last one behind 0.2 s of silence."""
    index = int(np.searchsorted(instants, at)) - 1
    begins = np.flatnonzero(np.diff(instants[: index + 1]) > 0.2) + 1
    return float(instants[begins[-1] if len(begins) else 0])


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print one JSON line a figure; where there is no PulseAudio, say so and measure nothing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="once and small: shows that it runs, not how fast")
    parser.add_argument("--phrases", type=int, default=10, help="played into the microphone")
    parser.add_argument("--minutes", type=float, default=10.0, help="of continuation in one piece, for the underruns")
    chosen = parser.parse_args(argv)
    if why := missing():
        sys.stderr.write(f"live: {why}\n")
        return 0
    one_thread()
    small = (2, 0.02) if chosen.tiny else (chosen.phrases, chosen.minutes)
    for result in results(*small, tiny=chosen.tiny):
        sys.stdout.write(result.line() + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
