"""A small set of our own for when no recordings are at hand: sentences that espeak-ng speaks, and synthesized pieces.

Both are made by a seeded rule, levelled by the same check as training data (:mod:`audiolm.train.checks`), and written
as a corpus, so that every measure takes them as any other. They show that a measure works and compare bundles with each
other; they sound like neither bundle's training data, so their figures are not to be put beside those of recordings.
Knows nothing of models.
"""

import csv
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from audiolm.errors import InputError
from audiolm.eval.clips import WORDS, Held, Kind
from audiolm.eval.report import Progress, quiet
from audiolm.eval.spoken import sentences, synthesizer
from audiolm.train.checks import Checks, examine
from audiolm.train.data import RATE, write_corpus
from audiolm.train.shards import Array

VERSION = 1  # of both sets; another one makes other figures
TEXTS, FACTS = "texts.csv", "facts.json"
SEED = 7
NOTE = "Measured on the self-contained set ({what}), not on recordings, so no goal is judged; see docs/evaluation.md."
WHAT: dict[Kind, str] = {"speech": "espeak-ng's voices", "music": "synthesized pieces"}

# -- which --


def kind_of(bundle: str, *, pitches: bool) -> Kind:
    """The kind of sound that a bundle is of: as its name tells, else music where its tokenizer hears ``pitches``."""
    found = {WORDS[word] for word in re.split(r"[^a-z]+", Path(bundle).name.lower()) if word in WORDS}
    return found.pop() if len(found) == 1 else "music" if pitches else "speech"


def own_set(kind: Kind, root: Path, progress: Progress = quiet) -> Held:
    """The set in ``root/own_speech-1`` or ``root/own_music-1``, made there the first time.

    Raises:
        InputError: espeak-ng is not there or fails, or the folder cannot be written.
    """
    folder = root / f"own_{kind}-{VERSION}"
    if not (folder / FACTS).exists():
        progress(f"making the set of our own: {WHAT[kind]}, in {folder}")
        try:
            (_speech if kind == "speech" else _music)(folder)
        except OSError as error:
            raise InputError(f"the set of our own cannot be written to {folder} ({error.strerror})") from error
    return Held.open(f"{folder}={kind}")


def texts_of(held: Held, root: Path) -> Path | None:
    """The manifest of the texts that are spoken, with the columns file, text and lang; None for music."""
    path = root / held.name / TEXTS
    return path if path.exists() else None


def is_own(name: str) -> bool:
    """Whether a corpus' name is that of such a set."""
    return re.fullmatch(r"own_(speech|music)-\d+", name) is not None


def _levelled(sound: Array) -> Array:
    """As training data is levelled; InputError where the check refuses it."""
    found = examine(sound.astype(np.float32), Checks())
    if not len(found.samples):
        raise InputError(f"a sound of the set of our own was refused: {found.reason}")
    return found.samples


# -- speech --

VOICES = ("en-us", "en-us+f2", "en-us+m3", "en-us+f4", "en-gb", "en-gb+f3", "en-us+m7", "en-gb+m2")
SPEED = "150"  # words a minute
CLIPS, SENTENCES = 6, 5  # clips a voice, sentences a clip: about 9 s, so that a probe has two pieces of 4 s of each


def _speech(folder: Path) -> None:
    program, spoken = synthesizer(), _texts()
    rows = [(f"{voice.replace('+', '-')}/clip{k}.wav", voice, next(spoken)) for voice in VOICES for k in range(CLIPS)]
    write_corpus(folder, ((name, _levelled(_say(program, voice, text))) for name, voice, text in rows))
    with (folder / TEXTS).open("w", encoding="utf8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("file", "speaker", "lang", "text"))
        table.writerows((name, voice, "en", text) for name, voice, text in rows)
    facts = {"voices": VOICES, "clips": len(rows), "words a minute": int(SPEED)}
    (folder / FACTS).write_text(json.dumps(facts) + "\n", encoding="utf8")


def _texts() -> Iterator[str]:
    """Sentences in a drawn order, five at once, and round again."""
    said = [each.right for each in sentences()]
    order = np.random.default_rng(SEED).permutation(len(said))
    at = 0
    while True:
        yield " ".join(said[order[(at + i) % len(order)]] for i in range(SENTENCES))
        at += SENTENCES


def _say(program: str, voice: str, text: str) -> Array:
    """What espeak-ng says, float32 at 16 kHz."""
    from audiolm.io import read_audio

    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "said.wav"
        command = [program, "-v", voice, "-s", SPEED, "-w", str(path), text]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell
        if done.returncode or not path.exists():
            raise InputError(f"espeak-ng failed ({done.stderr.strip() or done.returncode}); give --data instead")
        return np.asarray(read_audio(path), np.float32)


# -- music --

PIECES, PIECE_SECONDS = 8, 48.0
MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)
STEPS = ((0, 3, 4, 0), (0, 5, 3, 4), (0, 4, 5, 3), (5, 3, 0, 4))  # degrees of the chords, a bar each
PARTIALS = 8
STIFFNESS = 4e-4  # of a middle string: partial k lies at k * f * sqrt(1 + B k^2)


