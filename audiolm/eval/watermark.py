"""The watermark measured: how often it is found after what happens to sound, how often where it is not, what it costs.

Marked are recordings that went through the codec, and continuations, as sessions mark them. False alarms are looked
for in all that carries no mark, and in marked sound by other keys, which is the same question asked many times. Sounds
are float32 at 16 kHz. How it is marked and found stands in :mod:`audiolm.watermark`; nothing here knows it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from audiolm.eval.clips import Held, Prompt, prompts
from audiolm.eval.distances import pesq_wb
from audiolm.eval.report import Cell, Goal, Progress, Section, quiet, within
from audiolm.eval.stats import Estimate, estimate, gain
from audiolm.eval.through import mp3, ogg_opus, resampled
from audiolm.model import AudioLM
from audiolm.train.data import RATE, TICK
from audiolm.train.shards import Array
from audiolm.watermark import LIMIT, Found, Marker, find

Way = Callable[[Array], Array]
PLAIN, OPUS = "as it is", "Opus 24 kbit/s"
WAYS: dict[str, Way] = {
    PLAIN: lambda sound: sound,
    OPUS: lambda sound: ogg_opus(sound, 24_000),
    "Opus 16 kbit/s": lambda sound: ogg_opus(sound, 16_000),
    "Opus 12 kbit/s": lambda sound: ogg_opus(sound, 12_000),
    "MP3 64 kbit/s": lambda sound: mp3(sound, 64),
    "44.1 kHz and back": lambda sound: resampled(sound, 44_100),
    "8 kHz and back": lambda sound: resampled(sound, 8_000),
    "20 dB quieter, 16 bit": lambda sound: (np.rint(sound * 3276.8) / 32768).astype(np.float32),
    "0.15 % faster": lambda sound: faster(sound, 1.0015),
}
LENGTHS = (2.0, 5.0, 10.0)
USUAL = 5.0  # the length that goals are for
RECORDING, CODEC, CONTINUED = "recordings", "recordings through the codec", "continuations"
OTHER_KEYS = "marked by another key"


@dataclass
class Tally:
    """What :func:`audiolm.watermark.find` said of many sounds."""

    scores: list[float] = field(default_factory=list)
    hits: list[float] = field(default_factory=list)

    def add(self, found: Found) -> None:
        """Count one sound."""
        self.scores.append(found.score)
        self.hits.append(100.0 * found.present)

    def as_figures(self, seed: int) -> dict[str, Any]:
        """Share found in % and mean score, with the highest and lowest."""
        scores = self.scores or [0.0]
        return {
            "found": estimate(self.hits, seed),
            "score": estimate(self.scores, seed),
            "highest": max(scores),
            "lowest": min(scores),
            "alarms": sum(hit > 0 for hit in self.hits),
        }


@dataclass(frozen=True)
class Tried:
    """All tallies of a corpus: of marked sound by way and length, of unmarked sound by what it is."""

    marked: Mapping[str, Mapping[float, Tally]]
    unmarked: Mapping[str, Tally]


def faster(sound: Array, by: float) -> Array:
    """Played at another speed, by linear interpolation."""
    played: Array = np.interp(np.arange(0, len(sound) - 1, by), np.arange(len(sound)), sound).astype(np.float32)
    return played


def mark(sound: Array) -> Array:
    """A sound as a session marks it, whole ticks."""
    marker = Marker()
    marked: Array = np.concatenate([marker.mark(tick) for tick in sound[: len(sound) // TICK * TICK].reshape(-1, TICK)])
    return marked


def snr_db(sound: Array, changed: Array) -> float:
    """Power of a sound over that of the change to it, in dB."""
    change = np.mean(np.square(changed - sound, dtype=np.float64))
    return float(10 * np.log10((np.mean(np.square(sound, dtype=np.float64)) + 1e-20) / (change + 1e-20)))


def cut(sound: Array, seconds: float, rng: np.random.Generator) -> Array | None:
    """So much of a sound from anywhere in it, or None where it is shorter."""
    length = int(seconds * RATE)
    start = int(rng.integers(max(1, len(sound) - length + 1)))
    return sound[start : start + length] if len(sound) >= length else None


def tried(bare: Mapping[str, Sequence[Array]], keys: int, seed: int, progress: Progress = quiet) -> Tried:
    """Mark what is to be marked, send all of it every way, and look for the mark.

    Args:
        bare: unmarked sound by what it is; all but :data:`RECORDING` is marked, too.
        keys: other keys that each marked sound is searched by.
        seed: of the cuts.
        progress: told of each way.
    """
    rng = np.random.default_rng(seed)
    unmarked = {kind: Tally() for kind in (*bare, OTHER_KEYS)}
    marks = [mark(sound) for kind, sounds in bare.items() if kind != RECORDING for sound in sounds]
    marked: dict[str, dict[float, Tally]] = {}
    for name, way in WAYS.items():
        progress(f"the watermark: {name}")
        tallies = marked.setdefault(name, {length: Tally() for length in LENGTHS})
        for sound in marks:
            _add_cuts(way(sound), tallies, rng)
        for kind, sounds in bare.items():
            for sound in sounds:
                _add_cuts(way(sound), dict.fromkeys(LENGTHS, unmarked[kind]), rng)
    for sound in marks:
        for i in range(keys):
            unmarked[OTHER_KEYS].add(find(sound, key=f"key {i} of {seed}"))
    return Tried(marked, unmarked)


def _add_cuts(sound: Array, tallies: Mapping[float, Tally], rng: np.random.Generator) -> None:
    for length, tally in tallies.items():
        piece = cut(sound, length, rng)
        if piece is not None:
            tally.add(find(piece))


def costs(bare: Sequence[Array], recordings: Sequence[Array], seed: int) -> dict[str, Estimate]:
    """What the mark changes: PESQ of marked against unmarked sound, and what reconstruction loses by it.

    Args:
        bare: recordings through the codec, then continuations.
        recordings: those that went through the codec, in the same order.
        seed: of the intervals.
    """
    marks = [mark(sound) for sound in bare]
    with_mark, without = (
        [pesq_wb(real[: len(made)], made) for real, made in zip(recordings, sounds, strict=False)]
        for sounds in (marks, bare)
    )
    return {
        "pesq": estimate([pesq_wb(a, b) for a, b in zip(bare, marks, strict=True)], seed),
        "snr_db": estimate([snr_db(a, b) for a, b in zip(bare, marks, strict=True)], seed),
        "codec_pesq": estimate(without, seed),
        "codec_pesq_gain": gain(with_mark, without, seed),
    }


# -- the section --


def watermark(
    model: AudioLM,
    held: Sequence[Held],
    *,
    clips: int = 16,
    count: int = 8,
    heard: float = 3.0,
    seconds: float = 10.0,
    keys: int = 20,
    seed: int = 0,
    progress: Progress = quiet,
) -> Section:
    """The section ``watermark`` of the report: ``clips`` recordings and ``count`` continuations a corpus.

    The model must be one that does not mark, and mark and search are this program's own.

    Raises:
        InputError: a corpus has nothing long enough.
    """
    section = Section("watermark", "The watermark of generated sound")
    for data in held:
        given = prompts(data, max(clips, count), heard, seconds, seed, least=min(2.0, seconds))
        bare = sounds_of(model, given, clips, count, seconds, seed=seed, progress=within(progress, data.name))
        found = tried(bare, keys, seed, within(progress, data.name))
        figures = figures_of(found, seed)
        figures["cost"] = costs([*bare[CODEC], *bare[CONTINUED]], bare[RECORDING], seed)
        section.figures[data.name] = figures
        _tables(section, data.name, figures)
        section.goals += _goals(data.name, figures)
    section.notes += _notes()
    return section


def sounds_of(
    model: AudioLM,
    given: Sequence[Prompt],
    clips: int,
    count: int,
    seconds: float,
    *,
    seed: int = 0,
    progress: Progress = quiet,
) -> dict[str, list[Array]]:
    """Recordings, the same through the codec, and continuations; none of them marked."""
    recordings = [prompt.truth for prompt in given[:clips]]
    progress("recordings through the codec")
    coded = [model.continuation(sound, mode="reconstruct") for sound in recordings]
    made = []
    for i, prompt in enumerate(given[:count]):
        progress(f"continuation {i + 1} of {min(count, len(given))}")
        made.append(model.continuation(prompt.sound, seconds, seed=seed + i))
    return {RECORDING: recordings, CODEC: coded, CONTINUED: made}


def figures_of(found: Tried, seed: int) -> dict[str, Any]:
    """The tallies as figures: ``marked`` by way and length, ``unmarked`` by what it is."""
    marked = {
        way: {f"{length:g} s": tally.as_figures(seed) for length, tally in tallies.items() if tally.hits}
        for way, tallies in found.marked.items()
    }
    return {"marked": marked, "unmarked": {kind: tally.as_figures(seed) for kind, tally in found.unmarked.items()}}


def _tables(section: Section, name: str, figures: Mapping[str, Any]) -> None:
    lengths = [f"{length:g} s" for length in LENGTHS]
    usual = f"{USUAL:g} s"
    rows: list[list[Cell]] = [
        [way, *[by[length]["found"] if length in by else None for length in lengths], *_scores(by.get(usual))]
        for way, by in figures["marked"].items()
    ]
    columns = ["after", *lengths, f"score, {usual}", f"lowest, {usual}"]
    section.table(f"{name}: marked sound in which the mark is found, %", columns, rows)
    alarms: list[list[Cell]] = [
        [kind, tally["found"].n, tally["alarms"], tally["highest"]] for kind, tally in figures["unmarked"].items()
    ]
    section.table(f"{name}: sound without the mark", ["what", "searches", "false alarms", "highest score"], alarms)
    cost = figures["cost"]
    section.table(
        f"{name}: what the mark changes",
        ["PESQ-WB to unmarked", "SNR to unmarked, dB", "PESQ-WB of the codec", "change of that by the mark"],
        [[cost["pesq"], cost["snr_db"], cost["codec_pesq"], cost["codec_pesq_gain"]]],
    )


def _scores(tally: Mapping[str, Any] | None) -> list[Cell]:
    return [None, None] if tally is None else [tally["score"].mean, tally["lowest"]]


def _goals(name: str, figures: Mapping[str, Any]) -> list[Goal]:
    """The mark through Opus, no false alarm, hardly a change; what was too short to be measured has no goal."""
    usual = figures["marked"][OPUS].get(f"{USUAL:g} s")
    alarms = sum(tally["alarms"] for tally in figures["unmarked"].values())
    goals = [] if usual is None else [Goal(f"{name}: marks found in 5 s through {OPUS}, %", usual["found"].mean, 98.0)]
    goals.append(Goal(f"{name}: false alarms", float(alarms), below=0.5))
    return [*goals, Goal(f"{name}: PESQ-WB of marked to unmarked sound", figures["cost"]["pesq"].mean, above=4.2)]


def _notes() -> list[str]:
    found = (
        f"Found means that the bound for a false alarm is at most {LIMIT:g} a sound, which takes a score of about 6.6; "
        "the sound is cut anywhere after it went its way."
    )
    width = (
        "Where all or none of n sounds count, a bootstrap has no width: by the rule of three the true share may still "
        "be 3/n away."
    )
    alarms = (
        "False alarms are searches of 2, 5 and 10 s of each sound after each way, and whole marked sounds by keys that "
        "are not theirs."
    )
    return [found, width, alarms]
