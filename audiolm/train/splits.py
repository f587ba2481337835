"""Splits: which speaker or piece is for training and which for dev; never one on both sides.

What a manifest, or folders called train and dev, say is kept. Otherwise groups are taken for dev in the order of a hash
of their names, so that equal folders give equal splits, until their share of the time is reached. A single group is
split in time: dev is its end.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from audiolm.errors import InputError
from audiolm.train.sources import Item

ENOUGH = 0.5  # of its share


@dataclass(frozen=True)
class Plan:
    """Where each file goes.

    ``by`` is given, group or time; ``dev`` are the names for dev. By time, ``cut`` is the place of the border in
    seconds from the first file's start and ``starts`` that of each file.
    """

    by: str
    dev: frozenset[str]
    notes: tuple[str, ...] = ()
    cut: float = 0.0
    starts: dict[str, float] = field(default_factory=dict)

    def dev_seconds(self, name: str, start: float, seconds: float) -> float:
        """How much of the end of a clip, ``start`` seconds into the file ``name``, is for dev."""
        if self.by != "time":
            return seconds if name in self.dev else 0.0
        return min(max(self.starts[name] + start + seconds - self.cut, 0.0), seconds)


def make_plan(items: Sequence[tuple[Item, float]], share: float, seed: int, minimum: float) -> Plan:
    """Split files of known lengths in seconds; dev gets about ``share`` of the time.

    Raises:
        InputError: there is one group, too short to be split in time.
    """
    missing = sorted({"train", "dev"} - {item.split for item, _ in items})
    if not missing:
        return _as_given(items)
    said = any(item.split for item, _ in items)
    notes = (f"the manifest has no {' and no '.join(missing)} rows: split by speaker or piece instead",) * said
    seconds: dict[str, float] = defaultdict(float)
    for item, length in items:
        seconds[item.group] += length
    if len(seconds) == 1:
        return _by_time(items, share, minimum, notes)
    chosen = choose_groups(seconds, share, seed)
    return Plan("group", frozenset(item.name for item, _ in items if item.group in chosen), notes)


def choose_groups(seconds: dict[str, float], share: float, seed: int) -> set[str]:
    """The groups for dev: at least one, never all."""
    order = sorted(seconds, key=lambda group: hashlib.blake2b(f"{seed}/{group}".encode(), digest_size=8).digest())
    target = share * sum(seconds.values())
    chosen: set[str] = set()
    have = 0.0
    for group in order:
        closer = have + seconds[group] / 2 <= target
        if closer and len(chosen) + 1 < len(order):
            chosen.add(group)
            have += seconds[group]
    if chosen and have >= ENOUGH * target:
        return chosen
    return {min(order, key=lambda group: abs(math.log((seconds[group] + 1e-3) / (target + 1e-3))))}


def _as_given(items: Sequence[tuple[Item, float]]) -> Plan:
    sides: dict[str, set[str]] = {"train": set(), "dev": set()}
    silent = [item.name for item, _ in items if not item.split]
    for item, _ in items:
        sides[item.split or "train"].add(item.group)
    both = sorted(sides["train"] & sides["dev"])
    notes = []
    if both:
        notes.append(f"{len(both)} speakers or pieces are in both train and dev, as they were given: {_few(both)}")
    if silent:
        notes.append(f"{len(silent)} files have no split in the manifest; taken for training: {_few(silent)}")
    return Plan("given", frozenset(item.name for item, _ in items if item.split == "dev"), tuple(notes))


def _by_time(items: Sequence[tuple[Item, float]], share: float, minimum: float, notes: tuple[str, ...]) -> Plan:
    starts: dict[str, float] = {}
    total = 0.0
    for item, length in items:
        starts[item.name] = total
        total += length
    wanted = max(share * total, 1.1 * minimum)
    if total - wanted < 1.1 * minimum:
        raise InputError(
            f"{total:.1f} s of one speaker or piece is too little to split; give at least {2.2 * minimum:.1f} s",
            seconds=total,
        )
    note = (
        f"there is only one speaker or piece ({items[0][0].group}), so dev is its last {wanted:.1f} s: figures on dev "
        "will be better than on another speaker or piece"
    )
    return Plan("time", frozenset(), (*notes, note), total - wanted, starts)


def _few(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
