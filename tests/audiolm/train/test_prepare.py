"""From files to corpora: what is taken, refused and corrected, the splits, and what is left after a bad end."""

import json

import numpy as np
import pytest
import soundfile
from material import RATE, melody

from audiolm.errors import ConfigError, InputError
from audiolm.train import prepare as module
from audiolm.train.checks import Checks
from audiolm.train.data import Corpus
from audiolm.train.prepare import REFUSED, REPORT, SUMMARY, PrepareRecipe, prepare, prepare_data
from audiolm.train.shards import CorpusWriter

AS_IT_IS = Checks(level_db=None)


def write(path, samples, rate=RATE, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **how)


@pytest.fixture
def voices(tmp_path):
    """Six speakers of two clips each."""
    for k in range(12):
        write(tmp_path / f"in/speaker{k // 2}/clip{k}.wav", melody(2, k))
    return tmp_path / "in"


def test_files_of_any_rate_and_channels_become_clips_in_order(tmp_path):
    write(tmp_path / "in/b/stereo.flac", np.stack([melody(3, 1)] * 2, 1), 44100)
    write(tmp_path / "in/a.wav", melody(1, 0))
    (tmp_path / "in/notes.txt").write_text("not sound, not looked at")
    corpus = prepare(tmp_path / "in", tmp_path / "out", recipe=AS_IT_IS)
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
    (tmp_path / "in/song.m4a").write_bytes(b"not read")
    corpus = prepare(tmp_path / "in", tmp_path / "out")
    refused = json.loads((tmp_path / "out" / REFUSED).read_text())
    assert corpus.names == ["good.wav"]
    assert set(refused) == {"same.wav", "short.wav", "silent.wav", "broken.flac", "empty.wav", "song.m4a"}
    assert refused["same.wav"] == "the same sound as good.wav"
    assert refused["short.wav"] == "0.25 s, shorter than 0.5 s"
    assert refused["silent.wav"].startswith("silent")
    assert refused["song.m4a"] == "libsndfile reads no .m4a; convert it to FLAC"


def test_one_split_is_what_the_manifest_says(tmp_path):
    for name in ("one", "two", "three"):
        write(tmp_path / f"{name}.wav", melody(1, len(name)))
    (tmp_path / "manifest.csv").write_text("file,split\none.wav,train\ntwo.wav,dev\nthree.wav,train\nlost.wav,dev\n")
    assert prepare(tmp_path, tmp_path / "out", "dev").names == ["two.wav"]
    assert list(json.loads((tmp_path / "out" / REFUSED).read_text())) == ["lost.wav"]


def test_folders_of_no_use(tmp_path):
    for make in (prepare, prepare_data):
        with pytest.raises(InputError, match="is not a folder"):
            make(tmp_path / "nowhere", tmp_path / "out")
        with pytest.raises(InputError, match="no sound files"):
            make(tmp_path, tmp_path / "out")
    (tmp_path / "bad.wav").write_bytes(b"nothing")
    for make in (prepare, prepare_data):
        with pytest.raises(InputError, match=r"1 refused, the first is bad\.wav"):
            make(tmp_path, tmp_path / "out")
    write(tmp_path / "silent.wav", np.zeros(48000, np.float32))
    with pytest.raises(InputError, match=r"2 refused.*1 unreadable, 1 silent"):
        prepare_data(tmp_path, tmp_path / "out")
    write(tmp_path / "good.wav", melody(1, 0))
    with pytest.raises(
        InputError, match=r"1\.0 s of one speaker or piece is too little to split.*2 refused, the first"
    ):
        prepare_data(tmp_path, tmp_path / "out")


def test_a_folder_becomes_two_corpora_and_a_report(voices, tmp_path):
    write(voices / "speaker0/again.flac", soundfile.read(voices / "speaker0/clip0.wav", dtype="int16")[0])
    write(voices / "speaker1/quieter.ogg", 0.2 * melody(2, 2))
    (voices / "speaker2/text.txt").write_text("hello")
    seen = []
    made = prepare_data(voices, tmp_path / "out", PrepareRecipe(dev_share=0.2), lambda *count: seen.append(count))
    assert seen == [(k, 14) for k in range(1, 15)]
    assert not set(made.train.groups) & set(made.dev.groups)
    assert len(set(made.dev.groups)) == 1
    assert len(made.train.names) + len(made.dev.names) == 12
    assert json.loads((tmp_path / "out" / REPORT).read_text()) == made.report
    assert made.report["reasons"].keys() == {"duplicate", "near duplicate"}
    assert made.report["splits"]["by"] == "group"
    assert made.report["splits"]["train"]["groups"] == 5
    text = (tmp_path / "out" / SUMMARY).read_text()
    assert text == made.summary
    assert "taken: 12 files, 24.0 s" in text
    assert "near duplicate: 1" in text
    assert "1 files that are not sound were not looked at: 1 .txt" in text


