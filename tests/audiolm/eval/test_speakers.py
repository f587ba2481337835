"""Whose voice it is."""

import numpy as np
import pytest
from heard import RATE, speech

from audiolm.errors import InputError
from audiolm.eval import speakers
from audiolm.eval.clips import enrolment, voices
from audiolm.eval.speakers import embed, enrolled, nearest, similarity
from audiolm.train.data import write_corpus

KNOWN = {"a": np.array([1.0, 0.0]), "b": np.array([0.0, 1.0])}


def test_the_nearest_is_the_one_at_the_smallest_angle():
    assert nearest(np.array([0.8, 0.6]), KNOWN) == "a"
    assert nearest(np.array([0.6, 0.8]), KNOWN) == "b"
    assert nearest(None, KNOWN) is None
    assert similarity(KNOWN["a"], KNOWN["a"]) == 1
    assert similarity(None, KNOWN["a"]) == similarity(KNOWN["a"], None) == 0


def test_silence_is_nobody():
    assert embed(np.zeros(RATE, np.float32)) is None


def test_enrolment_takes_the_end_of_each_voice_and_needs_two(voices_held, monkeypatch, tmp_path):
    heard = []

    def listen(sound):
        heard.append(len(sound))
        return np.ones(2)

    monkeypatch.setattr(speakers, "embed", listen)
    assert set(enrolled(voices_held.corpus)) == {"s0", "s1", "s2"}
    assert heard == [len(enrolment(voice)[1]) for voice in voices(voices_held.corpus).values()]
    alone = write_corpus(tmp_path / "c", [("s/a.wav", speech(2, 0))])
    with pytest.raises(InputError, match="1 of 1 speakers"):
        enrolled(alone)


def test_a_voice_is_nearest_to_itself():
    pytest.importorskip("resemblyzer")
    one, same, other = embed(speech(3, 0, seed=1)), embed(speech(3, 0, seed=2)), embed(speech(3, 2, seed=3))
    assert one.shape == (256,)
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-4)
    assert similarity(one, same) > similarity(one, other)
    assert nearest(same, {"one": one, "other": other}) == "one"
