"""Two reports: what is the same, what moved beyond noise, what is set differently, and files that are none."""

import copy
import json
import math

import pytest
from typer.testing import CliRunner

from audiolm.cli import app
from audiolm.errors import InputError
from audiolm.eval import compare, report
from audiolm.eval.report import Goal, Section
from audiolm.eval.stats import Estimate, estimate


def made(folder, *, pesq=(2.0, 1.8, 2.2), share=0.5, clips=16, goal=1.0, bundle="piano@1"):
    section = Section("reconstruction", "Reconstruction")
    section.figures["music"] = {
        "pesq": Estimate(*pesq, 16),
        "share": share,
        "by_level": [1.0, 2.0],
        "none": estimate([]),
    }
    section.goals.append(Goal("music: PESQ", goal, above=1.5))
    report.add(folder, section, bundle=bundle, command="c", settings={"clips": clips})
    return folder


def found(one, other):
    return compare.compare(compare.read(one), compare.read(other))


def test_a_copied_report_moved_nowhere(tmp_path):
    same = found(made(tmp_path / "a"), made(tmp_path / "b"))
    assert (same.different, same.only, same.texts, same.goals) == ([], {"A": [], "B": []}, [], [])
    assert same.beyond == same.plain(0.0) == []
    assert sum(move.measured for move in same.moves) == 1
    assert len(same.moves) == 4


def test_an_interval_is_compared_by_the_root_of_summed_squares():
    move = compare.move("x", Estimate(2.0, 1.7, 2.3, 9), Estimate(2.6, 2.2, 3.0, 9))
    assert (move.low, move.high) == pytest.approx((0.6 - 0.5, 0.6 + 0.5))
    assert move.moved
    near = compare.move("x", Estimate(2.0, 1.7, 2.3, 9), Estimate(2.49, 2.09, 2.89, 9))
    assert not near.moved
    back = compare.move("x", Estimate(2.6, 2.2, 3.0, 9), Estimate(2.0, 1.7, 2.3, 9))
    assert (back.low, back.high) == pytest.approx((-1.1, -0.1))


def test_uneven_intervals_count_on_the_side_that_they_face():
    move = compare.move("x", Estimate(1.0, 0.0, 1.1, 9), Estimate(1.3, 1.2, 9.0, 9))
    assert move.low == pytest.approx(0.3 - math.hypot(0.1, 0.1))
    assert move.high == pytest.approx(0.3 + math.hypot(7.7, 1.0))
    assert move.moved


def test_of_equal_data_few_move_and_of_other_data_all():
    import numpy as np

    rng = np.random.default_rng(0)
    pairs = [[estimate(rng.standard_normal(40) + shift) for shift in (0, 0, 2)] for _ in range(100)]
    assert sum(compare.move("x", a, b).moved for a, b, _ in pairs) <= 12
    assert all(compare.move("x", a, c).moved for a, _, c in pairs)


def test_one_value_is_no_interval():
    move = compare.move("x", Estimate(2.0, 2.0, 2.0, 1), Estimate(3.0, 3.0, 3.0, 1))
    assert not move.measured
    assert not move.moved
    assert "no interval" in str(move)
    assert compare.move("x", Estimate(2.0, 1.0, 3.0, 5), 2.0).measured is False


def test_a_relative_change_is_of_the_larger():
    assert compare.move("x", 1.0, 2.0).relative == 0.5
    assert compare.move("x", 0.0, 0.0).relative == 0.0
    assert compare.move("x", -1.0, 1.0).relative == 2.0


