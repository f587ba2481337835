"""A small set of our own in the layout of ZeroSpeech 2021, spoken by espeak-ng, for when the real one is not at hand.

Its non-words exchange one consonant of a word for one that is made alike (p, t, k; b, d, g; m, n; f, s; v, z; l, r)
before a vowel. That keeps spelling and length alike, but not, as Wuggy does, how usual the sequences of sounds are. So
the figures check a model against itself and are not to be put beside those of the real set.
"""

import csv
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TypeVar

from audiolm.errors import InputError
from audiolm.eval.report import Progress, quiet
from audiolm.eval.word_list import COMMON, RARER, TAKEN

VERSION = 1  # of the set; another one makes other figures
VOICES = ("en-us", "en-us+f2")
SPEED = "150"  # words a minute
VOWELS = frozenset("aeiou")
SWAPS = {
    "p": "tk", "t": "pk", "k": "tp", "b": "dg", "d": "bg", "g": "bd",
    "m": "n", "n": "m", "f": "s", "s": "f", "v": "z", "z": "v", "l": "r", "r": "l",
}  # fmt: skip
# Classes of the list, written where the real table has counts in LibriSpeech.
CLASSES = ((COMMON, 200), (RARER, 10))
PER_PHENOMENON = 36
DONE = "done"
T = TypeVar("T")

# -- words --


def non_word(word: str, turn: int = 0) -> str | None:
    """A non-word that is spelt like ``word`` but for one consonant, or None; ``turn`` says which is tried first."""
    made = [word[:i] + new + word[i + 1 :] for i in range(len(word) - 1) for new in _swaps(word, i)]
    made = [each for each in made if each not in KNOWN]
    return made[turn % len(made)] if made else None


def _swaps(word: str, i: int) -> str:
    """What the letter at ``i`` may become: it stands before a vowel, and at the start or behind one."""
    if word[i + 1] not in VOWELS or (i > 0 and word[i - 1] not in VOWELS):
        return ""
    return "".join(new for new in SWAPS.get(word[i], "") if not (new == "g" and word[i + 1] in "ei"))


KNOWN = frozenset(COMMON) | frozenset(RARER) | frozenset(TAKEN)


def words() -> list[tuple[str, str, int]]:
    """Every word that has one with its non-word and its class."""
    both = [(word, non_word(word, i), count) for chosen, count in CLASSES for i, word in enumerate(chosen)]
    return [(word, made, count) for word, made, count in both if made is not None]


# -- sentences --

NAMES = ("Mary", "John", "Anna", "Peter", "Susan", "David")
NOUNS = (
    ("cat", "cats"),
    ("dog", "dogs"),
    ("teacher", "teachers"),
    ("boy", "boys"),
    ("girl", "girls"),
    ("bird", "birds"),
)
VERBS = (
    ("sleeps", "sleep"),
    ("sings", "sing"),
    ("runs", "run"),
    ("waits", "wait"),
    ("plays", "play"),
    ("works", "work"),
)
WHO = (
    ("The woman", "herself", "himself"), ("The man", "himself", "herself"), ("My mother", "herself", "himself"),
    ("My father", "himself", "herself"), ("The girls", "themselves", "himself"), ("The boy", "himself", "themselves"),
)  # fmt: skip
SAW = ("saw", "hurt", "helped", "knew", "dressed", "blamed")
FORMS = (
    ("wrote", "written", "a letter"), ("ate", "eaten", "the bread"), ("took", "taken", "the money"),
    ("broke", "broken", "the glass"), ("gave", "given", "an answer"), ("stole", "stolen", "a book"),
)  # fmt: skip
ADJECTIVES = ("old", "small", "young", "quiet", "happy", "black")
PRONOUNS = (("He", "Him"), ("She", "Her"), ("They", "Them"), ("We", "Us"))


@dataclass(frozen=True)
class Sentence:
    """A sentence and its broken twin, which differ in one thing; names as BLiMP has them where it has them."""

    phenomenon: str
    subtype: str
    right: str
    wrong: str


def sentences() -> list[Sentence]:
    """The pairs of every phenomenon. Those that turn on number go both ways, so that length says nothing."""
    makers = (_determiners, _verbs, _anaphors, _forms, _order, _cases)
    return [each for make in makers for each in list(make())[:PER_PHENOMENON]]


def _determiners() -> Iterator[Sentence]:
    kind = "determiner_noun_agreement"
    for i, (name, (one, many)) in enumerate(product(NAMES, NOUNS)):
        word, right, wrong = ("this", one, many) if i % 2 else ("these", many, one)
        yield Sentence(kind, f"{kind}_{word}", f"{name} likes {word} {right}.", f"{name} likes {word} {wrong}.")


def _verbs() -> Iterator[Sentence]:
    for i, ((one, many), (sings, sing)) in enumerate(product(NOUNS, VERBS)):
        noun, right, wrong, which = (one, sings, sing, "singular") if i % 2 else (many, sing, sings, "plural")
        kind = "subject_verb_agreement"
        yield Sentence(kind, f"{which}_subject", f"The {noun} {right} every day.", f"The {noun} {wrong} every day.")


def _anaphors() -> Iterator[Sentence]:
    for (who, right, wrong), saw in product(WHO, SAW):
        which = "number" if "themselves" in {right, wrong} else "gender"
        yield Sentence(
            "anaphor_agreement", f"anaphor_{which}_agreement", f"{who} {saw} {right}.", f"{who} {saw} {wrong}."
        )


