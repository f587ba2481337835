"""The parts of the steps that need no training: fingerprints, crops, publishing."""

import os
import shutil

import pytest
import torch
from material import made_tokens

from audiolm.errors import InputError
from audiolm.train.presets import load
from audiolm.train.steps import Job, check_out, fingerprint, fitting_crop, is_prepared, publish, steps


@pytest.fixture
def job(sounds_folder, tmp_path):
    """A tiny job on a copy of the sounds."""
    shutil.copytree(sounds_folder, tmp_path / "sounds")
    return Job(load("tiny"), tmp_path / "sounds", tmp_path / "out", tmp_path / "work", "out")


def test_each_step_needs_only_those_before(job):
    known = set()
    for step in steps(job):
        assert set(step.needs) <= known
        known.add(step.name)
    assert [step.name for step in steps(job)][-2:] == ["measure", "export"]


def test_the_fingerprint_sees_the_sound_and_nothing_else(job):
    first = fingerprint(job)
    (job.data / "notes.txt").write_text("not sound")
    assert fingerprint(job) == first
    file = next(job.data.rglob("*.wav"))
    os.utime(file, (1, 1))
    assert fingerprint(job) != first
    shutil.rmtree(job.data)
    with pytest.raises(InputError):
        fingerprint(job)


def test_corpora_are_told_from_sound(job, corpus, tmp_path):
    assert not is_prepared(job.data)
    folder = tmp_path / "packed"
    for split in ("train", "dev"):
        corpus.pack(folder / split, 1.0)
    assert is_prepared(folder)
    packed = Job(load("tiny"), folder, tmp_path / "out", tmp_path / "work", "out")
    assert packed.corpora == folder
    assert packed.corpus("dev").seconds == pytest.approx(corpus.seconds, abs=0.1)
    assert fingerprint(packed) == fingerprint(packed)


def test_crops_fit_the_longest_clip():
    long, short = made_tokens(2, 200), made_tokens(3, 50)
    assert fitting_crop(4.0, 2, long) == 4.0
    assert fitting_crop(4.0, 2, long, short) == 48 / 25
    for tokens in (long, short):
        tokens.check_crop(int(fitting_crop(4.0, 2, long, short) * 25) + 2)


def test_a_bundle_is_put_in_the_place_of_another_whole(tmp_path):
    draft, out = tmp_path / "draft", tmp_path / "new" / "out"
    draft.mkdir()
    for text in ("one", "two"):
        (draft / "config.json").write_text(text)
        publish(draft, out)
        assert (out / "config.json").read_text() == text
    assert sorted(path.name for path in out.parent.iterdir()) == ["out"]


def test_what_is_no_bundle_is_not_overwritten(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    for place in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(InputError, match="is there and is no bundle; give another --out"):
            check_out(place)
    check_out(tmp_path / "new")
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_a_run_is_called_as_it_can_be(job, tmp_path):
    from audiolm.train.steps import going_on

    def knows_all(*, device, precision, restart):
        raise AssertionError

    assert going_on(knows_all, job, tmp_path / "x", fresh=True) == {"device": "cpu", "restart": True}
    assert torch.get_default_dtype() == torch.float32
