"""The command: one report, one card, resumed, and told when something is wrong."""

import contextlib
import io
import json
from functools import partial
from importlib.util import find_spec

import pytest

from audiolm import cli
from audiolm.commands import every, plan
from audiolm.errors import InputError
from audiolm.eval.drift import drift

EXTRA = all(find_spec(name) for name in ("pesq", "pystoi", "matplotlib"))
needs_extra = pytest.mark.skipif(not EXTRA, reason="the extra eval is not installed")


def call(*arguments):
    """The command in this process; what it said, and its progress."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        cli.eval_app([str(each) for each in arguments], standalone_mode=False)
    return out.getvalue(), err.getvalue()


@pytest.fixture
def small(monkeypatch):
    """Little of each measure, and minutes of a second."""
    little = plan.Plan(
        clips=2,
        crops=2,
        token_minutes=0.3,
        prompts=2,
        heard=0.4,
        seconds=0.6,
        minutes=2,
        examples=1,
        shown=0.4,
        marked=1,
        marked_seconds=4.0,
        keys=1,
        long_prompts=2,
        long_seconds=5.0,
        varied_prompts=2,
        seeds=2,
        pairs=4,
    )
    monkeypatch.setattr(every, "QUICK", little)
    monkeypatch.setattr("audiolm.eval.drift.drift", partial(drift, seconds=1.0))


@needs_extra
def test_measures_in_one_report_and_not_twice(small, tiny_bundle, music_folder, tmp_path):
    arguments = [
        "all",
        tiny_bundle,
        "--data",
        music_folder,
        "--quick",
        "--jobs",
        1,
        "--steps",
        "likelihood,drift,plots",
        "--out",
        tmp_path / "r",
    ]
    said, _ = call(*arguments)
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert list(report["sections"]) == ["likelihood", "drift", "plots"]
    assert report["bundle"].startswith("tiny@")
    assert "| goal | measured | wanted | met |" in said
    assert str(tmp_path) not in (tmp_path / "r" / "report.md").read_text()
    assert "audiolm eval drift tiny --data music_dev=music" in (tmp_path / "r" / "report.md").read_text()
    assert (tmp_path / "r" / "report.html").exists()
    again, progress = call(*arguments)
    assert again == said
    assert progress.count("in the report already") == 3
    _, progress = call(*arguments, "--minutes", 1)
    assert progress.count("in the report already") == 2
    card = tmp_path / "bundle" / "CARD.md"
    card.parent.mkdir()
    card.write_text("# tiny\n")
    call("card", tmp_path / "r", card)
    assert "### Free running" in card.read_text()
    assert {path.name for path in card.parent.iterdir()} == {"CARD.md", "drift.png", "spectrograms.png"}


@needs_extra
@pytest.mark.parametrize(
    "step", [step.name for step in plan.STEPS if plan.MUSIC in step.kinds and step.name != "detect"]
)
def test_every_step_takes_music(step, small, tiny_bundle, music_folder, tmp_path):
    data = ["--data", music_folder, "--out", tmp_path]
    call("all", "--bundle", tiny_bundle, *data, "--quick", "--jobs", 1, "--steps", step)
    section = json.loads((tmp_path / "report.json").read_text())["sections"][step]
    assert section["tables"] or section["plots"]
    assert (tmp_path / "report.html").exists()


def test_one_measure_prints_its_goals_and_keeps_its_settings(tiny_bundle, music_folder, tmp_path):
    said, progress = call(
        "likelihood", tiny_bundle, "--data", music_folder, "--crops", 2, "--token-minutes", 0.3, "--out", tmp_path
    )
    assert "| semantic |" in said
    assert "music_dev: coarse stage, 2 crops" in progress
    section = json.loads((tmp_path / "report.json").read_text())["sections"]["likelihood"]
    assert section["settings"] == {
        "crops": 2,
        "token_minutes": 0.3,
        "train_tokens": "",
        "data": ["music_dev"],
        "seed": 0,
    }
    assert section["command"] == (
        "audiolm eval likelihood tiny --data music_dev=music --crops 2 --token-minutes 0.3 --seed 0"
    )


def test_what_is_wrong_is_told_before_anything_is_measured(tiny_bundle, music_folder, tmp_path):
    with pytest.raises(InputError, match="need different names"):
        call("drift", tiny_bundle, "--data", music_folder, "--data", music_folder, "--out", tmp_path)
    with pytest.raises(InputError, match="not a corpus"):
        call("drift", tiny_bundle, "--data", f"{tmp_path}=music", "--out", tmp_path)
    with pytest.raises(InputError, match="holds no report"):
        call("card", tmp_path, tmp_path / "CARD.md")
    assert list(tmp_path.iterdir()) == []


def test_the_measures_are_under_audiolm():
    from audiolm.cli import app

    assert any(group.name == "eval" for group in app.registered_groups)
