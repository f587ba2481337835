"""A machine that is too slow: what is left out, whether the sound goes on, and what it costs in quality.

`mic_continue` runs with a microphone and a loudspeaker that go by the clock, in this process and without a sound card:
the prompt in real time, then a continuation. Every call of the engine is stretched: after it, its thread sleeps for
`k - 1` times the CPU time that it took, for k = 1, 2, 4 and 8. The loudspeaker is the real jitter buffer, emptied every
10 ms. Quality is that of the codec on a real recording with the levels that were kept, beside all levels.
`python -m benchmarks.shedding [--engine NAME] [--slower 2 4]`.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from audiolm.bundle import load_bundle
from audiolm.codec import SoundStream
from audiolm.compute.choose import make_compute
from audiolm.engine import Engine
from audiolm.eval.distances import aligned, log_mel, stft_distance
from audiolm.runner import StageRunner, drive
from benchmarks.common import Result, one_thread
from benchmarks.sounds import ASSETS
from benchmarks.whole_graph import bundle_in
from streamer import Frame, Graph, Registry, Session, Sink, Source, config, run
from streamer.frame import AUDIO, CONTROL, FINE, HEARD
from streamer.nodes.jitter import JitterBuffer

RATE, TICK, BLOCK = 16_000, 640, 160
SLOWER = (1, 2, 4, 8)
PROMPT, SECONDS, CLIP = 3.0, 20.0, 10.0
PRIME, MOST = 1280, 6400  # samples, as `speaker` has them
KEEPS = 0.4  # seconds that a microphone keeps for whom it waits
STRETCHED = ("encode", "listen", "decode", "rows")


@dataclass
class Heard:
    """What came out at the loudspeaker, in blocks of 10 ms.

    Attributes:
        buffer: the loudspeaker's.
        levels: generated frames by how many levels they had.
        began: when the first sound began. silent: blocks of silence between that and the end of the turn.
        blocks: all of that time. ended: the end of the turn has come.
    """

    buffer: JitterBuffer = field(default_factory=lambda: JitterBuffer(PRIME, MOST))
    lock: threading.Lock = field(default_factory=threading.Lock)
    levels: Counter[int] = field(default_factory=Counter)
    began: float | None = None
    silent: int = 0
    blocks: int = 0
    ended: bool = False

    def play(self, done: threading.Event) -> None:
        """Take a block every 10 ms, until told."""
        due = time.perf_counter()
        while not done.wait(max(0.0, due - time.perf_counter())):
            due += BLOCK / RATE
            with self.lock:
                self.take(time.perf_counter())

    def take(self, now: float) -> None:
        """Take one block."""
        block = self.buffer.take(BLOCK)
        if self.began is None and self.buffer.begun:
            self.began = now
        if self.began is not None and (self.buffer.sounding or not self.ended):
            self.blocks += 1
            self.silent += not block.any()


class PacedSound(Source):
    """A microphone that hears `ctx.extra["sound"]`, then silence, for `ctx.extra["seconds"]` in all."""

    type_name = "paced_sound"
    emits = (AUDIO,)
    live = True

    async def frames(self, ctx: Any) -> AsyncIterator[Frame]:
        """One tick every 40 ms; what nobody takes in time is lost, and counted."""
        sound, begin, at = ctx.extra["sound"], time.monotonic(), 0
        started = begin
        while time.monotonic() - started < ctx.extra["seconds"]:
            behind = time.monotonic() - begin - at / RATE
            if behind > KEEPS:
                lost = int((behind - KEEPS) * RATE / TICK) + 1
                ctx.metrics.count("mic.lost_ticks", lost)
                begin += lost * TICK / RATE
            await asyncio.sleep(max(0.0, begin + (at + TICK) / RATE - time.monotonic()))
            piece = sound[at : at + TICK]
            tick = np.zeros(TICK, np.float32)
            tick[: len(piece)] = piece
            yield Frame.of(AUDIO, tick, position=at, session=ctx.id, flags=HEARD)
            at += TICK
        yield Frame.end(AUDIO, position=at, session=ctx.id, flags=HEARD)


class PacedSpeaker(Sink):
    """A loudspeaker without a device; `ctx.extra["heard"]` is what comes out of it."""

    type_name = "paced_speaker"
    accepts = {"audio": (AUDIO,), "fine": (FINE,), "control": (CONTROL,)}  # noqa: RUF012 - a class constant
    optional = ("control",)
    merge = "arrival"
    live = True

    async def write(self, frame: Frame, ctx: Any, input: str) -> None:  # noqa: A002, ARG002 - what a sink is given
        """Take sound into the buffer, and count levels."""
        heard: Heard = ctx.extra["heard"]
        if frame.kind == FINE and frame.generated and frame.payload:
            heard.levels[frame.shape[1]] += frame.shape[0]
        if frame.kind != AUDIO or not frame.generated:
            return
        with heard.lock:
            if frame.payload:
                heard.buffer.put(frame.array)
            if frame.turns or frame.last:
                heard.buffer.end_turn()
                heard.ended = True


@contextmanager
def stretched(k: float) -> Iterator[None]:
    """Every call of an engine takes `k` times as long: its thread sleeps `k - 1` times the CPU time of the call."""
    plain: dict[str, Callable[..., Any]] = {name: getattr(Engine, name) for name in STRETCHED}

    def slow(call: Callable[..., Any], *arguments: Any) -> Any:
        before = time.thread_time()
        made = call(*arguments)
        time.sleep((k - 1) * (time.thread_time() - before))
        return made

    for name, call in plain.items():
        setattr(Engine, name, lambda *arguments, call=call: slow(call, *arguments))
    try:
        yield
    finally:
        for name, call in plain.items():
            setattr(Engine, name, call)


def text() -> str:
    """`mic_continue` with the ends of this benchmark."""
    plain = config.find("mic_continue").read_text(encoding="utf8")
    made = plain.replace("{type: microphone}", "paced_sound").replace("{type: speaker}", "paced_speaker")
    return made.replace("edges:\n", "edges:\n  - fine -> speaker\n")


def once(k: float, bundle: str, seconds: float, prompt: float, engine: str) -> tuple[Mapping[str, Any], Heard]:
    """One continuation on a machine that is `k` times slower: what the session says, and what was heard."""
    registry = Registry.with_builtins()
    for end in (PacedSound, PacedSpeaker):
        registry.add(end)
    own = {
        "bundle": bundle, "engine": engine, "session.seed": 1, "session.seconds": "null",
        "session.prompt_seconds": prompt, "nodes.turns.detector": "none", "nodes.turns.barge_in": "false",
    }  # fmt: skip
    heard, done = Heard(), threading.Event()
    player = threading.Thread(target=heard.play, args=(done,), name="loudspeaker")
    with Graph.parse(text(), registry, overrides=[f"{key}={value}" for key, value in own.items()]) as graph:
        extra = {"sound": recording(), "seconds": prompt + seconds, "heard": heard}
        session = Session(graph, extra=extra)
        player.start()
        try:
            with stretched(k):
                asyncio.run(run(graph, session))
        finally:
            done.set()
            player.join()
    decided = session.metrics.marks.get("decided_continue")
    report = session.report()
    report["sound_ms"] = None if heard.began is None or decided is None else 1000 * (heard.began - decided)
    return report, heard


def recording() -> np.ndarray[Any, np.dtype[np.float32]]:
    """This project's piano prompt, from where it sounds."""
    sound, _ = soundfile.read(ASSETS / "prompt_piano.flac", dtype="float32")
    made: np.ndarray[Any, np.dtype[np.float32]] = sound[int(np.argmax(np.abs(sound) > 0.02)) :]
    return made


