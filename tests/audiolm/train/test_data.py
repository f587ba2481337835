"""Corpora: crops of any length from clips of any length, shares and gains, packs, and what a damaged folder says."""

import json
import tracemalloc
from itertools import islice

import numpy as np
import pytest
from material import melody

from audiolm.errors import InputError
from audiolm.train.augment import Augment
from audiolm.train.data import Corpus, crops, whole_ticks, write_corpus
from audiolm.train.shards import META, CorpusWriter
from audiolm.train.tokens import streams


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
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audio_000_0000.i16", META]


def in_the_old_format(folder, clips):
    """A corpus as they were once written: one array, an index, names."""
    folder.mkdir(parents=True, exist_ok=True)
    lengths = [len(samples) for _, samples in clips]
    index = np.stack([np.cumsum([0, *lengths[:-1]]), lengths], 1)
    np.save(folder / "audio.npy", np.concatenate([np.round(s * 32768).astype("<i2") for _, s in clips]))
    np.save(folder / "index.npy", index.astype(np.int64))
    (folder / "names.json").write_text(json.dumps([name for name, _ in clips]))


def test_corpora_of_the_old_format_are_read_and_replaced(tmp_path):
    clips = [("x/a", melody(1, 0)), ("x/b", melody(1, 1)[:9000]), ("c", melody(1, 2))]
    in_the_old_format(tmp_path / "old", clips)
    old, new = Corpus.open(tmp_path / "old"), write_corpus(tmp_path / "new", clips)
    assert old.groups == new.groups == ["x", "x", "c"]
    assert [old.folder(i) for i in range(3)] == ["x", "x", "c"]
    assert all(np.array_equal(old.clip(i), new.clip(i)) for i in range(3))
    for length in (3000, 30000):
        draws = [corpus.crop(length, np.random.default_rng(3)) for corpus in (old, new)]
        assert np.array_equal(*draws)
    write_corpus(tmp_path / "old", clips[:1])
    assert sorted(path.name for path in (tmp_path / "old").iterdir()) == ["audio_000_0000.i16", META]


def test_crops_over_shards_are_those_of_one_file(tmp_path):
    clips = [(f"{'ab'[i // 5]}/{i}", melody(1, i)[: 3000 + 900 * i]) for i in range(10)]
    one, many = write_corpus(tmp_path / "one", clips), write_corpus(tmp_path / "many", clips, shard_mib=0.02)
    assert len(list((tmp_path / "many").glob("*.i16"))) > 4
    for seed in range(20):
        for length in (2000, 20000):
            draws = [corpus.crop(length, np.random.default_rng(seed)) for corpus in (one, many)]
            assert np.array_equal(*draws)
    joined = [streams(corpus, longest=1.0) for corpus in (one, many)]
    assert len(joined[0]) == len(joined[1]) > 3
    assert all(np.array_equal(*pair) for pair in zip(*joined, strict=True))


def test_a_corpus_larger_than_memory_is_written_and_read(tmp_path):
    minute = melody(60, 0)
    tracemalloc.start()
    try:
        corpus = write_corpus(tmp_path, ((f"{i}", minute) for i in range(100)), shard_mib=16)
        batches = crops([(corpus, 1.0)], 160000, 4, 0)
        for batch in islice(batches, 20):
            assert batch.shape == (4, 160000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    size = sum(path.stat().st_size for path in tmp_path.glob("*.i16"))
    assert size == 100 * 60 * 16000 * 2
    assert peak < size / 6


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


def test_augmented_batches_follow_the_seed_and_leave_the_others_alone(corpus):
    parts, both = [(corpus, 1.0)], Augment(speed=0.5, equalize=0.5)
    first = next(crops(parts, 6400, 8, 3, augment=both))
    assert first.shape == (8, 6400)
    assert (first == next(crops(parts, 6400, 8, 3, augment=both))).all()
    plain = next(crops(parts, 6400, 8, 3))
    assert (plain == next(crops(parts, 6400, 8, 3, augment=Augment()))).all()
    assert not (first == plain).all()


@pytest.mark.parametrize(("encoding", "error", "bytes_a_sample"), [("int16", 1e-4, 2), ("mulaw", 0.02, 1)])
def test_a_pack_is_a_part_that_travels(tmp_path, encoding, error, bytes_a_sample):
    clips = [(f"{i % 3}/{i}", melody(1, i)) for i in range(12)]
    corpus = write_corpus(tmp_path / "all", sorted(clips))
    packs = [corpus.pack(tmp_path / f"p{k}", 5 / 3600, encoding=encoding, part=(k, 2)) for k in range(2)]
    assert [len(pack.names) for pack in packs] == [5, 5]
    assert not set(packs[0].names) & set(packs[1].names)
    assert packs[0].names == sorted(packs[0].names)
    assert packs[0].groups == [name[0] for name in packs[0].names]
    for i, name in enumerate(packs[0].names):
        whole = corpus.clip(corpus.names.index(name))
        assert np.abs(packs[0].clip(i) - whole).max() < error
    assert sum(path.stat().st_size for path in (tmp_path / "p0").glob("audio*")) == 5 * 16000 * bytes_a_sample


@pytest.mark.parametrize(("hours", "part"), [(0, (0, 1)), (1, (1, 1)), (1e-9, (0, 1))])
def test_packs_of_nothing_are_refused(corpus, tmp_path, hours, part):
    with pytest.raises(InputError, match=r"expected hours > 0|no clip fits"):
        corpus.pack(tmp_path, hours, part=part)


def test_a_folder_that_is_no_corpus_says_what_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"corpus\.json is not there"):
        Corpus.open(tmp_path)


