"""Does a continuation belong to its prompt: key and pace for music, the voice for speech.

Every prompt is compared with what follows it by several hands: the model, the model on another prompt, the model
without its semantic stage (``acoustic_only``), the recording itself, and the recording through the codec, which bounds
what the model can reach. Intervals and gains are over prompts, paired.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from audiolm.eval.clips import QUIET_DB, Held, Prompt, level_db, prompts
from audiolm.eval.music import onset_density, pace_difference, pitch_agreement, pitch_classes
from audiolm.eval.reconstruction import declared_delay, reconstruct
from audiolm.eval.report import Cell, Goal, Progress, Section, quiet, within
from audiolm.eval.speakers import embed, enrolled, nearest, similarity
from audiolm.eval.stats import estimate, gain
from audiolm.model import AudioLM
from audiolm.train.data import TICK
from audiolm.train.shards import Array

MODEL, BARE, CODEC, TRUTH, OTHER = (
    "continuation",
    "acoustic only",
    "recording, coded",
    "recording",
    "another's continuation",
)
SYSTEMS = (MODEL, OTHER, BARE, CODEC, TRUTH)
NEAREST_GOAL, PAPER_NEAREST = 0.6, 0.926
Scores = dict[str, dict[str, list[float]]]  # measure, system: a value a prompt


@dataclass(frozen=True)
class Continued:
    """A prompt and what follows it by each hand, float32 at 16 kHz; ``coded`` is the whole recording, coded."""

    prompt: Prompt
    sounds: Mapping[str, Array]
    coded: Array


def continue_all(
    model: AudioLM, given: Sequence[Prompt], *, seed: int = 0, bare: bool = True, progress: Progress = quiet
) -> list[Continued]:
    """Continue every prompt as long as its recording does; prompt ``i`` with seed ``seed + i``."""
    found = []
    for i, prompt in enumerate(given):
        progress(f"continuation {i + 1} of {len(given)}")
        seconds = len(prompt.truth) / model.sample_rate
        sounds = {MODEL: model.continuation(prompt.sound, seconds, seed=seed + i)}
        if bare:
            sounds[BARE] = model.continuation(prompt.sound, seconds, seed=seed + i, mode="acoustic_only")
        codec = model.parts.codec
        both = np.concatenate((prompt.sound, prompt.truth))
        coded = reconstruct(codec, both, [codec.config.levels])[0][declared_delay(codec) :]
        coded = coded[: len(both)]
        sounds |= {CODEC: coded[len(prompt.sound) :], TRUTH: prompt.truth}
        found.append(Continued(prompt, sounds, coded))
    return found


def others(continued: Sequence[Continued], i: int) -> list[int]:
    """Those whose prompt is of another source than prompt ``i``."""
    return [j for j, each in enumerate(continued) if each.prompt.who != continued[i].prompt.who]


def pairwise(continued: Sequence[Continued], judge: Callable[[int, Array], dict[str, float]]) -> Scores:
    """``judge(i, sound)`` for what follows prompt ``i`` by each hand; a mean over all others' continuations."""
    scores: Scores = {}
    for i, each in enumerate(continued):
        rows = {system: judge(i, sound) for system, sound in each.sounds.items()}
        crossed = [judge(i, continued[j].sounds[MODEL]) for j in others(continued, i)]
        keys = rows[MODEL]
        rows[OTHER] = {key: float(np.mean([row[key] for row in crossed])) if crossed else np.nan for key in keys}
        for key in keys:
            for system, row in rows.items():
                scores.setdefault(key, {}).setdefault(system, []).append(row[key])
    return scores


def music_scores(continued: Sequence[Continued]) -> Scores:
    """``pitch``: correlation of pitch classes with the prompt's; ``pace``: octaves between the onset densities."""
    profiles: dict[int, tuple[Array, float]] = {}

    def look(sound: Array) -> tuple[Array, float]:
        if id(sound) not in profiles:
            profiles[id(sound)] = (pitch_classes(sound), onset_density(sound))
        return profiles[id(sound)]

    def judge(i: int, sound: Array) -> dict[str, float]:
        (a, slow), (b, fast) = look(continued[i].prompt.sound), look(sound)
        return {"pitch": pitch_agreement(a, b), "pace": pace_difference(slow, fast)}

    return pairwise(continued, judge)


