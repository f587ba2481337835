"""Our own items: the words without a synthesizer, and the set itself where espeak-ng is installed."""

import shutil
from collections import Counter

import numpy as np
import pytest

from audiolm.errors import InputError
from audiolm.eval import spoken_items as module
from audiolm.eval.abx import across_cases, within_cases
from audiolm.eval.clips import level_db
from audiolm.eval.items import from_files
from audiolm.eval.phones import SILENCE
from audiolm.eval.spoken_items import AT_ONCE, VOICES, WORDS, Synthesizer, speak_items, texts
from audiolm.train.data import RATE

espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")


def test_every_word_is_said_once_a_take():
    assert len(set(WORDS)) == len(WORDS)
    for turn in (0, 1):
        said = " ".join(texts(turn))
        assert Counter(said.replace(".", "").split()) == Counter([*WORDS, *["Say", "again"] * len(WORDS)])
        assert {text.count("Say") for text in texts(turn)} == {AT_ONCE}
    assert texts(0) != texts(1)


def test_without_the_library_the_error_says_what_to_install(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(module.ctypes, "CDLL", missing)
    with pytest.raises(InputError, match="apt install"):
        Synthesizer()


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    lines = []
    speak_items(folder, most=3, progress=lines.append)
    assert (folder / "done").exists()
    assert len(lines) == 1
    return from_files(folder)[0]


@espeak
def test_the_set_has_cases_on_both_sides(spoken):
    assert spoken.name == "espeak"
    assert spoken.faults == ()
    assert {item.speaker for item in spoken.items} == set(VOICES)
    assert len({item.clip for item in spoken.items}) == len(VOICES) * 2 * 3
    assert len(within_cases(spoken.items)) > 30
    assert len(across_cases(spoken.items)) > 30
    assert {"b", "m", "a"} <= {item.phone for item in spoken.items}


@espeak
def test_items_lie_where_the_sound_is(spoken):
    for clip in sorted({item.clip for item in spoken.items})[::6]:
        sound, items = spoken.sound(clip), [item for item in spoken.items if item.clip == clip]
        assert all(0 <= item.start < item.end <= len(sound) / RATE + 1e-3 for item in items)
        loud = [level_db(sound[int(item.start * RATE) : int(item.end * RATE)]) for item in items]
        assert min(loud) > -40
        said = np.zeros(len(sound), bool)
        for item in items:
            said[int(item.start * RATE) : int(item.end * RATE)] = True
        assert level_db(sound[~said]) < level_db(sound[said]) - 20


@espeak
def test_pauses_are_quiet_vowels_loud_and_phones_join():
    said = Synthesizer().say("Say man again. Say moon again.", "en-us")
    sound = said.sound.astype(np.float32) / 32768
    names = [phone.name for phone in said.phones if phone.name != SILENCE]
    assert names[:5] == ["s", "eI", "m", "a", "n"]
    assert all(a.end == b.start for a, b in zip(said.phones, said.phones[1:], strict=False))
    assert said.phones[-1].end == pytest.approx(len(sound) / said.rate)

    def levels(wanted):
        cut = [sound[int(p.start * said.rate) : int(p.end * said.rate)] for p in said.phones if p.name in wanted]
        return [level_db(each[len(each) // 4 :]) for each in cut]

    assert min(levels({"eI", "a", "E", "u:"})) > max(levels({SILENCE})) + 20


@espeak
def test_equal_texts_have_equal_phones_and_speed_is_heard():
    speaker = Synthesizer()
    first, again = (speaker.say("Say bat again.", "en-us+f2", 150, 50) for _ in range(2))
    assert [phone.name for phone in first.phones] == [phone.name for phone in again.phones]
    fast = speaker.say("Say bat again.", "en-us+f2", 200, 50)
    assert len(fast.sound) < len(first.sound)


@espeak
def test_an_unknown_voice_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no voice nobody"):
        speak_items(tmp_path, ["nobody"])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        speak_items(tmp_path / "file", most=1)
