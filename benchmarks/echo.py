"""What is left of the loudspeaker's echo, what a detector takes it for, and how soon someone is heard over it.

The echo path is made: a delay, a gain, and 200 ms of a room that dies away within 0.25 s. `--speech FOLDER --piano
FOLDER`: recordings at 16 kHz instead of this project's own two prompts. `simulate` and `cleaned` are for other scripts,
too.
"""

import importlib.util
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

import numpy as np
import structlog

from benchmarks.common import Result, percentile
from benchmarks.detectors import active
from benchmarks.sounds import RATE, Sound, Sounds, extent, gain, pink, rms, run_with, spans, to_level
from streamer.nodes.detect import make_detector
from streamer.nodes.echo import BLOCK, EchoReference, make_canceller

FAR_LEVEL, NOISE = -23.0, -65.0
SETTLED = 3  # seconds of playback after which a canceller should know its room
NEVER = 3000.0  # ms; who is not heard until then is missed
Played = tuple[str, list[Sound]]
DETECTORS = {"speech": "speech", "piano": "music"}


@dataclass(frozen=True)
class Path:
    """From the loudspeaker to the microphone."""

    delay_ms: float = 60
    gain_db: float = -6
    seed: int = 0

    def response(self) -> Sound:
        """The impulse response."""
        count = RATE // 5
        room = np.random.default_rng(self.seed).standard_normal(count) * 10 ** (-3 * np.arange(count) / RATE / 0.25)
        room[0] = 3 * np.abs(room).max()
        return np.concatenate(
            [np.zeros(round(self.delay_ms * RATE / 1000)), gain(self.gain_db) * room / rms(room) / count**0.5]
        )


PATHS = (Path(20, -6), Path(120, -6), Path(60, -20))


def simulate(far: Sound, near: Sound, path: Path) -> tuple[Sound, Sound]:
    """The echo of `far`, and what the microphone hears: that, `near`, and the room's noise. All of one length."""
    response = path.response()
    size = 1 << (len(far) + len(response)).bit_length()
    echo: Sound = np.fft.irfft(np.fft.rfft(far, size) * np.fft.rfft(response, size), size)[: len(far)]
    return echo, echo + near + gain(NOISE) * pink(len(far), np.random.default_rng(path.seed))


