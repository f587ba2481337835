"""A folder of sound, a corpus and tiny sizes, made once for all tests of training."""

import sys
from pathlib import Path

import pytest
import soundfile
import torch

from audiolm.tiny import tiny_parts
from audiolm.train.prepare import prepare

sys.path.insert(0, str(Path(__file__).parent))
from material import RATE, melody


@pytest.fixture(scope="session")
def sounds_folder(tmp_path_factory):
    """Three good files of two speakers."""
    root = tmp_path_factory.mktemp("sounds")
    for name, seconds, seed in (("a/one", 4, 1), ("a/two", 2, 2), ("b/three", 6, 3)):
        (root / name).parent.mkdir(exist_ok=True)
        soundfile.write(root / f"{name}.wav", melody(seconds, seed), RATE)
    return root


@pytest.fixture(scope="session")
def corpus(sounds_folder, tmp_path_factory):
    """Those three files as a corpus."""
    return prepare(sounds_folder, tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def tiny_model():
    """A tiny model: its sizes are those that are trained here."""
    return tiny_parts()


@pytest.fixture(scope="session")
def specs(tiny_model):
    """The tiny stages' specs."""
    return {name: stage.spec for name, stage in tiny_model.stages.items()}


@pytest.fixture(autouse=True)
def denormals():
    """Training sound that fades must not be slow; nor must the setting outlive the test."""
    torch.set_flush_denormal(True)
    yield
    torch.set_flush_denormal(False)
