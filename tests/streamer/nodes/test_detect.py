"""The way to a detector by name, and what both detectors hold to."""

import numpy as np
import pytest

from streamer.errors import ConfigError, InputError
from streamer.nodes.detect import LEAST_DB, TICK, clean, level_db, make_detector

KINDS = ["speech", "music"]


@pytest.fixture(scope="module", params=KINDS)
def detector(request):
    if request.param == "speech":
        pytest.importorskip("onnxruntime")
    return make_detector(request.param)


def sound(seconds=4.0, seed=0):
    """Tones that come and go in a little noise, float32 whole ticks."""
    count = round(seconds * 25) * TICK
    time = np.arange(count) / 16_000
    noise = np.random.default_rng(seed).standard_normal(count)
    return (0.2 * np.sin(2 * np.pi * 440 * time) * (np.sin(3 * time) > 0) + 0.003 * noise).astype(np.float32)


def run(detector, samples, state=None):
    state = detector.init_state() if state is None else state
    return [detector.step(tick, state) for tick in samples.reshape(-1, TICK)]


def test_the_same_sound_gives_the_same_answers(detector):
    assert run(detector, sound()) == run(detector, sound())


def test_streams_do_not_touch_each_other(detector):
    ours, theirs = sound(seed=1), sound(seed=2)
    states = [detector.init_state(), detector.init_state()]
    pairs = zip(ours.reshape(-1, TICK), theirs.reshape(-1, TICK), strict=True)
    both = [(detector.step(a, states[0]), detector.step(b, states[1])) for a, b in pairs]
    assert [a for a, _ in both] == run(detector, ours)
    assert [b for _, b in both] == run(detector, theirs)


@pytest.mark.parametrize("at", [1, 7, 50])
def test_a_saved_state_goes_on_as_if_nothing_had_been(detector, at):
    samples = sound()
    state = detector.init_state()
    run(detector, samples[: at * TICK], state)
    saved = detector.save(state)
    assert all(isinstance(value, np.ndarray | int | float) for value in saved.values())
    rest = run(detector, samples[at * TICK :], state)
    assert run(detector, samples[at * TICK :], detector.load(saved)) == rest
    assert run(detector, samples[at * TICK :], detector.load(saved)) == rest, "load must copy"


def test_silence_is_silence(detector):
    heard = run(detector, np.zeros(25 * TICK, dtype=np.float32))
    assert not any(each.active or each.onset for each in heard)
    assert all(each.level_db == LEAST_DB and 0 <= each.score <= 1 for each in heard)


def test_what_is_not_finite_does_not_stay(detector):
    bad = sound()
    bad[5 * TICK : 6 * TICK : 3] = np.nan
    bad[6 * TICK] = np.inf
    assert run(detector, bad) == run(detector, np.nan_to_num(bad, nan=0.0, posinf=1.0))


@pytest.mark.parametrize("loudness", [1e-30, 1.0, 1e30])
def test_no_loudness_breaks_it(detector, loudness):
    heard = run(detector, sound() * np.float32(loudness))
    assert all(0 <= each.score <= 1 and np.isfinite(each.level_db) for each in heard)


def test_an_onset_is_where_activity_begins(detector):
    heard = run(detector, sound())
    rises = [i for i, each in enumerate(heard) if each.active and (i == 0 or not heard[i - 1].active)]
    assert all(heard[i].onset for i in rises)
    assert all(each.active for each in heard if each.onset)


def test_another_length_is_refused(detector):
    with pytest.raises(InputError, match=r"640 samples.*\[320\]"):
        detector.step(np.zeros(320, dtype=np.float32), detector.init_state())


def test_an_unknown_detector_is_refused():
    with pytest.raises(ConfigError, match=r"unknown detector 'musik'.*did you mean 'music'"):
        make_detector("musik")


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_setting_is_refused(kind):
    with pytest.raises(ConfigError, match=f"unknown setting of detector '{kind}' 'of'"):
        make_detector(kind, of=0.3)


def test_level_of_a_full_scale_square_is_nought():
    assert level_db(np.ones(TICK, dtype=np.float32)) == pytest.approx(0.0, abs=1e-6)
    assert level_db(np.zeros(TICK, dtype=np.float32)) == LEAST_DB


def test_clean_leaves_good_sound_alone():
    samples = sound(0.04)
    assert np.array_equal(clean(samples), samples)
