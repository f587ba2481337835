"""Training and measuring a detector where the answer is known: separable sides, sides that are the same."""

import numpy as np
import pytest

from audiolm.detector import RATE, Detector, DetectorNet, Platt
from audiolm.errors import InputError
from audiolm.eval.detect import ask, detect, reliability
from audiolm.eval.detector_training import Examples, calibrated, divide, learn, train
from audiolm.eval.sides import Pair, Side, Store, make_pair, make_pairs, stored, strangers
from audiolm.eval.through import WAYS
from audiolm.model import AudioLM


def noise(seed: int, seconds: float = 3.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(int(seconds * RATE)) * 0.1).astype(np.float32)


def tone(seed: int, seconds: float = 3.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    wave = 0.2 * np.sin(2 * np.pi * rng.uniform(200, 2000) * t) + 0.01 * rng.standard_normal(len(t))
    return wave.astype(np.float32)


def test_two_trivial_classes_are_told_apart():
    train_on = Examples([tone(i) for i in range(8)], [noise(i) for i in range(8)])
    net = learn(train_on, steps=25, batch=8)
    found = calibrated(net, Examples([tone(100 + i) for i in range(6)], [noise(100 + i) for i in range(6)]))
    assert found.facts["held_out_accuracy"] == 1.0
    assert ask(found, "continued", [tone(200)], made=True).right == [1.0]
    assert ask(found, "recorded", [noise(200)], made=False).right == [1.0]


def test_sides_that_are_the_same_are_not_told_apart():
    train_on = Examples([noise(i) for i in range(8)], [noise(50 + i) for i in range(8)])
    net = learn(train_on, steps=20, batch=8)
    held = Examples([noise(100 + i) for i in range(40)], [noise(200 + i) for i in range(40)])
    assert 0.3 < calibrated(net, held).facts["held_out_accuracy"] < 0.7


def test_strangers_are_places_of_the_corpora_in_turn(music, voices_held):
    found = strangers([music, voices_held], 3, 1.0, seed=0)
    assert [len(sound) for sound in found] == [16000] * 3
    assert strangers([], 3, 1.0, seed=0) == []


def test_no_source_is_on_both_sides():
    pairs = [Pair(noise(i), noise(i), noise(i), f"who{i % 7}", f"who{(i + 3) % 7}") for i in range(21)]
    fit, held = divide(pairs)
    assert len(fit.made) + len(held.made) == len(fit.coded) + len(held.coded) == 21
    same = {sound.tobytes() for sound in fit.coded} & {sound.tobytes() for sound in held.coded}
    assert not same
    with pytest.raises(InputError, match="more speakers"):
        divide([Pair(noise(0), noise(0), noise(0), "one", "one")] * 4)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_keeps_rate_and_length(way):
    pytest.importorskip("soundfile")
    sound = tone(0)
    out = WAYS[way](sound)
    assert out.shape == sound.shape
    assert out.dtype == np.float32
    spectrum = [np.abs(np.fft.rfft(each)).argmax() for each in (sound, out)]
    assert spectrum[0] == pytest.approx(spectrum[1], abs=2)


def test_reliability_of_a_known_set():
    p, made = [0.05] * 10 + [0.95] * 10, [False] * 10 + [True] * 5 + [False] * 5
    error, rows = reliability(p, made)
    assert error == pytest.approx(0.5 * 0.05 + 0.5 * 0.45)
    assert [row[2:] for row in rows] == [[10, pytest.approx(0.05), 0.0], [10, pytest.approx(0.95), 0.5]]


SIDE = Side(heard=0.4, seconds=1.2, seed=3)


def test_pairs_are_the_same_again_and_kept(model, voices_held, tmp_path):
    first = list(stored(model.parts, [voices_held], SIDE, 3, tmp_path))
    assert sorted(path.name for path in tmp_path.glob("pair_*")) == [f"pair_{i:05d}.npz" for i in range(3)]
    (tmp_path / "pair_00001.npz").unlink()
    again = list(stored(model.parts, [voices_held], SIDE, 3, tmp_path))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_allclose(one.coded, other.coded, atol=1e-3)
        assert (one.who, one.asked, len(one.made)) == (other.who, other.asked, len(other.made))
    with pytest.raises(InputError, match="another"):
        Store(tmp_path, {"seed": 9})


def test_side_by_side_draws_what_one_by_one_draws(model, voices_held):
    player = AudioLM(model.parts, "torch", watermark=False)
    one, (other,) = make_pair(player, voices_held, SIDE, 5), make_pairs(model.parts, [voices_held], SIDE, [5])
    np.testing.assert_array_equal(one.raw, other.raw)
    np.testing.assert_allclose(one.coded, other.coded, atol=1e-4)
    assert one.made.shape == other.made.shape == (int(1.2 * 25) * 640,)


def test_the_section_of_a_detector_that_says_continued_of_all(model, voices_held):
    pytest.importorskip("soundfile")
    says_yes = Detector(DetectorNet(), Platt(0.0, 4.0), Platt(0.0, 4.0))
    player = AudioLM(model.parts, "torch", watermark=False)
    section = detect(says_yes, player, [voices_held], prompts=2, heard=0.4, seconds=1.2)
    figures = section.figures["corpora"][voices_held.name]
    assert figures["accuracy"].mean == pytest.approx(0.5)
    assert figures["kinds"]["continued, as it is"]["right"].mean == 1.0
    assert figures["kinds"]["recording, as it is"]["right"].mean == 0.0
    assert "continued, dream" in figures["kinds"]
    assert any("no proof" in note for note in section.notes)


def test_training_from_pairs_holds_sources_out():
    pytest.importorskip("soundfile")
    pairs = [Pair(tone(i), noise(i), noise(50 + i), f"who{i}", f"who{i}") for i in range(8)]
    found = train(pairs, strangers=[noise(99)], steps=2)
    assert found.facts["strangers"] == 1
    assert found.facts["minutes"]["made"] == pytest.approx(7 * 3 / 60, abs=0.06)
    assert found.facts["parameters"] < 300_000
