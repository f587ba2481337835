"""Answers of a listening test: read, joined, counted, with interval and exact test.

Every listener's file is what the page of :mod:`audiolm.eval.listen` saves. Each trial's side, or whether it is a
recording, is drawn by a coin of its own, so under "nobody can tell" the number of right answers of all listeners
together is binomial with one half, whatever they answer. Knows nothing of sound.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiolm.errors import InputError
from audiolm.eval.report import table_lines

RESULTS_FORMAT = "audiolm listening results 1"
TITLES = {
    "real": "Recording or model: right answers",
    "pairs": "Model preferred to acoustic only",
}
RIGHT = "continuation"  # what is counted in a pair
CHOICES = {"real": ("recording", "continuation"), "pairs": ("continuation", "acoustic only")}
Z95 = 1.959963984540054


@dataclass(frozen=True)
class Answer:
    """One trial: what the clips were, as they were shown, and what was answered."""

    test: str
    truth: tuple[str, ...]
    answer: str

    @property
    def right(self) -> bool:
        """``real``: it is what was said. ``pairs``: the model's was chosen."""
        return self.answer == (self.truth[0] if self.test == "real" else RIGHT)


@dataclass(frozen=True)
class Listener:
    """One file of answers."""

    path: str
    page: str
    bundle: str
    name: str
    seed: int
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Count:
    """``right`` of ``n``."""

    right: int
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the share (Wilson 1927)."""
        return wilson(self.right, self.n)

    @property
    def p(self) -> float:
        """Exact, two-sided, against one half."""
        return binomial(self.right, self.n)

    def as_dict(self) -> dict[str, float]:
        """As JSON."""
        low, high = self.interval
        return {"right": self.right, "n": self.n, "share": self.right / self.n, "low": low, "high": high, "p": self.p}


def binomial(right: int, n: int) -> float:
    """Exact two-sided binomial test against one half: how likely is a count as far from the middle, or farther.

    Raises:
        InputError: not 0 <= right <= n.
    """
    if not 0 <= right <= n:
        raise InputError(f"{right} right of {n} cannot be; expected 0 <= right <= n", right=right, n=n)
    tail = sum(math.comb(n, k) for k in range(max(right, n - right), n + 1))
    return min(1.0, float(2 * tail / (1 << n)))  # whole numbers to the end, so exact for any n


def wilson(right: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Score interval of a share (Wilson 1927); (0, 1) of nothing."""
    if not n:
        return 0.0, 1.0
    share, scale = right / n, 1 + z * z / n
    middle = (share + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def read(path: str | Path) -> Listener:
    """One listener's file.

    Raises:
        InputError: it is not there, or not what the page saves.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf8"))
        return _listener(str(path), found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} holds no answers of a listening test ({error!r}); give the JSON that the page saved",
            path=str(path),
        ) from error


def _listener(path: str, found: dict[str, Any]) -> Listener:
    if found["format"] != RESULTS_FORMAT:
        raise ValueError(f"its format is {found['format']!r}, expected {RESULTS_FORMAT!r}")
    answers = tuple(_answer(each) for each in found["trials"])
    if not answers:
        raise ValueError("it holds no trial")
    name, seed = str(found["listener"]), int(found["seed"])
    return Listener(path, str(found["page"]), str(found["bundle"]), name, seed, answers)


def _answer(trial: dict[str, Any]) -> Answer:
    made = Answer(str(trial["test"]), tuple(map(str, trial["truth"])), str(trial["answer"]))
    known = CHOICES.get(made.test)
    if known is None:
        raise ValueError(f"unknown test {made.test!r}")
    whole = made.truth in {(each,) for each in known} if made.test == "real" else sorted(made.truth) == sorted(known)
    if not whole or made.answer not in known:
        raise ValueError(f"a trial of {made.test} has the truth {made.truth} and the answer {made.answer!r}")
    return made


def check(listeners: Sequence[Listener]) -> None:
    """Whether the files can be joined.

    Raises:
        InputError: none, files of different pages, or one twice.
    """
    if not listeners:
        raise InputError("no answers are given; give the JSON files that the page saved")
    pages = {each.page: each for each in listeners}
    if len(pages) > 1:
        one, other = list(pages.values())[:2]
        raise InputError(f"{one.path} and {other.path} are of different pages; give files of one page at a time")
    seen: dict[int, Listener] = {}
    for each in listeners:
        if each.seed in seen:
            raise InputError(
                f"{seen[each.seed].path} and {each.path} have the same seed {each.seed}: they are of one listener; "
                "give one of them",
                seed=each.seed,
            )
        seen[each.seed] = each


def counts(answers: Sequence[Answer]) -> dict[str, Count]:
    """Test by test."""
    tests = [test for test in CHOICES if any(each.test == test for each in answers)]
    of = {test: [each for each in answers if each.test == test] for test in tests}
    return {test: Count(sum(each.right for each in of[test]), len(of[test])) for test in tests}


def said_real(answers: Sequence[Answer]) -> dict[str, tuple[int, int]]:
    """Of recordings and of continuations, how many of how many were called a recording."""
    asked = Counter(each.truth[0] for each in answers if each.test == "real")
    said = Counter(each.truth[0] for each in answers if each.test == "real" and each.answer == "recording")
    return {what: (said[what], asked[what]) for what in CHOICES["real"] if asked[what]}


def summary(listeners: Sequence[Listener]) -> dict[str, Any]:
    """Everything as JSON: all listeners together, and each."""
    every = [answer for each in listeners for answer in each.answers]
    return {
        "page": listeners[0].page,
        "bundle": listeners[0].bundle,
        "all": {test: count.as_dict() for test, count in counts(every).items()},
        "called_recording": {what: {"said": said, "of": of} for what, (said, of) in said_real(every).items()},
        "listeners": [
            {"listener": each.name, "seed": each.seed, **{t: c.as_dict() for t, c in counts(each.answers).items()}}
            for each in listeners
        ],
    }


def lines(listeners: Sequence[Listener]) -> list[str]:
    """The same as Markdown."""
    every = [answer for each in listeners for answer in each.answers]
    out = [f"{listeners[0].bundle}, page {listeners[0].page[:8]}, listeners: {len(listeners)}", ""]
    for test, total in counts(every).items():
        rows = [_row(_shown(each), counts(each.answers)[test]) for each in listeners if test in counts(each.answers)]
        columns = ["listener", "count", "share", "95 % interval", "p"]
        out += [f"{TITLES[test]}:", "", *table_lines(columns, [*rows, _row("all", total)]), ""]
    for what, (said, of) in said_real(every).items():
        out.append(f"Called a recording: {said} of {of} clips that were a {what}.")
    out.append(
        "p: exact two-sided binomial test against one half. Intervals: Wilson's, of the trials as if independent."
    )
    return out


def _shown(listener: Listener) -> str:
    """A name that a table can hold."""
    return (listener.name or f"seed {listener.seed}").replace("|", "/").replace("\n", " ")


def _row(name: str, count: Count) -> list[str]:
    low, high = count.interval
    share = f"{100 * count.right / count.n:.1f} %"
    return [name, f"{count.right} of {count.n}", share, f"{100 * low:.1f} to {100 * high:.1f} %", f"{count.p:.3g}"]
