"""Does a continuation belong to its prompt: key, tempo and range for music, voice and prosody for speech.

Every prompt is compared with what follows it by several hands: the model, the model on another prompt, the model
without its semantic stage (``acoustic_only``), the recording itself, the recording through the codec, which bounds
what the model can reach, and other prompts' recordings, which are chance. Intervals and gains are over prompts, paired.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from audiolm.errors import InputError
from audiolm.eval.clips import QUIET_DB, Held, Prompt, level_db, prompts
from audiolm.eval.keys import key_distance, key_of
from audiolm.eval.music import note_range, onset_density, pace_difference, pitch_agreement, pitch_classes, range_overlap
from audiolm.eval.prosody import prosody, prosody_difference
from audiolm.eval.reconstruction import declared_delay, reconstruct
from audiolm.eval.report import Cell, Goal, Progress, Section, quiet, within
from audiolm.eval.speakers import embed, enrolled, nearest, similarity
from audiolm.eval.stats import Estimate, estimate, gain
from audiolm.eval.tempo import tempo, tempo_difference
from audiolm.eval.words import Words, measure_words, write_pace
from audiolm.model import AudioLM
from audiolm.train.data import TICK
from audiolm.train.shards import Array

MODEL, BARE, CODEC, TRUTH, OTHER, CHANCE = (
    "continuation",
    "acoustic only",
    "recording, coded",
    "recording",
    "another's continuation",
    "another's recording",
)
SYSTEMS = (MODEL, OTHER, BARE, CODEC, TRUTH, CHANCE)
NEAREST_GOAL, PAPER_NEAREST = 0.6, 0.926
Scores = dict[str, dict[str, list[float]]]  # measure, system: a value a prompt
SMALLER = frozenset({"pace", "fifths", "tempo", "f0", "f0_range", "voiced", "rate"})  # are differences: less is nearer
WORDS_SHARE = 1.5  # seconds of clips with text a second that is continued
FEWEST = 6  # prompts: under no effect, six of six on one side come by chance in 3 of 100 cases, five of five in 6
T = TypeVar("T")


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
    """``judge(i, sound)`` for what follows prompt ``i`` by each hand.

    For another's, a mean over all others: their continuations by the model, and their recordings.
    """
    scores: Scores = {}
    for i, each in enumerate(continued):
        rows = {system: judge(i, sound) for system, sound in each.sounds.items()}
        for system, hand in ((OTHER, MODEL), (CHANCE, TRUTH)):
            crossed = [judge(i, continued[j].sounds[hand]) for j in others(continued, i)]
            rows[system] = {key: _mean([row[key] for row in crossed]) for key in rows[MODEL]}
        for key in rows[MODEL]:
            for system, row in rows.items():
                scores.setdefault(key, {}).setdefault(system, []).append(row[key])
    return scores


def _mean(values: Sequence[float]) -> float:
    """Of those that are finite; NaN where there is none."""
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else np.nan


def once(look: Callable[[Array], T]) -> Callable[[Array], T]:
    """``look``, taken once of each sound; for sounds that live as long as what this returns."""
    seen: dict[int, T] = {}

    def again(sound: Array) -> T:
        if id(sound) not in seen:
            seen[id(sound)] = look(sound)
        return seen[id(sound)]

    return again


def music_scores(continued: Sequence[Continued]) -> Scores:
    """How a prompt and what follows it are alike.

    ``pitch``: correlation of pitch classes; ``key``: 1 for the same of 24 keys; ``fifths``: steps between them on the
    circle of fifths; ``range``: shared share of the range of notes; ``tempo``: octaves between the tempi, folded;
    ``pace``: octaves between the onset densities.
    """
    classes, notes, beats, pace = once(pitch_classes), once(note_range), once(tempo), once(onset_density)

    def judge(i: int, sound: Array) -> dict[str, float]:
        prompt = continued[i].prompt.sound
        key, other = key_of(classes(prompt)), key_of(classes(sound))
        return {
            "pitch": pitch_agreement(classes(prompt), classes(sound)),
            "key": float(key is not None and key == other),
            "fifths": key_distance(key, other),
            "range": range_overlap(notes(prompt), notes(sound)),
            "tempo": tempo_difference(beats(prompt), beats(sound)),
            "pace": pace_difference(pace(prompt), pace(sound)),
        }

    return pairwise(continued, judge)


def speech_scores(continued: Sequence[Continued], known: Mapping[str, Array]) -> Scores:
    """``speaker``: 1 where the prompt's speaker is the nearest of all known; ``similarity``: cosine to the prompt."""
    voice = once(embed)

    def judge(i: int, sound: Array) -> dict[str, float]:
        prompt = continued[i].prompt
        right = nearest(voice(sound), known) == prompt.who
        return {"speaker": float(right), "similarity": similarity(voice(prompt.sound), voice(sound))}

    return pairwise(continued, judge)


