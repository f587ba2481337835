"""Which of a pair is likelier: words against non-words (sWUGGY), sentences against broken twins (sBLIMP).

Pairs are read in the layout of ZeroSpeech 2021 (arXiv 2011.11588), ``lexical/dev/gold.csv`` with its sounds beside it
and ``syntactic/dev/gold.csv`` likewise, and counted as its tool does: 1, or a half for a tie, averaged over the voices
of a pair first. This module knows no model: a scorer gives each sound its log-likelihood. See docs/evaluation.md.
"""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audiolm.errors import InputError
from audiolm.eval.report import Cell, Goal, Progress, Section, quiet
from audiolm.eval.stats import Estimate, estimate

SPLITS = ("dev", "test")
# Counts of a word in LibriSpeech: each band from its edge up to the next, as the tool cuts them (5 is in "6-20").
BANDS = (("oov", 0), ("1-5", 1), ("6-20", 5), ("21-100", 20), (">100", 100))
NO_BAND, NOT_SAID = "not counted", "not said"
SUFFIXES = ("", ".wav", ".flac")
MOST_DRAWS = 20_000_000  # of one bootstrap, so that 63,000 pairs do not fill the memory
NAMED = 5  # files that a note names


@dataclass(frozen=True)
class Task:
    """One of the two measures: where its pairs lie and what its table has."""

    name: str
    title: str
    folder: str
    columns: tuple[str, ...]
    group: str

    def key(self, row: Mapping[str, str]) -> tuple[str, ...]:
        """What says that two rows are of one pair, whatever the voice."""
        return (row["id"],) if self.name == "swuggy" else (row["type"], row["subtype"], row["id"])


SWUGGY = Task("swuggy", "Words and non-words (sWUGGY)", "lexical", ("frequency", "word", "length"), "frequency")
SBLIMP = Task("sblimp", "Sentences and broken twins (sBLIMP)", "syntactic", ("type", "subtype"), "phenomenon")
SHARED = ("id", "filename", "voice", "correct")


@dataclass(frozen=True)
class Pair:
    """A pair: files of the right one and of the wrong one by voice, the group that it counts in, and a finer one."""

    group: str
    detail: str
    trials: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Gold:
    """The pairs of a split, the folder of their sounds, and what was wrong with the table."""

    task: Task
    folder: Path
    pairs: tuple[Pair, ...]
    faults: tuple[str, ...] = ()

    @property
    def files(self) -> list[str]:
        """Every sound of the pairs, once, in the order of the table."""
        return list(dict.fromkeys(file for pair in self.pairs for trial in pair.trials for file in trial))

    def some(self, most: int | None, seed: int) -> "Gold":
        """At most so many pairs, drawn at random, in the order of the table."""
        if most is None or most >= len(self.pairs):
            return self
        picks = sorted(np.random.default_rng(seed).permutation(len(self.pairs))[:most])
        return Gold(self.task, self.folder, tuple(self.pairs[i] for i in picks), self.faults)


@dataclass(frozen=True)
class Score:
    """Of one sound: the log-likelihood of all its tokens in nats, and how many they are."""

    total: float
    tokens: int

    @property
    def mean(self) -> float:
        """Nats a token: what the field compares."""
        return self.total / self.tokens


Scorer = Callable[[Sequence[np.ndarray[Any, Any]]], list[Score]]
WAYS: dict[str, Callable[[Score], float]] = {
    "mean": lambda score: score.mean,
    "sum": lambda score: score.total,
    "shorter": lambda score: -score.tokens,
}
TITLES = {"mean": "mean a token", "sum": "sum", "shorter": "the shorter one"}


# -- the layout --


def load(root: str | Path, task: Task, split: str = "dev") -> Gold:
    """The pairs of a split of a folder in the layout of ZeroSpeech 2021.

    Rows that say too little, and rows without a partner of the same voice, are left out and reported in ``faults``.

    Raises:
        InputError: there is no table, it lacks columns, or it holds no pair.
    """
    if split not in SPLITS:
        raise InputError(f"the split is {split!r}; expected one of {', '.join(SPLITS)}", split=split)
    folder = Path(root) / task.folder / split
    rows, faults = _rows(folder / "gold.csv", task)
    found: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        found.setdefault(task.key(row), []).append(row)
    made = [_pair(task, group) for group in found.values()]
    pairs = tuple(pair for pair in made if pair is not None)
    if len(pairs) < len(made):
        faults.append(f"{len(made) - len(pairs)} of {len(made)} ids have no right and wrong one of the same voice")
    if not pairs:
        raise InputError(f"{folder / 'gold.csv'} holds no pair ({'; '.join(faults) or 'it has no rows'})")
    return Gold(task, folder, pairs, tuple(faults))


