"""Our own spoken set: its rule and lists without a synthesizer, and the set itself where espeak-ng is installed."""

import json
import shutil
from collections import Counter

import pytest
import soundfile
from typer.testing import CliRunner

from audiolm.cli import app
from audiolm.errors import InputError
from audiolm.eval import spoken
from audiolm.eval.pairs import SBLIMP, SWUGGY, find_sound, load
from audiolm.eval.spoken import KNOWN, SWAPS, non_word, phones_of, sentences, speak, synthesizer, words
from audiolm.eval.word_list import COMMON, RARER

espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")


def test_there_are_enough_pairs_of_both():
    assert len(words()) >= 200
    assert len(sentences()) >= 200
    assert min(Counter(count for _, _, count in words()).values()) >= 100
    assert min(Counter(each.phenomenon for each in sentences()).values()) >= 30


def test_lists_hold_every_word_once():
    assert len(set(COMMON) | set(RARER)) == len(COMMON) + len(RARER)


def test_a_non_word_differs_by_one_consonant_and_is_in_no_list():
    for word, other, _ in words():
        changed = [(a, b) for a, b in zip(word, other, strict=True) if a != b]
        assert len(changed) == 1, word
        assert changed[0][1] in SWAPS[changed[0][0]]
        assert other not in KNOWN


def test_a_word_without_such_a_consonant_has_none():
    assert non_word("apple") is None
    assert non_word("water") in {"waper", "waker"}


def test_non_words_are_in_no_dictionary_either():
    pocketsphinx = pytest.importorskip("pocketsphinx")
    path = pocketsphinx.get_model_path("en-us/cmudict-en-us.dict")
    with open(path, encoding="utf8") as file:  # noqa: PTH123 - what pocketsphinx gives is a string
        known = {line.split(" ", 1)[0].partition("(")[0] for line in file}
    assert [other for _, other, _ in words() if other in known] == []


def test_twins_differ_and_no_pair_comes_twice():
    both = [(each.right, each.wrong) for each in sentences()]
    assert all(a != b for a, b in both)
    assert len(set(both)) == len(both)


def test_what_is_right_somewhere_is_wrong_nowhere():
    right = {each.right for each in sentences()}
    assert [each.wrong for each in sentences() if each.wrong in right] == []


def test_without_the_synthesizer_the_error_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(InputError, match=r"install it .* or give --data"):
        speak(tmp_path)


def test_a_synthesizer_that_fails_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(spoken, "synthesizer", lambda: "false")
    with pytest.raises(InputError, match="espeak-ng failed"):
        speak(tmp_path, most=1)


@espeak
def test_the_set_is_in_the_layout_and_every_sound_is_there(tmp_path):
    speak(tmp_path, most=8)
    for task, count in ((SWUGGY, 8), (SBLIMP, 8)):
        gold = load(tmp_path, task)
        assert len(gold.pairs) == count
        assert gold.faults == ()
        assert all(len(pair.trials) == 2 for pair in gold.pairs)
        for name in gold.files:
            info = soundfile.info(find_sound(gold.folder, name))
            assert 0.1 < info.duration < 5
            assert info.channels == 1
    assert {pair.group for pair in load(tmp_path, SWUGGY).pairs} == {">100", "6-20"}
    assert len({pair.group for pair in load(tmp_path, SBLIMP).pairs}) == 6


@espeak
def test_words_and_non_words_sound_different():
    pairs = words()
    heard = phones_of(synthesizer(), [text for word, other, _ in pairs for text in (word, other)], "en-us")
    real = set(heard[::2])
    assert [pair for pair, phones in zip(pairs, heard[1::2], strict=True) if phones in real] == []


@espeak
def test_the_whole_set_has_200_pairs_and_more_of_each_and_a_model_is_measured_on_it(tmp_path, tiny_bundle):
    speak(tmp_path / f"spoken-{spoken.VERSION}", ["en-us"])
    for name in ("swuggy", "sblimp"):
        done = CliRunner().invoke(app, ["eval", name, tiny_bundle, "--out", str(tmp_path)])
        assert done.exit_code == 0, done.output
    sections = json.loads((tmp_path / "report.json").read_text())["sections"]
    assert sections["swuggy"]["figures"]["pairs"] == len(words())
    assert sections["sblimp"]["figures"]["pairs"] == len(sentences())
    assert set(sections["swuggy"]["figures"]["by frequency"]) == {"6-20", ">100"}
    assert "spoken by espeak-ng" in " ".join(sections["swuggy"]["notes"])


@espeak
def test_the_set_has_no_test_split(tmp_path, tiny_bundle):
    done = CliRunner().invoke(app, ["eval", "swuggy", tiny_bundle, "--split", "test", "--out", str(tmp_path)])
    assert "has only dev" in str(done.exception)
