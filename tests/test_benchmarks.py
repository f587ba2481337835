"""Every benchmark runs, small, and says what it should say. How fast it was is nobody's business here."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FIELDS = {"name", "value", "unit", "peer", "peer_name", "ratio", "goal", "n", "more"}
NAMES = sorted(
    path.stem
    for path in (ROOT / "benchmarks").glob("*.py")
    if path.stem not in {"__init__", "__main__", "common", "models", "plain", "plots", "sounds", "stamps"}
)


def run(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def check(figure, prefix):
    assert set(figure) == FIELDS
    assert figure["name"].startswith(prefix + ".")
    assert math.isfinite(figure["value"])
    assert figure["value"] >= 0
    assert isinstance(figure["unit"], str)
    assert figure["n"] >= 1
    assert (figure["peer"] is None) == (figure["peer_name"] is None) == (figure["ratio"] is None)


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_prints_one_json_line_a_figure(name):
    done = run(f"benchmarks.{name}", "--tiny")
    assert done.returncode == 0, done.stderr
    figures = [json.loads(line) for line in done.stdout.splitlines()]
    if not figures and "needs pulseaudio" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert figures
    for figure in figures:
        check(figure, name)


def test_all_together_give_lines_a_file_and_a_table(tmp_path):
    kept = tmp_path / "out" / "bench.jsonl"
    done = run("benchmarks", "frames", "depth_step", "--tiny", "--output", str(kept))
    assert done.returncode == 0, done.stderr
    lines = kept.read_text(encoding="utf8").splitlines()
    about, *figures = [json.loads(line) for line in lines]
    assert about["name"] == "machine"
    assert about["cores"] >= 1
    assert {figure["name"].split(".")[0] for figure in figures} == {"frames", "depth_step"}
    assert all(figure["name"] in done.stdout.split("ratio: ours")[1] for figure in figures)


def test_every_benchmark_is_in_the_list_of_all():
    from benchmarks.__main__ import LONG
    from benchmarks.__main__ import NAMES as LISTED

    assert sorted([*LISTED, *LONG]) == NAMES


def test_an_unknown_benchmark_is_refused():
    done = run("benchmarks", "nosuch")
    assert done.returncode == 2
    assert "decode_step" in done.stderr