def speech_scores(continued: Sequence[Continued], known: Mapping[str, Array]) -> Scores:
    """``speaker``: 1 where the prompt's speaker is the nearest of all known; ``similarity``: cosine to the prompt."""
    heard: dict[int, Array | None] = {}

    def look(sound: Array) -> Array | None:
        if id(sound) not in heard:
            heard[id(sound)] = embed(sound)
        return heard[id(sound)]

    def judge(i: int, sound: Array) -> dict[str, float]:
        prompt, voice = continued[i].prompt, look(sound)
        right = nearest(voice, known) == prompt.who
        return {"speaker": float(right), "similarity": similarity(look(prompt.sound), voice)}

    return pairwise(continued, judge)


def silent_share(sound: Array) -> float:
    """Share of ticks below -50 dBFS."""
    return float(np.mean([level_db(tick) < QUIET_DB for tick in sound.reshape(-1, TICK)]))


def continuation(
    model: AudioLM,
    held: Sequence[Held],
    *,
    count: int = 12,
    heard: float = 6.0,
    seconds: float = 6.0,
    seed: int = 0,
    progress: Progress = quiet,
) -> Section:
    """The section ``continuation`` of the report, corpus by corpus.

    Raises:
        InputError: a corpus has nothing long enough, or a library of the extra ``eval`` is not there.
    """
    section = Section("continuation", "Continuation")
    section.notes.append(
        f"Prompts of {heard:g} s continued for {seconds:g} s. 'recording, coded' is what the codec alone makes of the "
        "truth: no stage can do better."
    )
    for data in held:
        known = enrolled(data.corpus) if data.kind == "speech" else {}
        given = prompts(data, count, heard, seconds, seed)
        made = continue_all(model, given, seed=seed, progress=within(progress, data.name))
        scores = speech_scores(made, known) if data.kind == "speech" else music_scores(made)
        _write(section, data, made, scores)
        section.goals += (
            _speech_goals(data, scores, len(known)) if data.kind == "speech" else _music_goals(data, scores)
        )
    return section


TITLES = {
    "pitch": "pitch-class agreement",
    "pace": "pace difference (octaves)",
    "speaker": "speaker is nearest",
    "similarity": "speaker similarity",
}


def _write(section: Section, data: Held, made: Sequence[Continued], scores: Scores) -> None:
    found = {key: {name: estimate(values) for name, values in by.items()} for key, by in scores.items()}
    present = [name for name in SYSTEMS if name in next(iter(scores.values()))]
    extra = {
        name: (
            estimate([level_db(each.sounds[name]) for each in made]),
            estimate([silent_share(each.sounds[name]) for each in made]),
        )
        for name in present
        if name != OTHER
    }
    rows: list[list[Cell]] = [
        [name, *(by[name] for by in found.values()), *(value.mean for value in extra.get(name, ()))] for name in present
    ]
    columns = ["what follows the prompt", *(TITLES[key] for key in found), "level (dBFS)", "silent share"]
    section.table(
        f"{data.name}, {len(made)} prompts", columns, [row + [""] * (len(columns) - len(row)) for row in rows]
    )
    gains: dict[str, Any] = {
        key: {name: gain(*_order(key, by[MODEL], by[name])) for name in (OTHER, BARE) if name in by}
        for key, by in scores.items()
    }
    section.figures[data.name] = {
        "prompts": len(made),
        **found,
        "gain": gains,
        "level": {name: pair[0] for name, pair in extra.items()},
        "silent_share": {name: pair[1] for name, pair in extra.items()},
    }


def _order(key: str, ours: list[float], theirs: list[float]) -> tuple[list[float], list[float]]:
    """What is better first; a pace difference is better when it is small."""
    return (theirs, ours) if key == "pace" else (ours, theirs)


def _music_goals(data: Held, scores: Scores) -> list[Goal]:
    """Key and pace closer to the prompt than another's continuation and than without semantic tokens."""
    goals = []
    for key in ("pitch", "pace"):
        by = scores[key]
        for name in (OTHER, BARE):
            low = gain(*_order(key, by[MODEL], by[name])).low
            goals.append(Goal(f"{data.name}: {TITLES[key]}, gain on {name} (low end)", low, above=0))
    return goals


def _speech_goals(data: Held, scores: Scores, speakers: int) -> list[Goal]:
    """The prompt's speaker nearest in well over half of the cases; the paper's classifier says 92.6 %."""
    share = estimate(scores["speaker"][MODEL]).mean
    low = gain(scores["similarity"][MODEL], scores["similarity"][OTHER]).low
    return [
        Goal(f"{data.name}: prompt's speaker is the nearest of {speakers}", share, above=NEAREST_GOAL),
        Goal(f"{data.name}: speaker similarity, gain on {OTHER} (low end)", low, above=0),
    ]
