"""The jitter buffer: every sample once, no click where sound starts and stops, bounded delay, counters that add up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.nodes.jitter import CONCEALED, FADE, JitterBuffer

PRIME, MOST, TICK, BLOCK = 1280, 6400, 640, 160
SLOPE = np.pi / (2 * FADE)  # largest step of a fade from 0 to 1


def tone(count, start=0, frequency=440.0, level=0.5):
    return (level * np.sin(2 * np.pi * frequency * (start + np.arange(count)) / 16000 + 1.0)).astype(np.float32)


def whole(count):
    """What a turn of `tone(count)` sounds like: fades at both ends, else unchanged."""
    made = tone(count + FADE)
    rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(FADE) + 0.5) / FADE)
    made[:FADE] *= rise.astype(np.float32)
    made[count:] = made[count - FADE : count][::-1] * rise[::-1].astype(np.float32)
    return made


def drain(buffer, *, block=BLOCK):
    made = []
    while buffer.sounding or buffer.ready:
        made.append(buffer.take(block))
    return np.concatenate(made) if made else np.zeros(0, np.float32)


def adds_up(buffer):
    return buffer.put_samples == buffer.played + buffer.lost + buffer.stale + buffer.level


def trimmed(sound):
    there = np.flatnonzero(sound)
    return sound[there[0] : there[-1] + 1]


def steps(sound):
    return float(np.abs(np.diff(sound, prepend=0, append=0)).max())


def bound(sound_step, level=0.5):
    """A seam is no steeper than the sound itself plus the fades laid over it (a cross-fade lays two)."""
    return sound_step + 2 * level * SLOPE + 1e-6


def test_waits_until_it_is_primed_then_plays_everything_once():
    buffer = JitterBuffer(PRIME, MOST)
    buffer.put(tone(TICK))
    assert not buffer.ready
    assert not buffer.take(BLOCK).any()
    buffer.put(tone(TICK, TICK))
    buffer.end_turn()
    assert np.array_equal(trimmed(drain(buffer)), trimmed(whole(2 * TICK)))
    assert (buffer.played, buffer.level, buffer.underruns, buffer.begun, buffer.begun_at) == (1280, 0, 0, 1, BLOCK)
    assert adds_up(buffer)


def test_a_turn_shorter_than_prime_is_played_all_the_same():
    buffer = JitterBuffer(PRIME, MOST)
    buffer.put(tone(100))
    buffer.end_turn()
    assert np.array_equal(trimmed(drain(buffer)), trimmed(whole(100)))
    assert (buffer.played, buffer.underruns) == (100, 0)


def test_a_turn_that_ends_with_nothing_left_fades_and_is_no_underrun():
    buffer = JitterBuffer(0, MOST)
    buffer.put(tone(TICK))
    first = buffer.take(TICK)
    buffer.end_turn()
    buffer.end_turn()
    assert np.array_equal(np.concatenate([first, drain(buffer, block=FADE)]), whole(TICK))
    assert (buffer.underruns, buffer.playing, buffer.sounding) == (0, False, False)


def power(sound):
    return float(np.sqrt(np.mean(np.square(sound))))


def test_in_an_underrun_the_sound_goes_on_until_more_of_it_is_there():
    buffer = JitterBuffer(PRIME, MOST)
    buffer.put(tone(PRIME))
    first = buffer.take(PRIME + 400)
    assert (buffer.underruns, buffer.concealed, buffer.sounding) == (1, 400, True)
    assert np.array_equal(first[FADE:PRIME], tone(PRIME)[FADE:])
    assert power(first[PRIME:]) > 0.8 * power(first[FADE:PRIME])
    buffer.put(tone(TICK, PRIME))
    second = buffer.take(TICK)
    assert power(second[-100:]) > 0.4 * power(first[FADE:PRIME])
    buffer.put(tone(TICK, PRIME + TICK))
    third = buffer.take(PRIME)
    assert np.array_equal(third[FADE:], tone(PRIME, PRIME)[FADE:])
    assert steps(np.concatenate([first, second, third[:-1]])) < bound(steps(tone(PRIME)[1:-1]), 0.5)
    assert (buffer.underruns, buffer.begun, buffer.played, buffer.concealed) == (1, 2, 2 * PRIME, 400 + TICK)


def test_what_is_made_up_fades_away_and_ends_with_its_turn():
    buffer = JitterBuffer(PRIME, MOST)
    buffer.put(tone(PRIME))
    sound = buffer.take(PRIME + CONCEALED + BLOCK)
    assert not buffer.sounding
    assert not sound[PRIME + CONCEALED :].any()
    assert power(sound[PRIME + CONCEALED - 400 : PRIME + CONCEALED]) < 0.1
    buffer.put(tone(PRIME))
    before = buffer.take(PRIME + 1000)
    buffer.end_turn()
    after = buffer.take(BLOCK)
    assert not after[FADE:].any()
    assert steps(np.concatenate([before, after])) < bound(steps(tone(PRIME)[1:-1]))


def test_an_interruption_ends_what_is_made_up():
    buffer = JitterBuffer(PRIME, MOST)
    buffer.put(tone(PRIME))
    before = buffer.take(PRIME + 500)
    buffer.interrupt(1)
    after = buffer.take(BLOCK)
    assert not after[FADE:].any()
    assert steps(np.concatenate([before, after])) < bound(steps(tone(PRIME)[1:-1]))


def test_taking_exactly_what_is_there_is_no_underrun():
    buffer = JitterBuffer(PRIME, MOST)
    for at in range(0, 100 * TICK, TICK):
        buffer.put(tone(TICK, at))
        if at >= TICK:
            buffer.take(TICK)
    buffer.take(TICK)
    assert (buffer.underruns, buffer.level, buffer.played) == (0, 0, 100 * TICK)


@pytest.mark.parametrize("played", [0, 40, 200, 1000])
def test_an_interruption_is_silent_within_10_ms_and_older_sound_stays_out(played):
    buffer = JitterBuffer(PRIME, MOST)
    buffer.put(tone(4 * TICK), epoch=0)
    before = buffer.take(played)
    buffer.interrupt(1)
    after = buffer.take(400)
    assert not after[160:].any()
    assert steps(np.concatenate([before, after])) < bound(steps(tone(4 * TICK)[1:-1]))
    buffer.put(tone(TICK), epoch=0)
    assert (buffer.level, buffer.stale, buffer.underruns) == (0, 5 * TICK - played, 0)
    buffer.put(tone(2 * TICK), epoch=1)
    assert np.array_equal(buffer.take(2 * TICK)[FADE:], tone(2 * TICK)[FADE:])
    assert adds_up(buffer)


def test_an_interruption_that_is_not_newer_drops_nothing():
    buffer = JitterBuffer(0, MOST)
    buffer.put(tone(TICK), epoch=2)
    buffer.interrupt(2)
    buffer.interrupt(1)
    assert (buffer.level, buffer.epoch) == (TICK, 2)


def test_sound_of_a_newer_epoch_interrupts_by_itself():
    buffer = JitterBuffer(0, MOST)
    buffer.put(tone(TICK), epoch=0)
    buffer.put(tone(100), epoch=1)
    assert (buffer.level, buffer.stale, buffer.epoch) == (100, TICK, 1)


def test_two_turns_in_the_buffer_are_played_one_after_the_other():
    buffer = JitterBuffer(PRIME, MOST)
    for count in (2000, 300):
        buffer.put(tone(count))
        buffer.end_turn()
    got = drain(buffer)
    assert np.array_equal(got[: 2000 + FADE], whole(2000))
    assert np.array_equal(got[2000 + FADE : 2300 + 2 * FADE], whole(300))
    assert (buffer.begun, buffer.underruns, buffer.played) == (2, 0, 2300)


@pytest.mark.parametrize("frequency", [110.0, 440.0, 3000.0])
@pytest.mark.parametrize("playing", [True, False])
def test_what_piles_up_is_skipped_once_without_a_click(frequency, playing):
    buffer = JitterBuffer(PRIME, MOST)
    source = tone(12 * TICK, frequency=frequency)
    buffer.put(source[: 2 * TICK])
    before = buffer.take(321) if playing else np.zeros(0, np.float32)
    for at in range(2 * TICK, len(source), TICK):
        buffer.put(source[at : at + TICK])
        assert buffer.level <= MOST
    after = buffer.take(buffer.level)
    assert buffer.lost > 0
    assert adds_up(buffer)
    assert np.array_equal(after[FADE:], source[-len(after) + FADE :])
    got = np.concatenate([before, after])
    assert steps(got[:-1]) < bound(steps(source[1:-1]), 1.0)


def test_one_put_beyond_the_most_is_cut_to_its_newest():
    buffer = JitterBuffer(PRIME, MOST)
    buffer.put(tone(100_000))
    assert (buffer.level, buffer.lost) == (PRIME, 100_000 - PRIME)
    assert np.array_equal(buffer.take(PRIME)[FADE:], tone(100_000)[-PRIME + FADE :])


def test_a_skip_over_the_end_of_a_turn_ends_it():
    buffer = JitterBuffer(PRIME, MOST)
    buffer.put(tone(2000))
    before = buffer.take(500)
    buffer.end_turn()
    buffer.put(tone(6000, 9000))
    after = buffer.take(FADE + PRIME)
    assert np.array_equal(np.concatenate([before, after])[: 500 + FADE], whole(500))
    assert np.array_equal(after[2 * FADE :], tone(15_000)[-PRIME + FADE :])
    assert (buffer.begun, buffer.underruns) == (2, 0)


def test_a_new_stream_begins_at_epoch_0_after_the_fade_of_the_old():
    buffer = JitterBuffer(0, MOST)
    buffer.put(tone(TICK), epoch=7)
    before = buffer.take(200)
    buffer.restart()
    buffer.put(tone(TICK), epoch=0)
    after = buffer.take(FADE + TICK)
    assert np.array_equal(np.concatenate([before, after])[: 200 + FADE], whole(200))
    assert np.array_equal(after[2 * FADE :], tone(TICK)[FADE:])
    assert (buffer.played, buffer.stale, buffer.put_samples, buffer.begun, buffer.taken) == (640, 0, 640, 1, 920)


def test_refuses_sizes_that_cannot_work():
    for prime, most in ((-1, 6400), (6400, 640), (0, 100)):
        with pytest.raises(ValueError, match="expected 0 <= prime <= most"):
            JitterBuffer(prime, most)


@settings(max_examples=60, deadline=None, database=None)
@given(st.data())
def test_any_chunking_gives_the_same_sound(data):
    total = data.draw(st.integers(1, 6000))
    buffer, put, made = JitterBuffer(PRIME, MOST), 0, []
    while put < total:
        count = min(data.draw(st.integers(1, 900)), total - put, MOST - buffer.level)
        buffer.put(tone(count, put))
        put += count
        if put == total:
            buffer.end_turn()
        spare = buffer.level if buffer.playing or buffer.ready else 200
        made.append(buffer.take(data.draw(st.integers(0, spare))))
    made.append(drain(buffer, block=data.draw(st.integers(1, 300))))
    got = trimmed(np.concatenate(made))
    wanted = trimmed(whole(total)) if total >= FADE else got
    assert np.array_equal(got, wanted)
    assert (buffer.played, buffer.underruns, buffer.lost, buffer.begun) == (total, 0, 0, 1)
    assert adds_up(buffer)


MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 3000)),
        st.tuples(st.just("take"), st.integers(0, 1500)),
        st.tuples(st.sampled_from(["end", "interrupt", "old", "drop", "restart"]), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None, database=None)
@given(MOVES, st.sampled_from([0, 100, PRIME]))
def test_whatever_happens_nothing_clicks_grows_or_gets_lost(moves, prime):
    buffer, at, made = JitterBuffer(prime, 3200), 0, [np.zeros(1, np.float32)]
    for move, count in moves:
        if move == "put":
            buffer.put(tone(count, at, 300.0), epoch=buffer.epoch)
            at += count
        elif move == "take":
            got = buffer.take(count)
            assert len(got) == count
            made.append(got)
        elif move == "end":
            buffer.end_turn()
        elif move == "interrupt":
            buffer.interrupt(buffer.epoch + 1)
        elif move == "old":
            buffer.put(tone(50), epoch=buffer.epoch - 1)
        else:
            getattr(buffer, move)()
        assert buffer.level <= 3200
        assert adds_up(buffer)
        assert len(buffer._ends) <= len(moves)
    buffer.end_turn()
    made.append(drain(buffer))
    got = np.concatenate(made)
    assert not buffer.sounding
    assert np.abs(got).max() <= 0.5 + 1e-6
    assert steps(got) < bound(steps(tone(16_000, 0, 300.0)[1:-1]), 1.0)
