"""Forced alignment: what goes to pocketsphinx and what comes back; and the real one on a synthetic voice."""

import io
import itertools
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest

from audiolm.errors import InputError
from audiolm.eval import phones
from audiolm.eval.phones import (
    Aligner,
    Phone,
    align_corpus,
    english_texts,
    load_phones,
    read_texts,
    save_phones,
)
from audiolm.train.data import write_corpus


class Entry(list):
    """A word of phones, or a phone."""

    def __init__(self, name, start=0, duration=0, inner=()):
        super().__init__(inner)
        self.name, self.start, self.duration = name, start, duration


class FakeDecoder:
    """Knows `cat`; finds nothing at wide beams."""

    def __init__(self, beam, **_):
        self.beam, self.words, self.text, self.added = beam, {"cat": "K AE T"}, "", {}

    def lookup_word(self, word):
        return self.words.get(word)

    def add_word(self, word, sounds, update):
        assert update
        self.words[word] = sounds

    def set_align_text(self, text):
        self.text = text

    def set_alignment(self):
        if self.beam == max(phones.BEAMS):
            raise RuntimeError("no path")

    def start_utt(self):
        pass

    def process_raw(self, data, full_utt):
        assert full_utt
        self.samples = len(data) // 2

    def end_utt(self):
        pass

    def get_alignment(self):
        at, found = 0, [Entry("<sil>", inner=[Entry("SIL", 0, 10)])]
        for word in self.text.split():
            inner = [Entry(name, at + 10 + 5 * i, 5) for i, name in enumerate(self.words[word].split())]
            at += 5 * len(inner)
            found.append(Entry(word, inner=inner))
        return [*found, Entry("[NOISE]", inner=[Entry("+NSN+", at + 10, 4)])]


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setitem(sys.modules, "pocketsphinx", types.SimpleNamespace(Decoder=FakeDecoder))


@pytest.mark.usefixtures("fake")
def test_phones_have_times_and_unknown_words_are_marked():
    found = Aligner().align(np.zeros(16000, np.float32), "Cat, ZIG!")
    names = [phone.name for phone in found]
    assert names == ["SIL", "K", "AE", "T", "UNK", "UNK", "UNK", "SIL"]
    assert found[1] == Phone("K", 0.1, 0.15)
    assert found[-1].start == pytest.approx(0.4)


@pytest.mark.usefixtures("fake")
def test_a_clip_without_words_or_path_is_left_out(monkeypatch, tmp_path):
    corpus = write_corpus(tmp_path, [(name, np.zeros(16000, np.float32)) for name in ("a", "b", "c")])
    assert list(align_corpus(corpus, {"a": "cat", "b": "1, 2"})) == ["a"]
    monkeypatch.setattr(FakeDecoder, "set_alignment", lambda _: (_ for _ in ()).throw(RuntimeError("no path")))
    assert align_corpus(corpus, {"a": "cat"}) == {}


def test_phones_are_kept_in_json(tmp_path):
    found = {"one/a": [Phone("SIL", 0.0, 0.1), Phone("AA", 0.1, 0.25)]}
    save_phones(tmp_path / "phones.json", found)
    assert load_phones(tmp_path / "phones.json") == found
    (tmp_path / "bad.json").write_text("[1]")
    for name in ("bad.json", "none.json"):
        with pytest.raises(InputError, match="holds no phones"):
            load_phones(tmp_path / name)


def test_texts_are_those_of_the_rows_asked_for(tmp_path):
    path = tmp_path / "manifest.csv"
    path.write_text('file,text,tier\na.opus,"Yes, so.",A\nb.opus,no,B\n')
    assert read_texts(path, tier="A") == {"a.opus": "Yes, so."}
    assert len(read_texts(path)) == 2
    with pytest.raises(InputError, match=r"lacks the columns \['lang'\]"):
        read_texts(path, lang="en")
    with pytest.raises(InputError, match="cannot be read"):
        read_texts(tmp_path / "none.csv")


def test_only_english_texts_are_aligned(tmp_path):
    path = tmp_path / "manifest.csv"
    path.write_text("file,text,lang\na,yes,en\nb,ja,de\nc,so,\nd,yes,en-gb\n")
    assert list(english_texts(path)) == ["a", "c", "d"]
    path.write_text("file,text\na,yes\n")
    assert list(english_texts(path)) == ["a"]


def test_without_pocketsphinx_the_remedy_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(InputError, match="pip install pocketsphinx"):
        Aligner()


def test_a_synthetic_voice_is_aligned():
    pytest.importorskip("pocketsphinx")
    soundfile, soxr = pytest.importorskip("soundfile"), pytest.importorskip("soxr")
    espeak = shutil.which("espeak-ng") or pytest.skip("needs espeak-ng")
    text = "the cat sat on the mat"
    wave = subprocess.run([espeak, "-v", "en-us", "--stdout", text], capture_output=True, check=True).stdout
    sound, rate = soundfile.read(io.BytesIO(wave), dtype="float32")
    found = Aligner().align(soxr.resample(sound, rate, 16000), text)
    said = [phone.name for phone in found if phone.name != "SIL"]
    assert said[2:5] == ["K", "AE", "T"]
    assert all(a.end == pytest.approx(b.start) for a, b in itertools.pairwise(found))
    assert found[-1].end == pytest.approx(len(sound) / rate, abs=0.05)
