"""The sets of our own: what they say they are, twice the same, and enough for every measure."""

import csv
import json
import shutil

import numpy as np
import pytest

from audiolm.errors import InputError
from audiolm.eval import own
from audiolm.eval.clips import prompts, speaker_of
from audiolm.eval.music import pitch_classes

needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("own")


@pytest.mark.parametrize(
    ("name", "kind"), [("piano", "music"), ("a/my-piano", "music"), ("speech", "speech"), ("my_voice", "speech")]
)
def test_a_bundles_name_says_what_it_is_of(name, kind):
    assert own.kind_of(name, pitches=False) == own.kind_of(name, pitches=True) == kind


@pytest.mark.parametrize("name", ["tiny", "speech-and-piano"])
def test_where_a_name_does_not_tell_its_ears_do(name):
    assert own.kind_of(name, pitches=True) == "music"
    assert own.kind_of(name, pitches=False) == "speech"


def test_a_note_has_its_pitch_and_decays():
    sound = own.note(69, 1.0)
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    assert np.argmax(spectrum) * 16_000 / len(sound) == pytest.approx(440, abs=1)
    assert np.abs(sound[12_000:]).max() < 0.4 * np.abs(sound[:4_000]).max()


def test_a_piece_keeps_to_its_key_and_is_twice_the_same():
    piece = own.pieces()[1]
    sound = own.play(piece, 12.0)
    np.testing.assert_array_equal(sound, own.play(piece, 12.0))
    inside = sum(pitch_classes(sound)[(piece.tonic + step) % 12] for step in own._degrees(piece))
    assert inside > 0.8 * pitch_classes(sound).sum()
    assert len({each.tonic for each in own.pieces()}) == own.PIECES


def test_the_music_is_a_corpus_with_its_facts(root):
    held = own.own_set("music", root)
    assert (held.name, held.kind) == (f"own_music-{own.VERSION}", "music")
    assert own.is_own(held.name)
    assert held.corpus.seconds == pytest.approx(own.PIECES * own.PIECE_SECONDS)
    facts = json.loads((root / held.name / own.FACTS).read_text())
    assert [each["tonic"] for each in facts["pieces"]] == [each.tonic for each in own.pieces()]
    assert own.texts_of(held, root) is None
    assert len(prompts(held, 8, 6, 6, 0)) == 8


@needs_espeak
def test_the_speech_has_voices_and_texts_and_is_made_once(root):
    told = []
    held = own.own_set("speech", root, told.append)
    own.own_set("speech", root, told.append)
    assert len(told) == 1
    voices = {speaker_of(held.corpus, i) for i in range(len(held.corpus.names))}
    assert len(voices) == len(own.VOICES)
    assert len(prompts(held, 8, 6, 6, 0)) == 8
    with own.texts_of(held, root).open(encoding="utf8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == held.corpus.names
    assert all(len(row["text"].split()) > 10 for row in rows)


def test_no_espeak_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr("audiolm.eval.spoken.shutil.which", lambda _: None)
    with pytest.raises(InputError, match="espeak-ng, which is not installed"):
        own.own_set("speech", tmp_path)


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        own.own_set("music", tmp_path / "file")


def test_an_ordinary_corpus_is_not_taken_for_ours():
    assert not own.is_own("speech_dev")
    assert own.is_own("own_speech-12")
