"""The door: bad samples are counted and leave no trace, levels are evened out, silence is not pumped up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from audiolm.door import Door, DoorConfig
from audiolm.errors import ConfigError, InputError
from audiolm.ticks import TICK, TickAssembler

OFF = DoorConfig(gain="off")


def sound(seconds=4.0, level_db=-23.0, seed=0):
    """Noise with syllables: half a second on, a quarter off."""
    n = int(seconds * 25) * TICK
    time = np.arange(n) / 16000
    noise = np.random.default_rng(seed).standard_normal(n) * (time % 0.75 < 0.5)
    return (noise * 10 ** (level_db / 20)).astype(np.float32)


def run(samples, config=None, state=None):
    door = Door(config)
    state = state or door.init_state()
    ticks = [door.step(tick, state) for tick in samples.reshape(-1, TICK)]
    return np.concatenate(ticks), state


def active_db(samples):
    powers = np.square(samples.reshape(-1, TICK).astype(float)).mean(1)
    return 10 * np.log10(powers[powers > powers.max() * 1e-4].mean())


def finite(state):
    return np.isfinite([state.gain_db, state.yield_db, state.ceiling_db, *state.powers]).all()


@settings(max_examples=100)
@given(
    st.lists(arrays(np.float32, TICK, elements=st.floats(width=32), fill=st.floats(-1, 1, width=32)), max_size=6),
    st.sampled_from(["auto", "off"]),
)
def test_whatever_comes_in_what_goes_out_is_sound(ticks, gain):
    door = Door(DoorConfig(gain=gain))
    state = door.init_state()
    for tick in ticks:
        before = tick.copy()
        out = door.step(tick, state)
        assert out.dtype == np.float32
        assert np.isfinite(out).all()
        assert np.abs(out).max() <= 1
        assert finite(state)
        np.testing.assert_array_equal(tick, before)
    assert state.counts.ticks == len(ticks)


def test_each_kind_of_bad_sample_is_counted():
    ticks = np.zeros((4, TICK), np.float32)
    ticks[0, :3] = np.nan
    ticks[1, :2] = [np.inf, -np.inf]
    ticks[2, :4] = [1.5, -7, 1, -1]
    ticks[3] = 0.2
    out, state = run(ticks.ravel(), OFF)
    assert state.counts.as_dict() == {
        "ticks": 4,
        "nan": 3,
        "inf": 2,
        "clipped": 2,
        "limited": 0,
        "dc": 1,
        "silent": 2,
    }
    assert (out[: 2 * TICK] == 0).all()
    np.testing.assert_array_equal(out[2 * TICK : 2 * TICK + 4], [1, -1, 1, -1])
    np.testing.assert_array_equal(out[3 * TICK :], np.full(TICK, 0.2, np.float32))


def test_off_changes_nothing_within_full_scale():
    samples = sound(1)
    np.testing.assert_array_equal(run(samples.clip(-1, 1), OFF)[0], samples.clip(-1, 1))


@pytest.mark.parametrize("level_db", [-48, -40, -30, -23, -15, -8])
def test_any_level_is_brought_near_the_target(level_db):
    out, state = run(sound(6, level_db).clip(-1, 1))
    assert active_db(out[3 * 16000 :]) == pytest.approx(-23, abs=3)
    assert state.counts.limited == 0


@pytest.mark.parametrize("level_db", [-90, -60, -57])
def test_room_noise_is_not_pumped_up(level_db):
    noise = (np.random.default_rng(1).standard_normal(TICK * 250) * 10 ** (level_db / 20)).astype(np.float32)
    out, _ = run(noise)
    np.testing.assert_array_equal(out, noise)


def test_silence_after_sound_holds_the_gain():
    _, state = run(sound(4, -40))
    before = state.gain_db
    out, state = run(np.zeros(TICK * 500, np.float32), state=state)
    assert state.gain_db == before > 10
    assert (out == 0).all()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 5000), max_size=15), st.sampled_from([-45, -23, -3]))
def test_any_chunking_is_equal_to_the_bit(sizes, level_db):
    samples = sound(1.2, level_db)
    door, ticks = Door(), TickAssembler()
    state = door.init_state()
    pieces = np.split(samples, np.minimum(np.cumsum(sizes, dtype=int), len(samples)))
    got = [door.step(tick, state) for piece in pieces for tick in ticks.push(piece)]
    np.testing.assert_array_equal(np.concatenate(got), run(samples)[0])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 60), st.sampled_from([np.nan, np.inf, 1.0, 3e38]))
def test_a_bad_tick_does_not_stick(at, value):
    clean = sound(8, -35)
    bad = clean.copy()
    bad[at * TICK : (at + 1) * TICK] = value
    bad[at * TICK + 1] = -value
    after, state = run(bad)
    expected, healthy = run(clean)
    assert state.gain_db == pytest.approx(healthy.gain_db, abs=1)
    assert active_db(after[-3 * 16000 :]) == pytest.approx(active_db(expected[-3 * 16000 :]), abs=1)


def test_a_bang_gives_way_for_less_than_a_second():
    samples = sound(8, -43)
    samples[100 * TICK : 101 * TICK : 2] = 0.9
    out, state = run(samples)
    assert np.abs(out).max() <= 1
    assert state.yield_db == 0
    quiet, _ = run(sound(8, -43))
    np.testing.assert_allclose(out[126 * TICK :], quiet[126 * TICK :], rtol=0.12)


def test_a_microphone_that_drops_by_forty_decibels_is_followed():
    loud, quiet = sound(4, -8).clip(-1, 1), sound(26, -48, seed=2)
    out, _ = run(np.concatenate([loud, quiet]))
    assert active_db(out[-4 * 16000 :]) == pytest.approx(-23, abs=3)


def test_the_gain_has_no_steps():
    time = np.arange(TICK * 100) / 16000
    tone = (0.02 * np.sin(2 * np.pi * 100 * time)).astype(np.float32)
    out, state = run(tone)
    assert state.gain_db > 9
    largest = np.abs(np.diff(out)).max()
    assert largest <= 1.1 * np.abs(out).max() * 2 * np.pi * 100 / 16000


def test_dc_does_not_count_as_level():
    _, with_dc = run((sound(4, -40) + np.float32(0.3)).astype(np.float32))
    _, without = run(sound(4, -40))
    assert with_dc.active == without.active
    assert with_dc.gain_db <= without.gain_db
    assert with_dc.counts.dc > 0


@pytest.mark.parametrize("at", [1, 30, 60, 99])
def test_save_and_load_equal_no_interruption(at):
    samples = sound(4, -38)
    whole, _ = run(samples)
    head, state = run(samples[: at * TICK])
    door = Door()
    tail, _ = run(samples[at * TICK :], state=door.load(door.save(state)))
    np.testing.assert_array_equal(np.concatenate([head, tail]), whole)


def test_a_saved_state_is_a_copy_and_is_checked():
    door = Door()
    _, state = run(sound(1, -38))
    saved = door.save(state)
    run(sound(1, -10), state=state)
    assert saved["counts"][0] == 25
    for name, value in (("gain", np.full(3, np.nan)), ("powers", np.zeros(3))):
        with pytest.raises(InputError, match="a saved door has"):
            door.load({**saved, name: value})
    with pytest.raises(InputError, match="a saved door has"):
        door.load({"gain": saved["gain"]})


@pytest.mark.parametrize(
    "bad", [np.zeros(639, np.float32), np.zeros(640), np.zeros((1, 640), np.float32), [0.0] * 640, None]
)
def test_only_ticks_pass(bad):
    door = Door()
    state = door.init_state()
    with pytest.raises(InputError, match="TickAssembler"):
        door.step(bad, state)
    assert state.counts.ticks == 0


@pytest.mark.parametrize("bad", [{"gain": "on"}, {"target_db": 3}, {"limit_db": -1}, {"target_db": float("nan")}])
def test_nonsense_settings_are_refused(bad):
    with pytest.raises(ConfigError, match="expected"):
        DoorConfig(**bad)
