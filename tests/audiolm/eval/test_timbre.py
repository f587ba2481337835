"""Timbre: the colour of a sound, not its level."""

import numpy as np
import pytest
from heard import CHORDS, notes, speech

from audiolm.eval.timbre import timbre, timbre_distance


def test_a_sound_has_its_own_colour_at_any_level():
    sound = speech(2, 0)
    assert timbre_distance(timbre(sound), timbre(sound)) == 0
    assert timbre_distance(timbre(sound), timbre(0.5 * sound)) < 0.3


def test_other_voices_and_instruments_are_farther_than_another_moment():
    voice = timbre(speech(3, 0, seed=1))
    again, other, piano = (timbre(each) for each in (speech(3, 0, seed=2), speech(3, 2), notes(CHORDS[0], 3)))
    assert timbre_distance(voice, again) < timbre_distance(voice, other)
    assert timbre_distance(voice, again) < timbre_distance(voice, piano)


def test_the_distance_is_the_root_mean_square():
    assert timbre_distance(np.zeros(12), np.full(12, 3.0)) == pytest.approx(3)
