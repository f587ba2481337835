"""Corpora of generated sound, a tiny model, and reports; made once for all tests of evaluation."""

import sys
from pathlib import Path

import pytest
import torch

from audiolm import AudioLM
from audiolm.eval.clips import Held
from audiolm.tiny import tiny_parts
from audiolm.train.data import write_corpus

sys.path.insert(0, str(Path(__file__).parent))
from heard import CHORDS, notes, speech


@pytest.fixture(scope="session")
def music_folder(tmp_path_factory):
    """Four pieces of 9 s, each in its key."""
    root = tmp_path_factory.mktemp("corpora") / "music_dev"
    write_corpus(root, [(f"piece{i}.wav", notes(chord, 9, seed=i)) for i, chord in enumerate(CHORDS)])
    return root


@pytest.fixture(scope="session")
def speech_folder(tmp_path_factory):
    """Three speakers, two clips of 4 s each."""
    root = tmp_path_factory.mktemp("corpora") / "speech_dev"
    clips = [(f"s{who}/clip{k}.wav", speech(4, who, seed=10 * who + k)) for who in range(3) for k in range(2)]
    write_corpus(root, clips)
    return root


@pytest.fixture(scope="session")
def music(music_folder):
    return Held.open(str(music_folder))


@pytest.fixture(scope="session")
def voices_held(speech_folder):
    return Held.open(str(speech_folder))


@pytest.fixture(scope="session")
def model():
    return AudioLM(tiny_parts())


@pytest.fixture(autouse=True)
def denormals():
    """Sound that fades must not be slow; nor must the setting outlive the test."""
    torch.set_flush_denormal(True)
    yield
    torch.set_flush_denormal(False)
