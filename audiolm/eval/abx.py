"""How well features tell phones apart: the ABX error of ZeroSpeech (arXiv 2011.11588, Libri-light arXiv 1912.07875).

An item is a triphone as it was spoken: a phone with its two neighbours. A and X are of one triphone, B differs from
them in the middle phone only; A and B come from one speaker, X from the same (*within*) or another (*across*). The
error is the share of cases where X is nearer to B. Nearness is dynamic time warping over the angle between frames,
divided by the length of the path. Errors are averaged over contexts, then speakers (pairs of them), then phone pairs.

Here are arrays only; where phones lie is found by :mod:`audiolm.eval.phones`.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from audiolm.errors import InputError
from audiolm.eval.phones import SILENCE, UNKNOWN, Phone

Array = np.ndarray[Any, Any]
Key = tuple[str, ...]


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
    """An ABX error, 0 to 1 (chance 0.5), over ``cases`` cells of speaker, context and phone pair."""

    error: float
    cases: int


def triphones(phones: Mapping[str, Sequence[Phone]], speaker: Callable[[str], str]) -> list[Item]:
    """Items of aligned clips; ``speaker`` gives a clip's. None touches a pause or a word that no dictionary has."""
    items = []
    for clip, said in phones.items():
        for before, middle, after in zip(said, said[1:], said[2:], strict=False):
            if not {before.name, middle.name, after.name} & {SILENCE, UNKNOWN}:
                context = (before.name, after.name)
                items.append(Item(clip, speaker(clip), context, middle.name, before.start, after.end))
    return items


def within_cases(items: Sequence[Item], most: int = 10, seed: int = 0) -> list[Case]:
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


def across_cases(items: Sequence[Item], most: int = 10, seed: int = 0) -> list[Case]:
    """Cases where X is of another speaker than A and B; at most ``most`` items of a kind, drawn by ``seed``."""
    groups, cases = _groups(items, most, seed), []
    for speakers in groups.values():
        for name, phones in speakers.items():
            pairs = [(a, b) for a in phones for b in phones if a != b]
            for other in speakers:
                cases += [
                    Case((a, b), (name, other), phones[a], phones[b], speakers[other][a])
                    for a, b in pairs
                    if other != name and a in speakers[other]
                ]
    return cases


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


def frames_of(item: Item, features: Array, rate: float) -> Array:
    """Frames ``[n, dim]`` of ``features`` ``[frames, dim]`` whose middle lies in the item; one at least.

    ``rate`` is in frames per second; frame ``i`` spans ``i / rate`` to ``(i + 1) / rate``.
    """
    last = len(features)
    begin = min(max(0, math.ceil(item.start * rate - 0.5)), last - 1)
    return features[begin : max(begin + 1, min(last, math.floor(item.end * rate - 0.5) + 1))]


def dtw(x: Array, x_frames: Array, y: Array, y_frames: Array) -> Array:
    """Warped distance ``[pairs]`` of padded ``x`` ``[pairs, n, dim]`` and ``y`` ``[pairs, m, dim]`` of unit frames.

    A step is diagonal, down or right; the cost of a cell is the angle over pi, that of a path is divided by its length.
    What lies behind ``x_frames`` and ``y_frames`` (int ``[pairs]``) plays no part.
    """
    near = np.clip(np.matmul(x, y.transpose(0, 2, 1)), -1, 1)
    near[near > 1 - 1e-6] = 1  # equal frames, but for rounding: the arc cosine would make 3e-4 of it, and ties are ties
    angle = (np.arccos(near) / np.pi).astype(np.float32)
    pairs, n, m = angle.shape
    cost, length = np.full((n + 1, m + 1, pairs), np.inf, np.float32), np.zeros((n + 1, m + 1, pairs), np.float32)
    cost[0, 0] = 0
    angle = np.ascontiguousarray(angle.transpose(1, 2, 0))
    for diagonal in range(2, n + m + 1):
        i = np.arange(max(1, diagonal - m), min(n, diagonal - 1) + 1)
        j = diagonal - i
        _advance(cost, length, i, j, angle[i - 1, j - 1])
    rows = np.arange(pairs)
    return np.asarray(cost[x_frames, y_frames, rows] / length[x_frames, y_frames, rows])


