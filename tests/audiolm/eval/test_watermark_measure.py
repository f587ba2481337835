"""The watermark's section: what is marked is found, what is not is not, and a mark that is none is missed."""

import numpy as np
import pytest
from heard import CHORDS, notes
from typer.testing import CliRunner

from audiolm import AudioLM
from audiolm.cli import app
from audiolm.eval import report as reports
from audiolm.eval import watermark as measure
from audiolm.eval.watermark import (
    CODEC,
    CONTINUED,
    OPUS,
    OTHER_KEYS,
    PLAIN,
    RECORDING,
    WAYS,
    costs,
    cut,
    faster,
    figures_of,
    mark,
    snr_db,
    tried,
    watermark,
)
from audiolm.tiny import tiny_parts

RNG = np.random.default_rng(0)


def breathing(seconds, seed=0):
    """Notes over a breath: something in every band."""
    sound = notes(CHORDS[seed % len(CHORDS)], seconds, seed=seed)
    return (sound + 0.005 * np.random.default_rng(seed).standard_normal(len(sound))).astype(np.float32)


BARE = {RECORDING: [breathing(6)], CODEC: [breathing(6, 1)], CONTINUED: [breathing(6, 2)]}


def test_marks_are_found_and_nothing_else_is():
    figures = figures_of(tried(BARE, keys=3, seed=0), 0)
    assert list(figures["marked"]) == list(WAYS)
    for way in (PLAIN, OPUS, "MP3 64 kbit/s", "44.1 kHz and back", "8 kHz and back", "0.15 % faster"):
        assert figures["marked"][way]["5 s"]["found"].mean == 100, way
        assert "10 s" not in figures["marked"][way]
    assert {kind: tally["alarms"] for kind, tally in figures["unmarked"].items()} == dict.fromkeys(
        [*BARE, OTHER_KEYS], 0
    )
    assert figures["unmarked"][OTHER_KEYS]["found"].n == 6
    assert figures["unmarked"][RECORDING]["found"].n == 2 * len(WAYS)


def test_a_mark_that_is_none_is_missing(monkeypatch):
    monkeypatch.setattr(measure, "mark", lambda sound: sound)
    figures = figures_of(tried(BARE, keys=0, seed=0), 0)
    assert {by["5 s"]["found"].mean for by in figures["marked"].values()} == {0}
    figures["cost"] = costs(BARE[CODEC], BARE[RECORDING], 0)
    opus, alarms, pesq = measure._goals("x", figures)
    assert (opus.met, alarms.met, pesq.met) == (False, True, True)
    assert figures["cost"]["pesq"].mean > 4.6  # a copy
    assert figures["cost"]["codec_pesq_gain"].mean == 0


def test_a_mark_in_recordings_is_a_false_alarm():
    figures = figures_of(tried({**BARE, RECORDING: [mark(breathing(6))]}, keys=0, seed=0), 0)
    assert figures["unmarked"][RECORDING]["alarms"] > len(WAYS)


def test_what_the_mark_costs():
    found = costs([*BARE[CODEC], *BARE[CONTINUED]], BARE[RECORDING], 0)
    assert (found["pesq"].n, found["codec_pesq"].n) == (2, 1)
    assert 3.3 < found["pesq"].mean < 4.6
    assert 15 < found["snr_db"].mean < 25


def test_the_tools_do_what_they_say():
    sound = RNG.standard_normal(16_000).astype(np.float32)
    assert len(cut(sound, 0.5, RNG)) == 8000
    assert len(cut(sound, 1.0, RNG)) == 16_000
    assert cut(sound, 1.1, RNG) is None
    assert snr_db(sound, sound * np.float32(0.9)) == pytest.approx(20, abs=0.01)
    assert snr_db(sound, sound) > 100
    assert np.allclose(faster(sound, 1.0), sound[:-1])
    assert len(faster(sound, 1.25)) == 12_800
    assert len(mark(sound)) == 25 * 640


def test_the_section_of_a_tiny_model(music, voices_held):
    model = AudioLM(tiny_parts(), watermark=False)
    section = watermark(model, [music, voices_held], clips=1, count=1, heard=1.0, seconds=2.0, keys=1)
    assert list(section.figures) == ["music_dev", "speech_dev"]
    assert [table["title"].partition(": ")[2] for table in section.tables[:3]] == [
        "marked sound in which the mark is found, %",
        "sound without the mark",
        "what the mark changes",
    ]
    assert all(goal.met for goal in section.goals if "false alarms" in goal.what)
    assert section.as_dict()["figures"]["music_dev"]["marked"][PLAIN]["2 s"]["found"]["n"] == 2


def test_the_command_writes_the_section(music_folder, tmp_path, tiny_bundle):
    given = ["--clips", "1", "--prompts", "1", "--heard", "1", "--seconds", "2", "--keys", "0", "--engine", "torch"]
    made = CliRunner().invoke(
        app, ["eval", "watermark", str(tiny_bundle), "--data", str(music_folder), *given, "--out", str(tmp_path)]
    )
    assert made.exit_code == 0, made.output
    found = reports.read(tmp_path)
    assert found["sections"]["watermark"]["settings"]["engine"] == "torch"
    assert "The watermark of generated sound" in (tmp_path / reports.TEXT_NAME).read_text()
