"""What the semantic stage is worth over time: the full hierarchy against acoustic tokens alone, second by second.

The AudioLM paper's comparison on piano: a model of acoustic tokens alone keeps the sound of a prompt and loses key and
rhythm. Both continue the same prompts for a minute; windows of equal length are compared with the prompt, beside
another's continuation (what chance gives) and the recording through the codec, as far as it goes. What is heard in a
window is heard by the measures of :mod:`audiolm.eval.continuation` and :mod:`audiolm.eval.drift`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from audiolm.errors import InputError
from audiolm.eval.clips import Held, Kind, Prompt, prompts
from audiolm.eval.continuation import BARE, CODEC, MODEL, OTHER, silent_share
from audiolm.eval.drift import entropy, loop_share
from audiolm.eval.listened import token_nats
from audiolm.eval.music import onset_density, pace_difference, pitch_agreement, pitch_classes
from audiolm.eval.need import need
from audiolm.eval.reconstruction import declared_delay
from audiolm.eval.report import Cell, Goal, Progress, Section, quiet, within
from audiolm.eval.speakers import embed, similarity
from audiolm.eval.stats import Estimate, estimate, gain
from audiolm.eval.timbre import timbre, timbre_distance
from audiolm.model import AudioLM
from audiolm.parts import Parts
from audiolm.train.data import TICK
from audiolm.train.shards import Array

WINDOW = 5.0
TIMES = (5.0, 10.0, 20.0, 60.0)
SYSTEMS = (MODEL, BARE, OTHER, CODEC)
ALL = "all"
TITLES = {
    "pitch": "pitch-class agreement",
    "pace": "pace difference (octaves)",
    "similarity": "speaker similarity",
    "timbre": "timbre distance",
    "nats": "nats a token, heard again",
    "off": "nats off the recordings'",
    "entropy": "semantic entropy (nats)",
    "loop": "loop",
    "silent": "silent share",
}
BETTER = {"pitch": 1, "pace": -1, "similarity": 1, "timbre": -1, "off": -1}  # the others have no better
GOALS = ("pitch", "pace", "off")
Scores = dict[str, dict[str, Array]]  # measure, system: [prompts, windows], NaN where there is none


@dataclass(frozen=True)
class Heard:
    """What is compared with the prompt in a piece of sound; ``None`` where it is not of its kind."""

    colour: Array
    pitch: Array | None = None
    pace: float = 0.0
    voice: Array | None = None


@dataclass(frozen=True)
class Run:
    """A prompt and what follows it by each hand, float32 at 16 kHz; the recording may be shorter."""

    prompt: Prompt
    sounds: Mapping[str, Array]


def window_ends(seconds: float, window: float = WINDOW) -> list[float]:
    """Ends in seconds of the windows that fit into ``seconds``.

    Raises:
        InputError: not one fits.
    """
    count = int(seconds / window + 1e-6)
    if count < 1:
        raise InputError(f"{seconds:g} s hold no window of {window:g} s; give more --seconds", seconds=seconds)
    return [round(window * (i + 1), 3) for i in range(count)]


def marks(ends: Sequence[float], times: Sequence[float] = TIMES) -> list[int]:
    """Which windows are told in the table: those that end at ``times``, and the last."""
    return [i for i, end in enumerate(ends) if end in times or i == len(ends) - 1]


def run_all(
    model: AudioLM, given: Sequence[Prompt], seconds: float, *, seed: int = 0, progress: Progress = quiet
) -> list[Run]:
    """Continue every prompt by both, prompt ``i`` with seed ``seed + i``, and code the recording as the engine does."""
    found, delay = [], declared_delay(model.parts.codec)
    for i, prompt in enumerate(given):
        sounds = {}
        for name, mode in ((MODEL, "continue"), (BARE, "acoustic_only")):
            progress(f"prompt {i + 1} of {len(given)}, {name}")
            sounds[name] = model.continuation(prompt.sound, seconds, seed=seed + i, mode=mode)
        both = np.concatenate((prompt.sound, prompt.truth, np.zeros(-(-delay // TICK) * TICK, np.float32)))
        coded = model.continuation(both, mode="reconstruct")[delay:]
        start = len(prompt.sound)
        found.append(Run(prompt, {**sounds, CODEC: coded[start : start + len(prompt.truth)]}))
    return found


# -- what is heard in a window --


def look(sound: Array, kind: Kind, *, voiced: bool = True) -> Heard:
    """Timbre, and pitch classes and pace of music or, with ``voiced``, the voice of speech."""
    if kind == "music":
        return Heard(timbre(sound), pitch_classes(sound), onset_density(sound))
    return Heard(timbre(sound), voice=embed(sound) if voiced else None)


def against(prompt: Heard, heard: Heard, kind: Kind, *, voiced: bool = True) -> dict[str, float]:
    """How far a window is what its prompt was."""
    found = {"timbre": timbre_distance(prompt.colour, heard.colour)}
    if prompt.pitch is not None and heard.pitch is not None:
        found |= {"pitch": pitch_agreement(prompt.pitch, heard.pitch), "pace": pace_difference(prompt.pace, heard.pace)}
    if kind == "speech" and voiced:
        found["similarity"] = similarity(prompt.voice, heard.voice)
    return found


def by_itself(sound: Array, tokens: Array, nats: Array) -> dict[str, float]:
    """What a window says without its prompt: how likely, how varied, whether it loops, whether it is silent."""
    return {
        "nats": -float(nats.mean()),
        "entropy": entropy(tokens),
        "loop": loop_share(tokens),
        "silent": silent_share(sound),
    }


def score(parts: Parts, runs: Sequence[Run], kind: Kind, ends: Sequence[float], *, voiced: bool = True) -> Scores:
    """Every measure of every window by every hand, and of the others' continuations."""
    ticks = [0, *(round(end * 25) for end in ends)]
    spans = list(pairwise(ticks))
    scores: Scores = {}
    seen = list[list[Heard]]()

    def put(i: int, w: int, system: str, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            table = scores.setdefault(key, {})
            table.setdefault(system, np.full((len(runs), len(spans)), np.nan))[i, w] = value

    asked = [look(run.prompt.sound, kind, voiced=voiced) for run in runs]
    for i, run in enumerate(runs):
        for system, sound in run.sounds.items():
            heard = _windows(parts, run.prompt.sound, sound, spans)
            looks = [look(piece, kind, voiced=voiced) for piece, _, _ in heard]
            if system == MODEL:
                seen.append(looks)
            for w, (piece, tokens, nats) in enumerate(heard):
                put(i, w, system, against(asked[i], looks[w], kind, voiced=voiced) | by_itself(piece, tokens, nats))
    for i, run in enumerate(runs):
        others = [looks for other, looks in zip(runs, seen, strict=True) if other.prompt.who != run.prompt.who]
        for w in range(len(spans)) if others else ():
            rows = [against(asked[i], looks[w], kind, voiced=voiced) for looks in others]
            put(i, w, OTHER, {key: float(np.mean([row[key] for row in rows])) for key in rows[0]})
    return {**scores, "off": off_recordings(scores["nats"])} if CODEC in scores.get("nats", {}) else scores


def off_recordings(nats: Mapping[str, Array]) -> dict[str, Array]:
    """How far each window's nats a token are from the recordings' mean: what is too likely is no better sound."""
    usual = np.nanmean(nats[CODEC])
    return {system: np.abs(table - usual) for system, table in nats.items()}


def _windows(
    parts: Parts, prompt: Array, sound: Array, spans: Sequence[tuple[int, int]]
) -> list[tuple[Array, Array, Array]]:
    """Sound, semantic tokens and their nats of the windows that ``sound`` fills, heard behind the prompt."""
    whole = [span for span in spans if span[1] * TICK <= len(sound)]
    if not whole:
        return []
    start = len(prompt) // TICK
    tokens, nats = (rows[0][start:] for rows in token_nats(parts, [np.concatenate((prompt, sound))]))
    return [(sound[a * TICK : b * TICK], tokens[a:b], nats[a:b]) for a, b in whole]


# -- the section --


def hierarchy(
    model: AudioLM,
    held: Sequence[Held],
    *,
    count: int = 6,
    heard: float = 6.0,
    seconds: float = 60.0,
    window: float = WINDOW,
    times: Sequence[float] = TIMES,
    seed: int = 0,
    progress: Progress = quiet,
) -> Section:
    """The section ``hierarchy`` of the report. A prompt needs ``heard`` seconds and a window after them, not more.

    Raises:
        InputError: a corpus has no such prompt, or ``seconds`` hold no window.
    """
    section = Section("hierarchy", "Full hierarchy against acoustic tokens alone")
    ends = window_ends(seconds, window)
    for data in held:
        given = prompts(data, count, heard, ends[-1], seed, least=window)
        voiced = data.kind == "speech" and _can_tell_voices(section)
        runs = run_all(model, given, ends[-1], seed=seed, progress=within(progress, data.name))
        progress(f"{data.name}: listening again")
        scores = score(model.parts, runs, data.kind, ends, voiced=voiced)
        _write(section, data, scores, ends, marks(ends, times))
    section.notes.append(
        f"Prompts of {heard:g} s, windows of {window:g} s. Nats a token: how unlikely our own semantic stage finds the "
        "sound when it hears it again after the prompt. Silence and loops are likely, so what counts is how far that "
        f"is from the recordings' mean. A gain above 0 is the full hierarchy's. '{CODEC}' goes as far as the recording."
    )
    return section


def _can_tell_voices(section: Section) -> bool:
    try:
        need("resemblyzer")
    except InputError:
        section.notes.append("Speaker similarity is left out: resemblyzer is not installed.")
        return False
    return True


def over_run(table: Array) -> Array:
    """A mean a prompt over its windows, NaN where it has none."""
    there = np.isfinite(table)
    return np.where(there.any(1), np.where(there, table, 0).sum(1) / np.maximum(there.sum(1), 1), np.nan)


def gains(scores: Scores, ends: Sequence[float]) -> dict[str, dict[str, Estimate]]:
    """By measure and window's end, and over the run: what the full hierarchy gains, paired by prompt."""
    found = {}
    for key, sign in BETTER.items():
        if key in scores:
            more = sign * (scores[key][MODEL] - scores[key][BARE])
            found[key] = {f"{end:g}": estimate(more[:, w]) for w, end in enumerate(ends)}
            found[key][ALL] = gain(sign * over_run(scores[key][MODEL]), sign * over_run(scores[key][BARE]))
    return found


def _write(section: Section, data: Held, scores: Scores, ends: Sequence[float], told: Sequence[int]) -> None:
    keys = [key for key in TITLES if key in scores]
    found: dict[str, dict[str, dict[str, Estimate]]] = {
        system: {
            key: {
                **{f"{end:g}": estimate(scores[key][system][:, w]) for w, end in enumerate(ends)},
                ALL: estimate(over_run(scores[key][system])),
            }
            for key in keys
            if system in scores[key]
        }
        for system in SYSTEMS
    }
    gained, count = gains(scores, ends), len(scores["timbre"][MODEL])
    figures: dict[str, Any] = {"prompts": count, "window": ends[0], "systems": found, "gain": gained}
    section.figures[data.name] = figures
    at = [f"{ends[w]:g}" for w in told]
    rows: list[list[Cell]] = [
        [f"{end} s", system, *(_cell(found[system].get(key, {}).get(end)) for key in keys)]
        for end in at
        for system in SYSTEMS
        if found[system]
    ]
    section.table(
        f"{data.name}, {count} prompts, {ends[0]:g} s up to",
        ["time", "who goes on", *(TITLES[key] for key in keys)],
        rows,
    )
    columns = ["gain of the full hierarchy", *(TITLES[key] for key in gained)]
    lines: list[list[Cell]] = [[f"{end} s", *(gained[key][end] for key in gained)] for end in at]
    section.table(data.name, columns, [*lines, ["the whole run", *(gained[key][ALL] for key in gained)]])
    section.goals += [
        Goal(f"{data.name}: {TITLES[key]}, gain on {BARE} over the run (low end)", gained[key][ALL].low, above=0)
        for key in GOALS
        if key in gained
    ]


def _cell(found: Estimate | None) -> Cell:
    """Means alone: the intervals that count are those of the gains, and a row must be read."""
    return "" if found is None else "-" if found.n == 0 else found.mean
