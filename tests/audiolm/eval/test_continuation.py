"""Continuations whose key, pace and voice are known, and those of a tiny model."""

import numpy as np
import pytest
from heard import CHORDS, RATE, notes

from audiolm.eval import continuation as section_of
from audiolm.eval.clips import Prompt, prompts
from audiolm.eval.continuation import (
    BARE,
    CODEC,
    MODEL,
    OTHER,
    TRUTH,
    Continued,
    continuation,
    continue_all,
    music_scores,
    silent_share,
    speech_scores,
)
from audiolm.eval.stats import gain

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
    assert [row[0] for row in section.tables[0]["rows"]] == [MODEL, OTHER, BARE, CODEC, TRUTH]
    assert len({len(row) for row in section.tables[0]["rows"]} | {len(section.tables[0]["columns"])}) == 1
    assert len(section.goals) == 4
    assert section.figures["music_dev"]["prompts"] == 2
    assert told == [f"music_dev: continuation {i} of 2" for i in (1, 2)]


def test_the_section_of_speech(model, voices_held):
    pytest.importorskip("resemblyzer")
    section = continuation(model, [voices_held], count=2, heard=1.0, seconds=1.0)
    found = section.figures["speech_dev"]
    assert found["similarity"][TRUTH].mean > found["similarity"][MODEL].mean
    assert [goal.above for goal in section.goals] == [0.6, 0]
    assert "nearest of 3" in section.goals[0].what
