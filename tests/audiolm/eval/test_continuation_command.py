"""The command `audiolm eval continuation`: its engine, its recognizer, and what is wrong with either."""

import contextlib
import io
import json
import sys
import types

import pytest

from audiolm.cli import app
from audiolm.errors import InputError


def call(*arguments):
    """The command in this process; what it said."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        app(["eval", "continuation", *map(str, arguments)], standalone_mode=False)
    return out.getvalue()


@pytest.fixture
def few(tiny_bundle, tmp_path):
    """Little of it, on the tiny bundle's reference."""
    return (tiny_bundle, "--prompts", 2, "--engine", "torch", "--out", tmp_path / "r")


@pytest.fixture
def fake(monkeypatch):
    """A recognizer that hears the same in everything; no voices are told."""
    module = types.ModuleType("fake_recognizer")
    module.hear = lambda _sound, _rate: "one two"
    monkeypatch.setitem(sys.modules, "fake_recognizer", module)
    monkeypatch.setitem(sys.modules, "resemblyzer", None)
    return "fake_recognizer:hear"


def section_in(folder):
    return json.loads((folder / "r" / "report.json").read_text())["sections"]["continuation"]


def test_music_takes_no_recognizer_and_names_its_engine(few, music_folder, tmp_path):
    said = call(*few, "--data", music_folder, "--heard", 0.4, "--seconds", 0.8)
    section = section_in(tmp_path)
    assert section["settings"]["engine"] == "torch"
    assert "--engine torch" in section["command"]
    assert "| key distance (fifths) |" in said
    assert "words" not in said


def test_words_of_a_manifest_by_a_plugin(few, fake, speech_folder, tmp_path):
    rows = [f"s{who}/clip{k}.wav,en,{'one two' if who else 'three four'}" for who in range(3) for k in range(2)]
    manifest = tmp_path / "texts.csv"
    manifest.write_text("\n".join(["file,lang,text", *rows, ""]))
    sizes = ("--data", speech_folder, "--heard", 1, "--seconds", 1, "--recognizer", fake)
    call(*few, *sizes, "--manifest", manifest, "--where", "lang=en")
    section = section_in(tmp_path)
    assert section["figures"]["speech_dev: words"]["error_rate"]["recording"]["mean"] in {0, 0.5}
    assert section["settings"]["recognizer"] == fake
    assert section["settings"]["manifest"] == "texts.csv"
    assert any("resemblyzer" in note for note in section["notes"])


def test_no_recognizer_is_no_table_and_a_missing_one_is_a_note(few, fake, speech_folder, tmp_path, monkeypatch):
    sizes = ("--data", speech_folder, "--heard", 1, "--seconds", 1)
    assert "word error rate" not in call(*few, *sizes, "--recognizer", "none")
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    call(*few, *sizes)
    assert any("pip install pocketsphinx" in note for note in section_in(tmp_path)["notes"])
    assert len(section_in(tmp_path)["tables"]) == 2


def test_a_bad_recognizer_is_told_before_anything_is_made(few, speech_folder, tmp_path):
    with pytest.raises(InputError, match="unknown recognizer 'whisper'; there are pocketsphinx"):
        call(*few, "--data", speech_folder, "--recognizer", "whisper")
    with pytest.raises(InputError, match="cannot be imported"):
        call(*few, "--data", speech_folder, "--recognizer", "no_such_module:hear")
    assert not (tmp_path / "r").exists()
