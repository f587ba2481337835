"""Word errors whose number is known, recognizers that are plugged in, and the built-in one on a synthetic voice."""

import shutil
import subprocess
import sys
import types
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from audiolm.errors import InputError
from audiolm.eval import recognize
from audiolm.eval.recognize import edits, error_rate, recognized, recognizer, words_of

SOUND = np.zeros(16_000, np.float32)


@pytest.mark.parametrize(
    ("said", "heard", "wanted"),
    [
        ("", "", 0),
        ("the cat sat", "the cat sat", 0),
        ("the cat sat", "", 3),
        ("", "a b", 2),
        ("the cat sat", "the bat sat", 1),
        ("the cat sat", "the fat cat sat", 1),
        ("the cat sat", "cat sat down", 2),
        ("a b c d", "d c b a", 4),
    ],
)
def test_edits_are_the_fewest(said, heard, wanted):
    assert edits(said.split(), heard.split()) == wanted
    assert edits(heard.split(), said.split()) == wanted


def test_words_are_letters_in_lower_case():
    assert words_of("The CAT's 'quoted' -- don't, 42!") == ["the", "cat's", "quoted", "don't"]


def test_the_rate_is_of_all_words_together():
    found = error_rate([0, 2], [8, 2])
    assert found.mean == pytest.approx(0.2)
    assert (found.low, found.high, found.n) == (0.0, 1.0, 2)
    assert error_rate([0, 0, 0], [3, 4, 5]).high == 0
    assert error_rate([6], [3]).mean == 2
    assert error_rate([1, 0], [0, 0]).n == 0


def test_the_interval_covers_a_known_rate():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(40):
        words = rng.integers(4, 20, 60)
        found = error_rate(list(rng.binomial(words, 0.3)), list(words), seed)
        covered += found.low <= 0.3 <= found.high
    assert covered >= 34


@pytest.fixture
def plugin(monkeypatch):
    """A module as a user would write it."""
    module = types.ModuleType("my_recognizer")
    module.hear = lambda sound, rate: f"{len(sound)} SAMPLES at {rate} {sound.dtype.name}"
    module.silent = lambda _sound, _rate: None
    module.broken = lambda _sound, _rate: 1 / 0
    module.number = 3
    monkeypatch.setitem(sys.modules, "my_recognizer", module)
    return module


@pytest.mark.usefixtures("plugin")
def test_a_function_of_a_module_recognizes():
    listen = recognizer("my_recognizer:hear")
    assert listen(SOUND, 16_000) == "16000 SAMPLES at 16000 float32"
    assert recognized(listen, SOUND.astype(np.float64)) == ["samples", "at", "float"]


@pytest.mark.usefixtures("plugin")
def test_an_entry_point_recognizes(monkeypatch):
    entries = [EntryPoint("mine", "my_recognizer:hear", recognize.GROUP), EntryPoint("gone", "my_recognizer:no", "x")]
    monkeypatch.setattr(recognize, "entry_points", lambda group: entries if group == recognize.GROUP else [])
    assert recognizer("mine")(SOUND, 16_000).startswith("16000")
    with pytest.raises(InputError, match=r"gone.*my_recognizer:no.*cannot be imported"):
        recognizer("gone")
    with pytest.raises(InputError, match="unknown recognizer 'other'; there are pocketsphinx, gone, mine"):
        recognizer("other")


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no_such_module:f", "cannot be imported .*no_such_module"),
        ("my_recognizer:no", "cannot be imported .*has no attribute 'no'"),
        (":f", "cannot be imported"),
        ("my_recognizer:number", "is a int; expected a function"),
    ],
)
def test_a_bad_recognizer_is_told(name, told):
    with pytest.raises(InputError, match=told):
        recognizer(name)


@pytest.mark.usefixtures("plugin")
def test_a_recognizer_that_fails_is_told():
    with pytest.raises(InputError, match=r"failed on 1.0 s of sound: ZeroDivisionError"):
        recognized(recognizer("my_recognizer:broken"), SOUND)
    with pytest.raises(InputError, match="returned a NoneType; expected the text"):
        recognized(recognizer("my_recognizer:silent"), SOUND)


def test_a_missing_pocketsphinx_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(InputError, match="pip install pocketsphinx"):
        recognizer("pocketsphinx")


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_pocketsphinx_hears_a_synthetic_voice(tmp_path):
    """A robot's voice is not what its model was trained on: some of the words, and none of silence."""
    pytest.importorskip("pocketsphinx")
    from audiolm.eval.spoken import synthesizer
    from audiolm.io import read_audio

    text, path = "good morning how are you today we are going to the house in the city", tmp_path / "said.wav"
    subprocess.run([synthesizer(), "-v", "en-us", "-s", "130", "-w", str(path), text], check=True)
    listen = recognizer("pocketsphinx")
    found = recognized(listen, np.asarray(read_audio(path), np.float32))
    assert edits(words_of(text), found) / len(words_of(text)) < 0.7
    assert len(recognized(listen, SOUND)) <= 1
    few = recognize.pocketsphinx(words_of(text))
    easier = recognized(few, np.asarray(read_audio(path), np.float32))
    assert set(easier) <= set(words_of(text))
    assert edits(words_of(text), easier) / len(words_of(text)) < 0.5
    with pytest.raises(InputError, match="hears at 16000 Hz; got 8000"):
        listen(SOUND, 8000)
