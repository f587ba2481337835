"""From a device's blocks to ticks: nothing lost, no seams, little delay, and what is too old goes."""

import numpy as np
import pytest

from streamer.nodes.inlet import BLOCK, Inlet
from streamer.nodes.ring import Ring


class Ear:
    """What an inlet needs of a capture."""

    def __init__(self, rate=48_000, channels=1, seconds=2.0):
        self.rate, self.channels, self.connected = rate, channels, True
        self.ring = Ring(round(rate * seconds), channels)

    def hear(self, sound):
        """Samples `[n]` or `[n, channels]`, from the device."""
        self.ring.push(np.asarray(sound, np.float32))


def inlet(ear, channel=None, clean=lambda block: block):
    return Inlet(ear, channel, clean)


def heard(made, ear, sound):
    """Everything that comes out, block by block of 10 ms."""
    size, ticks = ear.rate // 100, []
    for start in range(0, len(sound) // size * size, size):
        ear.hear(sound[start : start + size])
        while (tick := made.take()) is not None:
            ticks.append(tick)
    return ticks


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_a_tone_stays_a_tone_without_seams(rate):
    ear = Ear(rate)
    time = np.arange(rate) / rate
    ticks = heard(inlet(ear), ear, 0.5 * np.sin(2 * np.pi * 440 * time))
    sound = np.concatenate(ticks)[1600:]
    assert all(len(tick) == 640 for tick in ticks)
    assert len(ticks) >= 22
    basis = np.exp(-2j * np.pi * 440 * np.arange(len(sound)) / 16_000)
    phase = 2 * np.mean(sound * basis)
    rest = sound - np.real(phase * np.conj(basis))
    assert abs(phase) == pytest.approx(0.5, abs=0.002)
    assert np.abs(rest).max() < 0.005


def test_it_waits_for_no_more_than_the_filter_needs():
    """At 48 kHz a tick comes with the block after the next one behind its last sample."""
    ear = Ear()
    ticks = heard(inlet(ear), ear, np.zeros(48_000))
    assert len(ticks) == (100 - 2) // 4


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_any_chunks_of_the_device_give_the_same(rate):
    sound = np.random.default_rng(1).standard_normal(rate).astype(np.float32) * 0.1
    steady = heard(inlet(first := Ear(rate)), first, sound)
    second = Ear(rate)
    made, ticks, start = inlet(second), [], 0
    for size in np.random.default_rng(2).integers(1, 2000, 1000):
        second.hear(sound[start : start + size])
        start += size
        while (tick := made.take()) is not None:
            ticks.append(tick)
    assert np.array_equal(np.concatenate(ticks), np.concatenate(steady)[: 640 * len(ticks)])
    assert len(ticks) >= len(steady)


def test_channels_are_mixed_or_one_is_taken():
    sound = np.stack([np.full(4800, 0.2), np.full(4800, 0.6)], axis=1)
    for channel, level in ((None, 0.4), (1, 0.2), (2, 0.6)):
        ear = Ear(16_000, 2)
        ticks = heard(inlet(ear, channel), ear, sound)
        assert ticks[1] == pytest.approx(level)


def test_each_block_is_cleaned():
    seen = []

    def clean(block):
        seen.append(block.copy())
        return -block

    ear = Ear(16_000)
    sound = np.random.default_rng(0).standard_normal(1600).astype(np.float32)
    (first, second) = heard(inlet(ear, clean=clean), ear, sound)
    assert {len(block) for block in seen} == {BLOCK}
    assert np.array_equal(second, -sound[640:1280])
    assert len(first) == 640


def test_it_begins_softly_with_what_is_heard_from_now_on():
    ear = Ear(16_000)
    ear.hear(np.ones(1000))
    made = inlet(ear)
    (tick,) = heard(made, ear, np.full(640, 0.5))
    assert tick[0] == 0
    assert np.all(np.diff(tick) >= 0)
    assert tick[-1] == 0.5
    assert made.lost == 0


def test_what_is_not_finite_is_silence():
    ear = Ear(16_000)
    sound = np.full(1280, 0.5)
    sound[700:710] = np.nan
    sound[710:720] = np.inf
    ticks = heard(inlet(ear), ear, sound)
    assert np.isfinite(np.concatenate(ticks)).all()
    assert not ticks[1][60:80].any()


def test_after_a_pause_the_oldest_goes_and_is_counted():
    ear = Ear(16_000)
    made = inlet(ear)
    sound = np.arange(16_000) / 16_000
    ear.hear(sound)
    tick = made.take()
    assert made.take() is None
    assert tick[-1] == pytest.approx(sound[-1])
    assert made.lost == 16_000 - 640


def test_what_the_ring_could_not_hold_is_counted_too():
    ear = Ear(48_000, seconds=0.5)
    made = inlet(ear)
    ear.hear(np.zeros(48_000))
    while made.take() is not None:
        pass
    assert made.lost == pytest.approx(16_000 - 640, abs=1)


def test_a_short_pause_loses_nothing():
    ear = Ear(16_000)
    made = inlet(ear)
    ear.hear(np.zeros(int(0.35 * 16_000)))
    ticks = 0
    while made.take() is not None:
        ticks += 1
    assert (ticks, made.lost) == (8, 0)


def test_the_rest_of_a_tick_is_filled_up_with_silence():
    ear = Ear(16_000)
    made = inlet(ear)
    heard(made, ear, np.ones(640))
    ear.hear(np.ones(330))
    assert made.take() is None
    tick = made.rest()
    assert tick[:320] == pytest.approx(1)
    assert not tick[320:].any()
    assert ear.ring.level == 0
    assert not made.rest().any()


def test_it_waits_until_a_tick_can_be_there():
    ear = Ear(16_000)
    made = inlet(ear)
    assert made.wait() == pytest.approx(0.04)
    ear.hear(np.zeros(320))
    assert made.wait() == pytest.approx(0.02)
    made.take()
    assert made.wait() == pytest.approx(0.02)
    ear.hear(np.zeros(1000))
    assert 0 < made.wait() <= 0.002
