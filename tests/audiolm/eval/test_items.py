"""Item files: the format of others, damaged rows, sounds that are missing, and what alignment finds."""

from pathlib import Path

import numpy as np
import pytest

from audiolm.errors import InputError
from audiolm.eval import items as module
from audiolm.eval.abx import Item
from audiolm.eval.items import COLUMNS, from_corpus, from_files, read_items, write_items
from audiolm.eval.phones import Phone
from audiolm.io import write_audio

HEADING = " ".join(COLUMNS)
ROWS = [
    "6295-244435-0009 0.2925 0.4725 IH L NG 6295",
    "6295-244435-0009 0.4 0.62 NG IH K 6295",
    "1272-128104-0000 0. 0.25 IH L NG 1272",
]


def item_file(path, rows=ROWS, heading=HEADING):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([heading, *rows]) + "\n")
    return path


def sound(path, seconds=1.0, rate=16000):
    """A tone, in whatever format the suffix says."""
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.sin(np.arange(int(seconds * rate)) * 0.1).astype(np.float32), rate)


def test_rows_are_read_as_zerospeech_and_libri_light_write_them(tmp_path):
    found, faults = read_items(item_file(tmp_path / "dev-clean.item"))
    assert found[0] == Item("6295-244435-0009", "6295", ("L", "NG"), "IH", 0.2925, 0.4725)
    assert [item.speaker for item in found] == ["6295", "6295", "1272"]
    assert faults == []


def test_what_is_written_is_read_again(tmp_path):
    found, _ = read_items(item_file(tmp_path / "a.item"))
    write_items(tmp_path / "out" / "b.item", found)
    assert read_items(tmp_path / "out" / "b.item") == (found, [])
    assert (tmp_path / "out" / "b.item").read_text().splitlines()[0] == HEADING


def test_clips_are_written_by_the_names_that_others_look_up(tmp_path):
    clips = ["one/a b.wav", "one/2.5.flac", "two/c"]
    write_items(tmp_path / "a.item", [Item(clip, "the one", ("B", "T"), "AE", 0.0, 0.1) for clip in clips])
    found, _ = read_items(tmp_path / "a.item")
    assert [item.clip for item in found] == ["a_b", "2.5", "c"]
    assert {item.speaker for item in found} == {"the_one"}
    same = [Item(clip, "s", ("B", "T"), "AE", 0.0, 0.1) for clip in ("one/a.wav", "two/a.wav")]
    write_items(tmp_path / "b.item", same)
    assert [item.clip for item in read_items(tmp_path / "b.item")[0]] == ["one/a.wav", "two/a.wav"]


def test_damaged_rows_are_left_out_counted_and_named(tmp_path):
    bad = ["a 0.1 0.2 IH L NG", "a x 0.2 IH L NG s", "a 0.3 0.2 IH L NG s", "a -1 0.2 IH L NG s", "a 0 nan IH L NG s"]
    found, faults = read_items(item_file(tmp_path / "a.item", [ROWS[0], *bad, "", ROWS[1], "a 0 inf IH L NG s"]))
    assert len(found) == 2
    assert faults == ["6 of 8 rows cannot be used (lines 3, 4, 5, 6, 7 and more)"]


def test_a_file_without_items_is_an_error(tmp_path):
    with pytest.raises(InputError, match="it has no rows"):
        read_items(item_file(tmp_path / "a.item", []))
    with pytest.raises(InputError, match=r"none of its 1 rows can be used.*#file onset"):
        read_items(item_file(tmp_path / "b.item", ["a,0.1,0.2"]))
    with pytest.raises(InputError, match="cannot be read"):
        read_items(tmp_path / "none.item")
    (tmp_path / "c.item").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match="cannot be read"):
        read_items(tmp_path / "c.item")


@pytest.fixture
def layout(tmp_path):
    """ZeroSpeech 2021's ``phonetic``, of two splits, in two formats."""
    for split, suffix in (("dev-clean", "flac"), ("dev-other", "wav")):
        folder = tmp_path / "phonetic" / split
        item_file(folder / f"{split}.item")
        for name in ("6295-244435-0009", "1272-128104-0000"):
            sound(folder / f"{name}.{suffix}", rate=16000 if suffix == "flac" else 22050)
    return tmp_path


