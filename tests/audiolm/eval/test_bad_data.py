"""Sound that cannot be measured, or not all of it: every measure says why in a line, and none ends in a traceback."""

import contextlib
import io
import json
import shutil
from functools import partial
from importlib.util import find_spec

import numpy as np
import pytest
from heard import CHORDS, notes, speech

from audiolm import cli
from audiolm.commands import every, plan
from audiolm.errors import InputError
from audiolm.eval.drift import drift
from audiolm.train.data import write_corpus

pytestmark = pytest.mark.skipif(
    not all(find_spec(name) for name in ("pesq", "pystoi", "matplotlib")), reason="the extra eval is not installed"
)
RATE = 16_000
LITTLE = plan.Plan(
    clips=2, crops=2, token_minutes=0.2, prompts=2, heard=0.4, seconds=0.4, minutes=1, examples=1, shown=0.4,
    long_prompts=1, long_seconds=5.0, varied_prompts=1, seeds=2, pairs=2,
    marked=1, marked_seconds=1.0, keys=1,
)  # fmt: skip


def call(*arguments):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        cli.eval_app([str(each) for each in arguments], standalone_mode=False)


@pytest.fixture
def measured(monkeypatch, tiny_bundle, tmp_path):
    """`measured(clips, kind)`: the sections of everything that takes such sound; only errors that are told may come."""
    monkeypatch.setattr(every, "QUICK", LITTLE)
    monkeypatch.setattr("audiolm.eval.drift.drift", partial(drift, seconds=1.0))

    def take(clips, kind, steps=("continuation", "semantic", "likelihood")):
        write_corpus(tmp_path / "corpus", clips)
        given = ["--data", f"{tmp_path / 'corpus'}={kind}", "--out", tmp_path / "r", "--steps", ",".join(steps)]
        with contextlib.suppress(InputError):
            call("all", tiny_bundle, *given, "--quick", "--jobs", 1, "--recognizer", "none")
        return json.loads((tmp_path / "r" / "report.json").read_text())["sections"]

    return take


def with_data(kind):
    """Those that do not bring their own sound."""
    own = {"abx", "swuggy", "sblimp"}
    return [step.name for step in plan.STEPS if kind in step.kinds and step.name not in own]


def told(sections):
    """Why each that failed did; each of the others has something to show."""
    shown = [each for each in sections.values() if not each.get("failed")]
    assert all(each["tables"] or each["plots"] for each in shown)
    return {name: each["failed"] for name, each in sections.items() if each.get("failed")}


@pytest.mark.parametrize("kind", plan.BOTH)
@pytest.mark.parametrize("level", [0.0, 1e-5])
def test_silence_is_told(measured, kind, level):
    noise = np.random.default_rng(0).standard_normal(5 * RATE).astype(np.float32)
    why = told(measured([(f"a{i}/x.wav", level * noise) for i in range(2)], kind, with_data(kind)))
    assert "silent" in why["continuation"]
    assert not [each for each in why.values() if "error in the program" in each]


@pytest.mark.parametrize("kind", plan.BOTH)
def test_clips_that_are_too_short_are_told(measured, kind):
    why = told(measured([(f"a{i}/x.wav", notes(CHORDS[0], 0.25)) for i in range(3)], kind, with_data(kind)))
    assert "the longest source has" in why["continuation"]
    assert "no clip of the 3 has a second of sound" in why["reconstruction"]
    assert "no clip is 4 s long" in why["semantic"]
    assert not [each for each in why.values() if "error in the program" in each]


def test_one_speaker_has_nobody_to_be_told_from_and_the_rest_is_measured(measured):
    found = measured([(f"one/{i}.wav", speech(4, 0, seed=i)) for i in range(2)], "speech")
    assert told(found) == {}


def test_one_piece_is_enough_for_what_needs_no_other(measured):
    found = measured([("one.wav", notes(CHORDS[0], 8))], "music")
    assert told(found) == {}


def test_sound_of_the_other_kind_is_measured_as_what_it_is_said_to_be(measured):
    found = measured([(f"s{who}/{i}.wav", speech(4, who, seed=i)) for who in range(2) for i in range(2)], "music")
    assert told(found) == {}


def test_no_corpus_and_a_damaged_one_are_told_before_anything_is_measured(tiny_bundle, music_folder, tmp_path):
    empty, damaged = tmp_path / "music", tmp_path / "damaged_music"
    empty.mkdir()
    shutil.copytree(music_folder, damaged)
    (damaged / "corpus.json").write_text('{"version": 1')
    for folder, why in ((empty, "is not a corpus"), (damaged, "damaged"), (tmp_path / "no_music", "is not a corpus")):
        with pytest.raises(InputError, match=why):
            call("all", tiny_bundle, "--data", folder, "--out", tmp_path / "r")
    with pytest.raises(InputError, match="the kind of the corpus"):
        call("all", tiny_bundle, "--data", tmp_path, "--out", tmp_path / "r")
    assert not (tmp_path / "r").exists()
