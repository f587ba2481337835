"""Curves: read from logs, thinned for a table, drawn where matplotlib is."""

import json
import sys

import pytest

from audiolm.train.curves import last, names, picture, read_log, sampled, table

ROWS = [
    {"step": s, "minutes": s / 10, "nll": 5 - s / 100, **({"dev_nll": 5.5} if s == 50 else {})} for s in range(1, 101)
]


def test_a_log_is_read_line_by_line(tmp_path):
    path = tmp_path / "x.jsonl"
    assert read_log(path) == []
    rows = [{"step": 1, "minutes": 0.1, "nll": 3.0}, {"step": 2, "minutes": 0.2, "nll": 2.5, "said": "text"}]
    path.write_text("\n".join(map(json.dumps, rows)) + '\n[1]\n{"nll": 1}\n{"step": 3, "min')  # the disk was full
    assert read_log(path) == [rows[0], {"step": 2, "minutes": 0.2, "nll": 2.5}]


def test_names_leave_levels_and_speed_out():
    assert names(
        [{"step": 1, "minutes": 0, "nll": 1, "dev_0": 1, "dev_11": 1, "dev_nll": 1, "steps_per_second": 9}]
    ) == [
        "nll",
        "dev_nll",
    ]


def test_a_few_rows_stand_for_all():
    few = sampled(ROWS, 4)
    assert [row[1] for row in few] == [25, 50, 75, 100]
    assert few[0] == [2.5, 25, 4.75, None]
    assert few[-1] == [10, 100, 4, 5.5]  # the last known value stands
    assert sampled(ROWS[:3], 8)[-1][1] == 3
    assert sampled([]) == []
    assert last(ROWS)["dev_nll"] == 5.5


def test_the_table_is_markdown():
    lines = table(ROWS)
    assert lines[0] == "| minutes | step | nll | dev_nll |"
    assert lines[-1] == "| 10.0 | 100 | 4 | 5.5 |"
    assert {line.count("|") for line in lines} == {5}


def test_the_picture_is_the_same_each_time(tmp_path):
    pytest.importorskip("matplotlib")
    assert picture({"codec": ROWS, "fine": ROWS[:2], "none": []}, tmp_path / "a.png")
    assert picture({"codec": ROWS, "fine": ROWS[:2], "none": []}, tmp_path / "b.png")
    data = (tmp_path / "a.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert data == (tmp_path / "b.png").read_bytes()
    assert not picture({"none": []}, tmp_path / "c.png")


def test_without_matplotlib_there_is_no_picture(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    assert not picture({"codec": ROWS}, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