def changed(folder, change):
    meta = json.loads((folder / META).read_text())
    change(meta)
    (folder / META).write_text(json.dumps(meta))


DAMAGE = {
    "names": lambda meta: meta["clips"]["names"].pop(),
    "groups": lambda meta: meta["clips"]["groups"].pop(),
    "beyond": lambda meta: meta["clips"]["lengths"].__setitem__(1, 16001),
    "nothing": lambda meta: meta["clips"]["lengths"].__setitem__(0, 0),
    "empty": lambda meta: [values.clear() for values in meta["clips"].values()],
    "version": lambda meta: meta.update(version=99),
    "keys": lambda meta: meta.pop("shards"),
    "elsewhere": lambda meta: meta["shards"][0].update(file="../audio_000_0000.i16"),
    "encoding": lambda meta: meta.update(encoding="mp3"),
}


@pytest.mark.parametrize("damage", ["truncated", "json", *DAMAGE])
def test_damaged_corpora_are_refused(tmp_path, damage):
    write_corpus(tmp_path, [("a", melody(1, 0)), ("b", melody(1, 1))])
    if damage == "truncated":
        shard = tmp_path / "audio_000_0000.i16"
        shard.write_bytes(shard.read_bytes()[:100])
    elif damage == "json":
        (tmp_path / META).write_text('{"version": 1, ')
    else:
        changed(tmp_path, DAMAGE[damage])
    with pytest.raises(InputError, match="corpus"):
        Corpus.open(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "names", "beyond"])
def test_damaged_corpora_of_the_old_format_are_refused(tmp_path, damage):
    in_the_old_format(tmp_path, [("a", melody(1, 0)), ("b", melody(1, 1))])
    if damage == "truncated":
        (tmp_path / "audio.npy").write_bytes((tmp_path / "audio.npy").read_bytes()[:100])
    elif damage == "names":
        (tmp_path / "names.json").write_text('["a"]')
    else:
        np.save(tmp_path / "index.npy", np.array([[0, 16000], [16000, 16001]]))
    with pytest.raises(InputError, match="damaged corpus"):
        Corpus.open(tmp_path)


def test_an_interrupted_write_leaves_the_last_corpus(tmp_path):
    write_corpus(tmp_path, [("good", melody(1, 0))])
    before = sorted(path.name for path in tmp_path.iterdir())

    def clips():
        yield "first", melody(1, 1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_corpus(tmp_path, clips())
    assert Corpus.open(tmp_path).names == ["good"]
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_what_a_killed_write_left_is_cleared_by_the_next(tmp_path):
    write_corpus(tmp_path, [("good", melody(1, 0))])
    (tmp_path / "audio_001_0000.i16").write_bytes(b"left behind")
    write_corpus(tmp_path, [("new", melody(1, 1))])
    assert Corpus.open(tmp_path).names == ["new"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audio_002_0000.i16", META]


@pytest.mark.parametrize("where", ["sound", "list"])
def test_a_full_disk_leaves_the_last_corpus(tmp_path, monkeypatch, where):
    write_corpus(tmp_path, [("good", melody(1, 0))])
    before = sorted(path.name for path in tmp_path.iterdir())

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*{"sound": (CorpusWriter, "_shard_for"), "list": (type(tmp_path), "write_text")}[where], full)
        with pytest.raises(InputError, match="No space left on device"):
            write_corpus(tmp_path, [("new", melody(1, 1))])
    assert Corpus.open(tmp_path).names == ["good"]
    assert sorted(path.name for path in tmp_path.iterdir()) == before
