"""Both sides of "real or continued?": recordings through a bundle's codec, and the bundle's own continuations.

Both went through the same codec, door and engine, so a detector that tells them apart has heard the modelling and not
the codec. Pairs are kept one a file as they come, so that a run which was stopped goes on; the same seed draws the
same pairs. Nothing here knows what a detector is.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from audiolm.codec import stream_reconstruct
from audiolm.door import Door
from audiolm.errors import InputError
from audiolm.eval.clips import QUIET_DB, Held, level_db, speaker_of, whole
from audiolm.eval.report import Progress, quiet
from audiolm.lockstep import Lockstep
from audiolm.model import AudioLM
from audiolm.parts import Parts
from audiolm.sampler import Sampling
from audiolm.train.data import RATE, TICK, Corpus
from audiolm.train.shards import Array
from audiolm.train.sources import piece_of

SETTLE = 1.0  # seconds of a coded recording before it is used: the codec's start is no cue
TRIES = 8
ABREAST = 32  # pairs that are made side by side
HEAT = (1.0, 1.0, 0.9, 1.1)  # times the bundle's temperatures, in turn


@dataclass(frozen=True)
class Side:
    """How the two sides are drawn.

    Attributes:
        heard: seconds of a prompt.
        seconds: of a continuation, and at most of a coded recording.
        seed: of everything drawn.
        heat: factors on the bundle's temperatures, taken in turn.
        mode: of the continuations: ``continue``, ``acoustic_only`` or ``dream``.
    """

    heard: float = 3.0
    seconds: float = 7.0
    seed: int = 0
    heat: Sequence[float] = HEAT
    mode: str = "continue"


@dataclass(frozen=True)
class Pair:
    """A continuation and a coded recording, float32 at 16 kHz, of unrelated places; ``raw`` is the recording as it was.

    ``who`` is the speaker or piece of the recording, ``asked`` that of the continuation's prompt.
    """

    made: Array
    coded: Array
    raw: Array
    who: str
    asked: str


def crop(held: Held, seconds: float, rng: np.random.Generator) -> tuple[Array, str]:
    """A random place of a random clip of a random speaker or folder, whole ticks, at most ``seconds``, and whose it is.

    Every speaker is as likely as any other, so that those with many recordings do not stand for all.

    Raises:
        InputError: eight places in a row were silent or too short.
    """
    clips = by_group(held.corpus)
    names = sorted(clips)
    for _ in range(TRIES):
        group = names[int(rng.integers(len(names)))]
        at = clips[group][int(rng.integers(len(clips[group])))]
        clip = held.corpus.clip(at)
        length = min(len(clip), int(seconds * RATE))
        start = int(rng.integers(len(clip) - length + 1))
        sound = whole(clip[start : start + length])
        if level_db(sound) > QUIET_DB:
            return sound, source_of(held, at)
    raise InputError(f"{held.name}: {TRIES} places that were tried are silent; give another corpus or seed")


def strangers(held: Sequence[Held], count: int, seconds: float, seed: int) -> list[Array]:
    """``count`` places of other corpora, in turn; none where there is no corpus.

    Raises:
        InputError: a corpus is silent.
    """
    rng = np.random.default_rng([seed, 9])
    return [crop(held[i % len(held)], seconds, rng)[0] for i in range(count if held else 0)]


def by_group(corpus: Corpus) -> dict[str, list[int]]:
    """The clips of each speaker or folder."""
    found = dict[str, list[int]]()
    for i in range(len(corpus.names)):
        found.setdefault(corpus.folder(i), []).append(i)
    return found


def source_of(held: Held, i: int) -> str:
    """The speaker or the piece of a clip, by which sounds are divided."""
    return speaker_of(held.corpus, i) if held.kind == "speech" else piece_of(held.corpus.names[i])


@dataclass(frozen=True)
class Draw:
    """What a pair is made of: a prompt, the noise and the sampling, and the recording that stands beside it."""

    prompt: Array
    asked: str
    seed: int
    sampling: dict[str, Sampling]
    sound: Array
    who: str

    @property
    def cut(self) -> int:
        """Samples of the coded recording that are left out."""
        return int(SETTLE * RATE) // TICK * TICK if len(self.sound) > 3 * SETTLE * RATE else 0

    def pair(self, made: Array, coded: Array) -> Pair:
        """With what came of it."""
        return Pair(made, coded[self.cut : len(self.sound)], self.sound[self.cut :], self.who, self.asked)


def draw(parts: Parts, held: Held, side: Side, number: int) -> Draw:
    """The same whenever it is asked for."""
    rng = np.random.default_rng([side.seed, number])
    factor = side.heat[number % len(side.heat)]
    warm = {name: replace(how, temperature=how.temperature * factor) for name, how in parts.sampling.items()}
    seed = int(rng.integers(1 << 32))
    prompt, asked = crop(held, side.heard, rng)
    return Draw(prompt, asked, seed, warm, *crop(held, side.seconds + SETTLE, rng))


def make_pair(player: AudioLM, held: Held, side: Side, number: int) -> Pair:
    """Pair ``number``, on the engine that is heard; give a player that sets no watermark."""
    drawn = draw(player.parts, held, side, number)
    warmth = {name: how.temperature for name, how in drawn.sampling.items()}
    prompt = None if side.mode == "dream" else drawn.prompt
    made = player.continuation(prompt, side.seconds, seed=drawn.seed, mode=side.mode, temperature=warmth)
    return drawn.pair(made, player.continuation(drawn.sound, mode="reconstruct"))


def make_pairs(parts: Parts, held: Sequence[Held], side: Side, numbers: Sequence[int]) -> list[Pair]:
    """Many pairs side by side on the reference, continuations of mode ``continue``: a third of the work of one by one.

    Raises:
        EngineError: a model that is not stepped so; see :class:`audiolm.lockstep.Lockstep`.
    """
    drawn = [draw(parts, held[number % len(held)], side, number) for number in numbers]
    made = _continued(
        Lockstep(parts, len(drawn), graphs=False, truncates=True), drawn, round(side.seconds * RATE / TICK)
    )
    return [one.pair(*sounds) for one, *sounds in zip(drawn, made, _coded(parts, drawn), strict=True)]


def _continued(lockstep: Lockstep, drawn: Sequence[Draw], ticks: int) -> Array:
    """``[pairs, samples]``: every slot hears its prompt, then all go on together."""
    for one in drawn:
        lockstep.open(one.seed, sampling=one.sampling)
    prompts, nobody = [_through_door(one.prompt) for one in drawn], np.zeros(len(drawn), np.bool_)
    audio = np.zeros((len(drawn), TICK), np.float32)
    for at in range(0, max(map(len, prompts)), TICK):
        heard = np.array([len(prompt) > at for prompt in prompts])
        for slot in np.flatnonzero(heard):
            audio[slot] = prompts[slot][at : at + TICK]
        lockstep.tick(heard, nobody, audio)
    return np.concatenate([lockstep.tick(nobody, ~nobody).sound.copy() for _ in range(ticks)], 1)


def _through_door(sound: Array) -> Array:
    """As a session takes it in."""
    door = Door()
    state = door.init_state()
    return np.concatenate([door.step(sound[at : at + TICK], state) for at in range(0, len(sound), TICK)])


@torch.inference_mode()
def _coded(parts: Parts, drawn: Sequence[Draw]) -> Array:
    """``[pairs, samples]``: the recordings through door and codec, with silence behind the shorter ones."""
    sounds = [_through_door(one.sound) for one in drawn]
    padded = np.zeros((len(sounds), max(map(len, sounds))), np.float32)
    for row, sound in zip(padded, sounds, strict=True):
        row[: len(sound)] = sound
    return np.asarray(stream_reconstruct(parts.codec, torch.from_numpy(padded)).numpy())


class Store:
    """Pairs in a folder, one a file, with the settings that they were made with."""

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        """Open or make it.

        Raises:
            InputError: the folder holds pairs of other settings, or cannot be written.
        """
        self.folder = folder
        known, path = json.loads(json.dumps(settings)), folder / "settings.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            before = json.loads(path.read_text(encoding="utf8")) if path.exists() else known
            path.write_text(json.dumps(known, indent=2) + "\n", encoding="utf8")
        except (OSError, json.JSONDecodeError) as error:
            raise InputError(f"{folder} cannot keep pairs ({error}); give another folder", path=str(folder)) from error
        if before != known:
            path.write_text(json.dumps(before, indent=2) + "\n", encoding="utf8")
            odd = sorted(key for key in {*before, *known} if before.get(key) != known.get(key))
            raise InputError(f"{folder} holds pairs made with another {', '.join(odd)}; give another folder")

    def path(self, number: int) -> Path:
        """Where pair ``number`` is."""
        return self.folder / f"pair_{number:05d}.npz"

    def write(self, number: int, pair: Pair) -> None:
        """Keep a pair as int16; it appears whole or not at all."""
        made, coded, raw = pcm(pair.made), pcm(pair.coded), pcm(pair.raw)
        hidden = self.folder / f".{number:05d}.{os.getpid()}.npz"
        np.savez(hidden, who=pair.who, asked=pair.asked, made=made, coded=coded, raw=raw)
        hidden.replace(self.path(number))

    def read(self, number: int) -> Pair:
        """Pair ``number``.

        Raises:
            InputError: the file is damaged.
        """
        path = self.path(number)
        try:
            with np.load(path, allow_pickle=False) as file:
                made, coded, raw = (file[key].astype(np.float32) / 32768 for key in ("made", "coded", "raw"))
                return Pair(made, coded, raw, str(file["who"]), str(file["asked"]))
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path} is damaged ({error}); delete it and go on", path=str(path)) from error


def pcm(sound: Array) -> Array:
    """float32 in -1..1 as int16."""
    return np.asarray(np.clip(np.round(sound * 32768), -32768, 32767).astype(np.int16))


def pairs(player: AudioLM, held: Sequence[Held], side: Side, count: int, progress: Progress = quiet) -> Iterator[Pair]:
    """``count`` pairs on the engine of ``player``, the corpora in turn.

    Raises:
        InputError: nothing in a corpus can be used.
    """
    for number in range(count):
        yield make_pair(player, held[number % len(held)], side, number)
        if number % 10 == 9:
            progress(f"{number + 1} of {count} pairs")


def stored(
    parts: Parts, held: Sequence[Held], side: Side, count: int, folder: Path, *, progress: Progress = quiet
) -> Iterator[Pair]:
    """``count`` pairs, many at a time; those in ``folder`` are read, the others made and kept there.

    Raises:
        InputError: nothing in a corpus can be used, or the folder holds other pairs.
        EngineError: see :func:`make_pairs`.
    """
    store = Store(folder, _settings(parts, held, side))
    for first in range(0, count, ABREAST):
        numbers = range(first, min(first + ABREAST, count))
        left = [number for number in numbers if not store.path(number).exists()]
        if left:
            for number, pair in zip(left, make_pairs(parts, held, side, left), strict=True):
                store.write(number, pair)
            progress(f"{numbers.stop} of {count} pairs, {numbers.stop * side.seconds / 60:.1f} min of continuations")
        yield from map(store.read, numbers)


def _settings(parts: Parts, held: Sequence[Held], side: Side) -> dict[str, object]:
    known = asdict(replace(side, heat=list(side.heat)))
    data = [f"{each.name} {each.kind} {each.corpus.seconds:.1f} s" for each in held]
    return known | {"bundle": parts.fingerprint or parts.name, "data": data}
