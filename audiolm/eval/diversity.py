"""How different are a model's continuations: of one prompt under several seeds, and of different prompts.

A model that always says the same has no diversity; one that says the same whatever it heard does not listen. So the
distances between continuations of one prompt stand between two others: those of one seed twice, which must be none, and
those between prompts, which should be larger. Distances between recordings say how far real sounds are apart. Sounds
are float32 at 16 kHz; tokens are heard from them again, behind their prompt. The sampling is the bundle's.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from audiolm.eval.clips import Held, Kind, Prompt, prompts
from audiolm.eval.listened import token_nats
from audiolm.eval.music import pitch_agreement, pitch_classes
from audiolm.eval.report import Cell, Goal, Progress, Section, quiet, within
from audiolm.eval.stats import Estimate, estimate, gain
from audiolm.eval.timbre import timbre, timbre_distance
from audiolm.model import AudioLM
from audiolm.parts import Parts
from audiolm.train.data import TICK
from audiolm.train.shards import Array

AGAIN, SEEDS, PROMPTS, TRUTH = "the same seed again", "other seeds", "other prompts", "recordings, other sources"
GROUPS = (AGAIN, SEEDS, PROMPTS, TRUTH)
TITLES = {
    "samples": "share of samples that differ",
    "tokens": "distance in tokens",
    "pairs": "distance in pairs of tokens",
    "pitch": "distance in pitch classes",
    "timbre": "timbre distance",
}
GOALS = ("tokens", "pitch")  # pairs of tokens are nearly all different whatever was heard
Distances = dict[str, dict[str, list[float]]]  # measure, group: a value a prompt


@dataclass(frozen=True)
class Look:
    """A continuation as it is compared."""

    sound: Array
    tokens: Array
    colour: Array
    pitch: Array | None


@dataclass(frozen=True)
class Several:
    """A prompt's continuations by seed, the first seed's once more, and its recording."""

    who: str
    made: Sequence[Look]
    again: Look
    truth: Look


# -- distances --


def changes(tokens: Array) -> Array:
    """Tokens without repeats: a held note is one, however long."""
    return tokens[np.flatnonzero(np.diff(tokens, prepend=-1))] if len(tokens) else tokens


def gram_distance(a: Array, b: Array, size: int) -> float:
    """One less the overlap of the n-grams of two token sequences, repeats counted once: 0 the same, 1 none in common.

    Overlap is what both have, each n-gram as often as the one that has it less, over the mean of their numbers (Dice).
    """
    x, y = (Counter(zip(*(changes(each)[i:].tolist() for i in range(size)), strict=False)) for each in (a, b))
    both = (x.total() + y.total()) / 2
    return 1 - (x & y).total() / both if both else 0.0


def distances(a: Look, b: Look) -> dict[str, float]:
    """Every distance of two continuations; all are 0 for a copy."""
    size = min(len(a.sound), len(b.sound))
    found = {
        "samples": float(np.mean(a.sound[:size] != b.sound[:size])),
        "tokens": gram_distance(a.tokens, b.tokens, 1),
        "pairs": gram_distance(a.tokens, b.tokens, 2),
        "timbre": timbre_distance(a.colour, b.colour),
    }
    if a.pitch is not None and b.pitch is not None:
        same = np.array_equal(a.pitch, b.pitch)  # silence, too, agrees with its copy
        found["pitch"] = 0.0 if same else 1 - pitch_agreement(a.pitch, b.pitch)
    return {key: found[key] for key in TITLES if key in found}


def look(parts: Parts, prompt: Array, sound: Array, kind: Kind) -> Look:
    """Hear a continuation again behind its prompt."""
    tokens = token_nats(parts, [np.concatenate((prompt, sound))])[0][0][len(prompt) // TICK :]
    return Look(sound, tokens, timbre(sound), pitch_classes(sound) if kind == "music" else None)


def compared(several: Sequence[Several]) -> Distances:
    """The mean distance of each prompt's pairs, group by group; NaN where a group has none."""
    found: Distances = {}
    for i, one in enumerate(several):
        others = [each for j, each in enumerate(several) if j != i and each.who != one.who]
        groups = {
            AGAIN: [(one.made[0], one.again)],
            SEEDS: list(combinations(one.made, 2)),
            PROMPTS: [(a, b) for each in others for a in one.made for b in each.made],
            TRUTH: [(one.truth, each.truth) for each in others],
        }
        rows = {name: [distances(a, b) for a, b in pairs] for name, pairs in groups.items()}
        for key in rows[AGAIN][0]:
            for name, values in rows.items():
                mean = float(np.mean([row[key] for row in values])) if values else float("nan")
                found.setdefault(key, {}).setdefault(name, []).append(mean)
    return found


