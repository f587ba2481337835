"""Which sound is measured."""

import numpy as np
import pytest
from heard import RATE, notes

from audiolm.errors import InputError
from audiolm.eval.clips import Held, enrolment, excerpts, level_db, prompts, speaker_of, voices
from audiolm.train.data import write_corpus


def test_the_kind_is_in_the_name_or_given(music_folder, speech_folder, tmp_path):
    assert Held.open(str(music_folder)).kind == "music"
    assert Held.open(str(speech_folder)).kind == "speech"
    other = tmp_path / "dev"
    write_corpus(other, [("a.wav", notes((60,), 2))])
    assert Held.open(f"{other}=piano").kind == "music"
    assert Held.open(f"{other}=speech").name == "dev"
    with pytest.raises(InputError, match=r"is not in its name; write .*=speech or .*=music"):
        Held.open(str(other))
    with pytest.raises(InputError, match="is 'birds'"):
        Held.open(f"{other}=birds")


def test_excerpts_are_whole_ticks_of_sound_and_the_seed_decides(music):
    first, again, other = (excerpts(music.corpus, 6, 2.0, seed) for seed in (0, 0, 1))
    assert [len(crop) for crop in first] == [32000] * 6
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
    assert all(level_db(crop) > -50 for crop in first)


def test_a_clip_shorter_than_the_crop_is_taken_whole(music):
    assert {len(crop) for crop in excerpts(music.corpus, 4, 60.0, 0)} == {9 * RATE // 640 * 640}


def test_silence_is_no_excerpt(tmp_path):
    silent = write_corpus(tmp_path / "silent", [("a.wav", np.zeros(3 * RATE, np.float32))])
    with pytest.raises(InputError, match="not silent"):
        excerpts(silent, 2, 1.0, 0)
    short = write_corpus(tmp_path / "short", [("a.wav", notes((60,), 0.5))])
    with pytest.raises(InputError, match="has a second of sound"):
        excerpts(short, 2, 1.0, 0)


def test_libri_names_tell_the_speaker_where_the_folder_does_not(tmp_path):
    names = ["dev/1988-147956-0000.wav", "dev/1993-147149-0003.wav", "dev/1988-24833-0001.wav", "lj/LJ001-0001.wav"]
    corpus = write_corpus(tmp_path / "c", [(name, notes((60,), 1)) for name in names])
    found = [speaker_of(corpus, i) for i in range(4)]
    assert found[0] == found[2] != found[1]
    assert found[3] == "lj"
    assert {who: len(v) for who, v in voices(corpus).items()}[found[0]] == 2 * RATE + RATE // 4


def test_what_enrols_a_speaker_is_in_no_prompt(voices_held):
    voice = voices(voices_held.corpus)["s1"]
    rest, known = enrolment(voice)
    assert len(rest) + len(known) == len(voice)
    assert len(known) == int(0.4 * len(voice))
    for prompt in prompts(voices_held, 6, 1.0, 1.0, 0):
        whole = voices(voices_held.corpus)[prompt.who]
        both = np.concatenate((prompt.sound, prompt.truth))
        at = int(np.argmax(np.correlate(whole, both, "valid")))
        assert np.array_equal(whole[at : at + len(both)], both)
        assert at + len(both) <= len(enrolment(whole)[0])


def test_every_source_comes_before_any_again(music):
    given = prompts(music, 6, 1.0, 2.0, 0)
    assert {prompt.who for prompt in given[:4]} == {f"piece{i}.wav" for i in range(4)}
    assert [(len(p.sound), len(p.truth)) for p in given] == [(16000, 32000)] * 6


def test_prompts_that_do_not_fit_are_told(music):
    with pytest.raises(InputError, match=r"no prompt of 6\.0 s with 6\.0 s after it; the longest source has 9\.0 s"):
        prompts(music, 2, 6.0, 6.0, 0)


def test_a_prompt_may_go_on_for_less_than_is_made(music):
    with pytest.raises(InputError, match=r"with 60\.0 s after it"):
        prompts(music, 2, 6.0, 60.0, 0)
    for prompt in prompts(music, 4, 6.0, 60.0, 0, least=2.0):
        assert len(prompt.sound) == 6 * 16000
        assert 2 * 16000 <= len(prompt.truth) <= 3 * 16000
        assert len(prompt.truth) % 640 == 0
    same, shorter = prompts(music, 3, 2.0, 4.0, 1), prompts(music, 3, 2.0, 4.0, 1, least=4.0)
    assert all(np.array_equal(a.truth, b.truth) for a, b in zip(same, shorter, strict=True))
