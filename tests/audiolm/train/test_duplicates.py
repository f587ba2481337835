"""The same recording in another form is found, another recording is not."""

import io

import numpy as np
import pytest
import soundfile
from material import RATE, melody

from audiolm.train.duplicates import BITS, BYTES, MOST_BITS, Seen, fingerprint


def away(one, other):
    return int(BITS[np.frombuffer(fingerprint(one), np.uint8) ^ np.frombuffer(fingerprint(other), np.uint8)].sum())


def coded(sound, form, subtype):
    file = io.BytesIO()
    soundfile.write(file, sound, RATE, format=form, subtype=subtype)
    file.seek(0)
    return soundfile.read(file, dtype="float32")[0]


@pytest.mark.parametrize("form", [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("WAV", "ULAW")])
def test_another_format_and_level_is_the_same_recording(form):
    for seed in range(4):
        sound = melody(6, seed)
        assert away(sound, coded(0.2 * sound, *form)) <= MOST_BITS


def test_other_recordings_are_far():
    sounds = [melody(6, seed) for seed in range(30)]
    nearest = min(away(sounds[i], sounds[k]) for i in range(30) for k in range(i))
    assert nearest > 1.5 * MOST_BITS


def test_what_was_seen_is_found_by_length_and_likeness():
    seen, marks = Seen(), [fingerprint(melody(6, seed)) for seed in range(5)]
    for k, mark in enumerate(marks):
        seen.add(str(k), bytes([k]), mark, 6.0)
    assert seen.same(bytes([3])) == "3"
    assert seen.same(b"other") == ""
    assert len(marks[0]) == BYTES
    assert seen.similar(marks[2], 6.03) == ["2"]
    assert seen.similar(marks[2], 7.0) == []
    assert seen.similar(b"", 6.0) == []


def test_short_and_silent_sounds_do_no_harm():
    assert fingerprint(melody(1, 0)) == b""
    assert len(fingerprint(np.zeros(32000, np.float32))) == BYTES
