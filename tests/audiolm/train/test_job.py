"""Jobs: where things lie, what the files are known by, how a run is called."""

import os
import shutil
from dataclasses import replace

import pytest

from audiolm.errors import InputError
from audiolm.train.job import Job, fingerprint, is_prepared
from audiolm.train.presets import load


@pytest.fixture
def job(sounds_folder, tmp_path):
    """A tiny job on a copy of the sounds."""
    shutil.copytree(sounds_folder, tmp_path / "sounds")
    return Job(load("tiny"), tmp_path / "sounds", tmp_path / "out", tmp_path / "work", "out")


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


def test_a_run_goes_on_or_begins_afresh(job):
    assert job.going_on(fresh=True) == {"device": "cpu", "restart": True}
    assert replace(job, precision="bf16").going_on(fresh=False) == {
        "device": "cpu",
        "restart": False,
        "precision": "bf16",
    }
