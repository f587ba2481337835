"""Key and pace of music that was made to have them."""

import numpy as np
import pytest
from heard import RATE, notes

from audiolm.eval.music import (
    note_range,
    onset_density,
    onsets,
    pace_difference,
    pitch_agreement,
    pitch_classes,
    range_overlap,
    rises,
)

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


@pytest.mark.parametrize(("low", "high"), [(48, 72), (60, 61), (57, 81), (64, 64)])
def test_the_range_is_from_the_lowest_to_the_highest_note(low, high):
    """Overtones, here two to each note, are not notes."""
    sound = np.concatenate([notes((note,), 1, 1) for note in (low, high, low)])
    assert note_range(sound) == (low, high)
    assert note_range((0.1 * sound).astype(np.float32)) == (low, high)


def test_two_tones_at_once_have_their_range():
    time = np.arange(2 * RATE) / RATE
    both = [np.sin(2 * np.pi * 440 * 2 ** ((note - 69) / 12) * time) for note in (57, 77)]
    assert note_range((0.1 * sum(both)).astype(np.float32)) == (57, 77)


def test_silence_has_no_range():
    assert note_range(np.zeros(RATE, np.float32)) is None
    assert note_range(np.zeros(0, np.float32)) is None


def test_ranges_overlap_by_semitones():
    assert range_overlap((60, 71), (60, 71)) == 1
    assert range_overlap((60, 60), (60, 60)) == 1
    assert range_overlap((60, 71), (66, 77)) == pytest.approx(6 / 18)
    assert range_overlap((60, 62), (63, 70)) == range_overlap((60, 62), (72, 80)) == 0
    assert range_overlap((60, 71), (60, 65)) == pytest.approx(0.5)
    assert range_overlap(None, (60, 62)) == range_overlap((60, 62), None) == 0


def test_the_spectrum_rises_where_a_note_begins():
    rise = rises(notes((60,), 3, 1))
    assert np.argmax(rise[80:120]) + 80 == pytest.approx(96, abs=4)  # windows of 64 ms reach the note at 1 s before it
