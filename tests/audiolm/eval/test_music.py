"""Key and pace of music that was made to have them."""

import numpy as np
import pytest
from heard import RATE, notes

from audiolm.eval.music import onset_density, onsets, pace_difference, pitch_agreement, pitch_classes

SCALE = (60, 62, 64, 65, 67, 69, 71)


@pytest.mark.parametrize("note", range(48, 84, 5))
def test_a_tone_is_its_pitch_class_at_any_loudness(note):
    time = np.arange(RATE) / RATE
    tone = np.sin(2 * np.pi * 440 * 2 ** ((note - 69) / 12) * time)
    for level in (0.5, 0.01):
        profile = pitch_classes((level * tone).astype(np.float32))
        assert profile.argmax() == note % 12
        assert profile.max() > 0.95
        assert profile.sum() == pytest.approx(1)


def test_the_same_key_agrees_and_a_far_one_does_not():
    here, there, far = (notes(scale, 6, seed=s) for s, scale in enumerate((SCALE, SCALE, [n + 6 for n in SCALE])))
    same = pitch_agreement(pitch_classes(here), pitch_classes(there))
    assert same > 0.7
    assert pitch_agreement(pitch_classes(here), pitch_classes(far)) < 0
    assert pitch_agreement(pitch_classes(here), pitch_classes(here)) == pytest.approx(1)


@pytest.mark.parametrize("per_second", [1, 2, 4, 8])
def test_onsets_are_where_notes_begin(per_second):
    sound = notes(SCALE, 6, per_second)
    found = onsets(sound)
    assert onset_density(sound) == pytest.approx(per_second, rel=0.2)
    wanted = np.arange(6 * per_second) / per_second
    assert max(np.abs(wanted - at).min() for at in found) < 0.04


def test_a_held_tone_has_no_onsets():
    time = np.arange(4 * RATE) / RATE
    assert onset_density((0.1 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)) < 0.5


@pytest.mark.parametrize("length", [0, 100, 5000, RATE])
def test_silence_is_of_no_key_and_no_pace(length):
    silence = np.zeros(length, np.float32)
    assert not pitch_classes(silence).any()
    assert pitch_agreement(pitch_classes(silence), pitch_classes(notes(SCALE, 2))) == 0
    assert onset_density(silence) == 0


def test_pace_is_compared_in_octaves():
    assert pace_difference(4, 4) == 0
    assert pace_difference(8, 4) == pace_difference(4, 8) == pytest.approx(1, abs=0.06)
    assert np.isfinite(pace_difference(0, 4))
