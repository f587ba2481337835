"""Checks of a sound: the level is the door's, faults are named, corrections are what they say."""

import tracemalloc

import numpy as np
import pytest
import soundfile
from material import RATE, melody

from audiolm.door import Door
from audiolm.errors import ConfigError
from audiolm.train.checks import Checks, active_ticks, examine, examine_file, level_db, tick_powers

PLAIN = Checks(level_db=None)


def active_level(sound):
    powers = tick_powers(sound)
    return level_db(powers[active_ticks(powers)])


def with_pauses(seconds, seed, gain=1.0):
    sound = gain * melody(seconds, seed)
    sound[len(sound) // 3 : len(sound) // 2] *= 1e-4
    return sound.astype(np.float32)


@pytest.mark.parametrize("gain", [0.02, 0.3, 1.5])
def test_the_level_is_what_the_door_measures(gain):
    sound = with_pauses(8, 1, gain)
    door, state = Door(), Door().init_state()
    for tick in sound.reshape(-1, 640):
        door.step(tick, state)
    powers = tick_powers(sound)
    assert active_ticks(powers).sum() == state.active
    kept = np.sort(state.powers[: state.active])
    assert active_level(sound) == pytest.approx(
        10 * np.log10(kept[: len(kept) - (len(kept) + 11) // 16].mean()), abs=1e-4
    )


@pytest.mark.parametrize("gain", [0.05, 0.2, 1.0])
def test_sounds_are_brought_to_the_level(gain):
    found = examine(with_pauses(6, 2, gain), Checks())
    assert active_level(found.samples / np.float32(32768)) == pytest.approx(-23, abs=0.1)
    assert found.corrected["level"] == pytest.approx(-23 - active_level(with_pauses(6, 2, gain)), abs=0.1)


def test_a_level_that_is_right_is_left_to_the_bit():
    sound = melody(4, 3) * np.float32(10 ** ((-23.3 - active_level(melody(4, 3))) / 20))
    found = examine(sound, Checks())
    assert "level" not in found.corrected
    assert np.array_equal(found.samples, np.round(sound * 32768).astype(np.int16))


def test_a_peak_holds_the_gain_back():
    sound = 0.05 * melody(4, 3)
    sound[20000] = 0.5
    found = examine(sound, Checks())
    assert np.abs(found.samples).max() <= 0.991 * 32768
    assert found.corrected["held back by its peak"] > 3


def test_offsets_are_taken_out():
    found = examine(melody(2, 0) + np.float32(0.1), PLAIN)
    assert found.corrected["offset"] == pytest.approx(0.1, abs=0.01)
    assert abs(found.samples.mean()) < 2
    assert "offset" not in examine(melody(2, 0), PLAIN).corrected


def test_long_silent_ends_are_trimmed_where_asked():
    gap = np.zeros(2 * RATE, np.float32)
    sound = np.concatenate([gap, melody(3, 1), gap])
    assert len(examine(sound, PLAIN).samples) == 7 * RATE
    found = examine(sound, Checks(level_db=None, trim=True))
    assert found.corrected["trimmed"] == pytest.approx(4 - 2 * 0.32, abs=0.1)
    assert len(found.samples) / RATE == pytest.approx(3.64, abs=0.1)
    assert found.silent < 0.3
    short = np.concatenate([gap[:8000], melody(3, 1)])
    assert "trimmed" not in examine(short, Checks(trim=True)).corrected


FAULTS = {
    "too short": (melody(1, 0)[:100], "shorter than"),
    "not finite": (np.where(np.arange(16000) == 5, np.nan, 0.1).astype(np.float32), "not finite"),
    "silent": (1e-4 * melody(1, 0), "no tick of 40 ms above -55 dBFS"),
    "clipped": (np.clip(20 * melody(1, 0), -1, 1), "at full scale, more than 1.0%"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_faults_are_named(kind):
    sound, reason = FAULTS[kind]
    found = examine(sound, Checks())
    assert found.kind == kind
    assert reason in found.reason
    assert len(found.samples) == 0


def test_mostly_silence_is_refused():
    sound = np.concatenate([np.zeros(20 * RATE, np.float32), melody(1, 0)])
    assert examine(sound, Checks()).reason == "silent for 95% of its time, more than 90%"
    assert examine(sound, Checks(most_silent=0.99)).kind == ""
    assert examine(sound, Checks(trim=True)).kind == ""


def test_a_little_clipping_is_noted():
    sound = melody(4, 0)
    sound[100:110] = 1.0
    found = examine(sound, Checks())
    assert found.kind == ""
    assert found.clipped == pytest.approx(10 / 64000)


def test_equal_sounds_have_equal_keys_whatever_is_corrected():
    assert examine(melody(2, 0), Checks()).key == examine(melody(2, 0), PLAIN).key
    assert examine(melody(2, 0), PLAIN).key != examine(melody(2, 1), PLAIN).key


def test_what_cannot_be_read_is_refused(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF and no more")
    for place, reason in (
        (path, "cannot be read as sound"),
        (tmp_path / "no.wav", "no such file"),
        (tmp_path, "folder"),
    ):
        (found,) = examine_file(place, PLAIN)
        assert (found.kind, found.seconds) == ("unreadable", 0.0)
        assert reason in found.reason


def test_a_long_file_never_lies_in_memory_whole(tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, np.tile(melody(20, 0), 12), RATE)
    tracemalloc.start()
    try:
        seconds = [found.seconds for found in examine_file(path, Checks(longest=10))]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seconds == [10.0] * 24
    assert peak < 240 * RATE * 4 / 3


@pytest.mark.parametrize("wrong", [{"minimum": 0}, {"longest": 0.6}, {"level_db": 3}, {"most_silent": 2}])
def test_settings_of_no_sense(wrong):
    with pytest.raises(ConfigError, match="expected"):
        Checks(**wrong)
