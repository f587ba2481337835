"""Held-out sound for measurements: which clips, which crops of them, whose voice.

All draws are seeded, so equal runs hear the same.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from audiolm.errors import InputError
from audiolm.train.data import RATE, TICK, Corpus
from audiolm.train.shards import Array

Kind = Literal["speech", "music"]
WORDS: dict[str, Kind] = {"speech": "speech", "voice": "speech", "music": "music", "piano": "music"}
QUIET_DB = -50.0
PAUSE = 0.25
ENROL_SECONDS = 20.0


@dataclass(frozen=True)
class Held:
    """A held-out corpus with its name in the report and the kind of its sound, which decides what is measured."""

    name: str
    kind: Kind
    corpus: Corpus

    @classmethod
    def open(cls, item: str) -> "Held":
        """``FOLDER`` or ``FOLDER=speech``, ``FOLDER=music``.

        Raises:
            InputError: no corpus, or its kind is neither given nor in the folder's name.
        """
        folder, _, given = item.rpartition("=") if "=" in item else (item, "", "")
        words = [given.lower()] if given else re.split(r"[^a-z]+", Path(folder).name.lower())
        kinds = [WORDS[word] for word in words if word in WORDS]
        if not kinds:
            what = f"is {given!r}" if given else "is not in its name"
            raise InputError(f"the kind of the corpus {folder} {what}; write {folder}=speech or {folder}=music")
        return cls(Path(folder).name, kinds[0], Corpus.open(folder))


@dataclass(frozen=True)
class Prompt:
    """A prompt and how its recording goes on, float32 at 16 kHz, and the speaker or piece they are of."""

    sound: Array
    truth: Array
    who: str


def level_db(sound: Array) -> float:
    """RMS level in dBFS; -180 for digital silence."""
    return float(20 * np.log10(np.sqrt(np.mean(np.square(sound, dtype=np.float64))) + 1e-9)) if len(sound) else -180.0


def whole(sound: Array) -> Array:
    """The sound without the last part tick."""
    return sound[: len(sound) // TICK * TICK]


def excerpts(corpus: Corpus, count: int, seconds: float, seed: int) -> list[Array]:
    """``count`` crops of up to ``seconds``, whole ticks, of clips spread evenly over the corpus; none is silent.

    Raises:
        InputError: no clip has a second of sound.
    """
    rng = np.random.default_rng(seed)
    long = [i for i in range(len(corpus.names)) if corpus.index[i, 1] >= RATE]
    rounds = -(-count // len(long)) if long else 0
    picks = [long[int(at)] for at in np.linspace(0, len(long), min(count, len(long)), endpoint=False)] if long else []
    found = [_loud_crop(corpus.clip(i), int(seconds * RATE), rng) for i in (picks * rounds)[:count]]
    kept = [whole(crop) for crop in found if crop is not None]
    if not kept:
        raise InputError(
            f"no clip of the {len(corpus.names)} has a second of sound that is not silent; give another corpus"
        )
    return kept


def _loud_crop(clip: Array, most: int, rng: np.random.Generator, tries: int = 8) -> Array | None:
    """A random crop, drawn again while it is silent."""
    length = min(len(clip), most)
    for _ in range(tries):
        start = int(rng.integers(len(clip) - length + 1))
        crop = clip[start : start + length]
        if level_db(crop) > QUIET_DB:
            return crop
    return None


def speaker_of(corpus: Corpus, i: int) -> str:
    """The speaker of clip ``i``: its folder, plus what LibriSpeech's names (speaker-chapter-utterance) begin with."""
    utterance = re.fullmatch(r"(\d+)-\d+-\d+", Path(corpus.names[i]).stem)
    return f"{corpus.folder(i)}/{utterance[1]}" if utterance else corpus.folder(i)


def voices(corpus: Corpus, longest: float = 120.0) -> dict[str, Array]:
    """The sound of each speaker, clips joined by short pauses, at most ``longest`` seconds each."""
    pause, found = np.zeros(int(PAUSE * RATE), np.float32), dict[str, list[Array]]()
    for i in range(len(corpus.names)):
        pieces = found.setdefault(speaker_of(corpus, i), [])
        if sum(map(len, pieces)) < longest * RATE:
            pieces += [corpus.clip(i), pause]
    return {who: np.concatenate(pieces[:-1])[: int(longest * RATE)] for who, pieces in found.items()}


def enrolment(voice: Array, seconds: float = ENROL_SECONDS) -> tuple[Array, Array]:
    """A voice as ``(rest, enrolment)``: its last 40 %, at most ``seconds``, are what the speaker is known by."""
    split = len(voice) - min(int(seconds * RATE), int(0.4 * len(voice)))
    return voice[:split], voice[split:]


def prompts(
    held: Held, count: int, heard: float, made: float, seed: int, *, least: float | None = None
) -> list[Prompt]:
    """``count`` prompts of ``heard`` seconds with the ``made`` seconds that follow, of as many sources as there are.

    Music: random places in random pieces. Speech: the voices without what enrols them. With ``least``, sources of which
    only so many seconds follow are taken too, and their ``truth`` is shorter.

    Raises:
        InputError: nothing is long enough.
    """
    rng, length = np.random.default_rng(seed), int((heard + made) * 25) * TICK
    split = int(heard * 25) * TICK
    after = made if least is None else min(least, made)
    shortest = int((heard + after) * 25) * TICK
    lengths, sound = _sources(held)
    fit = [who for who in sorted(lengths) if lengths[who] >= shortest]
    if not fit or split < TICK or shortest - split < TICK:
        longest = max(lengths.values()) / RATE
        raise InputError(
            f"{held.name}: no prompt of {heard} s with {after} s after it; the longest source has {longest:.1f} s",
            longest=longest,
        )
    ends = {who: min(length, lengths[who] // TICK * TICK) for who in fit}
    found = [_prompt(who, sound(who), ends[who], split, rng) for who in _rounds(fit, count, rng)]
    kept = [prompt for prompt in found if prompt is not None]
    if not kept:
        raise InputError(f"{held.name}: every place that was tried is silent; give another corpus or seed")
    return kept


def _sources(held: Held) -> tuple[dict[str, int], Callable[[str], Array]]:
    """The length of what each speaker or piece has for prompts, and how to get it; pieces are read when asked for."""
    if held.kind == "speech":
        rests = {who: enrolment(voice)[0] for who, voice in voices(held.corpus).items()}
        return {who: len(rest) for who, rest in rests.items()}, rests.__getitem__
    at = {name: i for i, name in enumerate(held.corpus.names)}
    return {name: int(held.corpus.index[i, 1]) for name, i in at.items()}, lambda name: held.corpus.clip(at[name])


def _rounds(names: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """``count`` names, every one before any again."""
    rounds = [names[i] for _ in range(-(-count // len(names))) for i in rng.permutation(len(names))]
    return rounds[:count]


def _prompt(who: str, sound: Array, length: int, split: int, rng: np.random.Generator) -> Prompt | None:
    """A crop that is loud on both sides, or none."""
    for _ in range(8):
        crop = _loud_crop(sound, length, rng)
        if crop is not None and min(level_db(crop[:split]), level_db(crop[split:])) > QUIET_DB:
            return Prompt(crop[:split], crop[split:], who)
    return None