@dataclass(frozen=True)
class Piece:
    """What a synthesized piece is: key (pitch class and mode), beats a minute, and the range of its notes (MIDI)."""

    name: str
    tonic: int
    minor: bool
    beats: int
    lowest: int
    highest: int


def pieces() -> list[Piece]:
    """The pieces: keys a fourth apart, so that no two share one; tempi and ranges spread."""
    return [
        Piece(f"piece{i}", 5 * i % 12, i % 3 == 2, (72, 96, 120, 84, 108, 132, 66, 144)[i], 38 + 2 * i, 70 + 2 * i)
        for i in range(PIECES)
    ]


def note(pitch: int, seconds: float, loud: float = 0.2) -> Array:
    """A struck string: partials that decay, the high ones and high notes faster; float64 at 16 kHz."""
    time = np.arange(int(seconds * RATE)) / RATE
    f, k = 440 * 2 ** ((pitch - 69) / 12), np.arange(1, PARTIALS + 1)
    at = k * f * np.sqrt(1 + STIFFNESS * k**2)
    kept = at < 0.45 * RATE
    decay = (1.2 + 0.5 * k[kept]) * 2 ** ((pitch - 60) / 24)
    tones = np.exp(-np.outer(decay, time)) * np.sin(2 * np.pi * np.outer(at[kept], time))
    attack = np.minimum(time / 0.004, 1) * np.minimum((seconds - time) / 0.02, 1)
    return np.asarray(loud * attack * (tones / k[kept, None] ** 1.2).sum(0))


def play(piece: Piece, seconds: float = PIECE_SECONDS, seed: int = SEED) -> Array:
    """The piece, float32 at 16 kHz: a broken chord a bar, and a melody of steps and small leaps in the scale above."""
    rng, out = np.random.default_rng((seed, piece.tonic, piece.beats)), np.zeros(int(seconds * RATE) + 2 * RATE)
    beat, steps = 60 / piece.beats, STEPS[piece.tonic % len(STEPS)]
    scale = [p for p in range(piece.lowest, piece.highest + 1) if (p - piece.tonic) % 12 in _degrees(piece)]
    low, high = scale[: len(scale) // 2], scale[len(scale) // 2 :]
    at = len(high) // 2
    for k in range(int(seconds / beat)):
        degree = steps[k // 4 % len(steps)]
        chord = [p for p in low if (p - piece.tonic) % 12 in [_degrees(piece)[(degree + i) % 7] for i in (0, 2, 4)]]
        _add(out, k * beat, note(chord[(2 * k) % len(chord)], 2 * beat, 0.12))
        for half in range(1 + int(rng.random() < 0.4)):
            at = int(np.clip(at + rng.integers(-2, 3), 0, len(high) - 1))
            _add(out, (k + half / 2) * beat, note(high[at], 1.5 * beat, 0.2 * rng.uniform(0.7, 1)))
    return out[: int(seconds * RATE)].astype(np.float32)


def _degrees(piece: Piece) -> tuple[int, ...]:
    return MINOR if piece.minor else MAJOR


def _add(out: Array, start: float, sound: Array) -> None:
    at = int(start * RATE)
    sound = sound[: max(len(out) - at, 0)]
    out[at : at + len(sound)] += sound


def _music(folder: Path) -> None:
    made = pieces()
    write_corpus(folder, ((f"{piece.name}.wav", _levelled(play(piece, PIECE_SECONDS))) for piece in made))
    facts = {"pieces": [asdict(piece) for piece in made], "seconds": PIECE_SECONDS}
    (folder / FACTS).write_text(json.dumps(facts) + "\n", encoding="utf8")