def test_the_real_layout_is_read_split_by_split(layout):
    found = from_files(layout)
    assert [each.name for each in found] == ["dev-clean", "dev-other"]
    assert [(len(each.items), each.speakers, each.faults) for each in found] == [(3, 2, ()), (3, 2, ())]
    for each in found:
        heard = each.sound(each.items[0].clip)
        assert heard.dtype == np.float32
        assert abs(len(heard) - 16000) <= 1
    assert [each.name for each in from_files(layout / "phonetic" / "dev-other")] == ["dev-other"]


def test_items_may_lie_elsewhere(layout, tmp_path):
    elsewhere = item_file(tmp_path / "items" / "mine.item")
    (found,) = from_files(layout / "phonetic", elsewhere)
    assert (found.name, len(found.items)) == ("mine", 3)


def test_sounds_that_are_not_there_are_counted_and_named(layout):
    (layout / "phonetic/dev-clean/1272-128104-0000.flac").unlink()
    found = from_files(layout)[0]
    assert len(found.items) == 2
    assert found.faults == ("1 of 2 sounds are not there, with 1 items (1272-128104-0000)",)
    (layout / "phonetic/dev-clean/6295-244435-0009.flac").unlink()
    with pytest.raises(InputError, match=r"none of the sounds of .*dev-clean.item is under"):
        from_files(layout)


def test_a_folder_without_items_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"no item file .* give one with --items"):
        from_files(tmp_path)


def test_a_corpus_gives_items_by_alignment(voices_held, monkeypatch, tmp_path):
    names = voices_held.corpus.names
    said = [Phone(name, i / 10, (i + 1) / 10) for i, name in enumerate(["SIL", "K", "AE", "T", "SIL"])]
    monkeypatch.setattr(module, "align_corpus", lambda corpus, texts: dict.fromkeys(list(texts)[1:], said))
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("\n".join(["file,text", *(f"{name},cat" for name in names[:4])]))
    found = from_corpus(voices_held, manifest)
    assert (found.name, found.faults) == (voices_held.name, ("1 of 4 clips could not be aligned",))
    assert [(item.clip, item.speaker, item.phone) for item in found.items] == [
        (n, n.split("/")[0], "AE") for n in names[1:4]
    ]
    np.testing.assert_array_equal(found.sound(names[1]), voices_held.corpus.clip(1))
    manifest.write_text("file,text\nelsewhere.wav,cat\n")
    with pytest.raises(InputError, match="no clip could be aligned"):
        from_corpus(voices_held, manifest)


def test_what_was_aligned_is_kept(voices_held, monkeypatch, tmp_path):
    names, calls = voices_held.corpus.names, []
    said = [Phone(name, i / 10, (i + 1) / 10) for i, name in enumerate(["K", "AE", "T"])]

    def align(corpus, texts):
        calls.append(len(texts))
        return dict.fromkeys(texts, said)

    monkeypatch.setattr(module, "align_corpus", align)
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("\n".join(["file,text,tier", *(f"{name},cat,A" for name in names)]))
    first, again = (from_corpus(voices_held, manifest, {"tier": "A"}, keep=tmp_path / "out") for _ in range(2))
    assert first.items == again.items
    assert calls == [len(names)]
    manifest.write_text("\n".join(["file,text,tier", *(f"{name},cats,A" for name in names)]))
    from_corpus(voices_held, manifest, keep=tmp_path / "out")
    assert len(calls) == 2
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        from_corpus(voices_held, manifest, keep=tmp_path / "file")


def test_any_name_of_a_sound_finds_it(tmp_path):
    for name in ("one/a.wav", "two/b.wav"):
        (tmp_path / name).parent.mkdir()
        write_audio(tmp_path / name, np.zeros(16000, np.float32))
    rows = ["a 0 0.5 IH L NG one", "two/b 0 0.5 IH L NG two"]
    (found,) = from_files(tmp_path, item_file(tmp_path / "items" / "a.item", rows))
    assert [Path(item.clip).name for item in found.items] == ["a", "b"]
