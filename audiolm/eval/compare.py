"""Two reports of ``audiolm eval`` beside each other: what is set differently, and what moved beyond noise.

A figure with an interval moved where the interval of its difference leaves zero out. That interval is made of the
two: with ``d = b - a`` it goes from ``d - sqrt((b - b_low)^2 + (a_high - a)^2)`` to
``d + sqrt((b_high - b)^2 + (a - a_low)^2)``; where both are even, that is the root of summed squared half-widths (Zou
and Donner 2008, "MOVER"). It takes the two for independent: where both measured the same clips it is cautious. A figure
without an interval is told by its relative change and marked so. Knows nothing of what a figure means, or whether more
of it is better.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiolm.errors import InputError
from audiolm.eval.report import JSON_NAME
from audiolm.eval.stats import Estimate, number

Leaf = Estimate | float | str | None
ESTIMATE_KEYS = {"mean", "low", "high", "n"}


@dataclass(frozen=True)
class Move:
    """A figure that both have: its place, both values, and the interval of their difference where both have one."""

    where: str
    before: Estimate | float
    after: Estimate | float
    low: float | None = None
    high: float | None = None

    @property
    def change(self) -> float:
        """After less before."""
        return middle(self.after) - middle(self.before)

    @property
    def relative(self) -> float:
        """The change as a share of the larger of the two; 0 where both are 0."""
        largest = max(abs(middle(self.before)), abs(middle(self.after)))
        return abs(self.change) / largest if largest else 0.0

    @property
    def measured(self) -> bool:
        """Whether there is an interval."""
        return self.low is not None and self.high is not None

    @property
    def moved(self) -> bool:
        """Whether zero is outside the interval."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        sides = [each.as_dict() if isinstance(each, Estimate) else each for each in (self.before, self.after)]
        found = {"where": self.where, "a": sides[0], "b": sides[1], "change": self.change, "relative": self.relative}
        return {**found, "low": self.low, "high": self.high} if self.measured else found

    def __str__(self) -> str:
        sides = " -> ".join(str(each) if isinstance(each, Estimate) else short(each) for each in self._sides())
        if self.low is not None and self.high is not None:
            return f"{self.where}: {sides}, change {short(self.change)} ({short(self.low)} to {short(self.high)})"
        return f"{self.where}: {sides}, {100 * self.relative:.1f} %, no interval"

    def _sides(self) -> tuple[Estimate | float, Estimate | float]:
        return self.before, self.after


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found; ``only``: places that just one report has, by its name."""

    different: list[tuple[str, Any, Any]]
    only: dict[str, list[str]]
    moves: list[Move]
    texts: list[tuple[str, Any, Any]]
    goals: list[tuple[str, bool, bool]]

    @property
    def beyond(self) -> list[Move]:
        """What moved beyond noise, the farthest of its interval first."""
        found = [move for move in self.moves if move.moved]
        return sorted(found, key=lambda move: -abs(move.change) / (_half(move) or 1e-12))

    def plain(self, least: float) -> list[Move]:
        """Figures without an interval that changed by more than ``least``, a share, the most changed first."""
        found = [move for move in self.moves if not move.measured and move.relative > least]
        return sorted(found, key=lambda move: -move.relative)


def _half(move: Move) -> float:
    return (move.high - move.low) / 2 if move.low is not None and move.high is not None else 0.0


def middle(value: Estimate | float) -> float:
    """The mean of an estimate; a number as it is."""
    return value.mean if isinstance(value, Estimate) else value


def short(value: float) -> str:
    """A number that may be very small: figures of a difference are."""
    return number(value) if value == 0 or abs(value) >= 0.1 else f"{value:.2g}"


# -- reading --


def read(path: str | Path) -> dict[str, Any]:
    """A report of ``audiolm eval``: its ``report.json``, or the folder that holds it.

    Raises:
        InputError: it is not there, or is no report.
    """
    place = Path(path) / JSON_NAME if Path(path).is_dir() else Path(path)
    try:
        report = json.loads(place.read_text(encoding="utf8"))
        kinds = {name: _shape(section) for name, section in report["sections"].items()}
        dict(report.get("versions") or {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _no_report(place, repr(error)) from error
    wrong = [name for name, kind in kinds.items() if kind is not dict]
    if wrong or not kinds:
        raise _no_report(place, f"the figures of {', '.join(wrong)} are no object" if wrong else "it has no sections")
    return dict(report)


def _shape(section: Mapping[str, Any]) -> type:
    """What the figures are; KeyError, TypeError or ValueError where another part is not as a report has it."""
    dict(section.get("settings") or {})
    [(goal["what"], goal["met"]) for goal in section.get("goals", ())]
    return type(section["figures"])


def _no_report(place: Path, why: str) -> InputError:
    return InputError(
        f"{place} is no report of audiolm eval ({why}); give a {JSON_NAME} or the folder that holds it", path=str(place)
    )


def leaves(value: Any, where: str = "") -> Iterator[tuple[str, Leaf]]:
    """Every figure below ``value`` with its place, names joined by ``/``; estimates are whole."""
    if isinstance(value, Mapping) and set(value) == ESTIMATE_KEYS:
        yield where, _estimate(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(item, f"{where}/{key}" if where else str(key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from leaves(item, f"{where}[{i}]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield where, float(value)
    else:
        yield where, None if value is None else str(value)


def _estimate(found: Mapping[str, Any]) -> Estimate | None:
    """None where nothing could be measured."""
    mean, low, high, n = (found[key] for key in ("mean", "low", "high", "n"))
    if any(not isinstance(each, int | float) for each in (mean, low, high, n)):
        return None
    return Estimate(float(mean), float(low), float(high), int(n))


# -- comparing --


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> Comparison:
    """What is different between two reports; ``before`` is called A, ``after`` B."""
    one, other = (_measured(report["sections"]) for report in (before, after))
    common = [name for name in one if name in other]
    a = {key: leaf for name in common for key, leaf in leaves(one[name]["figures"], name)}
    b = {key: leaf for name in common for key, leaf in leaves(other[name]["figures"], name)}
    only = {
        "A": [name for name in one if name not in other] + [key for key in a if key not in b],
        "B": [name for name in other if name not in one] + [key for key in b if key not in a],
    }
    for name, report in (("A", before), ("B", after)):
        only[name] += _failed(report["sections"])
    both = [(key, a[key], b[key]) for key in a if key in b]
    moves, texts = list[Move](), list[tuple[str, Any, Any]]()
    for key, x, y in both:
        if isinstance(x, Estimate | float) and isinstance(y, Estimate | float):
            moves.append(move(key, x, y))
        elif x != y:
            texts.append((key, _told(x), _told(y)))
    return Comparison(differences(before, after, common), only, moves, texts, goals(one, other, common))


def _measured(sections: Mapping[str, Any]) -> dict[str, Any]:
    return {name: section for name, section in sections.items() if not section.get("failed")}


def _failed(sections: Mapping[str, Any]) -> list[str]:
    """What a report could not measure, which is as good as lacking it, and why."""
    failed = {name: section["failed"] for name, section in sections.items() if section.get("failed")}
    return [f"{name}, which could not be measured: {why}" for name, why in failed.items()]


def _told(leaf: Leaf) -> str:
    return "not measured" if leaf is None else str(leaf)


def move(where: str, before: Estimate | float, after: Estimate | float) -> Move:
    """One figure of both; an estimate of a single value has no interval."""
    if not (isinstance(before, Estimate) and isinstance(after, Estimate)) or min(before.n, after.n) < 2:
        return Move(where, before, after)
    change = after.mean - before.mean
    down = math.hypot(after.mean - after.low, before.high - before.mean)
    up = math.hypot(after.high - after.mean, before.mean - before.low)
    return Move(where, before, after, change - down, change + up)


def differences(before: Mapping[str, Any], after: Mapping[str, Any], common: list[str]) -> list[tuple[str, Any, Any]]:
    """Bundle, versions, machine and each common section's settings, where not the same; None is what one lacks."""
    found = [("bundle", before.get("bundle"), after.get("bundle"))]
    found += _pairs("version of ", before.get("versions"), after.get("versions"))
    found += _pairs("machine, ", before.get("machine"), after.get("machine"))
    for name in common:
        settings = [report["sections"][name].get("settings") for report in (before, after)]
        found += _pairs(f"{name}: ", *settings)
    return [(what, x, y) for what, x, y in found if x != y]