def _rows(path: Path, task: Task) -> tuple[list[dict[str, str]], list[str]]:
    """The rows of a table that can be used, and what was wrong with the others."""
    needed = (*SHARED, *task.columns)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            missing = [name for name in needed if name not in (table.fieldnames or ())]
            rows = [] if missing else list(table)
    except FileNotFoundError:
        raise InputError(
            f"no {path}; give the folder that holds {task.folder}/dev/gold.csv (ZeroSpeech 2021)", path=str(path)
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV ({error})", path=str(path)) from error
    if missing:
        raise InputError(f"{path} lacks the columns {', '.join(missing)}; expected {', '.join(needed)}", path=str(path))
    good = [row for row in rows if row["id"] and row["filename"] and row["correct"] in {"0", "1"}]
    bad = len(rows) - len(good)
    return good, [f"{bad} rows without id, filename or correct of 0 or 1"] if bad else []


def _pair(task: Task, rows: Sequence[Mapping[str, str]]) -> Pair | None:
    """The pair of rows of one id: every right one against every wrong one of the same voice."""
    right = [row for row in rows if row["correct"] == "1"]
    wrong = [row for row in rows if row["correct"] == "0"]
    trials = tuple((a["filename"], b["filename"]) for a in right for b in wrong if a["voice"] == b["voice"])
    if not trials:
        return None
    if task is SWUGGY:
        return Pair(band(right[0]["frequency"]), right[0]["length"] or NOT_SAID, trials)
    return Pair(right[0]["type"] or NOT_SAID, right[0]["subtype"] or NOT_SAID, trials)


def band(frequency: str | None) -> str:
    """The frequency band of a word, or ``not counted`` where there is no number."""
    try:
        count = float(frequency or "")
    except ValueError:
        return NO_BAND
    names = [name for name, edge in BANDS if count >= edge]
    return names[-1] if names else NO_BAND


def find_sound(folder: Path, name: str) -> Path:
    """The file of a name of the table, which has no suffix in the real one; the .wav where there is none."""
    found = (folder / (name + suffix) for suffix in SUFFIXES)
    return next((path for path in found if path.is_file()), folder / f"{name}.wav")


# -- scores --


def score_files(
    gold: Gold, scorers: Mapping[str, Scorer], *, batch: int = 16, progress: Progress = quiet
) -> tuple[dict[str, dict[str, Score]], dict[str, str]]:
    """Scores of every sound by scorer and file, and why some could not be read, by file."""
    from audiolm.io import read_audio

    scores: dict[str, dict[str, Score]] = {name: {} for name in scorers}
    faults: dict[str, str] = {}
    files = gold.files
    for start in range(0, len(files), batch):
        sounds = dict[str, np.ndarray[Any, Any]]()
        for file in files[start : start + batch]:
            try:
                sounds[file] = read_audio(find_sound(gold.folder, file))
            except InputError as error:
                faults[file] = str(error)
        for name, scorer in scorers.items():
            scores[name] |= zip(sounds, scorer(list(sounds.values())) if sounds else [], strict=True)
        if start // batch % 25 == 0:
            progress(f"{min(start + batch, len(files))} of {len(files)} sounds")
    return scores, faults


def outcomes(pairs: Iterable[Pair], scores: Mapping[str, Score], way: str = "mean") -> np.ndarray[Any, Any]:
    """For each pair the share of its voices for which the right one is likelier, ties a half; NaN without a score."""
    value = WAYS[way]
    found = []
    for pair in pairs:
        both = [(value(scores[a]), value(scores[b])) for a, b in pair.trials if a in scores and b in scores]
        points = [0.5 if a == b else float(a > b) for a, b in both]
        found.append(np.mean(points) if points else np.nan)
    return np.array(found)


def percent(values: np.ndarray[Any, Any], seed: int = 0) -> Estimate:
    """The mean of shares in percent, with its interval over pairs."""
    resamples = max(100, min(2000, MOST_DRAWS // max(1, len(values))))
    return estimate(100 * values, seed, resamples)


# -- the section --


def pairs_section(
    gold: Gold,
    scores: Mapping[str, Mapping[str, Score]],
    faults: Mapping[str, str],
    *,
    clusters: Mapping[str, int] | None = None,
    seed: int = 0,
) -> Section:
    """The section of the report. The first model of ``scores`` is told in full, all of them by ``clusters``.

    Raises:
        InputError: no pair has both its sounds.
    """
    task, first = gold.task, next(iter(scores))
    found = {way: outcomes(gold.pairs, scores[first], way) for way in WAYS}
    kept = int(np.isfinite(found["mean"]).sum())
    if not kept:
        why = next(iter(faults.values()), "no sound was scored")
        raise InputError(f"none of the {len(gold.pairs)} pairs under {gold.folder} has both sounds ({why})")
    section = Section(task.name, task.title, figures={"pairs": kept, "sounds": len(scores[first])})
    _whole(section, gold, found, seed)
    _by_group(section, gold, found["mean"], seed)
    _by_model(section, gold, scores, clusters or {}, seed)
    section.notes += _notes(gold, scores[first], kept, faults)
    return section


def parts_of(gold: Gold) -> dict[str, np.ndarray[Any, Any]]:
    """Which pairs the headline figures count: of words those in the vocabulary and all of them, else all."""
    every = np.ones(len(gold.pairs), bool)
    if gold.task is not SWUGGY:
        return {"all": every}
    return {"in vocabulary": np.array([pair.group != "oov" for pair in gold.pairs]), "all": every}


def _whole(section: Section, gold: Gold, found: Mapping[str, np.ndarray[Any, Any]], seed: int) -> None:
    rows: list[list[Cell]] = []
    for name, which in parts_of(gold).items():
        figures = {way: percent(values[which], seed) for way, values in found.items()}
        section.figures[name] = figures
        rows.append([name, *figures.values()])
        if name == next(iter(parts_of(gold))):
            section.goals.append(Goal(f"{gold.task.name}: percent right, {name} (low end)", figures["mean"].low, 50))
    section.table("percent right; chance is 50", ["pairs", *(TITLES[way] for way in WAYS)], rows)


def _by_group(section: Section, gold: Gold, values: np.ndarray[Any, Any], seed: int) -> None:
    """By frequency or phenomenon as a table; finer (length in phones, subtype) among the figures alone."""
    groups, details = [pair.group for pair in gold.pairs], [f"{pair.group}: {pair.detail}" for pair in gold.pairs]
    if gold.task is SWUGGY:
        order, details = [name for name, _ in BANDS] + [NO_BAND], [pair.detail for pair in gold.pairs]
    else:
        order = sorted(set(groups))
    by_group = {name: percent(values[np.array(groups) == name], seed) for name in order if name in groups}
    section.figures[f"by {gold.task.group}"] = by_group
    finer = "length" if gold.task is SWUGGY else "subtype"
    section.figures[f"by {finer}"] = {
        name: percent(values[np.array(details) == name], seed) for name in sorted(set(details))
    }
    rows: list[list[Cell]] = [[name, each.n, each] for name, each in by_group.items()]
    section.table(f"by {gold.task.group}", [gold.task.group, "pairs", "percent right"], rows)


def _by_model(
    section: Section, gold: Gold, scores: Mapping[str, Mapping[str, Score]], clusters: Mapping[str, int], seed: int
) -> None:
    """The sweep: each model with its number of clusters, and what it gains on the first, pair by pair."""
    if len(scores) < 2:
        return
    which = next(iter(parts_of(gold).values()))
    all_of = {name: outcomes(gold.pairs, each)[which] for name, each in scores.items()}
    first = next(iter(all_of))
    figures = {
        name: {
            "clusters": clusters.get(name),
            "percent": percent(values, seed),
            "gain": None if name == first else percent(values - all_of[first], seed),
        }
        for name, values in sorted(all_of.items(), key=lambda item: clusters.get(item[0], 0))
    }
    section.figures["by clusters"] = figures
    rows: list[list[Cell]] = [[name, f["clusters"], f["percent"], f["gain"]] for name, f in figures.items()]
    section.table("by clusters (k)", ["bundle", "k", "percent right", f"points gained on {first}"], rows)


def _notes(gold: Gold, scores: Mapping[str, Score], kept: int, faults: Mapping[str, str]) -> list[str]:
    tokens = np.mean([score.tokens for score in scores.values()])
    first = (
        f"{kept} pairs, {len(scores)} sounds of {tokens:.0f} semantic tokens on average. A pair counts by the mean "
        "log-likelihood a token; the sum, and the choice of the shorter one, stand beside it."
    )
    notes = [first, *(f"In the table: {fault}." for fault in gold.faults)]
    if faults:
        named = "; ".join(list(faults.values())[:NAMED])
        notes.append(f"{len(faults)} sounds could not be read and {len(gold.pairs) - kept} pairs were lost: {named}.")
    return notes


def submission(scores: Mapping[str, Score]) -> str:
    """The scores as ZeroSpeech 2021 takes them: a line a sound, ``NAME SCORE`` (mean nats a token)."""
    return "".join(f"{Path(name).stem} {score.mean:.6f}\n" for name, score in scores.items())
