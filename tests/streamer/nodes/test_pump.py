"""The thread between buffer and device, mostly without the thread: one look at a time on a clock of the test."""

from __future__ import annotations

import threading
import types

import numpy as np
import pytest

from streamer.nodes import pump as module
from streamer.nodes.drift import HELD
from streamer.nodes.jitter import FADE, JitterBuffer
from streamer.nodes.pump import BLOCK, KEEP, Pump
from streamer.nodes.ring import Ring

RATE = 48_000


def tone(count, frequency=500.0, level=0.5):
    return (level * np.sin(2 * np.pi * frequency * np.arange(count) / 16000)).astype(np.float32)


class Device:
    """Stands for a `Playout`: the test takes from its ring."""

    def __init__(self, rate=RATE, channels=1, latency=0.03):
        self.ring = Ring(2 * rate, channels)
        self.rate, self.channels, self.latency = rate, channels, latency
        self.connected, self.expecting, self.underruns = True, False, 0
        self.played = []

    def play(self, seconds):
        self.played.append(self.ring.pop(round(seconds * self.rate)))


class Setup:
    """A pump on a clock that only the test moves."""

    def __init__(self, clock, *, device=None, gain=1.0, steer=False, prime=640):
        self.clock = clock
        self.device = device or Device()
        self.buffer = JitterBuffer(prime, 6400)
        self.given, self.notes = [], []
        self.pump = Pump(self.buffer, self.device, gain=gain, steer=steer, given=self.given.append)
        self.pump.listener = self.notes.append

    def run(self, seconds):
        """Let the device play in blocks of 10 ms, the pump looking after each."""
        for _ in range(round(seconds * 100)):
            self.clock.now += 0.01
            if self.device.connected:
                self.device.play(0.01)
            self.pump._turn()

    @property
    def sound(self):
        return np.concatenate(self.given)


@pytest.fixture
def clock(monkeypatch):
    made = types.SimpleNamespace(now=100.0)
    made.perf_counter = lambda: made.now
    made.sleep = lambda seconds: setattr(made, "now", made.now + seconds)
    monkeypatch.setattr(module, "time", made)
    return made


