"""What is found in a folder or a manifest, and whose it is."""

import pytest

from audiolm.errors import ConfigError, InputError
from audiolm.train.sources import open_source, piece_of


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def test_a_folder_gives_groups_and_voices(tmp_path):
    touch(
        tmp_path,
        "ann/day1/a.wav",
        "ann/day2/b.FLAC",
        "bob/c.mp3",
        "song_0.ogg",
        "song_1.ogg",
        "other.opus",
        "cover.jpg",
    )
    source = open_source(tmp_path)
    assert {item.name: (item.group, item.voice) for item in source.items} == {
        "ann/day1/a.wav": ("ann", "ann/day1"),
        "ann/day2/b.FLAC": ("ann", "ann/day2"),
        "bob/c.mp3": ("bob", "bob"),
        "song_0.ogg": ("song", "song_0.ogg"),
        "song_1.ogg": ("song", "song_1.ogg"),
        "other.opus": ("other", "other.opus"),
    }
    assert source.notes == ["1 files that are not sound were not looked at: 1 .jpg"]
    assert [item.voice for item in source.items] == sorted(item.voice for item in source.items)


@pytest.mark.parametrize(
    ("name", "piece"),
    [("a_0.flac", "a"), ("a_12.flac", "a"), ("a_b_3.wav", "a_b"), ("a.wav", "a"), ("_1.wav", "_1"), ("a1.wav", "a1")],
)
def test_renders_are_named_with_a_number(name, piece):
    assert piece_of(name) == piece


def test_a_rule_finds_the_group(tmp_path):
    touch(tmp_path, "x/ann-1.wav", "y/ann-2.wav", "y/none.wav")
    groups = {item.name: item.group for item in open_source(tmp_path, group=r"/(\w+)-").items}
    assert groups == {"x/ann-1.wav": "ann", "y/ann-2.wav": "ann", "y/none.wav": "y"}
    with pytest.raises(ConfigError, match="no regular expression"):
        open_source(tmp_path, group="(")


def test_folders_called_train_and_dev_are_the_split(tmp_path):
    touch(tmp_path, "Train/ann/a.wav", "Train/song_0.wav", "Train/song_1.wav", "valid/bob/b.wav", "test/c.wav")
    source = open_source(tmp_path)
    assert {item.name: (item.split, item.group, item.voice) for item in source.items} == {
        "Train/ann/a.wav": ("train", "ann", "Train/ann"),
        "Train/song_0.wav": ("train", "song", "Train/song_0.wav"),
        "Train/song_1.wav": ("train", "song", "Train/song_1.wav"),
        "valid/bob/b.wav": ("dev", "bob", "valid/bob"),
    }
    assert source.notes == ["left out by their split: 1 test"]
    touch(tmp_path, "more/d.wav")
    assert not any(item.split for item in open_source(tmp_path).items)


def test_a_manifest_beside_the_files_is_used(tmp_path):
    touch(tmp_path, "a.wav", "b.wav")
    (tmp_path / "manifest.csv").write_text("\ufefffile,split\na.wav,DEV\na.wav,train\n", encoding="utf8")
    source = open_source(tmp_path)
    assert [(item.name, item.split) for item in source.items] == [("a.wav", "train")]
    assert source.notes == ["a.wav is listed more than once; taken once"]


MANIFESTS = {
    "no columns": ("name,part\na,train\n", {}, "columns file"),
    "no rows": ("file,split\n", {}, "columns file"),
    "not text": (b"\xff\xfe\x00", {}, "no CSV in UTF-8"),
    "outside": ("file,split\n../a.wav,train\n", {}, "not below"),
    "no split": ("file,split\na.wav,train\nb.wav,dev\n", {"split": "test"}, "no row of split 'test'; it has split dev"),
    "other splits": ("file,split\na.wav,test\n", {}, "no row of train or dev; it has other splits"),
    "no such column": ("file\na.wav\n", {"only": {"tier": ["A"]}}, "columns file and tier"),
    "no such value": (
        "file,tier\na.wav,B\n",
        {"only": {"tier": ["A", "C"]}},
        "no row of tier 'A' or 'C'; it has tier B",
    ),
    "no manifest": (None, {"split": "train"}, "needs a manifest"),
}


@pytest.mark.parametrize("which", MANIFESTS)
def test_manifests_of_no_use(tmp_path, which):
    text, asked, message = MANIFESTS[which]
    if text is not None:
        (tmp_path / "manifest.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        open_source(tmp_path, **asked)


def test_formats_that_cannot_be_read_are_named(tmp_path):
    touch(tmp_path, "a.m4a")
    with pytest.raises(InputError, match="it has 1 in formats that libsndfile cannot read: convert them to FLAC"):
        open_source(tmp_path)
