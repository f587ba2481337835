"""The watermark: found in any cut and through what usually happens to sound, never elsewhere, and hardly there."""

import numpy as np
import pytest
from sounds import TICK, ticks_in

from audiolm.errors import InputError
from audiolm.watermark import CELL, CELLS, KEY, LIMIT, RATE, Marker, find, pattern, signs


def notes(seconds, seed=0):
    """Notes with partials and breath of changing level, float32: a sound with something in every band."""
    rng, after = np.random.default_rng(seed), np.arange(RATE) / RATE
    made = 0.003 * rng.standard_normal(int(seconds * RATE))
    shape = 0.05 * np.exp(-3 * after) * np.minimum(1, after * 200)
    for _ in range(int(seconds * 4)):
        pitch, start = 110 * 2 ** (rng.integers(36) / 12), int(rng.uniform(0, seconds) * RATE)
        note = shape * sum(np.sin(2 * np.pi * pitch * k * after) / k for k in range(1, 12) if pitch * k < 7000)
        made[start : start + RATE] += note[: len(made) - start]
    return made.astype(np.float32)


def marked(sound, key=KEY):
    marker = Marker(key)
    return np.concatenate([marker.mark(tick) for tick in ticks_in(sound[: len(sound) // TICK * TICK])])


SOUND = notes(8)


def through_opus(sound, bit_rate):
    from audiolm.eval.opus import opus

    return opus(sound, bit_rate)[0]


def at_rate(sound, rate):
    from scipy.signal import resample_poly

    return resample_poly(resample_poly(sound, rate, RATE), RATE, rate).astype(np.float32)


def played_at(sound, speed):
    return np.interp(np.arange(0, len(sound) - 1, speed), np.arange(len(sound)), sound).astype(np.float32)


WAYS = {
    "as it is": lambda sound: sound,
    "cut": lambda sound: sound[12_345:-4_321],
    "quiet": lambda sound: sound * np.float32(0.01),
    "upside down": lambda sound: -sound,
    "int16": lambda sound: (np.rint(sound * 32768) / 32768).astype(np.float32),
    "opus 24k": lambda sound: through_opus(sound, 24_000),
    "opus 16k": lambda sound: through_opus(sound, 16_000),
    "44.1 kHz": lambda sound: at_rate(sound, 44_100),
    "8 kHz": lambda sound: at_rate(sound, 8_000),
    "faster": lambda sound: played_at(sound, 1.0015),
    "slower": lambda sound: played_at(sound, 0.9985),
}


@pytest.mark.parametrize("way", WAYS)
def test_it_is_found_after(way):
    found = find(WAYS[way](marked(SOUND)))
    assert found.present
    assert found.false_alarm <= LIMIT
    assert found.score > 7
    assert not find(WAYS[way](SOUND)).present
    assert not find(WAYS[way](marked(SOUND)), key="another").present


def unmarked():
    """Sounds without the mark: random ones, and ones that repeat as the mark does."""
    rng, time = np.random.default_rng(0), np.arange(6 * RATE) / RATE
    yield "silence", np.zeros(6 * RATE)
    yield "a click", np.eye(1, 6 * RATE, 40_000)[0]
    yield "a tone", 0.3 * np.sin(2 * np.pi * 440 * time)
    yield "a square wave", 0.3 * np.sign(np.sin(2 * np.pi * 1 / (2 * CELL / RATE) * time))
    yield "a constant", np.full(6 * RATE, 0.5)
    yield "a sweep", 0.3 * np.sin(2 * np.pi * (200 + 500 * time) * time)
    period = rng.standard_normal(CELL * CELLS)
    yield "noise that repeats with the mark", 0.1 * np.tile(period, 3)
    yield "noise in bursts of a cell", 0.1 * rng.standard_normal(6 * RATE) * (np.arange(6 * RATE) // CELL % 2)


@pytest.mark.parametrize(("name", "sound"), [pytest.param(*pair, id=pair[0]) for pair in unmarked()])
def test_it_is_not_found_in(name, sound):
    found = find(sound.astype(np.float32))
    assert not found.present, name
    assert found.share == 0


def test_it_is_not_found_by_chance():
    """Scores of noise and notes stay where the bound says that they are usual, far from the limit of 6.6."""
    scores = [
        find((0.1 * np.random.default_rng(i).standard_normal(2 * RATE)).astype(np.float32)).score for i in range(40)
    ]
    scores += [find(notes(3, i)).score for i in range(12)]
    assert max(scores) < 5


def test_other_keys_are_as_good():
    """That the sound is unmarked is the same as that the signs are another's: 60 keys on one marked sound."""
    sound = marked(notes(3))
    assert find(sound).score > 8
    assert max(find(sound, key=str(i)).score for i in range(60)) < 5.5


def test_a_few_seconds_within_a_recording_are_found_where_they_are():
    recording = notes(40, 1)
    recording[20 * RATE : 30 * RATE] = marked(recording[20 * RATE : 30 * RATE])
    found = find(recording)
    assert found.present
    assert found.start < 30 < found.end + 10
    assert 0 < found.share < 0.6
    assert find(marked(notes(40, 1))).share == 1


def test_silence_stays_silent_and_the_rest_nearly_as_it_was():
    marker = Marker()
    assert not marker.mark(np.zeros(TICK, np.float32)).any()
    change = marked(SOUND) - SOUND
    assert 16 < 10 * np.log10(np.mean(SOUND**2) / np.mean(change**2)) < 24


def test_nothing_is_held_back_and_ticks_join_without_a_step():
    """A tick is changed least at its ends, so that a heard tick may follow or go before."""
    tick = notes(1)[5 * TICK : 6 * TICK]
    alone = Marker()
    change = alone.mark(tick) - tick
    assert abs(change[[0, -1]]).max() < 0.01 * abs(change).max()
    assert abs(np.argmax(np.correlate(alone.mark(tick), tick, "full")) - (TICK - 1)) == 0


def test_a_marker_is_a_function_of_its_ticks():
    ticks = ticks_in(SOUND[: 20 * TICK])
    first, second = Marker(), Marker()
    a = [first.mark(tick) if i % 3 else first.hear(tick) for i, tick in enumerate(ticks)]
    for tick in ticks[:11]:
        second.mark(tick)  # what was marked before is not in the state; what came is
    third = Marker()
    third.load(second.save())
    b = [third.mark(tick) if i % 3 else third.hear(tick) for i, tick in enumerate(ticks) if i >= 11]
    for one, other in zip(a[11:], b, strict=True):
        assert (one is None) == (other is None)
        assert one is None or np.array_equal(one, other)


def test_the_tick_that_came_is_left_alone():
    tick = SOUND[:TICK].copy()
    made = Marker().mark(tick)
    assert np.array_equal(tick, SOUND[:TICK])
    assert made.dtype == np.float32
    assert made.shape == (TICK,)
    assert np.array_equal(Marker().mark(tick), made)


def test_after_a_pause_the_pattern_goes_on():
    """Heard ticks take their time in the pattern, so that two generated parts are one mark."""
    marker, sound = Marker(), notes(9)
    out = [marker.hear(t) or t if 75 <= i < 150 else marker.mark(t) for i, t in enumerate(ticks_in(sound))]
    assert find(np.concatenate(out)).score > find(np.concatenate(out)[: 75 * TICK]).score


def test_a_damaged_state_is_refused():
    marker = Marker()
    for odd in ({"past": np.zeros(3), "cell": 0}, {**marker.save(), "cell": 1}, {**marker.save(), "cell": CELLS}):
        with pytest.raises(InputError, match="state of a watermark"):
            marker.load(odd)


@pytest.mark.parametrize("seconds", [0, 0.01, 0.1, 0.3])
def test_too_short_is_not_found(seconds):
    found = find(marked(notes(1))[: int(seconds * RATE)])
    assert (found.present, found.false_alarm > LIMIT) == (False, True)


@pytest.mark.parametrize(
    ("odd", "what"),
    [
        (np.zeros((2, 5), np.float32), "mono"),
        (np.zeros(5, np.int16), "int16"),
        ([0.0], "list"),
        (np.array([0, np.nan], np.float32), "NaN"),
    ],
)
def test_what_is_no_sound_is_refused(odd, what):
    with pytest.raises(InputError, match=what):
        find(odd)


def test_the_table_is_for_ever():
    """A change of it would hide every mark made before."""
    assert signs().sum() == SUM
    assert signs()[0].tolist() == FIRST
    assert pattern()[:2, :2].tolist() == [[FIRST[0], -FIRST[0]], [-FIRST[0], FIRST[0]]]


SUM = -44
FIRST = [-1, -1, 1, -1, 1, -1, 1, -1, -1, -1, 1, 1, -1, -1, -1, 1]
