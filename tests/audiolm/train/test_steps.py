"""The steps of the recipe: their order, and crops that fit."""

import pytest
from material import made_tokens

from audiolm.train.job import Job
from audiolm.train.presets import load
from audiolm.train.steps import fitting_crop, steps


@pytest.fixture
def job(sounds_folder, tmp_path):
    """A tiny job."""
    return Job(load("tiny"), sounds_folder, tmp_path / "out", tmp_path / "work", "out")


def test_each_step_needs_only_those_before(job):
    known = set()
    for step in steps(job):
        assert set(step.needs) <= known
        known.add(step.name)
    assert [step.name for step in steps(job)][-2:] == ["measure", "export"]


def test_crops_fit_the_longest_clip():
    long, short = made_tokens(2, 200), made_tokens(3, 50)
    assert fitting_crop(4.0, 2, long) == 4.0
    assert fitting_crop(4.0, 2, long, short) == 48 / 25
    for tokens in (long, short):
        tokens.check_crop(int(fitting_crop(4.0, 2, long, short) * 25) + 2)