def test_levels_are_brought_to_that_of_training(tmp_path):
    for k, gain in enumerate((0.1, 1.0, 2.0)):
        write(tmp_path / f"in/{k}.wav", gain * melody(4, k))
    made = prepare_data(tmp_path / "in", tmp_path / "out")
    levels = [np.square(corpus.clip(i)).mean() for corpus in (made.train, made.dev) for i in range(len(corpus.names))]
    assert np.ptp(10 * np.log10(levels)) < 2.5
    assert made.report["corrected"]["level"]["most"] > 10
    left = prepare_data(tmp_path / "in", tmp_path / "left", PrepareRecipe(level_db=None))
    assert "level" not in left.report["corrected"]


def test_a_manifest_splits_and_names_the_speakers(tmp_path):
    rows = ["file,speaker,split,tier"]
    for k in range(6):
        write(tmp_path / f"x/{k}.wav", melody(1, k))
        rows.append(f"x/{k}.wav,{'ann' if k % 2 else 'bob'},{'train' if k < 4 else 'valid'},{'AB'[k % 2]}")
    write(tmp_path / "x/test.wav", melody(1, 9))
    (tmp_path / "list.csv").write_text("\n".join([*rows, "x/test.wav,eve,test,A"]) + "\n")
    made = prepare_data(tmp_path / "list.csv", tmp_path / "out")
    assert made.train.names == ["x/1.wav", "x/3.wav", "x/0.wav", "x/2.wav"]
    assert made.train.groups == ["ann", "ann", "bob", "bob"]
    assert made.dev.names == ["x/5.wav", "x/4.wav"]
    assert "2 speakers or pieces are in both train and dev" in made.summary
    assert "left out by their split: 1 test" in made.summary
    tier = prepare_data(tmp_path / "list.csv", tmp_path / "a", PrepareRecipe(only={"tier": ["A"]}))
    assert (tier.train.names, tier.dev.names) == (["x/0.wav", "x/2.wav"], ["x/4.wav"])


def test_one_speaker_is_split_in_time(tmp_path):
    write(tmp_path / "in/one.wav", melody(20, 0))
    made = prepare_data(tmp_path / "in", tmp_path / "out", PrepareRecipe(dev_share=0.1, level_db=None))
    assert (made.train.seconds, made.dev.seconds) == (18.0, 2.0)
    assert np.abs(np.concatenate([made.train.clip(0), made.dev.clip(0)]) - melody(20, 0)).max() < 1e-4
    assert "only one speaker or piece (one)" in made.summary
    write(tmp_path / "tiny/one.wav", melody(1, 0))
    with pytest.raises(InputError, match=r"1\.0 s of one speaker or piece is too little to split"):
        prepare_data(tmp_path / "tiny", tmp_path / "out2")


def test_a_split_that_comes_to_nothing_is_made_again_of_what_is_good(tmp_path):
    for k in range(4):
        write(tmp_path / f"in/{k}.wav", np.zeros(32000, np.float32))
    write(tmp_path / "in/good.wav", melody(20, 0))
    made = prepare_data(tmp_path / "in", tmp_path / "out")
    assert made.report["splits"]["by"] == "time"
    assert set(made.train.names) == {"good.wav"}


def test_renders_of_a_piece_stay_together(tmp_path):
    for piece in range(5):
        for render in range(3):
            write(tmp_path / f"in/piece{piece}_{render}.wav", (1 - 0.2 * render) * melody(2, piece))
    made = prepare_data(tmp_path / "in", tmp_path / "out", PrepareRecipe(dev_share=0.2))
    assert [len(made.train.names), len(made.dev.names)] == [12, 3]
    assert len({name.split("_")[0] for name in made.dev.names}) == 1
    assert [made.report["splits"][side]["groups"] for side in ("train", "dev")] == [4, 1]
    by_rule = PrepareRecipe(group=r"_(\d)", dev_share=0.3)
    assert len({name.split("_")[1] for name in prepare_data(tmp_path / "in", tmp_path / "o2", by_rule).dev.names}) == 1