def prosody_scores(continued: Sequence[Continued]) -> Scores:
    """Differences of prosody to the prompt's: see :func:`audiolm.eval.prosody.prosody_difference`."""
    look = once(prosody)
    return pairwise(continued, lambda i, sound: prosody_difference(look(continued[i].prompt.sound), look(sound)))


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
    words: Words | None = None,
    progress: Progress = quiet,
) -> Section:
    """The section ``continuation`` of the report, corpus by corpus. What cannot be told of speech is noted.

    Raises:
        InputError: a corpus has nothing long enough, or a library of the extra ``eval`` other than those for voices is
            not there.
    """
    section = Section("continuation", "Continuation")
    section.notes.append(
        f"Prompts of {heard:g} s continued for {seconds:g} s. 'recording, coded' is what the codec alone makes of the "
        "truth: no stage can do better. 'another's' are means over all other prompts: what chance would give."
    )
    for data in held:
        given = prompts(data, count, heard, seconds, seed)
        told_so = within(progress, data.name)
        made = continue_all(model, given, seed=seed, progress=told_so)
        known = _known(section, data) if data.kind == "speech" else {}
        scores = _speech(made, known) if data.kind == "speech" else music_scores(made)
        _write(section, data, made, scores)
        section.goals += (
            _speech_goals(data, scores, len(known)) if data.kind == "speech" else _music_goals(data, scores)
        )
        if words is not None and data.kind == "speech":
            told_so("words of what follows the prompts")
            following = {name: [each.sounds[name] for each in made] for name in (MODEL, BARE, CODEC, TRUTH)}
            write_pace(section, data.name, following, words)
            total = WORDS_SHARE * count * seconds
            measure_words(section, model, data, words, seconds=total, seed=seed, progress=told_so)
    return section


def _known(section: Section, data: Held) -> dict[str, Array]:
    """Every speaker's voice; none, and a note, where voices cannot be told."""
    try:
        return enrolled(data.corpus)
    except InputError as error:
        section.notes.append(f"{data.name}: whose voice it is was not measured: {error}")
        return {}


def _speech(made: Sequence[Continued], known: Mapping[str, Array]) -> Scores:
    return {**(speech_scores(made, known) if known else {}), **prosody_scores(made)}


TITLES = {
    "pitch": "pitch-class agreement",
    "key": "same key",
    "fifths": "key distance (fifths)",
    "range": "note range shared",
    "tempo": "tempo difference (octaves, folded)",
    "pace": "pace difference (octaves)",
    "speaker": "speaker is nearest",
    "similarity": "speaker similarity",
    "f0": "pitch difference (semitones)",
    "f0_range": "pitch range difference (semitones)",
    "voiced": "voiced share difference",
    "rate": "rate difference (octaves)",
}


def _write(section: Section, data: Held, made: Sequence[Continued], scores: Scores) -> None:
    found = {key: {name: estimate(values) for name, values in by.items()} for key, by in scores.items()}
    present = [name for name in SYSTEMS if name in next(iter(scores.values()))]
    hands = [name for name in present if name in made[0].sounds]
    level = {name: estimate([level_db(each.sounds[name]) for each in made]) for name in hands}
    silent = {name: estimate([silent_share(each.sounds[name]) for each in made]) for name in hands}
    rows: list[list[Cell]] = [
        [name, *(by[name] for by in found.values()), *(by[name].mean if name in by else "" for by in (level, silent))]
        for name in present
    ]
    columns = ["what follows the prompt", *(TITLES[key] for key in found), "level (dBFS)", "silent share"]
    section.table(f"{data.name}, {len(made)} prompts", columns, rows)
    gains = _gains(scores)
    _write_gains(section, data, gains)
    section.figures[data.name] = {
        "prompts": len(made),
        **found,
        "gain": gains,
        "level": level,
        "silent_share": silent,
    }


def _gains(scores: Scores) -> dict[str, dict[str, Estimate]]:
    return {
        key: {name: gain(*_order(key, by[MODEL], by[name])) for name in (OTHER, CHANCE, BARE) if name in by}
        for key, by in scores.items()
    }


def _write_gains(section: Section, data: Held, gains: Mapping[str, Mapping[str, Estimate]]) -> None:
    """The table that says what is kept better than by chance."""
    names = list(next(iter(gains.values())))
    rows: list[list[Cell]] = [
        [TITLES[key], *(by[name] for name in names), _verdict(by[OTHER])] for key, by in gains.items()
    ]
    section.table(
        f"{data.name}: how much nearer to the prompt the continuation is",
        ["measure", *(f"than {name}" for name in names), "kept"],
        rows,
    )


def _verdict(found: Estimate) -> str:
    """Whether the interval of a gain is above zero; of a few prompts an interval says too little."""
    if found.n < FEWEST:
        return "too few prompts" if found.n else "not measured"
    return "yes" if found.low > 0 else "worse than chance" if found.high < 0 else "not shown"


def _order(key: str, ours: list[float], theirs: list[float]) -> tuple[list[float], list[float]]:
    """What is better first; a difference is better when it is small."""
    return (theirs, ours) if key in SMALLER else (ours, theirs)


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
    if "speaker" not in scores:
        return []
    share = estimate(scores["speaker"][MODEL]).mean
    low = gain(scores["similarity"][MODEL], scores["similarity"][OTHER]).low
    return [
        Goal(f"{data.name}: prompt's speaker is the nearest of {speakers}", share, above=NEAREST_GOAL),
        Goal(f"{data.name}: speaker similarity, gain on {OTHER} (low end)", low, above=0),
    ]