def _forms() -> Iterator[Sentence]:
    for name, (past, participle, what) in product(NAMES, FORMS):
        has = NAMES.index(name) % 2 == 0
        start, right, wrong = (f"{name} has", participle, past) if has else (name, past, participle)
        which = "participle" if has else "past"
        yield Sentence("irregular_forms", f"irregular_{which}", f"{start} {right} {what}.", f"{start} {wrong} {what}.")


def _order() -> Iterator[Sentence]:
    for adjective, (noun, _) in product(ADJECTIVES, NOUNS):
        right, wrong = f"The {adjective} {noun} is here.", f"The {noun} {adjective} is here."
        yield Sentence("word_order", "adjective_noun_order", right, wrong)


def _cases() -> Iterator[Sentence]:
    for (subject, other), (saw, name) in product(PRONOUNS, product(SAW[2:5], NAMES[:3])):
        yield Sentence("pronoun_case", "subject_case", f"{subject} {saw} {name}.", f"{other} {saw} {name}.")


# -- sound and tables --

WORD_COLUMNS = ("id", "filename", "voice", "frequency", "word", "phones", "length", "correct")
SENTENCE_COLUMNS = ("id", "filename", "voice", "type", "subtype", "transcription", "correct")


def synthesizer() -> str:
    """The program.

    Raises:
        InputError: it is not installed.
    """
    found = shutil.which("espeak-ng")
    if found is None:
        raise InputError(
            "the spoken set is made by espeak-ng, which is not installed; install it (apt install espeak-ng) "
            "or give --data with a folder in the layout of ZeroSpeech 2021"
        )
    return found


def speak(
    folder: str | Path, voices: Sequence[str] = VOICES, *, most: int | None = None, progress: Progress = quiet
) -> Path:
    """Write ``lexical/dev`` and ``syntactic/dev`` with their tables and sounds; of ``most`` pairs each, if given.

    Raises:
        InputError: espeak-ng is not there or fails, or the folder cannot be written.
    """
    root, program = Path(folder), synthesizer()
    lexical, syntactic = _spread(words(), most), _spread(sentences(), most)
    texts = [text for word, other, _ in lexical for text in (word, other)]
    phones = dict(zip(texts, phones_of(program, texts, voices[0]), strict=True))
    progress(
        f"espeak-ng speaks {len(lexical)} pairs of words and {len(syntactic)} of sentences in {len(voices)} voices"
    )
    try:
        _write(root / "lexical" / "dev", WORD_COLUMNS, _word_rows(lexical, phones, voices), program)
        _write(root / "syntactic" / "dev", SENTENCE_COLUMNS, _sentence_rows(syntactic, voices), program)
        (root / DONE).write_text(f"{VERSION}\n", encoding="utf8")
    except OSError as error:
        raise InputError(f"the spoken set cannot be written to {root} ({error.strerror})", path=str(root)) from error
    return root


def _spread(items: Sequence[T], most: int | None) -> list[T]:
    """At most so many, spread evenly."""
    count = len(items) if most is None else min(most, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def _word_rows(
    pairs: Iterable[tuple[str, str, int]], phones: dict[str, str], voices: Sequence[str]
) -> Iterator[dict[str, str]]:
    for i, (word, other, count) in enumerate(pairs):
        for v, voice in enumerate(voices):
            for text, correct in ((word, 1), (other, 0)):
                yield {
                    "id": str(i),
                    "filename": f"w{i:04d}-{v}-{correct}",
                    "voice": voice,
                    "frequency": str(count) if correct else "",
                    "word": text,
                    "phones": phones[text],
                    "length": str(len(phones[text].split())),
                    "correct": str(correct),
                }


def _sentence_rows(pairs: Iterable[Sentence], voices: Sequence[str]) -> Iterator[dict[str, str]]:
    for i, pair in enumerate(pairs):
        for v, voice in enumerate(voices):
            for text, correct in ((pair.right, 1), (pair.wrong, 0)):
                yield {
                    "id": str(i),
                    "filename": f"s{i:04d}-{v}-{correct}",
                    "voice": voice,
                    "type": pair.phenomenon,
                    "subtype": pair.subtype,
                    "transcription": text,
                    "correct": str(correct),
                }


def _write(folder: Path, columns: Sequence[str], rows: Iterable[dict[str, str]], program: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "gold.csv").open("w", encoding="utf8", newline="") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        for row in rows:
            table.writerow(row)
            text = row.get("word") or row["transcription"]
            _run([program, "-v", row["voice"], "-s", SPEED, "-z", "-w", str(folder / f"{row['filename']}.wav"), text])


def phones_of(program: str, texts: Sequence[str], voice: str) -> list[str]:
    """The phones of each text as espeak-ng will say them, with spaces between, stress marks left out."""
    said = _run([program, "-v", voice, "-q", "-x", "--sep=_"], "".join(f"{text}.\n" for text in texts))
    lines = [
        " ".join(line.replace("_", " ").translate({ord(c): None for c in "',%="}).split()) for line in said.split("\n")
    ]
    found = [line for line in lines if line]
    if len(found) != len(texts):
        raise InputError(f"espeak-ng gave the phones of {len(found)} of {len(texts)} words; give --data instead")
    return found


def _run(command: list[str], given: str = "") -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)  # noqa: S603 - no shell
    if done.returncode:
        raise InputError(f"espeak-ng failed ({done.stderr.strip() or done.returncode}); give --data instead")
    return done.stdout
