"""Corpora: crops of any length from clips of any length, shares and gains, and what a damaged folder says."""

import json

import numpy as np
import pytest
from material import melody

from audiolm.errors import InputError
from audiolm.train.data import Corpus, crops, whole_ticks, write_corpus


def constant(value, samples):
    return np.full(samples, value, np.float32)


def values(crop):
    return set(np.round(np.unique(crop) * 100).astype(int).tolist())


def test_a_corpus_comes_back_as_it_was_written(tmp_path):
    clip = melody(1, 0)
    corpus = write_corpus(tmp_path, [("a", clip), ("b", clip[:5000] * 0.5)])
    assert corpus.names == ["a", "b"]
    assert corpus.seconds == (16000 + 5000) / 16000
    assert np.abs(corpus.clip(0) - clip).max() <= 0.5 / 32768 + 1e-7
    assert np.abs(corpus.clip(1) - clip[:5000] * 0.5).max() <= 0.5 / 32768 + 1e-7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audio.npy", "index.npy", "names.json"]


def test_every_place_of_a_clip_is_equally_likely(tmp_path):
    corpus = write_corpus(tmp_path, [("a", np.arange(4000, dtype=np.float32) / 32768)])
    rng = np.random.default_rng(0)
    starts = [round(float(corpus.crop(3000, rng)[0]) * 32768) for _ in range(400)]
    assert min(starts) < 50
    assert max(starts) > 950
    assert 420 < np.mean(starts) < 580


def test_short_clips_go_on_with_those_of_the_same_folder(tmp_path):
    clips = [("a/1", constant(0.1, 900)), ("a/2", constant(0.2, 900)), ("b/1", constant(0.4, 900))]
    corpus = write_corpus(tmp_path, clips)
    rng = np.random.default_rng(0)
    seen = [values(corpus.crop(30000, rng)) for _ in range(60)]
    assert all(found in ({0, 10, 20}, {0, 40}) for found in seen)
    assert {0, 40} in seen
    assert {0, 10, 20} in seen


@pytest.mark.parametrize("samples", [1, 7, 640])
def test_a_tiny_corpus_fills_a_long_crop(tmp_path, samples):
    corpus = write_corpus(tmp_path, [("only", constant(0.5, samples))])
    crop = corpus.crop(20000, np.random.default_rng(0))
    assert crop.shape == (20000,)
    assert crop.dtype == np.float32
    assert values(crop) == {0, 50}


def test_batches_follow_seed_shares_and_gain(tmp_path):
    quiet = write_corpus(tmp_path / "q", [("q", constant(0.01, 8000))])
    loud = write_corpus(tmp_path / "l", [("l", constant(0.5, 8000))])
    parts = [(quiet, 1.0), (loud, 3.0)]
    batches = crops(parts, 640, 200, 5, gain_db=6.0)
    first = next(batches)
    assert first.shape == (200, 640)
    level = first.abs().amax(1)
    assert 0.6 < float((level > 0.1).float().mean()) < 0.9
    assert float(level.max()) <= 1.0
    assert (first == next(crops(parts, 640, 200, 5, gain_db=6.0))).all()
    assert not (first == next(batches)).all()


@pytest.mark.parametrize(("parts", "batch"), [([], 4), ("one", 0), ("nought", 4), ("nan", 4)])
def test_batches_of_nothing_are_refused(corpus, parts, batch):
    shares = {"one": 1.0, "nought": 0.0, "nan": float("nan")}
    with pytest.raises(InputError, match=r"empty|positive"):
        crops([(corpus, shares[parts])] if parts else [], 640, batch, 0)


def test_crops_are_whole_ticks():
    assert whole_ticks(0.64) == 10240
    assert whole_ticks(0.1) == 1280
    with pytest.raises(InputError, match="shorter than a tick"):
        whole_ticks(0.03)


def test_a_folder_that_is_no_corpus_says_what_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"audio\.npy, index\.npy, names\.json not there"):
        Corpus.open(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "names", "beyond", "empty", "json"])
def test_damaged_corpora_are_refused(tmp_path, damage):
    write_corpus(tmp_path, [("a", melody(1, 0)), ("b", melody(1, 1))])
    if damage == "truncated":
        (tmp_path / "audio.npy").write_bytes((tmp_path / "audio.npy").read_bytes()[:100])
    elif damage == "names":
        (tmp_path / "names.json").write_text('["a"]')
    elif damage == "beyond":
        np.save(tmp_path / "index.npy", np.array([[0, 16000], [16000, 16001]]))
    elif damage == "empty":
        np.save(tmp_path / "index.npy", np.zeros((0, 2), np.int64))
        (tmp_path / "names.json").write_text("[]")
    else:
        (tmp_path / "names.json").write_text('["a", ')
    with pytest.raises(InputError, match="corpus"):
        Corpus.open(tmp_path)


def test_an_interrupted_write_leaves_the_last_corpus(tmp_path):
    write_corpus(tmp_path, [("good", melody(1, 0))])

    def clips():
        yield "first", melody(1, 1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_corpus(tmp_path, clips())
    assert Corpus.open(tmp_path).names == ["good"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audio.npy", "index.npy", "names.json"]


def test_a_full_disk_leaves_the_last_corpus(tmp_path, monkeypatch):
    write_corpus(tmp_path, [("good", melody(1, 0))])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_corpus(tmp_path, [("new", melody(1, 1))])
    assert json.loads((tmp_path / "names.json").read_text()) == ["good"]
    assert not list(tmp_path.glob("*.part"))
