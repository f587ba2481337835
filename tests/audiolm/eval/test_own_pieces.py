"""The measures of music on the pieces of our own set, whose key, tempo and range are written beside them."""

import pytest

from audiolm.eval.keys import Key, key_distance, key_of
from audiolm.eval.music import note_range, pitch_classes
from audiolm.eval.own import own_set, pieces
from audiolm.eval.tempo import tempo, tempo_difference


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    corpus = own_set("music", tmp_path_factory.mktemp("own")).corpus
    return {name.split(".")[0]: corpus.clip(i) for i, name in enumerate(corpus.names)}


def test_every_piece_is_in_its_key_or_that_keys_relative(sounds):
    for piece in pieces():
        assert key_distance(key_of(pitch_classes(sounds[piece.name])), Key(piece.tonic, piece.minor)) == 0, piece


def test_every_piece_has_its_tempo(sounds):
    for piece in pieces():
        assert tempo_difference(tempo(sounds[piece.name]), piece.beats) < 0.01, piece


def test_every_piece_stays_in_its_range_and_uses_most_of_it(sounds):
    for piece in pieces():
        low, high = note_range(sounds[piece.name])
        assert piece.lowest <= low < high <= piece.highest
        assert high - low > 0.6 * (piece.highest - piece.lowest)
