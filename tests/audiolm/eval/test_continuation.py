"""Continuations whose key, pace and voice are known, and those of a tiny model."""

import sys

import numpy as np
import pytest
from heard import CHORDS, RATE, notes

from audiolm.eval import continuation as section_of
from audiolm.eval.clips import Prompt, prompts
from audiolm.eval.continuation import (
    BARE,
    CHANCE,
    CODEC,
    MODEL,
    OTHER,
    TRUTH,
    Continued,
    continuation,
    continue_all,
    music_scores,
    prosody_scores,
    silent_share,
    speech_scores,
)
from audiolm.eval.stats import gain
from audiolm.eval.words import Words

SILENCE = np.zeros(2 * RATE, np.float32)


def piece(i, model_chord=None, model_pace=4):
    """Prompt and truth in chord i at 4 notes a second; the model in its chord and pace, bare in the chord after."""
    prompt = Prompt(notes(CHORDS[i], 2, seed=i), notes(CHORDS[i], 2, seed=10 + i), f"piece{i}")
    made = notes(CHORDS[i] if model_chord is None else CHORDS[model_chord], 2, model_pace, seed=20 + i)
    bare = notes(CHORDS[(i + 1) % 4], 2, 8, seed=30 + i)
    sounds = {MODEL: made, BARE: bare, CODEC: prompt.truth, TRUTH: prompt.truth}
    return Continued(prompt, sounds, np.concatenate((prompt.sound, prompt.truth)))


def means(scores, key):
    return {name: np.mean(values) for name, values in scores[key].items()}


def test_a_model_that_keeps_key_and_pace_gains_on_others():
    scores = music_scores([piece(i) for i in range(4)])
    pitch, pace = means(scores, "pitch"), means(scores, "pace")
    assert pitch[MODEL] > 0.7
    assert pitch[CODEC] == pitch[TRUTH]
    assert gain(scores["pitch"][MODEL], scores["pitch"][OTHER]).low > 0.3
    assert gain(scores["pitch"][MODEL], scores["pitch"][BARE]).low > 0.3
    assert gain(scores["pace"][BARE], scores["pace"][MODEL]).low > 0.5
    assert pace[OTHER] == pytest.approx(pace[MODEL], abs=0.2)
    for key in ("pitch", "range"):
        assert gain(scores[key][MODEL], scores[key][OTHER]).low > 0.2
        assert gain(scores[key][MODEL], scores[key][CHANCE]).low > 0.2
    assert gain(scores["fifths"][OTHER], scores["fifths"][MODEL]).low > 0
    assert scores["fifths"][TRUTH] == scores["fifths"][CODEC]
    assert np.mean(scores["tempo"][MODEL]) < 0.05


def test_a_model_that_always_plays_the_same_gains_nothing():
    scores = music_scores([piece(i, model_chord=0) for i in range(4)])
    found = gain(scores["pitch"][MODEL], scores["pitch"][OTHER])
    assert found.low < 0.1
    assert len(scores["pitch"][OTHER]) == 4


def test_silence_agrees_with_nothing():
    quiet = piece(0)
    scores = music_scores([Continued(quiet.prompt, {**quiet.sounds, MODEL: SILENCE}, quiet.coded), piece(1)])
    assert scores["pitch"][MODEL][0] == 0
    assert scores["pace"][MODEL][0] > 2
    assert silent_share(SILENCE) == 1
    assert silent_share(notes(CHORDS[0], 2)) < 0.1


def test_one_piece_alone_has_no_other():
    scores = music_scores([piece(0), piece(0)])
    assert np.isnan(scores["pitch"][OTHER]).all()
    assert np.isnan(scores["tempo"][CHANCE]).all()


def test_the_voice_is_the_prompts_or_not(monkeypatch):
    """Sounds that hold the angle of their voice in their first sample."""
    monkeypatch.setattr(section_of, "embed", lambda sound: np.array([np.cos(sound[0]), np.sin(sound[0])]))
    angles = {"a": 0.0, "b": 1.0, "c": 2.0}
    known = {who: np.array([np.cos(x), np.sin(x)]) for who, x in angles.items()}

    def said(who, model):
        prompt = Prompt(np.array([angles[who]]), np.array([angles[who] + 0.1]), who)
        return Continued(prompt, {MODEL: np.array([model]), TRUTH: prompt.truth}, prompt.truth)

    scores = speech_scores([said("a", 0.2), said("b", 1.2), said("c", 0.0)], known)
    assert scores["speaker"][MODEL] == [1, 1, 0]
    assert scores["speaker"][TRUTH] == [1, 1, 1]
    assert scores["similarity"][MODEL][0] == pytest.approx(np.cos(0.2))
    assert scores["similarity"][OTHER][0] == pytest.approx((np.cos(1.2) + 1) / 2)


def test_a_tiny_model_continues_every_prompt_by_every_hand(model, music):
    given = prompts(music, 2, 0.4, 0.8, 0)
    made = continue_all(model, given, seed=5)
    for each in made:
        assert set(each.sounds) == {MODEL, BARE, CODEC, TRUTH}
        assert {len(sound) for sound in each.sounds.values()} == {12800}
        assert len(each.coded) == 19200
    assert np.array_equal(made[1].sounds[MODEL], model.continuation(given[1].sound, 0.8, seed=6))
    assert BARE not in continue_all(model, given[:1], bare=False)[0].sounds