def cleaned(kind: str, far: Sound, microphone: Sound, burst: int = 4) -> Sound:
    """What a canceller of `kind` makes of it; the loudspeaker is given its blocks `burst` at a time."""
    reference = EchoReference()
    canceller = make_canceller(kind, reference)
    made = []
    for block in range(len(far) // BLOCK):
        if block % burst == 0:
            for at in range(block * BLOCK, min((block + burst) * BLOCK, len(far) // BLOCK * BLOCK), BLOCK):
                reference.push(far[at : at + BLOCK].astype(np.float32))
        made.append(canceller.process(microphone[block * BLOCK : (block + 1) * BLOCK].astype(np.float32)))
    canceller.close()
    return np.concatenate(made).astype(np.float64)


def playback(clips: list[Sound], seconds: float, seed: int) -> Sound:
    """Some clips, one after the other."""
    order = np.random.default_rng(seed).permutation(len(clips))
    made = [to_level(clips[i], FAR_LEVEL) for i in order]
    while sum(map(len, made)) < seconds * RATE:
        made += made
    return np.concatenate(made)[: round(seconds * RATE)]


def results(tiny: bool, sounds: Sounds) -> Iterator[Result]:
    """For each canceller: what is left, false onsets, barge-in, cost."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    heard = {"speech": sounds.speech, "piano": sounds.piano}
    many = min(6, len(sounds.speech), len(sounds.piano))
    kinds = ["off", "gate", *(["cancel", "auto"] if importlib.util.find_spec("livekit") else [])]
    for kind in kinds[1:2] if tiny else kinds:
        for far, clips in heard.items():
            if kind != "off":
                yield left(kind, far, clips, 4 if tiny else 20)
            yield from false_onsets(kind, far, clips, seconds=4 if tiny else 40, sessions=(many + 1) // 2)
        pairs = [(far, near) for far in heard for near in heard] if kind != "off" else []
        for far, near in pairs[: 1 if tiny else None]:
            for over_db, after_s in ((10, 2),) if tiny else ((5, 2), (-10, 8), (-5, 8), (0, 8), (5, 8), (10, 8)):
                ends = (far, heard[far]), (near, heard[near])
                yield barge_in(kind, *ends, over_db=over_db, after_s=after_s, times=many)
        yield cost(kind, 20 if tiny else 1000)


def left(kind: str, far: str, clips: list[Sound], seconds: int) -> Result:
    """Decibels by which the echo is softer (echo return loss enhancement), once settled; the worst path."""
    made: dict[str, float] = {}
    for path in PATHS:
        sound = playback(clips, seconds, path.seed)
        _, microphone = simulate(sound, np.zeros(len(sound)), path)
        clean = cleaned(kind, sound, microphone)
        after = slice(SETTLED * RATE, None)
        made[f"{path.delay_ms:g} ms {path.gain_db:g} dB"] = max(
            0.0, 20 * float(np.log10(rms(microphone[after]) / max(rms(clean[after]), 1e-6)))
        )
    return Result(f"echo.{kind}.{far}.erle", min(made.values()), "dB", n=len(PATHS), more=made)


def false_onsets(kind: str, far: str, clips: list[Sound], *, seconds: int, sessions: int) -> Iterator[Result]:
    """Onsets a minute of playback that nobody made, once settled, for each detector."""
    judges = {name: make_detector(name) for name in DETECTORS.values()}
    begun: dict[str, list[float]] = {name: [] for name in judges}
    for seed in range(sessions):
        sound = playback(clips, seconds, seed)
        for path in PATHS:
            _, microphone = simulate(sound, np.zeros(len(sound)), Path(path.delay_ms, path.gain_db, seed))
            clean = cleaned(kind, sound, microphone)
            for name, judge in judges.items():
                begun[name] += [span[0] * 0.04 for span in spans(active(judge, clean))]
    runs = sessions * len(PATHS)
    for name, times in begun.items():
        late = sum(at >= SETTLED for at in times)
        more = {"in_the_first_3_s": (len(times) - late) / runs, "events": late}
        a_minute = 60 * late / (runs * (seconds - SETTLED))
        yield Result(f"echo.{kind}.{far}.false_{name}", a_minute, "1/min", n=runs, more=more)


def barge_in(
    kind: str,
    far: tuple[str, list[Sound]],
    near: tuple[str, list[Sound]],
    *,
    over_db: float,
    after_s: float,
    times: int,
) -> Result:
    """Milliseconds until someone who begins `after_s` into the playback, `over_db` above its echo, is heard."""
    judge, waits = make_detector(DETECTORS[near[0]]), []
    for seed in range(times):
        sound = playback(far[1], after_s + 4, seed)
        path = Path(seed=seed)
        echo, _ = simulate(sound, np.zeros(len(sound)), path)
        clip = near[1][-1 - seed % len(near[1])]
        voice, at = clip[extent(clip, 20)[0] :][: 4 * RATE], round(after_s * RATE)
        own = np.zeros(len(sound))
        level = gain(over_db) * rms(echo[at : at + len(voice)]) / rms(voice)
        own[at : at + len(voice)] = level * voice[: len(own) - at]
        heard = active(judge, cleaned(kind, sound, simulate(sound, own, path)[1]))
        first = np.flatnonzero(heard[at // 640 :])
        waits.append(min(NEVER, 40.0 * float(first[0] + 1)) if len(first) else NEVER)
    more = {"worst": max(waits), "missed": sum(wait >= NEVER for wait in waits)}
    name = f"echo.{kind}.{near[0]}_over_{far[0]}.{over_db:+g}dB_after_{after_s:g}s"
    return Result(name, median(waits), "ms", n=times, more=more)


def cost(kind: str, count: int) -> Result:
    """Milliseconds a block of 10 ms."""
    reference, rng, spent = EchoReference(), np.random.default_rng(0), []
    canceller = make_canceller(kind, reference)
    for block in 0.05 * rng.standard_normal((count, BLOCK)).astype(np.float32):
        reference.push(block)
        begun = time.thread_time()
        canceller.process(block)
        spent.append(1000 * (time.thread_time() - begun))
    canceller.close()
    return Result(f"echo.{kind}.block", median(spent), "ms", n=count, more={"p99": percentile(spent, 0.99)})


if __name__ == "__main__":
    raise SystemExit(run_with(results))
