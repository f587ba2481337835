"""Tiny random bundles of each pattern, short prompts, and ways to run whole graphs on them."""

import asyncio
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiolm.bundle import save_bundle
from audiolm.tiny import tiny_parts

sys.path.insert(0, str(Path(__file__).parent))

import graphs

PATTERNS = ("depth", "delay", "flat")


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    """Pattern -> folder of a tiny bundle."""
    root = tmp_path_factory.mktemp("bundles")
    return {
        pattern: save_bundle(tiny_parts(3, pattern=pattern), root / pattern, card="A random model for tests.\n")
        for pattern in PATTERNS
    }


@pytest.fixture(scope="session")
def bundle(bundles):
    return bundles["depth"]


@pytest.fixture(scope="session")
def prompt(tmp_path_factory):
    """A second and a bit: 27 ticks and 77 samples."""
    path = tmp_path_factory.mktemp("prompts") / "prompt.wav"
    soundfile.write(path, graphs.tone(440, 27 * 640 + 77), 16000, subtype="FLOAT")
    return path


@pytest.fixture(scope="session")
def voice(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "voice.wav"
    soundfile.write(path, graphs.tone(180, 20 * 640), 16000, subtype="FLOAT")
    return path


@pytest.fixture
def play(bundle, tmp_path):
    """Run a shipped config or YAML text to its end: `graphs.play` with a bundle and a folder for the outputs."""

    def run(source, *overrides, **options):
        given = {"bundle": bundle, "folder": tmp_path, **options}
        return asyncio.run(graphs.play(source, *overrides, **given))

    return run


@pytest.fixture
def aplay(bundle, tmp_path):
    """The same for a test that has a loop."""

    async def run(source, *overrides, **options):
        given = {"bundle": bundle, "folder": tmp_path, **options}
        return await graphs.play(source, *overrides, **given)

    return run


@pytest.fixture(scope="session")
def sound():
    """The prompt's samples, float32."""
    return graphs.tone(440, 27 * 640 + 77).astype(np.float32)