def test_keeps_the_ring_filled_and_no_more(clock):
    made = Setup(clock)
    made.pump._turn()
    assert KEEP * RATE <= made.device.ring.level < (KEEP + 0.01) * RATE
    level, count = made.device.ring.level, len(made.given)
    made.pump._turn()
    assert (made.device.ring.level, len(made.given)) == (level, count)
    made.run(1.0)
    assert len(made.given) == count + 100
    assert not made.sound.any()


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_what_is_put_reaches_the_device_on_every_channel_and_the_reference(clock, rate):
    made = Setup(clock, device=Device(rate, channels=2), gain=0.5)
    made.buffer.put(tone(6400))
    made.buffer.end_turn()
    made.run(0.6)
    there = np.flatnonzero(made.sound)
    reference = made.sound[there[0] - 1 : there[-1] + 1]
    np.testing.assert_allclose(reference[FADE:6400], 0.5 * tone(6400)[FADE:], atol=1e-6)
    out = np.concatenate(made.device.played).astype(float)
    assert np.array_equal(out[:, 0], out[:, 1])
    loud = out[np.flatnonzero(np.abs(out[:, 0]) > 1e-3)[0] :, 0][rate // 50 : rate // 50 + rate // 4]
    power = np.abs(np.fft.rfft(loud * np.blackman(len(loud)))) ** 2
    near = np.abs(np.fft.rfftfreq(len(loud), 1 / rate) - 500) < 20
    assert power[~near].sum() < 1e-8 * power.sum()
    assert np.abs(loud).max() == pytest.approx(0.25, rel=0.01)


def test_full_scale_is_never_exceeded(clock):
    made = Setup(clock)
    made.buffer.put(tone(3200, level=4.0))
    made.run(0.1)
    assert np.abs(made.sound).max() == 1.0


def test_says_when_sound_begins_and_ends_at_the_device(clock):
    made = Setup(clock)
    made.run(0.5)
    ring = made.device.ring.level
    made.buffer.put(tone(6400))
    made.buffer.end_turn()
    start, given = clock.now, len(made.given)
    made.run(0.5)
    began = [note.began for note in made.notes if note.began is not None]
    silent = [note.silent for note in made.notes if note.silent is not None]
    first = start + 0.01 + (ring - 480) / RATE + made.device.latency + HELD
    assert began == [pytest.approx(first, abs=1e-6)]
    blocks = -(-(6400 + FADE) // BLOCK)
    assert silent == [pytest.approx(first + blocks * 0.01, abs=1e-3)]
    assert not np.concatenate(made.given[given + blocks :]).any()


def test_sounds_at_the_device_when_it_said_it_would(clock):
    made = Setup(clock, device=Device(latency=0.0))
    made.run(0.3)
    start = clock.now
    made.buffer.put(np.full(6400, 0.5, np.float32))
    made.run(0.2)
    out = np.concatenate(made.device.played)[:, 0]
    heard = np.flatnonzero(out > 0.25)[0] / RATE - out.size / RATE + (clock.now - start)
    began = next(note.began for note in made.notes if note.began is not None) - start
    assert began == pytest.approx(heard - FADE / 2 / 16000, abs=0.001)


def test_notes_come_ten_times_a_second_and_when_wanted(clock):
    made = Setup(clock)
    made.run(2.0)
    assert len(made.notes) == 20
    made.pump.wanted = True
    made.run(0.01)
    assert len(made.notes) == 21
    assert not made.pump.wanted


def test_says_the_level_and_what_waits(clock):
    made = Setup(clock)
    made.run(0.2)
    assert made.notes[-1].level_db == -100
    assert made.notes[-1].waits == pytest.approx(KEEP, abs=0.011)
    made.buffer.put(tone(6400))
    made.run(0.15)
    assert made.notes[-1].level_db == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.5)
    assert made.notes[-1].waits > 0.2
    assert made.pump.note().level_db == pytest.approx(made.notes[-1].level_db, abs=0.5)


def test_an_empty_ring_counts_only_in_a_turn(clock):
    made = Setup(clock)
    made.run(0.1)
    assert not made.device.expecting
    made.buffer.put(tone(1280))
    made.run(0.01)
    assert made.device.expecting
    made.device.underruns += 3
    made.buffer.end_turn()
    made.run(0.3)
    assert not made.device.expecting
    assert (made.notes[-1].late, made.notes[-1].underruns) == (3, 0)
    made.pump.restart()
    made.run(0.2)
    assert made.notes[-1].late == 0


def test_a_device_that_is_away_has_its_sound_discarded_at_the_pace_of_the_clock(clock):
    made = Setup(clock)
    made.run(0.2)
    made.device.connected = False
    given = len(made.given)
    for _ in range(5):
        made.buffer.put(tone(1600))
        made.run(0.1)
    made.run(0.1)
    assert made.notes[-1].lost == 8000
    assert len(made.given) == given
    assert made.buffer.level == 0
    clock.now += 3600
    made.buffer.put(tone(6400))
    made.pump._turn()
    assert made.buffer.level == 0  # an hour's gap is not caught up block by block
    made.device.connected = True
    made.buffer.put(tone(3200))
    made.run(0.1)
    assert made.sound[given * BLOCK :].any()


def test_the_rate_is_corrected_only_for_a_maker_with_a_clock(clock):
    for steer in (True, False):
        made = Setup(clock, steer=steer)
        for _ in range(100):
            made.buffer.put(tone(1600))
            made.run(0.0995)
            made.clock.now += 0.0005
            made.buffer.put(tone(8))
        assert (made.pump._resampler.ppm != 0.0) == steer
        assert (made.notes[-1].ppm != 0.0) == steer


def test_closing_plays_a_fade_and_ends_the_thread():
    device, given = Device(), []
    pump = Pump(JitterBuffer(640, 6400), device, gain=1.0, steer=False, given=given.append)
    sounding = threading.Event()
    pump.listener = lambda note: note.began is not None and sounding.set()
    with pump.lock:
        pump.buffer.put(np.full(6400, 0.5, np.float32))
    pump.start("pump of a test")
    pump.start("not a second one")
    assert sounding.wait(5)
    closer = threading.Thread(target=pump.close)
    closer.start()
    while closer.is_alive():
        device.play(0.01)
        closer.join(0.001)
    assert not pump._thread.is_alive()
    assert not device.expecting
    sound = np.concatenate(given)
    last = np.flatnonzero(sound)[-1]
    assert np.abs(np.diff(sound[: last + 2])).max() < 0.02
    assert pump.buffer.stale > 0


def test_closing_without_a_start_or_a_device_is_quick():
    Pump(JitterBuffer(640, 6400), Device(), gain=1.0, steer=False, given=print).close()
    device = Device()
    device.connected = False
    pump = Pump(JitterBuffer(640, 6400), device, gain=1.0, steer=False, given=print)
    pump.start("pump without a device")
    pump.close()
    assert not pump._thread.is_alive()


def test_what_goes_wrong_in_the_thread_is_said():
    def fail(block):
        raise OSError("no more")

    pump = Pump(JitterBuffer(640, 6400), Device(), gain=1.0, steer=False, given=fail)
    said = threading.Event()
    pump.listener = lambda note: said.set()
    pump.start("pump that fails")
    assert said.wait(5)
    pump.close()
    assert isinstance(pump.ended.exception(), OSError)


@pytest.mark.parametrize(("prime", "keep", "target"), [(1280, 0.12, 0.12), (3200, 0.12, 0.2), (0, 0.0, module.LEAST)])
def test_what_waits_on_average_is_what_is_asked_for_but_never_less_than_a_turn_begins_with(prime, keep, target):
    pump = Pump(JitterBuffer(prime, 6400), Device(), gain=1.0, steer=True, given=print, keep=keep)
    assert pump._control.target == pytest.approx(target)
    pump.close()
