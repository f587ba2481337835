"""Music detection: playing, loud or quiet, is found and its end, too; what a room does by itself is not playing."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from streamer.errors import ConfigError
from streamer.nodes.detect import TICK, make_detector
from streamer.nodes.onsets import MusicDetector, MusicSettings

ASSETS = Path(__file__).parents[3] / "assets"
RATE = 16_000


def run(samples, detector=None):
    detector = detector or MusicDetector()
    state = detector.init_state()
    ticks = samples[: len(samples) // TICK * TICK].astype(np.float32).reshape(-1, TICK)
    return [detector.step(tick, state) for tick in ticks]


def active(samples):
    return np.array([heard.active for heard in run(samples)])


def noise(seconds, level_db, seed=0):
    return 10 ** (level_db / 20) * np.random.default_rng(seed).standard_normal(round(seconds * RATE))


def note(seconds, pitch=262.0, decay_s=0.8):
    """A struck string: six partials that die away, amplitude 1 at the start."""
    time = np.arange(round(seconds * RATE)) / RATE
    return sum(0.5 / k * np.sin(2 * np.pi * pitch * k * time) * np.exp(-(k**0.5) * time / decay_s) for k in range(1, 7))


def put(sound, into, at_s):
    start = round(at_s * RATE)
    into[start : start + len(sound)] += sound[: len(into) - start]
    return into


def tick_of(seconds):
    return round(seconds * RATE) // TICK


@pytest.fixture(scope="module")
def piano():
    return soundfile.read(ASSETS / "prompt_piano.flac")[0]


@pytest.mark.parametrize("gain_db", [0, -20, -35])
@pytest.mark.parametrize("snr_db", [30, 15])
def test_a_piece_is_found_at_once_held_and_ended(piano, gain_db, snr_db):
    level = gain_db - 23
    room = noise(len(piano) / RATE + 6, level - snr_db)
    heard = active(put(piano * 10 ** (gain_db / 20), room, 2.0))
    first = np.flatnonzero(heard)[0]
    assert tick_of(2.0) <= first <= tick_of(2.0) + 3
    assert heard[first : tick_of(2.0 + len(piano) / RATE) - 12].mean() > 0.95
    assert not heard[-tick_of(2.0) :].any()


def test_a_held_note_ends_when_it_has_died_away_though_it_can_still_be_heard():
    sound = put(0.3 * note(9.0, decay_s=1.2), noise(10.0, -90), 1.0)
    heard = active(sound)
    last = np.flatnonzero(heard)[-1]
    level = [each.level_db for each in run(sound)]
    assert tick_of(2.5) < last < tick_of(6.0)
    assert level[last + 1] > -60, "the string still sounds"


def test_quiet_notes_after_a_loud_one_are_playing():
    sound = put(0.5 * note(6.0, 131.0, 2.0), noise(8.0, -80), 1.0)
    for i in range(10):
        put(0.04 * note(1.0, 523.0 * 2 ** (i / 12), 0.4), sound, 2.0 + 0.4 * i)
    assert active(sound)[tick_of(1.2) : tick_of(6.0)].all()


def test_a_new_note_under_the_pedal_is_an_onset():
    sound = put(0.2 * note(4.0), noise(5.0, -80), 1.0)
    put(0.2 * note(2.0, 349.0), sound, 2.5)
    onsets = [i for i, heard in enumerate(run(sound)) if heard.onset]
    assert len(onsets) == 2
    assert abs(onsets[1] - tick_of(2.5)) <= 1


def test_a_phrase_that_begins_while_the_last_one_rings_is_found():
    sound = put(0.4 * note(9.0, decay_s=1.2), noise(10.0, -85), 1.0)
    put(0.3 * note(2.0, 330.0), sound, 7.0)
    heard = active(sound)
    assert not heard[tick_of(6.0) : tick_of(7.0)].any()
    assert heard[tick_of(7.2) : tick_of(8.0)].all()


def hum(seconds):
    time = np.arange(round(seconds * RATE)) / RATE
    return 0.03 * sum(np.sin(2 * np.pi * 50 * k * time + k) / k for k in range(1, 11))


def clicks(seconds, tau_s):
    """One a second: noise that dies away within `tau_s`."""
    made, time = noise(seconds, -70), np.arange(RATE // 2) / RATE
    for at in range(1, round(seconds)):
        put(noise(0.5, -6, at) * np.exp(-time / tau_s), made, at)
    return made


def knocks(seconds):
    """One a second: a thump on wood."""
    made, time = noise(seconds, -70), np.arange(RATE // 2) / RATE
    for at in range(1, round(seconds)):
        put(0.4 * np.exp(-time / 0.03) * np.sin(2 * np.pi * (90 + 7 * at) * time), made, at)
    return made


@pytest.mark.parametrize(
    "sound",
    [
        noise(20, -60), noise(20, -25), np.cumsum(noise(20, -60)) * 0.1, hum(20) * 0.1, clicks(20, 0.001),
        clicks(20, 0.03), knocks(20), noise(20, -40) * (np.arange(20 * RATE) > 8 * RATE),
    ],
    ids=["quiet", "loud", "rumble", "hum", "clicks", "claps", "knocks", "fan"],
)  # fmt: skip
def test_what_a_room_does_is_not_playing(sound):
    assert not active(sound).any()


def test_a_hum_that_is_switched_on_becomes_the_floor():
    sound = noise(20, -75)
    sound[4 * RATE :] += hum(16)
    heard = active(sound)
    assert not heard[tick_of(11.0) :].any()
    put(0.2 * note(1.0), sound, 15.0)
    assert active(sound)[tick_of(15.2) : tick_of(15.8)].all()


def test_playing_into_a_stream_that_has_just_begun_counts(piano):
    assert active(piano)[tick_of(0.3) : tick_of(3.0)].mean() > 0.9


def test_the_score_crosses_a_half_where_playing_may_begin(piano):
    heard = run(np.concatenate([noise(2.0, -70), piano]))
    assert all(each.score < 0.5 for each in heard[5:49])
    assert max(each.score for each in heard) == 1.0


def test_settings_change_what_counts(piano):
    room = put(piano * 10**-1.5, noise(10.0, -50), 1.0)
    sharp = make_detector("music", on_db=25.0, off_db=20.0)
    assert sum(each.active for each in run(room, sharp)) < active(room).sum()


@pytest.mark.parametrize("wrong", [{"on_db": 4.0}, {"hum_s": 0.0}, {"tonal_db": float("nan")}])
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError, match="above 0, and off_db <= on_db"):
        MusicSettings(**wrong)
