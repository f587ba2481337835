"""How well features tell phones apart: the ABX error of ZeroSpeech (arXiv 2011.11588, Libri-light arXiv 1912.07875).

An item is a triphone as it was spoken: a phone with its two neighbours. A and X are of one triphone, B differs from
them in the middle phone only; A and B come from one speaker, X from the same (*within*) or another (*across*). The
error is the share of cases where X is nearer to B. Nearness is dynamic time warping over the angle between frames, or
over equal or not for tokens, divided by the length of the path. Errors are averaged over contexts (and, across, over
the speakers of X), then over the speakers of A and B, then over phone pairs.

Here are arrays only; where phones lie is found by :mod:`audiolm.eval.phones` or read by :mod:`audiolm.eval.items`.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from audiolm.errors import InputError
from audiolm.eval.phones import SILENCE, UNKNOWN, Phone
from audiolm.eval.stats import Estimate

Array = np.ndarray[Any, Any]
Key = tuple[str, ...]
T = TypeVar("T")
MOST, MOST_SPEAKERS = 10, 5  # items of a kind, and speakers of X for an A: as ZeroSpeech takes them
CHUNK = 2_000_000  # cells of the warping's tables that are held at once
RESAMPLES = 1000


@dataclass(frozen=True)
class Item:
    """A spoken triphone: ``phone`` between the ``context``; ``start`` to ``end`` in seconds, neighbours included."""

    clip: str
    speaker: str
    context: tuple[str, str]
    phone: str
    start: float
    end: float


@dataclass(frozen=True)
class Case:
    """Numbers of items: every X is held against every A (itself apart) and every B."""

    phones: tuple[str, str]
    speakers: tuple[str, str]
    a: tuple[int, ...]
    b: tuple[int, ...]
    x: tuple[int, ...]


@dataclass(frozen=True)
class Score:
    """An ABX error, 0 to 1 (chance 0.5), over ``cases`` cells of speaker, context and phone pair.

    ``low`` and ``high``: 95 %, by bootstrap over the unordered pairs of phones, of which there are ``pairs``.
    """

    error: float
    cases: int
    low: float
    high: float
    pairs: int

    @property
    def percent(self) -> Estimate:
        """The error in percent."""
        return Estimate(100 * self.error, 100 * self.low, 100 * self.high, self.pairs)


def triphones(phones: Mapping[str, Sequence[Phone]], speaker: Callable[[str], str]) -> list[Item]:
    """Items of aligned clips; ``speaker`` gives a clip's. None touches a pause or a word that no dictionary has."""
    items = []
    for clip, said in phones.items():
        for before, middle, after in zip(said, said[1:], said[2:], strict=False):
            if not {before.name, middle.name, after.name} & {SILENCE, UNKNOWN}:
                context = (before.name, after.name)
                items.append(Item(clip, speaker(clip), context, middle.name, before.start, after.end))
    return items


# -- cases --


def within_cases(items: Sequence[Item], most: int = MOST, seed: int = 0) -> list[Case]:
    """Cases where A, B and X are of one speaker; at most ``most`` items of a kind, drawn by ``seed``."""
    groups, cases = _groups(items, most, seed), []
    for speakers in groups.values():
        for name, phones in speakers.items():
            cases += [
                Case((a, b), (name, name), phones[a], phones[b], phones[a])
                for a in phones
                for b in phones
                if a != b and len(phones[a]) > 1
            ]
    return cases


def across_cases(
    items: Sequence[Item], most: int = MOST, seed: int = 0, speakers: int | None = MOST_SPEAKERS
) -> list[Case]:
    """Cases where X is of another speaker than A and B: of each of up to ``speakers`` others, drawn by ``seed``."""
    groups, cases, rng = _groups(items, most, seed), [], np.random.default_rng(seed)
    for voices in groups.values():
        for name, phones in voices.items():
            for a in phones if len(phones) > 1 else ():
                others = _some([other for other in voices if other != name and a in voices[other]], speakers, rng)
                cases += [
                    Case((a, b), (name, other), phones[a], phones[b], voices[other][a])
                    for other in others
                    for b in phones
                    if b != a
                ]
    return cases


def _some(values: list[T], most: int | None, rng: np.random.Generator) -> list[T]:
    if most is None or len(values) <= most:
        return values
    return [values[i] for i in sorted(rng.permutation(len(values))[:most].tolist())]


def some_cases(cases: list[Case], most: int | None, seed: int = 0) -> list[Case]:
    """At most so many cases, drawn at random, in their order."""
    return _some(cases, most, np.random.default_rng(seed))


def without(cases: Sequence[Case], lost: set[int]) -> list[Case]:
    """The cases without the ``lost`` items; those that nothing can be compared in any more are gone."""
    if not lost:
        return list(cases)
    left = []
    for case in cases:
        a, b, x = (tuple(i for i in side if i not in lost) for side in (case.a, case.b, case.x))
        if b and any(i != j for i in x for j in a):
            left.append(Case(case.phones, case.speakers, a, b, x))
    return left


