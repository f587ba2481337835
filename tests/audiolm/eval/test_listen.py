"""The listening test: loudness that is known, clips that do not tell, a key that is masked; and answers, counted."""

import base64
import io
import json
import re

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from audiolm.cli import app
from audiolm.errors import InputError
from audiolm.eval import heard, listen
from audiolm.eval.clips import Prompt
from audiolm.eval.continuation import BARE, CODEC, MODEL, TRUTH, Continued
from audiolm.io import MARK, read_metadata

RATE = 16_000


def tone(seconds, pitch=997.0, size=1.0):
    return (size * np.sin(2 * np.pi * pitch * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def noise(seconds, size, seed=0):
    return (size * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


@pytest.fixture
def continued():
    """Three hands of very different level after one prompt."""
    sounds = {MODEL: noise(2, 0.01, 1), BARE: noise(2, 0.2, 2), CODEC: noise(2, 0.05, 3), TRUTH: noise(2, 0.051, 4)}
    prompt = Prompt(noise(1, 0.05, 5), sounds[TRUTH], "a")
    return Continued(prompt, sounds, np.concatenate((noise(1, 0.05, 6), sounds[CODEC])))


# -- loudness --


def test_a_full_tone_has_the_loudness_of_the_standard():
    """BS.1770: a sine of 0 dBFS at 997 Hz in one channel is -3.01 LUFS; EBU Tech 3341 allows 0.1."""
    assert listen.loudness(tone(5)) == pytest.approx(-3.01, abs=0.05)
    assert listen.loudness(tone(5, size=0.1)) == pytest.approx(-23.01, abs=0.05)


def test_the_filters_are_those_of_the_standard():
    """Levels against 997 Hz, in dB, of the standard's filters at 48 kHz, by scipy.signal.freqz."""
    levels = [listen.loudness(tone(5, pitch)) - listen.loudness(tone(5)) for pitch in (50, 100, 6000)]
    assert levels == pytest.approx([-4.625, -1.825, 3.339], abs=0.02)


def test_pauses_do_not_count():
    sound = np.concatenate((tone(4, size=0.1), np.zeros(4 * RATE, np.float32), tone(4, size=0.1)))
    assert listen.loudness(sound) == pytest.approx(-23.0, abs=0.25)


def test_silence_is_not_raised():
    assert listen.loudness(np.zeros(RATE, np.float32)) == -np.inf
    assert listen.loudness(np.zeros(0, np.float32)) == -np.inf
    assert listen.gain_to(np.zeros(RATE, np.float32)) == 1.0
    assert listen.gain_to(tone(1, size=1e-3)) == pytest.approx(10.0)
    assert listen.loudness(listen.gain_to(tone(0.2)) * tone(0.2)) == pytest.approx(-23)


# -- clips --


@pytest.mark.parametrize("make", [listen.real_trial, listen.pairs_trial])
def test_what_follows_is_equally_loud_and_long(make, continued):
    trial = make(continued, prompt=False)
    assert [listen.loudness(sound) for sound in trial.clips.values()] == pytest.approx([-23, -23], abs=0.1)
    assert len({len(sound) for sound in trial.clips.values()}) == 1
    whole = make(continued)
    ends = [listen.loudness(sound[RATE:]) for sound in whole.clips.values()]
    assert ends == pytest.approx([-23, -23], abs=0.1)


def test_both_begin_with_the_same_prompt_and_a_recording_has_one_gain(continued):
    clips = listen.real_trial(continued).clips
    assert np.array_equal(clips[listen.RECORDING][:RATE], clips[MODEL][:RATE])
    gain = clips[listen.RECORDING][1000:-1000] / continued.coded[1000:-1000]
    assert np.ptp(gain) < 1e-3
    raw = listen.real_trial(continued, raw=True).clips[listen.RECORDING]
    assert np.corrcoef(raw[RATE:], continued.sounds[TRUTH])[0, 1] > 0.99


def test_what_the_decoder_says_late_is_cut_and_both_stay_equally_long(continued):
    clips = listen.real_trial(continued, 100, prompt=False).clips
    assert {len(sound) for sound in clips.values()} == {2 * RATE - 100}
    made = continued.sounds[MODEL][100:]
    assert np.corrcoef(clips[MODEL][200:-200], made[200:-200])[0, 1] > 0.999


def test_nothing_clips(continued):
    continued.sounds[MODEL][5000] = 1.0  # a click in a quiet sound
    clips = listen.real_trial(continued).clips
    assert max(np.abs(sound).max() for sound in clips.values()) <= listen.PEAK + 1e-6
    ends = [listen.loudness(sound[RATE:]) for sound in clips.values()]
    assert ends[0] == pytest.approx(ends[1], abs=0.1)


def test_no_prompt_is_heard_in_both_tests(model, music, monkeypatch):
    seen = {}

    def collect(test):
        def make(each, _, **settings):
            seen.setdefault(test, []).append(each.prompt.sound.tobytes())
            assert (BARE in each.sounds) == (test == "pairs")
            return listen.Trial(test, each.sounds)

        return make

    monkeypatch.setattr(listen, "real_trial", collect("real"))
    monkeypatch.setattr(listen, "pairs_trial", collect("pairs"))
    made = listen.make_trials(model, [music], count=2, heard=0.4, seconds=0.4)
    assert [trial.test for trial in made] == ["real", "real", "pairs", "pairs"]
    assert not set(seen["real"]) & set(seen["pairs"])


# -- the page --


def content_of(html):
    found = re.search(r'<script type="application/json" id="page">(.*?)</script>', html, re.DOTALL)
    return json.loads(found[1])


def key_of(content):
    masked, by = base64.b64decode(content["key"]), content["page"].encode()
    return json.loads(bytes(byte ^ by[i % len(by)] for i, byte in enumerate(masked)))


@pytest.fixture
def trials(continued):
    return [listen.real_trial(continued), listen.pairs_trial(continued)]


def test_the_page_tells_nothing_by_names(trials):
    html = listen.page(trials, bundle="tiny@1", settings={"heard": 1.0, "seconds": 2.0})
    content = content_of(html)
    shown = json.dumps({**content, "key": ""})
    assert not re.search("acoustic|recording|continuation", shown)
    assert "acoustic" not in content["key"]
    assert all(re.fullmatch("[0-9a-f]{12}", clip["id"]) for test in content["tests"] for clip in clips_of(test))
    assert sorted(key_of(content).values()) == sorted([listen.RECORDING, MODEL, MODEL, BARE])
    assert "http" not in html.replace("http-equiv", "")


def clips_of(test):
    return [clip for trial in test["trials"] for clip in trial["clips"]]


def test_the_clips_in_the_page_are_sound_and_marked(trials, tmp_path):
    content = content_of(listen.page(trials, bundle="tiny@1", settings={}))
    key = key_of(content)
    for clip in (clip for test in content["tests"] for clip in clips_of(test)):
        data = base64.b64decode(clip["src"].removeprefix("data:audio/flac;base64,"))
        assert soundfile.info(io.BytesIO(data)).frames == 3 * RATE
        (tmp_path / "clip.flac").write_bytes(data)
        mark = read_metadata(tmp_path / "clip.flac").mark
        assert mark == ("" if key[clip["id"]] == listen.RECORDING else MARK)


def test_clips_beside_the_page(trials, tmp_path):
    content = content_of(listen.page(trials, bundle="tiny@1", settings={}, beside=tmp_path))
    sources = {clip["src"] for test in content["tests"] for clip in clips_of(test)}
    assert sources == {f"clips/{path.name}" for path in (tmp_path / "clips").iterdir()}
    with pytest.raises(InputError, match="give another --out"):
        listen.page(trials, bundle="t", settings={}, beside=tmp_path / "clips" / min(sources)[6:])


def test_equal_pages_have_equal_names_and_others_have_others(trials):
    one, same, other = (listen.page(trials, bundle=name, settings={}) for name in ("a", "a", "b"))
    assert one == same
    assert content_of(one)["page"] != content_of(other)["page"]


def test_nothing_in_the_data_ends_the_script(trials):
    html = listen.page(trials, bundle="</script><b>", settings={})
    assert content_of(html)["bundle"] == "</script><b>"
    assert "</script><b>" not in html


def test_the_command_makes_a_page(tiny_bundle, music_folder, tmp_path):
    command = ["eval", "listen", str(tiny_bundle), "--data", str(music_folder), "--prompts", "1", "--alone"]
    lengths = ["--heard", "0.4", "--seconds", "0.4", "--out", str(tmp_path / "page")]
    done = CliRunner().invoke(app, [*command, *lengths])
    assert done.exit_code == 0, done.output
    content = content_of((tmp_path / "page" / "listen.html").read_text(encoding="utf8"))
    assert [test["test"] for test in content["tests"]] == ["real", "pairs"]
    assert content["heard"] == 0
    assert content["bundle"].startswith("tiny@")
    done = CliRunner().invoke(app, [*command, "--tests", "both", "--out", str(tmp_path)])
    assert "expected real, pairs" in str(done.exception)


# -- answers --


def answers(right, wrong, *, pairs=(), seed=1, page="p", **changed):
    """A file's content: right answers about continuations, wrong ones about recordings; `pairs`: what was chosen."""
    real = [{"test": "real", "truth": [MODEL], "answer": MODEL} for _ in range(right)]
    real += [{"test": "real", "truth": ["recording"], "answer": MODEL} for _ in range(wrong)]
    real += [{"test": "pairs", "truth": [BARE, MODEL], "answer": chosen} for chosen in pairs]
    made = {"format": heard.RESULTS_FORMAT, "page": page, "bundle": "piano@1", "listener": "Ada", "seed": seed}
    return {**made, "trials": real, **changed}


def written(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


@pytest.mark.parametrize(
    ("right", "n", "p"),
    [(0, 0, 1.0), (5, 10, 1.0), (7, 10, 0.34375), (3, 10, 0.34375), (9, 10, 0.021484375), (0, 5, 0.0625),
     (60, 100, 0.05688793364098), (1040, 2000, 0.0772868905626687)],
)  # fmt: skip
def test_the_binomial_test_gives_the_known_values(right, n, p):
    assert heard.binomial(right, n) == pytest.approx(p, rel=1e-9)


def test_the_binomial_test_refuses_what_cannot_be():
    with pytest.raises(InputError, match="6 right of 5"):
        heard.binomial(6, 5)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(8, 10, 0.4901625, 0.9433178), (0, 10, 0.0, 0.2775328), (50, 100, 0.4038315, 0.5961685), (0, 0, 0.0, 1.0)],
)
def test_wilsons_interval_gives_the_known_values(right, n, low, high):
    assert heard.wilson(right, n) == pytest.approx((low, high), abs=1e-6)


def test_listeners_are_joined(tmp_path):
    one = written(tmp_path / "a.json", answers(6, 1, pairs=[MODEL, MODEL, BARE], listener="a|b"))
    two = written(tmp_path / "b.json", answers(3, 0, seed=2, listener=""))
    done = CliRunner().invoke(app, ["eval", "heard", one, two])
    assert done.exit_code == 0, done.output
    assert "| a/b | 6 of 7 |" in done.output
    assert "| seed 2 | 3 of 3 |" in done.output
    assert "| all | 9 of 10 | 90.0 % | 59.6 to 98.2 % | 0.0215 |" in done.output
    assert "| all | 2 of 3 |" in done.output
    assert "Called a recording: 0 of 1 clips that were a recording." in done.output
    found = json.loads(CliRunner().invoke(app, ["eval", "heard", one, two, "--json"]).output)
    assert found["all"]["real"]["p"] == pytest.approx(0.021484375)
    assert found["all"]["pairs"]["right"] == 2
    assert found["called_recording"] == {"recording": {"said": 0, "of": 1}, "continuation": {"said": 0, "of": 9}}
    assert [each["seed"] for each in found["listeners"]] == [1, 2]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "holds no answers"),
        ("[]", "holds no answers"),
        (answers(1, 0, format="audiolm listening results 9"), "expected 'audiolm listening results 1'"),
        (answers(0, 0), "it holds no trial"),
        (answers(0, 0, trials=[{"test": "smell", "truth": [], "answer": ""}]), "unknown test 'smell'"),
        (answers(0, 0, trials=[{"test": "real", "truth": ["x"], "answer": "recording"}]), "has the truth"),
        (answers(0, 0, pairs=["recording"]), "the answer 'recording'"),
        (answers(1, 0, seed="x"), "holds no answers"),
    ],
)
def test_other_files_are_refused(content, says, tmp_path):
    with pytest.raises(InputError, match=re.escape(says)):
        heard.read(written(tmp_path / "a.json", content))


def test_files_that_cannot_be_joined_are_refused(tmp_path):
    one = heard.read(written(tmp_path / "a.json", answers(1, 0)))
    other = heard.read(written(tmp_path / "b.json", answers(1, 0, page="q", seed=2)))
    with pytest.raises(InputError, match="different pages"):
        heard.check([one, other])
    with pytest.raises(InputError, match="same seed 1"):
        heard.check([one, one])
    with pytest.raises(InputError, match="no answers are given"):
        heard.check([])
    with pytest.raises(InputError, match="holds no answers"):
        heard.read(tmp_path / "missing.json")
