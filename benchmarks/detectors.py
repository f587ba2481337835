"""How soon the detectors hear that someone speaks or plays, how late that it has ended, and what they take for it.

Recordings at -26 dBFS in pink noise, with 3 s before and 6 s after. An onset counts from the first 10 ms within 18 dB
(speech) or 30 dB (piano) of the loudest to the end of the tick that is active; what was missed counts as 1000 ms.
`--speech FOLDER --piano FOLDER`: recordings at 16 kHz instead of this project's own two prompts.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

import numpy as np
import numpy.typing as npt

from benchmarks.common import Result, percentile
from benchmarks.sounds import RATE, Sound, Sounds, extent, gain, pink, run_with, spans, ticks, to_level, white
from streamer.nodes.detect import TICK, Detector, make_detector

LEVEL, BEFORE, AFTER = -26.0, 3, 6
LATEST = 1.0  # seconds after which an onset is missed, and after the end of which activity is false
HANGOVER = 0.8  # seconds; a longer pause inside of a clip would end a turn
WITHIN = {"speech": 18.0, "music": 30.0}
ROOMS = ("white", "pink", "hum", "clicks", "knocks", "typing", "fan")


def results(tiny: bool, sounds: Sounds) -> Iterator[Result]:
    """Both detectors: onsets at several ratios of sound to noise, then rooms, then the cost."""
    for kind, clips in (("speech", sounds.speech), ("music", sounds.piano)):
        detector = make_detector(kind)
        for snr in (20,) if tiny else (30, 20, 10, 5, 0):
            yield onset(kind, detector, clips, snr)
        for room in ROOMS[:1] if tiny else ROOMS:
            yield false_onsets(kind, detector, room, 3 if tiny else 60)
        yield cost(kind, detector, 20 if tiny else 1000)


def active(detector: Detector, sound: Sound) -> npt.NDArray[np.bool_]:
    """Whether each tick is active, from a fresh state."""
    state = detector.init_state()
    return np.array([detector.step(tick, state).active for tick in ticks(sound)])


@dataclass
class Tally:
    """What was seen over all clips; times in ms."""

    onsets: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    missed: int = 0
    false: int = 0
    pauses: int = 0
    quiet_s: float = 0.0
    sound_s: float = 0.0

    def add(self, heard: list[tuple[int, int]], first: float, last: float, whole: float) -> None:
        """One clip: spans of activity in ticks, where the sound begins and ends and what there is in all, in ticks."""
        late = LATEST * RATE / TICK
        hits = [span for span in heard if span[1] > first and span[0] < last]
        self.false += sum(span[1] <= first or span[0] >= last + late for span in heard)
        self.quiet_s += (first + max(0.0, whole - last - late)) * TICK / RATE
        self.sound_s += (last - first) * TICK / RATE
        if not hits or hits[0][0] + 1 - first > late:
            self.missed += 1
            self.onsets.append(1000 * LATEST)
            return
        self.onsets.append(40 * max(0.0, hits[0][0] + 1 - first))
        self.ends.append(40 * (hits[-1][1] - last))
        self.pauses += sum(0.04 * (b[0] - a[1]) > HANGOVER for a, b in pairwise(hits))


def onset(kind: str, detector: Detector, clips: list[Sound], snr: float) -> Result:
    """Milliseconds until someone is heard."""
    rng, tally = np.random.default_rng(int(snr)), Tally()
    for clip in clips:
        first, last = extent(clip, WITHIN[kind])
        scene = gain(LEVEL - snr) * pink((BEFORE + AFTER) * RATE + len(clip), rng)
        scene[BEFORE * RATE : BEFORE * RATE + len(clip)] += to_level(clip, LEVEL)
        begin = BEFORE * RATE
        tally.add(
            spans(active(detector, scene)), (begin + first) / TICK, (begin + last) / TICK, len(scene) / TICK
        )  # fmt: skip
    more = {
        "onset_p90": percentile(tally.onsets, 0.9), "end_p50": median(tally.ends or [0.0]),
        "end_p90": percentile(tally.ends, 0.9), "missed": tally.missed,
        "false_a_minute": 60 * tally.false / tally.quiet_s, "pauses_a_minute": 60 * tally.pauses / tally.sound_s,
    }  # fmt: skip
    return Result(f"detectors.{kind}.onset_{snr:g}dB", median(tally.onsets), "ms", n=len(clips), more=more)


def false_onsets(kind: str, detector: Detector, room: str, seconds: int) -> Result:
    """Onsets a minute where nobody speaks or plays, the worst of three levels."""
    sound = room_sound(room, seconds)
    levels = {str(level): len(spans(active(detector, sound * gain(level)))) for level in (-60, -40, -26)}
    worst = 60 * max(levels.values()) / seconds
    return Result(f"detectors.{kind}.false_{room}", worst, "1/min", n=3 * seconds * RATE // TICK, more=levels)


def room_sound(room: str, seconds: int, seed: int = 0) -> Sound:
    """What a room does by itself, RMS or peaks about 1."""
    rng, time_s = np.random.default_rng(seed), np.arange(seconds * RATE) / RATE
    if room == "white":
        return white(len(time_s), rng)
    if room == "hum":
        hum: Sound = np.sum([np.sin(2 * np.pi * 50 * k * time_s + k) / k for k in range(1, 11)], axis=0)
        return hum
    noise = pink(len(time_s), rng)
    if room == "pink":
        return noise
    if room == "fan":
        return noise * np.where(time_s // 10 % 2, 1.0, 0.05)
    return _struck(room, 0.03 * noise, rng)


def _struck(room: str, made: Sound, rng: np.random.Generator) -> Sound:
    """Clicks, knocks on wood, keys of a keyboard: short sounds, one a second or a few."""
    brief = np.arange(RATE // 2) / RATE
    at = RATE
    while at + len(brief) < len(made):
        if room == "clicks":
            made[at : at + len(brief)] += 10 * white(len(brief), rng) * np.exp(-brief / 0.001)
        elif room == "knocks":
            thump = 3 * np.sin(2 * np.pi * rng.uniform(80, 250) * brief) * np.exp(-brief / 0.03)
            made[at : at + len(brief)] += thump + 1.5 * white(len(brief), rng) * np.exp(-brief / 0.03)
        else:
            made[at : at + len(brief)] += 4 * white(len(brief), rng) * np.exp(-brief / 0.012)
        at += int(RATE * rng.uniform(0.08, 0.4)) if room == "typing" else RATE
    return made


def cost(kind: str, detector: Detector, count: int) -> Result:
    """Milliseconds a tick."""
    sound, state, spent = ticks(0.05 * white(count * TICK, np.random.default_rng(0))), detector.init_state(), []
    for tick in sound:
        begun = time.thread_time()
        detector.step(tick, state)
        spent.append(1000 * (time.thread_time() - begun))
    return Result(f"detectors.{kind}.tick", median(spent), "ms", n=count, more={"p99": percentile(spent, 0.99)})


if __name__ == "__main__":
    raise SystemExit(run_with(results))