def _groups(items: Sequence[Item], most: int, seed: int) -> dict[Key, dict[str, dict[str, tuple[int, ...]]]]:
    """Numbers of items by context, then speaker, then phone."""
    found: dict[Key, dict[str, dict[str, list[int]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for i in np.random.default_rng(seed).permutation(len(items)).tolist():
        kept = found[items[i].context][items[i].speaker][items[i].phone]
        if len(kept) < most:
            kept.append(i)
    return {
        context: {name: {p: tuple(v) for p, v in sorted(phones.items())} for name, phones in sorted(speakers.items())}
        for context, speakers in sorted(found.items())
    }


@dataclass(frozen=True)
class Plan:
    """Which items are warped onto which, for many cases at once, so that no pair of items is warped twice.

    ``pairs`` int64 ``[P, 2]``, the first not the later one; ``to_a`` and ``to_b`` have a case's matrix each, ``[x, a]``
    and ``[x, b]``, of numbers of pairs.
    """

    cases: tuple[Case, ...]
    pairs: Array
    to_a: tuple[Array, ...]
    to_b: tuple[Array, ...]

    @classmethod
    def of(cls, cases: Sequence[Case]) -> "Plan":
        """The plan of ``cases``.

        Raises:
            InputError: there is none.
        """
        if not cases:
            raise InputError("no ABX case could be made: no two items share speaker and context; give more clips")
        base = 1 + max(max(*case.a, *case.b, *case.x) for case in cases)
        keys = [_keys(case.x, others, base) for case in cases for others in (case.a, case.b)]
        unique, at = np.unique(np.concatenate([key.ravel() for key in keys]), return_inverse=True)
        ends = np.cumsum([key.size for key in keys])[:-1]
        parts = [part.reshape(key.shape) for part, key in zip(np.split(at.ravel(), ends), keys, strict=True)]
        return cls(tuple(cases), np.stack((unique // base, unique % base), 1), tuple(parts[::2]), tuple(parts[1::2]))

    @property
    def used(self) -> list[int]:
        """Numbers of the items that are warped."""
        return np.unique(self.pairs).tolist()  # type: ignore[no-any-return]


def _keys(x: Sequence[int], others: Sequence[int], base: int) -> Array:
    rows, columns = np.array(x, np.int64)[:, None], np.array(others, np.int64)[None]
    return np.minimum(rows, columns) * base + np.maximum(rows, columns)


# -- distances --


def frames_of(item: Item, features: Array, rate: float) -> Array:
    """Frames ``[n, dim]`` of ``features`` ``[frames, dim]`` whose middle lies in the item; one at least.

    ``rate`` is in frames per second; frame ``i`` spans ``i / rate`` to ``(i + 1) / rate``. What lies within a millionth
    of a frame is in, since onsets are decimal numbers.
    """
    last = len(features)
    begin = min(max(0, math.ceil(item.start * rate - 0.5 - 1e-6)), last - 1)
    return features[begin : max(begin + 1, min(last, math.floor(item.end * rate - 0.5 + 1e-6) + 1))]


def dtw(x: Array, x_frames: Array, y: Array, y_frames: Array) -> Array:
    """Warped distance ``[pairs]`` of padded ``x`` ``[pairs, n, dim]`` and ``y`` ``[pairs, m, dim]``.

    A step is diagonal, right or down; the cost of a cell is the angle over pi of unit frames, of whole numbers 0 where
    they are equal and else 1; that of a path is divided by its length. What lies behind ``x_frames`` and ``y_frames``
    (int ``[pairs]``) plays no part.
    """
    apart = _unequal(x, y) if np.issubdtype(x.dtype, np.integer) else _angles(x, y)
    pairs, n, m = apart.shape
    cost, length = np.full((n + 1, m + 1, pairs), np.inf, np.float32), np.zeros((n + 1, m + 1, pairs), np.float32)
    cost[0, 0] = 0
    apart = np.ascontiguousarray(apart.transpose(1, 2, 0))
    for diagonal in range(2, n + m + 1):
        i = np.arange(max(1, diagonal - m), min(n, diagonal - 1) + 1)
        j = diagonal - i
        _advance(cost, length, i, j, apart[i - 1, j - 1])
    rows = np.arange(pairs)
    return np.asarray(cost[x_frames, y_frames, rows] / length[x_frames, y_frames, rows])


def _angles(x: Array, y: Array) -> Array:
    near = np.clip(np.matmul(x, y.transpose(0, 2, 1)), -1, 1)
    near[near > 1 - 1e-6] = 1  # equal frames, but for rounding: the arc cosine would make 3e-4 of it, and ties are ties
    return np.asarray((np.arccos(near) / np.pi).astype(np.float32))


def _unequal(x: Array, y: Array) -> Array:
    return np.asarray((x != y.transpose(0, 2, 1)).astype(np.float32))


def _advance(cost: Array, length: Array, i: Array, j: Array, here: Array) -> None:
    """One anti-diagonal of the table, all pairs at once: the cheapest of three ways in, the diagonal one on a tie."""
    best, steps = cost[i - 1, j - 1], length[i - 1, j - 1]
    for rows, columns in ((i, j - 1), (i - 1, j)):
        other = cost[rows, columns]
        steps = np.where(other < best, length[rows, columns], steps)
        best = np.minimum(other, best)
    cost[i, j], length[i, j] = best + here, steps + 1


def _unit(frames: Array) -> Array:
    """Frames of length 1, and what makes a null frame as far from every other as can be; tokens as ``[n, 1]``."""
    if np.issubdtype(np.asarray(frames).dtype, np.integer):
        return np.asarray(frames).reshape(len(frames), 1)
    frames = np.asarray(frames, np.float32)
    size = np.linalg.norm(frames, axis=-1, keepdims=True)
    border = np.where(size == 0, np.float32(-1e6), np.float32(1e-6))
    return np.concatenate((frames / np.where(size == 0, 1, size), border), -1)


def _distances(unit: Mapping[int, Array], pairs: Array, chunk: int) -> Array:
    """Warped distance of each pair of items, those of like length together."""
    sizes = np.array([[len(unit[i]) for i in pair] for pair in pairs.tolist()])
    order, found = np.lexsort((sizes[:, 1], sizes[:, 0])), np.zeros(len(pairs), np.float32)
    for part in _parts(sizes, order, chunk):
        x, y = ([unit[i] for i in pairs[part, side].tolist()] for side in (0, 1))
        found[part] = dtw(_padded(x), sizes[part, 0], _padded(y), sizes[part, 1])
    return found


def _parts(sizes: Array, order: Array, chunk: int) -> Iterator[Array]:
    start, n, m = 0, 1, 1
    for end, (a, b) in enumerate(sizes[order].tolist()):
        n, m = max(n, a), max(m, b)
        if end > start and (end + 1 - start) * n * m > chunk:
            yield order[start:end]
            start, n, m = end, a, b
    yield order[start:]


def _padded(frames: Sequence[Array]) -> Array:
    out = np.zeros((len(frames), max(map(len, frames)), frames[0].shape[1]), frames[0].dtype)
    for row, each in zip(out, frames, strict=True):
        row[: len(each)] = each
    return out


# -- the error --


def case_errors(frames: Mapping[int, Array], plan: Plan, chunk: int = CHUNK) -> Array:
    """The error ``[cases]`` of each case of a plan.

    ``frames`` has what each used item is, float ``[n, dim]`` or the tokens themselves, int ``[n]``.
    """
    found = _distances({i: _unit(frames[i]) for i in plan.used}, plan.pairs, chunk)
    sides = zip(plan.cases, plan.to_a, plan.to_b, strict=True)
    return np.array([_case_error(case, found[to_a], found[to_b]) for case, to_a, to_b in sides])


def _case_error(case: Case, to_a: Array, to_b: Array) -> float:
    """Share of triples where X is nearer to B; a tie counts half. ``to_a`` ``[x, a]``, ``to_b`` ``[x, b]``."""
    another = np.array(case.x)[:, None] != np.array(case.a)[None]
    gap = (to_a[:, :, None] - to_b[:, None, :])[another]
    return float(((gap > 0).sum() + 0.5 * (gap == 0).sum()) / gap.size)


def averaged(cases: Sequence[Case], errors: Sequence[float] | Array, seed: int = 0) -> Score:
    """Mean over contexts and the speakers of X, then the speakers of A, then phone pairs, with its interval."""
    by_speaker: dict[Key, list[float]] = defaultdict(list)
    for case, error in zip(cases, errors, strict=True):
        by_speaker[*case.phones, case.speakers[0]].append(float(error))
    by_phones: dict[Key, list[float]] = defaultdict(list)
    for (a, b, _), found in by_speaker.items():
        by_phones[a, b].append(float(np.mean(found)))
    both: dict[Key, list[float]] = defaultdict(list)
    for (a, b), found in by_phones.items():
        both[min(a, b), max(a, b)].append(float(np.mean(found)))
    sums, counts = np.array([sum(each) for each in both.values()]), np.array([len(each) for each in both.values()])
    picks = np.random.default_rng(seed).integers(len(sums), size=(RESAMPLES, len(sums)))
    low, high = np.percentile(sums[picks].sum(1) / counts[picks].sum(1), [2.5, 97.5])
    return Score(float(sums.sum() / counts.sum()), len(cases), float(low), float(high), len(sums))


def abx_error(
    features: Mapping[str, Array], rate: float, items: Sequence[Item], cases: Sequence[Case], chunk: int = CHUNK
) -> Score:
    """ABX error of ``features`` (clip to ``[frames, dim]``, or tokens ``[frames]``) at ``rate`` frames per second.

    ``chunk`` bounds the cells of the tables that are held at once.

    Raises:
        InputError: there is no case, or a clip has no features.
    """
    plan = Plan.of(cases)
    missing = [items[i].clip for i in plan.used if not len(features.get(items[i].clip, ()))]
    if missing:
        raise InputError(f"{missing[0]} has no features; give [frames, dim] of every clip that has items")
    frames = {i: frames_of(items[i], features[items[i].clip], rate) for i in plan.used}
    return averaged(cases, case_errors(frames, plan, chunk))
