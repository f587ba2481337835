"""Keys of scales that are known, and how far they are apart."""

import numpy as np
import pytest
from heard import notes

from audiolm.eval.keys import Key, key_distance, key_of
from audiolm.eval.music import pitch_classes

MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 11)  # the minor one harmonic
CHORD = (12, 0, 7)


@pytest.mark.parametrize("tonic", range(12))
@pytest.mark.parametrize("minor", [False, True])
def test_a_scale_and_its_tonic_chord_are_in_their_key(tonic, minor):
    steps = (*(MINOR if minor else MAJOR), *CHORD, 3 if minor else 4)
    sound = np.concatenate([notes((48 + tonic + step,), 0.5, 2) for step in steps])
    assert key_of(pitch_classes(sound)) == Key(tonic, minor)


def test_silence_has_no_key_and_is_farthest():
    assert key_of(np.zeros(12)) is None
    assert key_distance(None, Key(0, minor=False)) == key_distance(Key(3, minor=True), None) == 6


def test_keys_are_apart_by_fifths():
    c = Key(0, minor=False)
    assert key_distance(c, c) == 0
    assert key_distance(c, Key(7, minor=False)) == key_distance(c, Key(5, minor=False)) == 1
    assert key_distance(c, Key(9, minor=True)) == 0  # its relative minor
    assert key_distance(c, Key(0, minor=True)) == 3
    assert key_distance(c, Key(6, minor=False)) == 6
    assert key_distance(Key(11, minor=False), Key(6, minor=False)) == 1  # round the circle


def test_two_keys_by_chance_are_three_steps_apart():
    keys = [Key(tonic, minor) for tonic in range(12) for minor in (False, True)]
    assert np.mean([key_distance(a, b) for a in keys for b in keys]) == pytest.approx(3)
    assert str(Key(3, minor=True)) == "E flat minor"
