"""From files to a corpus: what is taken, what is refused, and the reasons."""

import json

import numpy as np
import pytest
import soundfile
from material import RATE, melody

from audiolm.errors import InputError
from audiolm.train.prepare import REFUSED, find_files, prepare


def write(path, samples, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate)


def test_files_of_any_rate_and_channels_become_clips_in_order(tmp_path):
    write(tmp_path / "in/b/stereo.flac", np.stack([melody(3, 1)] * 2, 1), 44100)
    write(tmp_path / "in/a.wav", melody(1, 0))
    (tmp_path / "in/notes.txt").write_text("not sound, not looked at")
    corpus = prepare(tmp_path / "in", tmp_path / "out")
    assert corpus.names == ["a.wav", "b/stereo.flac"]
    assert np.abs(corpus.clip(0) - melody(1, 0)).max() < 1e-3
    assert abs(corpus.index[1, 1] - 48000 * 16000 / 44100) < 3
    assert json.loads((tmp_path / "out" / REFUSED).read_text()) == {}


def test_what_is_refused_is_listed_with_the_reason(tmp_path):
    write(tmp_path / "in/good.wav", melody(1, 0))
    write(tmp_path / "in/same.wav", melody(1, 0))
    write(tmp_path / "in/short.wav", melody(1, 1)[:4000])
    write(tmp_path / "in/silent.wav", np.zeros(16000, np.float32))
    (tmp_path / "in/broken.flac").write_bytes(b"fLaC but no more")
    (tmp_path / "in/empty.wav").write_bytes(b"")
    corpus = prepare(tmp_path / "in", tmp_path / "out")
    refused = json.loads((tmp_path / "out" / REFUSED).read_text())
    assert corpus.names == ["good.wav"]
    assert set(refused) == {"same.wav", "short.wav", "silent.wav", "broken.flac", "empty.wav"}
    assert refused["same.wav"] == "the same sound as good.wav"
    assert refused["short.wav"] == "0.25 s, shorter than 0.5 s"
    assert refused["silent.wav"].startswith("silent")


def test_a_split_is_what_the_manifest_says(tmp_path):
    for name in ("one", "two", "three"):
        write(tmp_path / f"{name}.wav", melody(1, len(name)))
    (tmp_path / "manifest.csv").write_text("file,split\none.wav,train\ntwo.wav,dev\nthree.wav,train\nlost.wav,dev\n")
    assert [path.name for path in find_files(tmp_path, "train")] == ["one.wav", "three.wav"]
    assert prepare(tmp_path, tmp_path / "out", "dev").names == ["two.wav"]
    assert list(json.loads((tmp_path / "out" / REFUSED).read_text())) == ["lost.wav"]
    with pytest.raises(InputError, match="no split 'test'; it has dev, train"):
        find_files(tmp_path, "test")


@pytest.mark.parametrize(
    ("manifest", "message"),
    [(None, "needs a manifest"), ("name,part\na,train\n", "columns"), ("file,split\n../a.wav,train\n", "not below")],
)
def test_manifests_of_no_use(tmp_path, manifest, message):
    if manifest:
        (tmp_path / "manifest.csv").write_text(manifest)
    with pytest.raises(InputError, match=message):
        find_files(tmp_path, "train")


def test_folders_of_no_use(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        prepare(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(InputError, match="no sound files"):
        prepare(tmp_path, tmp_path / "out")
    (tmp_path / "bad.wav").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"1 refused, the first is bad\.wav"):
        prepare(tmp_path, tmp_path / "out")