# -- the section --


def diversity(
    model: AudioLM,
    held: Sequence[Held],
    *,
    count: int = 4,
    seeds: int = 4,
    heard: float = 6.0,
    seconds: float = 5.0,
    seed: int = 0,
    progress: Progress = quiet,
) -> Section:
    """The section ``diversity`` of the report: ``count`` prompts a corpus under ``seeds`` seeds each.

    Raises:
        InputError: a corpus has nothing long enough.
    """
    section = Section("diversity", "Diversity over seeds")
    for data in held:
        given = prompts(data, count, heard, seconds, seed)
        told = within(progress, data.name)
        several = [
            _continued(model, prompt, data.kind, range(seed, seed + seeds), within(told, f"prompt {i + 1} of {count}"))
            for i, prompt in enumerate(given)
        ]
        _write(section, data, compared(several), seeds)
    section.notes.append(
        f"Prompts of {heard:g} s continued for {seconds:g} s; distances between two continuations, 0 for a copy. "
        "Tokens are semantic, repeats counted once; 1 is none in common. Intervals are over prompts. A model whose "
        "continuations of one prompt are no closer than those of other prompts does not listen to it."
    )
    return section


def _continued(model: AudioLM, prompt: Prompt, kind: Kind, seeds: Sequence[int], progress: Progress) -> Several:
    seconds = len(prompt.truth) / model.sample_rate
    made = list[Look]()
    for each in (*seeds, seeds[0]):
        progress(f"seed {each}")
        made.append(look(model.parts, prompt.sound, model.continuation(prompt.sound, seconds, seed=each), kind))
    return Several(prompt.who, made[:-1], made[-1], look(model.parts, prompt.sound, prompt.truth, kind))


def _write(section: Section, data: Held, found: Distances, seeds: int) -> None:
    means: dict[str, dict[str, Estimate]] = {
        key: {name: estimate(values) for name, values in by.items()} for key, by in found.items()
    }
    gains = {key: gain(by[PROMPTS], by[SEEDS]) for key, by in found.items()}
    keys = [key for key in means if key != "samples"]
    rows: list[list[Cell]] = [[name, *(means[key][name] for key in keys)] for name in GROUPS]
    rows.append(["other prompts less other seeds", *(gains[key] for key in keys)])
    count = len(next(iter(found.values()))[AGAIN])
    columns = ["a continuation beside", *(TITLES[key] for key in keys)]
    section.table(f"{data.name}, {count} prompts, {seeds} seeds each", columns, rows)
    figures: dict[str, Any] = {"prompts": count, "seeds": seeds, "distance": means, "gain": gains}
    section.figures[data.name] = figures
    section.goals += goals(data.name, found, gains)


def goals(name: str, found: Mapping[str, Mapping[str, Sequence[float]]], gains: Mapping[str, Estimate]) -> list[Goal]:
    """One seed gives one sound, two seeds give two, and continuations are closest to those of their own prompt."""
    again, seeds = sum(value > 0 for value in found["samples"][AGAIN]), min(found["pairs"][SEEDS])
    made = [
        Goal(f"{name}: prompts whose sound is another with {AGAIN}", again, below=1),
        Goal(f"{name}: {TITLES['pairs']}, {SEEDS}, least of all prompts", seeds, above=0),
    ]
    return made + [
        Goal(f"{name}: {TITLES[key]}, {PROMPTS} less {SEEDS} (low end)", gains[key].low, above=0)
        for key in GOALS
        if key in gains
    ]
