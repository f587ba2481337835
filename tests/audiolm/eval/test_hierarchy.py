"""The hierarchy over time, on continuations that were made to lose their key and pace, or not to."""

import numpy as np
import pytest
from heard import CHORDS, RATE, notes, speech

from audiolm.errors import InputError
from audiolm.eval import hierarchy as section_of
from audiolm.eval.clips import Prompt
from audiolm.eval.continuation import BARE, CODEC, MODEL, OTHER
from audiolm.eval.hierarchy import (
    Run,
    against,
    gains,
    hierarchy,
    look,
    marks,
    off_recordings,
    over_run,
    score,
    window_ends,
)

ENDS = [2.0, 4.0, 6.0]


def test_windows_end_where_the_paper_is_compared():
    ends = window_ends(60)
    assert len(ends) == 12
    assert [ends[w] for w in marks(ends)] == [5, 10, 20, 60]
    assert [window_ends(32)[w] for w in marks(window_ends(32))] == [5, 10, 20, 30]
    assert window_ends(1.0, 0.2) == [0.2, 0.4, 0.6, 0.8, 1.0]
    with pytest.raises(InputError, match="give more --seconds"):
        window_ends(4)


def piece(i, bare):
    """A prompt in chord i that the model keeps to; alone, acoustic tokens play ``bare``; 4 s of the recording."""
    prompt = Prompt(notes(CHORDS[i], 2, seed=i), notes(CHORDS[i], 4, seed=10 + i), f"piece{i}")
    return Run(prompt, {MODEL: notes(CHORDS[i], 6, seed=20 + i), BARE: bare, CODEC: prompt.truth})


def lost(i):
    """In key and pace for two seconds, then in others."""
    return np.concatenate((notes(CHORDS[i], 2, seed=30 + i), notes(CHORDS[(i + 2) % 4], 4, 10, seed=40 + i)))


def test_what_is_lost_over_time_is_gained_by_the_hierarchy(model):
    scores = score(model.parts, [piece(i, lost(i)) for i in range(4)], "music", ENDS)
    found = gains(scores, ENDS)
    for key in ("pitch", "pace"):
        assert abs(found[key]["2"].mean) < 0.2
        assert found[key]["6"].low > 0.3
        assert found[key]["all"].low > 0.2
    assert scores["pitch"][MODEL].mean() > 0.6
    assert scores["pitch"][MODEL].mean() > scores["pitch"][OTHER].mean() + 0.3
    assert np.isnan(scores["pitch"][CODEC][:, 2]).all()  # the recording ended
    assert np.isfinite(scores["pitch"][CODEC][:, :2]).all()


def test_equal_sound_gains_exactly_nothing(model):
    scores = score(model.parts, [piece(i, notes(CHORDS[i], 6, seed=20 + i)) for i in range(2)], "music", ENDS)
    for by in gains(scores, ENDS).values():
        assert all((each.mean, each.low, each.high) == (0, 0, 0) for each in by.values())


def test_silence_is_seen_and_one_piece_alone_has_no_other(model):
    scores = score(model.parts, [piece(0, np.zeros(6 * RATE, np.float32))], "music", ENDS)
    assert (scores["silent"][BARE] == 1).all()
    assert (scores["loop"][BARE][:, 1:] == 1).all()  # the first still hears the notes before it
    assert (scores["entropy"][BARE] < scores["entropy"][MODEL]).all()
    assert OTHER not in scores["pitch"]


def test_what_is_too_likely_is_as_far_off_as_what_is_too_unlikely():
    nats = {
        CODEC: np.array([[3.0, 5.0, np.nan]]),
        MODEL: np.array([[4.5, 4.0, 4.0]]),
        BARE: np.array([[1.0, 7.0, 4.0]]),
    }
    found = off_recordings(nats)
    assert found[MODEL].tolist() == [[0.5, 0, 0]]
    assert found[BARE].tolist() == [[3, 3, 0]]


def test_the_mean_over_a_run_takes_the_windows_that_there_are():
    table = np.array([[1.0, 3.0, np.nan], [np.nan, np.nan, np.nan]])
    assert over_run(table)[0] == 2
    assert np.isnan(over_run(table)[1])


def test_a_voice_is_compared_where_it_can_be_told(monkeypatch):
    monkeypatch.setattr(section_of, "embed", lambda sound: np.array([np.cos(sound[0]), np.sin(sound[0])]))
    prompt, heard = (look(np.full(8000, x, np.float32), "speech") for x in (0.0, 0.5))
    assert against(prompt, heard, "speech")["similarity"] == pytest.approx(np.cos(0.5))
    assert "similarity" not in against(prompt, heard, "speech", voiced=False)
    assert look(np.zeros(8000, np.float32), "speech", voiced=False).voice is None


def test_the_section_of_a_tiny_model(model, music):
    told = []
    section = hierarchy(
        model, [music], count=2, heard=0.8, seconds=1.2, window=0.4, times=(0.4, 0.8), progress=told.append
    )
    rows = section.tables[0]["rows"]
    assert [row[0] for row in rows] == ["0.4 s"] * 4 + ["0.8 s"] * 4 + ["1.2 s"] * 4
    assert [row[1] for row in rows[:4]] == [MODEL, BARE, OTHER, CODEC]
    assert {len(row) for table in section.tables for row in table["rows"]} == {2 + 8, 1 + 4}
    found = section.figures["music_dev"]
    assert found["systems"][CODEC]["pitch"]["1.2"].n == 2
    assert set(found["gain"]["off"]) == {"0.4", "0.8", "1.2", "all"}
    assert len(section.goals) == 3
    assert "music_dev: prompt 1 of 2, acoustic only" in told


def test_speech_without_a_library_for_voices_has_the_rest(model, voices_held, monkeypatch):
    def missing(name):
        raise InputError(f"{name} is not there")

    monkeypatch.setattr(section_of, "need", missing)
    section = hierarchy(model, [voices_held], count=2, heard=0.8, seconds=0.8, window=0.4)
    assert "similarity" not in section.figures["speech_dev"]["gain"]
    assert any("resemblyzer" in note for note in section.notes)


def test_a_speaker_is_nearer_to_the_same_voice_than_to_another():
    pytest.importorskip("resemblyzer")
    prompt, same, other = (look(speech(3, who, seed=seed), "speech") for who, seed in ((0, 1), (0, 2), (2, 3)))
    near, far = (against(prompt, each, "speech")["similarity"] for each in (same, other))
    assert near > far