def _pairs(what: str, one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> list[tuple[str, Any, Any]]:
    one, other = one or {}, other or {}
    return [(what + key, one.get(key), other.get(key)) for key in dict.fromkeys((*one, *other))]


def goals(one: Mapping[str, Any], other: Mapping[str, Any], common: list[str]) -> list[tuple[str, bool, bool]]:
    """Goals that one report meets and the other does not: what, met by A, met by B."""
    found = []
    for name in common:
        met = [{goal["what"]: bool(goal["met"]) for goal in each[name].get("goals", [])} for each in (one, other)]
        found += [(f"{name}: {what}", met[0][what], met[1][what]) for what in met[0] if what in met[1]]
    return [(what, x, y) for what, x, y in found if x != y]


# -- telling --


def lines(found: Comparison, least: float = 0.05, most: int = 30) -> list[str]:
    """The comparison in words: what is set differently first. At most ``most`` lines a part; JSON has them all."""
    known = [move for move in found.moves if move.measured]
    bare = [move for move in found.moves if not move.measured]
    plain, beyond = found.plain(least), found.beyond
    out = _part("Set differently", [f"{what}: {x} | {y}" for what, x, y in found.different], most)
    for name, places in found.only.items():
        out += _part(f"Only in {name}", places, most) if places else []
    head = f"Moved beyond noise: {len(beyond)} of {len(known)} figures with an interval"
    by_chance = f" (about {0.05 * len(known):.0f} would by chance alone)" if len(known) >= 10 else ""
    out += _part(head + by_chance, list(map(str, beyond)), most)
    head = f"Changed by more than {100 * least:g} %, no interval: {len(plain)} of {len(bare)} figures without one"
    out += _part(head, list(map(str, plain)), most)
    if found.texts:
        out += _part("Not numbers", [f"{what}: {x} | {y}" for what, x, y in found.texts], most)
    if found.goals:
        words = {True: "met", False: "not met"}
        out += _part("Goals", [f"{what}: {words[x]} -> {words[y]}" for what, x, y in found.goals], most)
    return out


def _part(head: str, items: list[str], most: int) -> list[str]:
    shown = [f"  {item}" for item in items[:most]] or ["  nothing"]
    left = [f"  and {len(items) - most} more; --json has them all"] if len(items) > most else []
    return [head, *shown, *left]


def as_dict(found: Comparison, least: float = 0.05) -> dict[str, Any]:
    """The comparison as JSON."""
    return {
        "different": [{"what": what, "a": x, "b": y} for what, x, y in found.different],
        "only": found.only,
        "moved": [move.as_dict() for move in found.beyond],
        "changed_without_interval": [move.as_dict() for move in found.plain(least)],
        "texts": [{"where": where, "a": x, "b": y} for where, x, y in found.texts],
        "goals": [{"what": what, "a": x, "b": y} for what, x, y in found.goals],
        "compared": {
            "with_interval": sum(move.measured for move in found.moves),
            "without": sum(not move.measured for move in found.moves),
        },
    }
