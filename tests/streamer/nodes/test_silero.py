"""Speech detection: a spoken sentence is found, its re-chunking is exact, and what is missing is named."""

import builtins
import importlib.util
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from streamer.errors import ConfigError
from streamer.nodes import silero
from streamer.nodes.detect import TICK, make_detector
from streamer.nodes.silero import CHUNK, SpeechDetector, SpeechSettings

pytest.importorskip("onnxruntime")
ASSETS = Path(__file__).parents[3] / "assets"
QUIET = 25  # ticks before and after


@pytest.fixture(scope="module")
def detector():
    return make_detector("speech")


@pytest.fixture(scope="module")
def sentence():
    """The spoken prompt with a second of faint noise before and two after, float32 whole ticks."""
    speech, _ = soundfile.read(ASSETS / "prompt_speech.flac", dtype="float32")
    speech = np.pad(speech, (QUIET * TICK, 2 * QUIET * TICK + -len(speech) % TICK))
    return speech + 1e-4 * np.random.default_rng(0).standard_normal(len(speech)).astype(np.float32)


def run(detector, samples):
    state = detector.init_state()
    return [detector.step(tick, state) for tick in samples.reshape(-1, TICK)]


def test_a_sentence_is_found_at_once_and_ends(detector, sentence):
    active = [heard.active for heard in run(detector, sentence)]
    loud = np.square(sentence).reshape(-1, TICK).mean(1) > 1e-4
    first, last = np.flatnonzero(loud)[[0, -1]]
    assert first <= active.index(True) <= first + 2
    assert not any(active[last + 10 :])
    assert sum(active[first:last]) > 0.8 * (last - first)


@pytest.mark.parametrize("colour", ["white", "hum", "piano"])
def test_what_is_no_speech_is_not_taken_for_it(detector, colour):
    time = np.arange(100 * TICK) / 16_000
    sounds = {
        "white": 0.05 * np.random.default_rng(0).standard_normal(len(time)),
        "hum": sum(0.1 / k * np.sin(2 * np.pi * 50 * k * time) for k in range(1, 8)),
        "piano": soundfile.read(ASSETS / "prompt_piano.flac")[0][: len(time)],
    }
    active = [heard.active for heard in run(detector, sounds[colour].astype(np.float32))]
    assert sum(active) <= 3


def test_ticks_give_the_scores_of_whole_chunks(detector, sentence):
    """Four ticks are five chunks: the largest score of the chunks that a tick completes is that of the tick."""
    state = detector.init_state()
    starts = range(0, len(sentence) // CHUNK * CHUNK, CHUNK)
    scores = [detector._score(sentence[start : start + CHUNK], state) for start in starts]
    heard = run(detector, sentence)
    ends = [(i + 1) * TICK // CHUNK for i in range(-1, len(heard))]
    assert [each.score for each in heard] == [max(scores[a:b]) for a, b in pairwise(ends)]


def test_hysteresis_keeps_what_has_begun(sentence):
    sharp, slow = SpeechDetector(SpeechSettings(0.5, 0.5)), SpeechDetector(SpeechSettings(0.5, 0.05))
    count = [sum(heard.active for heard in run(each, sentence)) for each in (sharp, slow)]
    assert count[1] > count[0]


@pytest.mark.parametrize(("on", "off"), [(0.3, 0.5), (1.0, 0.5), (0.5, 0.0), (float("nan"), 0.3)])
def test_thresholds_that_cannot_be_are_refused(on, off):
    with pytest.raises(ConfigError, match="0 < off <= on < 1"):
        SpeechSettings(on, off)


def test_the_package_with_the_weights_is_not_imported(detector):
    assert "silero_vad" not in sys.modules


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"silero-vad.*not installed.*audiolm-streamer\[vad\].*detector: music"):
        make_detector("speech")


def test_a_package_without_weights_is_named(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("silero_vad", tmp_path / "x.py", submodule_search_locations=[])
    spec.submodule_search_locations.append(str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(ConfigError, match=r"has no data/silero_vad.onnx"):
        make_detector("speech")


def test_a_missing_runtime_is_named_with_its_remedy(monkeypatch):
    real = builtins.__import__

    def fake(name, *args, **kwargs):
        if name == "onnxruntime":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", fake)
    with pytest.raises(ConfigError, match=r"onnxruntime.*audiolm-streamer\[vad\]"):
        silero._load(Path("x"))
