"""Shards: a row of samples over many files, mu-law bytes, and what a writer refuses."""

import numpy as np
import pytest

from audiolm.errors import InputError
from audiolm.train.shards import FROM_MULAW, TO_MULAW, CorpusWriter, Shards


def test_a_slice_reaches_over_shards():
    row = np.arange(100, dtype=np.int16)
    shards = Shards([row[:30], row[30:31], row[31:90], row[90:]])
    assert len(shards) == 100
    for start, stop in ((0, 100), (29, 32), (30, 31), (95, 200), (-5, None), (40, 40), (60, 50)):
        assert np.array_equal(shards[start:stop], row[start:stop])
    assert shards[40:40].dtype == np.int16
    assert len(Shards([])) == 0


def test_mulaw_keeps_silence_sign_and_loudness():
    samples = np.arange(-32768, 32768)
    back = FROM_MULAW[TO_MULAW[samples + 32768]].astype(int)
    assert back[32768] == 0
    assert np.abs(back[1:] + back[:0:-1]).max() <= 1  # the top of int16 is one short
    assert (np.diff(back) >= 0).all()
    speech = np.round(np.random.default_rng(0).laplace(0, 1600, 100_000)).clip(-32768, 32767).astype(int)
    noise = FROM_MULAW[TO_MULAW[speech + 32768]] - speech.astype(float)
    assert 10 * np.log10(np.square(speech).mean() / np.square(noise).mean()) > 35


def test_a_clip_never_crosses_a_shard(tmp_path):
    with CorpusWriter(tmp_path, shard_mib=0.01) as writer:
        for i, samples in enumerate((3000, 2000, 4000, 9000, 100)):
            writer.add(str(i), np.full(samples, i, np.int16), "g")
        assert (len(writer), writer.samples) == (5, 18100)
        writer.commit()
    sizes = [path.stat().st_size // 2 for path in sorted(tmp_path.glob("*.i16"))]
    assert sizes == [5000, 4000, 9000, 100]  # a shard has room for 5242 samples


def test_nothing_is_seen_before_the_commit(tmp_path):
    with CorpusWriter(tmp_path) as writer:
        writer.add("a", np.zeros(100, np.float32), "g")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("mib", "encoding"), [(0, "int16"), (float("nan"), "int16"), (1, "flac")])
def test_writers_of_no_use(tmp_path, mib, encoding):
    with pytest.raises(InputError, match="expected more than 0 in int16 or mulaw"):
        CorpusWriter(tmp_path, mib, encoding)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="cannot be written"):
        CorpusWriter(tmp_path / "file" / "corpus")
