"""Word error rates where what is heard is decided by the test."""

import numpy as np
import pytest
from heard import RATE

from audiolm.errors import InputError
from audiolm.eval.clips import Held
from audiolm.eval.report import Section
from audiolm.eval.words import (
    CHANCE,
    CODED,
    FORCED,
    SAID,
    Heard,
    Words,
    hear,
    measure_words,
    sounds_of,
    told,
    write_pace,
)
from audiolm.train.data import write_corpus

TEXTS = {"a/0.wav": "One two three.", "a/1.wav": "four five six", "a/2.wav": "42 !", "b/0.wav": "seven eight nine"}


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """Clips of 2, 3, 3, 1 and 4 s; the fourth is too short, and the fifth has no text."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("words") / "speech_dev"
    names = [*TEXTS, "b/1.wav"]
    clips = [(name, 0.1 * rng.standard_normal(s * RATE)) for name, s in zip(names, (2, 3, 3, 1, 4), strict=True)]
    write_corpus(root, [(name, sound.astype(np.float32)) for name, sound in clips])
    return Held.open(str(root))


def test_clips_have_a_text_of_words_and_two_seconds(held):
    clips = told(held, TEXTS, 100, 0)
    assert sorted(clip.words[0] for clip in clips) == ["four", "one"]
    assert {len(clip.sound) for clip in clips} == {2 * RATE, 3 * RATE}
    assert len(told(held, TEXTS, 0.5, 0)) == 1
    assert told(held, {}, 100, 0) == []


def test_rates_of_what_was_heard():
    said = [["one", "two"], ["three", "four"], ["five", "six", "seven", "eight"]]
    wrong = [["one", "too"], ["three"], ["five", "six", "seven", "eight"]]
    found = Heard(said, {SAID: said, CODED: wrong, FORCED: [said[1], said[0], said[2]]}, [1.0, 2.0, 2.0])
    assert found.rate(SAID).mean == 0
    assert found.rate(CODED).mean == pytest.approx(2 / 8)
    assert found.rate(FORCED).mean == pytest.approx(4 / 8)
    assert found.rate(CHANCE).mean == pytest.approx(4 / 8)  # the first two are swapped back, the third is all wrong
    assert found.pace(CODED).mean == pytest.approx((2 + 0.5 + 2) / 3)


def test_every_clip_is_heard_three_ways(model, held):
    sounds, clips = [], told(held, TEXTS, 100, 0)

    def listen(sound, _rate):
        sounds.append(sound)
        return "one two three"

    made = sounds_of(model, clips, seed=3)
    found = hear(clips, made, listen)
    assert [len(sound) for sound in sounds] == [len(clip.sound) for _ in range(3) for clip in clips]
    assert np.array_equal(sounds[0], clips[0].sound)
    assert np.array_equal(sounds[5], model.continuation(clips[1].sound, mode="resynthesize", seed=4))
    for system in (SAID, CODED, FORCED):
        assert found.rate(system).mean == pytest.approx(0.5)


def section_of(model, held, texts, spare=None):
    section = Section("continuation", "Continuation")
    words = Words(lambda _sound, _rate: "one two three", "a fake", texts, spare)
    measure_words(section, model, held, words, seconds=100)
    return section


def test_the_table_of_words(model, held):
    section = section_of(model, held, TEXTS)
    table = section.tables[0]
    assert table["title"] == "speech_dev: words of 2 clips (5 s, 6 words), heard by a fake"
    assert [row[0] for row in table["rows"]] == [SAID, CODED, FORCED, CHANCE]
    assert section.figures["speech_dev: words"]["error_rate"][SAID].mean == pytest.approx(0.5)
    assert section.notes == ["speech_dev: 2 clips are too few for the interval of a word error rate to say much."]


def test_a_recognizer_that_knows_these_words_alone_has_a_column(model, held):
    section, known = Section("continuation", "Continuation"), set()

    def narrow(words):
        known.update(words)
        return lambda _sound, _rate: "one two three four"

    words = Words(lambda _sound, _rate: "one", "a fake", TEXTS, narrow=narrow)
    measure_words(section, model, held, words, seconds=100)
    assert known == {"one", "two", "three", "four", "five", "six"}
    assert section.tables[0]["columns"][-1] == "word error rate, choosing among these 6 words"
    found = section.figures["speech_dev: words"]
    assert found["error_rate"][SAID].mean == pytest.approx(5 / 6)
    assert found["error_rate_known"][SAID].mean == pytest.approx((1 + 4) / 6)


def test_without_texts_the_words_are_of_the_spare_set(model, held):
    section = section_of(model, held, {}, lambda: (held, TEXTS))
    assert "in the words of speech_dev" in section.tables[0]["title"]
    assert "give --manifest" in section.notes[0]
    assert "too few" in section.notes[1]


def test_without_any_text_a_note_says_so(model, held):
    def nothing():
        raise InputError("espeak-ng is not installed")

    assert "there is no word error rate" in section_of(model, held, {}).notes[0]
    assert "none could be spoken: espeak-ng" in section_of(model, held, {}, nothing).notes[0]
    assert section_of(model, held, {}, nothing).tables == []


def test_words_a_second_of_what_is_made():
    section, words = Section("continuation", "Continuation"), Words(lambda _s, _r: "a b c", "a fake", {})
    sound = np.zeros(2 * RATE, np.float32)
    write_pace(section, "x", {"one": [sound, sound], "two": [sound[:RATE]]}, words)
    assert section.figures["x: words heard a second"]["one"].mean == 1.5
    assert section.figures["x: words heard a second"]["two"].mean == 3