def test_the_section_of_music(model, music):
    told = []
    section = continuation(model, [music], count=2, heard=0.4, seconds=0.8, progress=told.append)
    assert [row[0] for row in section.tables[0]["rows"]] == [MODEL, OTHER, BARE, CODEC, TRUTH, CHANCE]
    assert len({len(row) for row in section.tables[0]["rows"]} | {len(section.tables[0]["columns"])}) == 1
    assert len(section.goals) == 4
    assert section.figures["music_dev"]["prompts"] == 2
    assert told == [f"music_dev: continuation {i} of 2" for i in (1, 2)]


def gain_rows(section):
    return {row[0]: row[1:] for row in section.tables[1]["rows"]}


def test_the_table_of_what_is_kept(model, music, monkeypatch):
    """A model that goes on as the recording does keeps everything; one that is silent keeps nothing."""
    made = [piece(i % 4) for i in range(8)]
    perfect = [Continued(each.prompt, {**each.sounds, MODEL: each.prompt.truth}, each.coded) for each in made]
    dead = [Continued(each.prompt, {**each.sounds, MODEL: SILENCE}, each.coded) for each in made]
    monkeypatch.setattr(section_of, "prompts", lambda *_: [])
    for hands, wanted in ((perfect, {"yes"}), (dead, {"not shown"})):
        monkeypatch.setattr(section_of, "continue_all", lambda *_, hands=hands, **__: hands)
        section = continuation(model, [music])
        rows = gain_rows(section)
        assert {rows[name][-1] for name in ("pitch-class agreement", "note range shared")} == wanted
        found = section.figures["music_dev"]["gain"]["pitch"]
        assert found[CHANCE].mean == pytest.approx(found[OTHER].mean) if hands is perfect else found[CHANCE].high < 1


def test_a_few_prompts_are_no_proof(model, music, monkeypatch):
    made = [piece(i) for i in range(4)]
    monkeypatch.setattr(section_of, "prompts", lambda *_: [])
    monkeypatch.setattr(section_of, "continue_all", lambda *_, **__: made)
    assert {row[-1] for row in gain_rows(continuation(model, [music])).values()} == {"too few prompts"}
    monkeypatch.setattr(section_of, "continue_all", lambda *_, **__: made[:1])
    assert {row[-1] for row in gain_rows(continuation(model, [music])).values()} == {"not measured"}


def voice(pitch, rate, seed=0):
    """Syllables at a pitch, so many a second."""
    time = np.arange(2 * RATE) / RATE
    turn = 2 * np.pi * np.cumsum(pitch * (1 + 0.05 * np.sin(2 * np.pi * 2 * time + seed))) / RATE
    tone = sum(np.sin(k * turn) / k for k in range(1, 12))
    return (0.1 * tone * np.clip(np.sin(2 * np.pi * rate * time), 0, 1)).astype(np.float32)


def test_prosody_is_kept_or_not():
    def said(i, kept):
        voices = ((100, 3), (160, 5), (220, 4))
        pitch, rate = voices[i] if kept else (130, 6)
        truth = voice(*voices[i], seed=1)
        prompt = Prompt(voice(*voices[i]), truth, f"s{i}")
        return Continued(prompt, {MODEL: voice(pitch, rate, seed=2), TRUTH: truth}, truth)

    scores = prosody_scores([said(i, kept=True) for i in range(3)])
    for key in ("f0", "rate"):
        assert gain(scores[key][OTHER], scores[key][MODEL]).low > 0.2
        assert np.mean(scores[key][MODEL]) < 0.3
    lost = prosody_scores([said(i, kept=False) for i in range(3)])
    assert np.mean(lost["f0"][MODEL]) > 3
    assert gain(lost["f0"][OTHER], lost["f0"][MODEL]).high < 0.5


def test_a_silent_voice_has_no_pitch_to_compare():
    prompt = Prompt(voice(100, 3), voice(100, 3), "a")
    other = Prompt(voice(200, 3), voice(200, 3), "b")
    made = [Continued(each, {MODEL: SILENCE, TRUTH: each.truth}, each.truth) for each in (prompt, other)]
    scores = prosody_scores(made)
    assert np.isnan(scores["f0"][MODEL] + scores["f0"][OTHER]).all()
    assert min(scores["voiced"][MODEL]) > 0.2
    assert scores["f0"][CHANCE] == pytest.approx([12, 12], abs=0.1)


def speech_section(model, held, words=None):
    return continuation(model, [held], count=2, heard=1.0, seconds=1.0, words=words)


def test_the_section_of_speech(model, voices_held):
    pytest.importorskip("resemblyzer")
    section = speech_section(model, voices_held)
    found = section.figures["speech_dev"]
    assert found["similarity"][TRUTH].mean > found["similarity"][MODEL].mean
    assert found["f0"][TRUTH].mean < found["f0"][CHANCE].mean
    assert [goal.above for goal in section.goals] == [0.6, 0]
    assert "nearest of 3" in section.goals[0].what


def test_without_resemblyzer_the_section_is_made_and_says_so(model, voices_held, monkeypatch):
    monkeypatch.setitem(sys.modules, "resemblyzer", None)
    section = speech_section(model, voices_held)
    assert "whose voice it is was not measured: this measure uses resemblyzer" in section.notes[1]
    assert "similarity" not in section.figures["speech_dev"]
    assert "pitch difference (semitones)" in section.tables[0]["columns"]
    assert section.goals == []


def test_words_are_heard_where_a_recognizer_is_given(model, voices_held, monkeypatch):
    monkeypatch.setitem(sys.modules, "resemblyzer", None)
    texts = dict.fromkeys(voices_held.corpus.names, "one two")
    section = speech_section(model, voices_held, Words(lambda _s, _r: "one two", "a fake", texts))
    assert section.figures["speech_dev: words"]["error_rate"]["recording"].mean == 0
    assert section.figures["speech_dev: words heard a second"][MODEL].mean == 2