def test_long_files_are_cut_and_bounded(tmp_path):
    write(tmp_path / "in/long.flac", melody(25, 0))
    write(tmp_path / "in/other.flac", melody(8, 1))
    made = prepare_data(tmp_path / "in", tmp_path / "out", PrepareRecipe(longest=10, level_db=None, dev_share=0.2))
    assert made.train.names == ["long.flac@0", "long.flac@8", "long.flac@17"]
    assert set(made.train.groups) == {"long.flac"}
    assert np.ptp(made.train.index[:, 1]) <= 2
    joined = np.concatenate([made.train.clip(i) for i in range(3)])
    assert np.abs(joined - melody(25, 0)).max() < 1e-4


def test_several_processes_give_what_one_gives(voices, tmp_path):
    write(voices / "speaker3/long.wav", melody(15, 50))
    (voices / "speaker4/bad.wav").write_bytes(b"not sound")
    recipes = [PrepareRecipe(longest=10, jobs=jobs) for jobs in (1, 2)]
    one, two = (prepare_data(voices, tmp_path / str(recipe.jobs), recipe) for recipe in recipes)
    assert one.train.names == two.train.names
    assert one.dev.names == two.dev.names
    assert all(np.array_equal(one.train.clip(i), two.train.clip(i)) for i in range(len(one.train.names)))
    assert one.report["refused"].keys() == two.report["refused"].keys() == {"speaker4/bad.wav"}


def test_what_is_done_is_not_done_again(voices, tmp_path, monkeypatch):
    first = prepare_data(voices, tmp_path / "out")

    def read_again(*_):
        raise AssertionError("a file was read")

    with monkeypatch.context() as patch:
        patch.setattr(module, "examine_file", read_again)
        assert prepare_data(voices, tmp_path / "out").report == first.report
        with pytest.raises(AssertionError, match="a file was read"):
            prepare_data(voices, tmp_path / "out", PrepareRecipe(dev_share=0.3))
        write(voices / "speaker9/new.wav", melody(2, 90))
        with pytest.raises(AssertionError, match="a file was read"):
            prepare_data(voices, tmp_path / "out")
    after = prepare_data(voices, tmp_path / "out")
    assert "speaker9/new.wav" in after.train.names + after.dev.names
    (tmp_path / "out/train/corpus.json").unlink()
    assert prepare_data(voices, tmp_path / "out").train.names


@pytest.mark.parametrize("bad_end", ["interrupt", "full disk"])
def test_a_bad_end_leaves_the_last_corpora(voices, tmp_path, monkeypatch, bad_end):
    last = prepare_data(voices, tmp_path / "out")
    write(voices / "new/new.wav", melody(3, 77))
    add, count = CorpusWriter.add, []

    def ends(*arguments):
        count.append(1)
        if len(count) > 5:
            raise KeyboardInterrupt
        add(*arguments)

    def full(*_):
        raise OSError(28, "No space left on device")

    patched = {"interrupt": ("add", ends), "full disk": ("_shard_for", full)}[bad_end]
    with monkeypatch.context() as patch:
        patch.setattr(CorpusWriter, *patched)
        with pytest.raises((KeyboardInterrupt, InputError), match=r"^$|No space left on device"):
            prepare_data(voices, tmp_path / "out")
    assert Corpus.open(tmp_path / "out/train").names == last.train.names
    assert Corpus.open(tmp_path / "out/dev").names == last.dev.names
    assert not list((tmp_path / "out").rglob("*.part"))
    assert len(list((tmp_path / "out").rglob("*.i16"))) == 2
    after = prepare_data(voices, tmp_path / "out")
    assert len(after.train.names) + len(after.dev.names) == 13


@pytest.mark.parametrize(
    "wrong", [{"dev_share": 0.0}, {"dev_share": 0.9}, {"jobs": 0}, {"minimum": 0.0}, {"group": "("}]
)
def test_settings_of_no_sense(tmp_path, wrong):
    write(tmp_path / "a.wav", melody(1, 0))
    with pytest.raises(ConfigError, match=r"expected|regular expression"):
        prepare_data(tmp_path, tmp_path / "out", PrepareRecipe(**wrong))
