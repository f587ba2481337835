"""The commands about time: sections and pictures in the report, and free running written again from its figures."""

import contextlib
import io
import json
from functools import partial

import pytest

from audiolm.cli import eval_app
from audiolm.errors import InputError
from audiolm.eval import report as reports
from audiolm.eval.codecs import Peer
from audiolm.eval.drift import drift_section
from audiolm.eval.hierarchy import hierarchy

pytest.importorskip("matplotlib")
KEYS = ("semantic_entropy", "acoustic_entropy", "repeated", "loop", "silent", "level")


def call(*arguments):
    """The command in this process; what it said."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        eval_app([str(each) for each in arguments], standalone_mode=False)
    return out.getvalue()


def test_both_are_measured_into_one_report(tiny_bundle, music_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("audiolm.eval.hierarchy.hierarchy", partial(hierarchy, window=0.4))
    shared = ["--data", music_folder, "--prompts", 2, "--heard", 0.4, "--engine", "torch", "--out", tmp_path]
    said = call("hierarchy", tiny_bundle, "--seconds", 0.8, *shared)
    assert "| 0.8 s | acoustic only |" in said
    assert (tmp_path / "hierarchy.png").exists()
    said = call("diversity", tiny_bundle, "--seconds", 0.4, "--seeds", 2, *shared)
    assert "| the same seed again | 0.000" in said
    sections = json.loads((tmp_path / "report.json").read_text())["sections"]
    assert set(sections) == {"hierarchy", "diversity"}
    assert sections["hierarchy"]["plots"] == ["hierarchy.png"]
    assert sections["diversity"]["command"] == (
        "audiolm eval diversity tiny --data music_dev=music --prompts 2 --seeds 2 --heard 0.4 --seconds 0.4 "
        "--engine torch --seed 0"
    )


def test_reconstruction_has_its_picture_and_the_codecs_beside(tiny_bundle, music_folder, tmp_path, monkeypatch):
    extra = pytest.importorskip("pesq"), pytest.importorskip("pystoi")
    assert all(extra)
    monkeypatch.setattr(
        "audiolm.eval.codecs.peer", lambda item: Peer("Copy", [8000], lambda sound, rate: (sound, rate))
    )
    said = call(
        "reconstruction", tiny_bundle, "--data", music_folder, "--clips", 1, "--seconds", 1, "--beside",
        f"copy={tmp_path / 'copies'}", "--out", tmp_path,
    )  # fmt: skip
    assert "| Copy 8 | 8.0 |" in said
    assert (tmp_path / "reconstruction.png").exists()
    section = json.loads((tmp_path / "report.json").read_text())["sections"]["reconstruction"]
    assert section["plots"] == ["reconstruction.png"]
    assert section["settings"]["beside"] == ["copy=copies"]
    systems = section["figures"]["music_dev"]["systems"]
    assert [name for name in systems if name.startswith("Opus")] == ["Opus 6", "Opus 12", "Opus 24"]
    copied = systems["Copy 8"]
    assert (copied["lag"], copied["log_mel"]["mean"], copied["stft"]["mean"]) == (0, 0, 0)
    assert copied["si_sdr"]["mean"] > 100
    assert copied["stoi"]["mean"] == pytest.approx(1, abs=1e-4)


def test_free_running_is_written_again_from_the_report(tmp_path):
    made, data = ({key: [2 + 0.01 * (i % 7) for i in range(count)] for key in KEYS} for count in (60, 10))
    section = drift_section({"x": {"made": made, "data": data}})
    old = reports.Section("drift", "Free running", {"x": {key: section.figures["x"][key] for key in ("made", "data")}})
    reports.add(tmp_path, old, bundle="b", command="the command", settings={"minutes": 60})
    said = call("remake", tmp_path)
    assert "| 60 |" in said
    found = reports.read(tmp_path)["sections"]["drift"]
    assert found["tables"] == section.as_dict()["tables"]
    assert (found["command"], found["settings"]) == ("the command", {"minutes": 60})
    assert found["figures"]["x"]["trend"]["loop"]["n"] == 60
    assert (tmp_path / "drift.png").exists()


def test_a_report_without_free_running_is_told(tmp_path):
    with pytest.raises(InputError, match="holds no free running"):
        call("remake", tmp_path)