def _advance(cost: Array, length: Array, i: Array, j: Array, here: Array) -> None:
    """One anti-diagonal of the table, all pairs at once: the cheapest of three ways in, the diagonal one on a tie."""
    best, steps = cost[i - 1, j - 1], length[i - 1, j - 1]
    for rows, columns in ((i - 1, j), (i, j - 1)):
        other = cost[rows, columns]
        steps = np.where(other < best, length[rows, columns], steps)
        best = np.minimum(other, best)
    cost[i, j], length[i, j] = best + here, steps + 1


def abx_error(
    features: Mapping[str, Array], rate: float, items: Sequence[Item], cases: Sequence[Case], chunk: int = 2_000_000
) -> Score:
    """ABX error of ``features`` (clip to ``[frames, dim]``) at ``rate`` frames per second.

    ``chunk`` bounds the cells of the tables that are held at once.

    Raises:
        InputError: there is no case, or a clip has no features.
    """
    if not cases:
        raise InputError("no ABX case could be made: no two items share speaker and context; give more clips")
    used = sorted({i for case in cases for i in (*case.a, *case.b, *case.x)})
    missing = [items[i].clip for i in used if not len(features.get(items[i].clip, ()))]
    if missing:
        raise InputError(f"{missing[0]} has no features; give [frames, dim] of every clip that has items")
    unit = {i: _unit(frames_of(items[i], features[items[i].clip], rate)) for i in used}
    pairs = sorted({(min(x, o), max(x, o)) for case in cases for x in case.x for o in (*case.a, *case.b) if o != x})
    return Score(_average(cases, _distances(unit, pairs, chunk)), len(cases))


def _unit(frames: Array) -> Array:
    frames = np.asarray(frames, np.float32)
    return np.asarray(frames / np.maximum(np.linalg.norm(frames, axis=-1, keepdims=True), 1e-9))


def _distances(unit: Mapping[int, Array], pairs: Iterable[tuple[int, int]], chunk: int) -> dict[tuple[int, int], float]:
    """Warped distance of each pair of items, those of like length together."""
    ordered = sorted(pairs, key=lambda pair: (len(unit[pair[0]]), len(unit[pair[1]])))
    found: dict[tuple[int, int], float] = {}
    for part in _parts(unit, ordered, chunk):
        x, y = ([unit[pair[side]] for pair in part] for side in (0, 1))
        sizes = [np.array([len(frames) for frames in side]) for side in (x, y)]
        found.update(zip(part, dtw(_padded(x), sizes[0], _padded(y), sizes[1]).tolist(), strict=True))
    return found


def _parts(
    unit: Mapping[int, Array], pairs: Sequence[tuple[int, int]], chunk: int
) -> Iterator[Sequence[tuple[int, int]]]:
    start, n, m = 0, 1, 1
    for end, (a, b) in enumerate(pairs):
        n, m = max(n, len(unit[a])), max(m, len(unit[b]))
        if end > start and (end + 1 - start) * n * m > chunk:
            yield pairs[start:end]
            start, n, m = end, len(unit[a]), len(unit[b])
    if start < len(pairs):
        yield pairs[start:]


def _padded(frames: Sequence[Array]) -> Array:
    out = np.zeros((len(frames), max(map(len, frames)), frames[0].shape[1]), np.float32)
    for row, each in zip(out, frames, strict=True):
        row[: len(each)] = each
    return out


def _average(cases: Sequence[Case], distances: Mapping[tuple[int, int], float]) -> float:
    """Mean over contexts, then speakers, then phone pairs."""
    by_speaker: dict[Key, list[float]] = defaultdict(list)
    for case in cases:
        by_speaker[*case.phones, *case.speakers].append(_case_error(case, distances))
    by_phones: dict[Key, list[float]] = defaultdict(list)
    for (a, b, *_), errors in by_speaker.items():
        by_phones[a, b].append(float(np.mean(errors)))
    return float(np.mean([np.mean(errors) for errors in by_phones.values()]))


def _case_error(case: Case, distances: Mapping[tuple[int, int], float]) -> float:
    """Share of triples where X is nearer to B; a tie counts half."""
    wrong, total = 0.0, 0
    for x in case.x:
        to_a = np.array([distances[min(x, a), max(x, a)] for a in case.a if a != x])
        to_b = np.array([distances[min(x, b), max(x, b)] for b in case.b])
        if len(to_a):
            gap = to_a[:, None] - to_b[None]
            wrong += float((gap > 0).sum() + 0.5 * (gap == 0).sum())
            total += gap.size
    return wrong / total
