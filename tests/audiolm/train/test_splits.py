"""Splits: shares, whole groups, the same every time."""

from pathlib import Path

import pytest

from audiolm.errors import InputError
from audiolm.train.sources import Item
from audiolm.train.splits import choose_groups, make_plan


def item(name, group, split=""):
    return Item(Path(name), name, group, group, split)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5])
def test_dev_gets_about_its_share(share):
    seconds = {f"speaker {k}": 60.0 + 10 * (k % 7) for k in range(200)}
    chosen = choose_groups(seconds, share, 0)
    assert sum(seconds[group] for group in chosen) / sum(seconds.values()) == pytest.approx(share, rel=0.1)
    assert chosen == choose_groups(dict(reversed(seconds.items())), share, 0)
    assert chosen != choose_groups(seconds, share, 1)


@pytest.mark.parametrize(
    "seconds", [[300.0, 300.0], [10.0, 3000.0, 4000.0], [1.0, 1.0, 1.0], [0.6, 300.0, 300.0, 300.0]]
)
def test_few_groups_give_one_for_dev(seconds):
    groups = {str(k): value for k, value in enumerate(seconds)}
    chosen = choose_groups(groups, 0.05, 0)
    assert len(chosen) == 1
    assert sum(groups[name] for name in chosen) != max(seconds) or len(set(seconds)) < 3


def test_groups_stay_whole():
    items = [(item(f"{k}.wav", f"g{k % 9}"), 5.0) for k in range(90)]
    plan = make_plan(items, 0.2, 0, 0.5)
    sides = {name: {each.group for each, _ in items if (each.name in plan.dev) == name} for name in (True, False)}
    assert plan.by == "group"
    assert sides[True]
    assert not sides[True] & sides[False]
    name = next(iter(plan.dev))
    assert plan.dev_seconds(name, 0.0, 5.0) == 5.0
    assert plan.dev_seconds(next(each.name for each, _ in items if each.name not in plan.dev), 0.0, 5.0) == 0.0


def test_a_manifest_that_names_both_splits_is_kept():
    items = [(item("a", "x", "train"), 1.0), (item("b", "x", "dev"), 1.0), (item("c", "y"), 1.0)]
    plan = make_plan(items, 0.05, 0, 0.5)
    assert (plan.by, plan.dev) == ("given", {"b"})
    assert len(plan.notes) == 2


def test_a_manifest_without_dev_is_split_by_group():
    plan = make_plan([(item(f"{k}", f"g{k}", "train"), 1.0) for k in range(20)], 0.05, 0, 0.5)
    assert (plan.by, len(plan.dev)) == ("group", 1)
    assert plan.notes == ("the manifest has no dev rows: split by speaker or piece instead",)


def test_the_border_in_time_may_lie_inside_a_file():
    plan = make_plan([(item("a", "x"), 10.0), (item("b", "x"), 10.0)], 0.25, 0, 0.5)
    assert (plan.by, plan.cut) == ("time", 15.0)
    assert plan.dev_seconds("a", 0.0, 10.0) == 0.0
    assert plan.dev_seconds("b", 0.0, 10.0) == 5.0
    assert plan.dev_seconds("b", 8.0, 2.0) == 2.0
    with pytest.raises(InputError, match="too little to split"):
        make_plan([(item("a", "x"), 1.0)], 0.25, 0, 0.5)
