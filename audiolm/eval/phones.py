"""Where the phones of read English lie: forced alignment with the model that comes inside pocketsphinx.

Two passes over a clip: the first aligns its words (``set_align_text``), the second the phones and states inside them
(``set_alignment``). Nothing here knows of tokens; :mod:`audiolm.eval.abx` makes its items from what this finds.
"""

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audiolm.errors import InputError
from audiolm.train.data import Corpus

Array = np.ndarray[Any, Any]
FRAMES_PER_SECOND = 100
SILENCE, UNKNOWN = "SIL", "UNK"
SOUNDS = "AE B K D EH F G HH IH JH K L M N AA P K R S T AH V W K Y Z"
LETTERS = dict(zip("abcdefghijklmnopqrstuvwxyz", SOUNDS.split(), strict=True))
# The pass over states fails on some clips at one width of the beams and succeeds at another (30 clips: 8 fail at the
# default of 1e-48, 3 at 1e-30), so a few are tried.
BEAMS = (1e-30, 1e-48, 1e-20)


@dataclass(frozen=True)
class Phone:
    """A phone from ``start`` to ``end`` in seconds.

    Names are those of CMU without stress, ``SIL`` for pauses and noise, ``UNK`` inside a word that is in no dictionary.
    """

    name: str
    start: float
    end: float


class Aligner:
    """Finds the phones of a clip whose text is known.

    Raises:
        InputError: pocketsphinx is not installed.
    """

    def __init__(self) -> None:
        try:
            from pocketsphinx import Decoder
        except ImportError as error:
            raise InputError(
                "phones are aligned by pocketsphinx; install it with `pip install pocketsphinx`"
            ) from error
        self._decoders: list[Any] = [
            Decoder(lm=None, loglevel="FATAL", beam=beam, pbeam=beam, wbeam=beam**0.6) for beam in BEAMS
        ]
        self._guessed: set[str] = set()

    def words(self, text: str) -> list[str]:
        """The words of ``text`` in lower case, every one of them in the pronunciation dictionary."""
        words = [word.strip("'") for word in re.findall(r"[a-z']+", text.lower())]
        for word in set(filter(None, words)):
            if self._decoders[0].lookup_word(word) is None:
                self._guessed.add(word)
                for decoder in self._decoders:
                    decoder.add_word(word, _spell(word), True)  # noqa: FBT003 -- it takes no keywords
        return [word for word in words if word]

    def align(self, audio: Array, text: str) -> list[Phone] | None:
        """Phones of ``audio`` (float32 ``[T]``, 16 kHz), or None where no alignment is found."""
        words = self.words(text)
        if not words:
            return None
        noisy = audio * 32768.0 + 3 * np.random.default_rng(0).standard_normal(
            len(audio)
        )  # digital silence has no path
        data = np.clip(np.round(noisy), -32768, 32767).astype("<i2").tobytes()
        tries = (self._try(decoder, data, words) for decoder in self._decoders)
        return next((found for found in tries if found), None)

    def _try(self, decoder: Any, data: bytes, words: list[str]) -> list[Phone] | None:
        try:
            decoder.set_align_text(" ".join(words))
            _decode(decoder, data)
            decoder.set_alignment()
            _decode(decoder, data)
        except RuntimeError:  # no path was found inside the beam
            return None
        found = decoder.get_alignment()
        return None if found is None else [self._phone(word, phone) for word in found for phone in word]

    def _phone(self, word: Any, phone: Any) -> Phone:
        name = UNKNOWN if word.name in self._guessed else phone.name
        end = phone.start + phone.duration
        return Phone(name if name.isalpha() else SILENCE, phone.start / FRAMES_PER_SECOND, end / FRAMES_PER_SECOND)


def _decode(decoder: Any, data: bytes) -> None:
    decoder.start_utt()
    decoder.process_raw(data, full_utt=True)
    decoder.end_utt()


def _spell(word: str) -> str:
    """A rough pronunciation of a word that no dictionary has, by its letters: enough to find where it lies."""
    return " ".join(filter(None, (LETTERS.get(letter) for letter in word)))


def align_corpus(corpus: Corpus, texts: Mapping[str, str]) -> dict[str, list[Phone]]:
    """Phones of the clips of ``corpus`` whose text is known and could be aligned, by clip name."""
    aligner, found = Aligner(), {}
    for i, name in enumerate(corpus.names):
        phones = aligner.align(corpus.clip(i), texts[name]) if texts.get(name) else None
        if phones:
            found[name] = phones
    return found


def read_texts(manifest: str | Path, **where: str) -> dict[str, str]:
    """Texts by file of a CSV manifest with columns ``file`` and ``text``, of the rows whose columns equal ``where``.

    Raises:
        InputError: it cannot be read or lacks a column.
    """
    try:
        with Path(manifest).open(encoding="utf8", newline="") as lines:
            rows = list(csv.DictReader(lines))
    except OSError as error:
        raise InputError(f"{manifest} cannot be read ({error.strerror}); expected a CSV manifest") from error
    missing = [column for column in ("file", "text", *where) if rows and column not in rows[0]]
    if not rows or missing:
        raise InputError(f"{manifest} is empty or lacks the columns {missing}; expected file, text and {list(where)}")
    return {row["file"]: row["text"] for row in rows if all(row[key] == value for key, value in where.items())}


def english_texts(manifest: str | Path, **where: str) -> dict[str, str]:
    """Like :func:`read_texts`, of English alone: a column ``lang`` that says another language leaves a row out.

    Raises:
        InputError: the manifest cannot be read or lacks a column.
    """
    texts = read_texts(manifest, **where)
    with Path(manifest).open(encoding="utf8", newline="") as lines:
        others = {row["file"] for row in csv.DictReader(lines) if not (row.get("lang") or "en").startswith("en")}
    return {name: text for name, text in texts.items() if name not in others}


def save_phones(path: str | Path, phones: Mapping[str, list[Phone]]) -> None:
    """Write alignments as JSON: ``{clip: [[name, start, end], ...]}``."""
    rows = {name: [[phone.name, phone.start, phone.end] for phone in clip] for name, clip in phones.items()}
    Path(path).write_text(json.dumps(rows), encoding="utf8")


def load_phones(path: str | Path) -> dict[str, list[Phone]]:
    """Read what :func:`save_phones` wrote.

    Raises:
        InputError: the file is not there or is something else.
    """
    try:
        rows = json.loads(Path(path).read_text(encoding="utf8"))
        return {name: [Phone(str(p), float(a), float(b)) for p, a, b in clip] for name, clip in rows.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{path} holds no phones ({error}); make it with audiolm.eval.phones") from error