def quality(codec: SoundStream, levels: Counter[int], seconds: float) -> tuple[dict[str, float], dict[str, float]]:
    """Distances of the reconstruction to a recording, with the levels that were kept and with all of them."""
    sound = recording()[: round(seconds * RATE)]
    sound = sound[: len(sound) // TICK * TICK]
    found: dict[int, dict[str, float]] = {}
    for count in {*levels, codec.config.levels}:
        with torch.inference_mode():
            made = codec(torch.from_numpy(np.ascontiguousarray(sound))[None], count)[0].numpy().reshape(-1)
        pair = aligned(sound, made, codec.config.delay)
        found[count] = {"log_mel": log_mel(*pair), "stft": stft_distance(*pair)}
    whole, frames = found[codec.config.levels], sum(levels.values())
    kept = {name: sum(n * found[count][name] for count, n in levels.items()) / max(1, frames) for name in whole}
    return (kept if frames else whole), whole


def figures(k: float, report: Mapping[str, Any], heard: Heard, codec: SoundStream, clip: float) -> Iterator[Result]:
    """Every figure of one run."""
    of = partial(Result, more={"slower": k})
    load, frames, all_levels = report["load"], sum(heard.levels.values()), codec.config.levels
    kept = sum(count * n for count, n in heard.levels.items()) / max(1, frames)
    more = {"slower": k, "levels": {str(count): n for count, n in sorted(heard.levels.items())}, **load}
    yield Result(f"shedding.levels.{k:g}x", kept, "levels", all_levels, "all levels", kept / all_levels,
                 n=max(1, frames), more=more)  # fmt: skip
    buffer = heard.buffer
    sounds = {
        "underruns": buffer.underruns, "made_up_s": buffer.concealed / RATE, "skipped_s": buffer.lost / RATE,
        "played_s": buffer.played / RATE, "lost_ticks": report["counters"].get("mic.lost_ticks", 0),
    }  # fmt: skip
    silent = heard.silent * BLOCK / RATE
    yield Result(
        f"shedding.silence.{k:g}x", silent, "s", goal=0.0, n=max(1, heard.blocks), more={"slower": k, **sounds}
    )
    if report["sound_ms"] is not None:
        yield of(f"shedding.first_sample.{k:g}x", max(0.0, report["sound_ms"]), "ms")
    ticks = report["tick_ms"]
    yield Result(f"shedding.tick_p99.{k:g}x", ticks["p99"], "ms", n=max(1, int(ticks["count"])),
                 more={"slower": k, "p50": ticks["p50"]})  # fmt: skip
    kept_distance, whole = quality(codec, heard.levels, clip)
    for name, value in kept_distance.items():
        yield Result(f"shedding.{name}.{k:g}x", value, "distance", whole[name], "all levels", value / whole[name],
                     more={"slower": k})  # fmt: skip


def row_costs(bundle: str, engine: str, rows: int) -> Iterator[Result]:
    """CPU time of a row of the fine stage, by how many levels it samples: what each rung saves."""
    parts = load_bundle(bundle)
    stepper = Engine(parts, compute=make_compute(engine, parts))
    slot, spec, frame = stepper.open(), parts.stages["fine"].spec, 0
    runner, given = StageRunner(spec, 1), np.zeros(spec.cond_levels, np.int64)
    rungs = sorted({max(1, -(-spec.levels // 2**halvings)) for halvings in range(4)}, reverse=True)
    spent: dict[int, list[float]] = {levels: [] for levels in rungs}
    for turn in range(1 + 4):
        for levels in rungs:
            runner.sample_levels(levels)
            for _ in range(rows):
                runner.give(frame, given)
                frame += 1
                runner.sample_until(frame)
                before = time.thread_time()
                drive(stepper, "fine", [(slot, runner)])
                spent[levels] += [time.thread_time() - before] if turn else []  # the first is to get warm
    for levels, each in spent.items():
        yield Result(f"shedding.row.{levels}_levels", 1000 * statistics.median(each), "ms CPU", n=len(each),
                     more={"engine": engine, "of": spec.levels})  # fmt: skip


def results(
    *, tiny: bool, engine: str = "torch", seconds: float = SECONDS, slower: Sequence[float] = SLOWER
) -> Iterator[Result]:
    """Everything, for each k."""
    prompt, seconds, clip = (0.4, 0.8, 1.0) if tiny else (PROMPT, seconds, CLIP)
    with tempfile.TemporaryDirectory() as name:
        bundle = bundle_in(Path(name), tiny=tiny)
        codec = load_bundle(bundle).codec
        yield from row_costs(bundle, engine, 3 if tiny else 50)
        for k in slower:
            report, heard = once(k, bundle, seconds, prompt, engine)
            yield from figures(k, report, heard, codec, clip)


def main() -> int:
    """Measure, and print one JSON line a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="once and small: shows that it runs, not how fast")
    parser.add_argument("--engine", default="torch", help="as in a config")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of the continuation")
    parser.add_argument("--slower", type=float, nargs="+", default=SLOWER, help="how many times")
    chosen = parser.parse_args()
    one_thread()
    for result in results(tiny=chosen.tiny, engine=chosen.engine, seconds=chosen.seconds, slower=chosen.slower):
        sys.stdout.write(result.line() + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