def test_what_is_set_differently_is_said_first(tmp_path):
    one = made(tmp_path / "a")
    other = made(tmp_path / "b", clips=6, bundle="piano@2", pesq=(2.9, 2.8, 3.0), share=0.6, goal=2.0)
    path = other / "report.json"
    changed = json.loads(path.read_text())
    changed["versions"]["torch"] = "9"
    changed["sections"]["drift"] = copy.deepcopy(changed["sections"]["reconstruction"])
    changed["sections"]["reconstruction"]["figures"]["music"] |= {"none": 1.0, "new": 2.0}
    path.write_text(json.dumps(changed))
    said = compare.lines(found(one, other))
    assert said[:2] == ["Set differently", "  bundle: piano@1 | piano@2"]
    assert "  reconstruction: clips: 16 | 6" in said
    assert any(line.startswith("  version of torch: ") for line in said)
    assert said[said.index("Only in B") + 1 :][:2] == ["  drift", "  reconstruction/music/new"]
    at = said.index("Moved beyond noise: 1 of 1 figures with an interval")
    assert said[at + 1].startswith(
        "  reconstruction/music/pesq: 2.00 (1.80 to 2.20) -> 2.90 (2.80 to 3.00), change 0.900"
    )
    assert "  reconstruction/music/share: 0.500 -> 0.600, 16.7 %, no interval" in said
    assert "  reconstruction/music/none: not measured | 1.0" in said


def test_goals_that_changed_are_told(tmp_path):
    one, other = made(tmp_path / "a"), made(tmp_path / "b", goal=2.0)
    assert "  reconstruction: music: PESQ: not met -> met" in compare.lines(found(one, other))


def test_long_lists_are_cut_and_say_so():
    moves = [compare.move(str(i), 1.0, 2.0) for i in range(40)]
    said = compare.lines(compare.Comparison([], {"A": [], "B": []}, moves, [], []), most=30)
    assert said[-1] == "  and 10 more; --json has them all"


def test_the_command_takes_files_and_folders(tmp_path):
    one, other = made(tmp_path / "a"), made(tmp_path / "b", pesq=(2.9, 2.8, 3.0))
    done = CliRunner().invoke(app, ["compare", str(one), str(other / "report.json")])
    assert done.exit_code == 0, done.output
    assert "Moved beyond noise: 1 of 1" in done.output
    done = CliRunner().invoke(app, ["compare", str(one), str(other), "--json"])
    (move,) = json.loads(done.output)["moved"]
    assert move["where"] == "reconstruction/music/pesq"
    assert move["change"] == pytest.approx(0.9)
    assert move["a"] == {"mean": 2.0, "low": 1.8, "high": 2.2, "n": 16}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"sections": {}}',
        '{"sections": []}',
        '{"sections": {"a": 1}}',
        '{"sections": {"a": {"figures": 1}}}',
        '{"sections": {"a": {"figures": {}, "goals": [1]}}}',
        '{"sections": {"a": {"figures": {}, "settings": 1}}}',
        '{"versions": [1], "sections": {"a": {"figures": {}}}}',
    ],
)
def test_other_files_are_refused(text, tmp_path):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError, match="is no report of audiolm eval"):
        compare.read(path)


def test_a_missing_file_is_told(tmp_path):
    done = CliRunner().invoke(app, ["compare", str(tmp_path), str(tmp_path / "none.json")])
    assert done.exit_code
    assert "give a report.json" in str(done.exception)


@pytest.mark.parametrize(
    "figures",
    [{"x": {"mean": "a", "low": 1, "high": 2, "n": 3}}, {"x": True}, {"x": "word"}, {"x": {"y": [None, [1]]}}],
)
def test_figures_of_any_shape_are_walked(figures):
    before = {"sections": {"s": {"figures": figures}}}
    assert not compare.compare(before, before).texts
    other = {"sections": {"s": {"figures": {"x": 1.0}}}}
    assert compare.lines(compare.compare(before, other))


def test_what_failed_is_as_good_as_lacking_and_another_machine_is_told(tmp_path):
    made(tmp_path / "a")
    made(tmp_path / "b")
    report.add(tmp_path / "a", Section("drift", "Drift", figures={"x": 1.0}), bundle="piano@1")
    report.add(tmp_path / "b", Section("drift", "Drift", failed="too short"), bundle="piano@1")
    path = tmp_path / "b" / "report.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "machine": {"processor": "abacus"}}))
    both = found(tmp_path / "a", tmp_path / "b")
    assert both.only == {"A": ["drift"], "B": ["drift, which could not be measured: too short"]}
    assert ("machine, processor", "abacus") in [(what, y) for what, _, y in both.different]
