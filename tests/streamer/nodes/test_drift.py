"""The correction of two clocks: the level stays, the estimate converges, and a tone stays a tone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from streamer.nodes.drift import HELD, HELD_LOW, MOST_PPM, DriftResampler, LevelControl
from streamer.nodes.jitter import JitterBuffer

PRIME = 0.08
BLOCK = 160


class Hour(NamedTuple):
    lowest: float  # seconds of sound in the buffer, after the first minute
    highest: float
    underruns: int
    ppm: list[float]  # the correction, once a second
    clock_ppm: float


def simulate(ppm, seconds, *, late=0.0, level=PRIME):
    """Ticks of 40 ms by a clock that is `ppm` fast, up to `late` s late, against a device that takes 10 ms blocks."""
    random, control = np.random.default_rng(0), LevelControl(PRIME)
    ring, due, coming, levels, shown, underruns = 0.02, 0.0, [], [], [], 0
    for step in range(int(seconds * 100)):
        now = step / 100
        while due <= now:
            coming.append(due + late * random.random())
            due += 0.04 / (1 + 1e-6 * ppm)
        while coming and coming[0] <= now:
            coming.pop(0)
            level += 0.04
        ring -= 0.01
        while ring < 0.02 - 1e-9:
            if level < 0.01 - 1e-9:
                underruns += 1
                break
            level -= 0.01
            ring += 0.01 / (1 + 1e-6 * control.ppm)
        control.update(level + ring, 0.01)
        if step > 6000:
            levels.append(level)
        if step % 100 == 0:
            shown.append(control.ppm)
    return Hour(min(levels), max(levels), underruns, shown, control.clock_ppm)


@pytest.mark.parametrize("late", [0.0, 0.03])
@pytest.mark.parametrize("ppm", [200.0, -200.0])
def test_an_hour_of_two_clocks_200_ppm_apart(ppm, late):
    hour = simulate(ppm, 3600, late=late)
    assert hour.underruns == 0
    assert hour.lowest >= 0.005
    assert hour.highest <= PRIME + 0.04
    assert hour.clock_ppm == pytest.approx(ppm, abs=10)
    assert np.mean(hour.ppm[-600:]) == pytest.approx(ppm, abs=20)
    assert max(map(abs, hour.ppm)) < 1000


def test_without_a_correction_it_would_run_dry():
    drift = 3600 * 200e-6
    assert drift > PRIME  # what the test above would lose in an hour


def test_what_piled_up_is_worked_off_and_not_taken_for_a_fast_clock():
    hour = simulate(0.0, 300, level=0.4)
    assert max(hour.ppm) == MOST_PPM
    assert hour.ppm[-1] < 500
    assert abs(hour.clock_ppm) < 200


def test_the_correction_changes_slowly():
    control, last, biggest = LevelControl(PRIME), 0.0, 0.0
    for step in range(2000):
        ppm = control.update(PRIME + (0.04 if step % 4 == 0 else 0.0), 0.01)
        biggest, last = max(biggest, abs(ppm - last)), ppm
    assert biggest < 5  # ppm in 10 ms


def test_the_correction_is_bounded_and_rests_on_what_was_learnt():
    control = LevelControl(PRIME)
    for _ in range(6000):
        control.update(PRIME + 0.01, 0.01)
    learnt = control.clock_ppm
    assert learnt > 0
    for level, bound in ((100.0, MOST_PPM), (-100.0, -MOST_PPM)):
        for _ in range(500):
            control.update(level, 0.01)
        assert control.ppm == bound
    assert control.clock_ppm == pytest.approx(learnt, abs=5)
    assert control.rest() == control.ppm == control.clock_ppm


def tone(count, frequency):
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(count) / 16000)).astype(np.float32)


def resample(rate, frequency, corrections):
    stream = DriftResampler(16000, rate)
    source = tone(len(corrections) * BLOCK, frequency).reshape(-1, BLOCK)
    return np.concatenate([stream.push(block, ppm) for block, ppm in zip(source, corrections, strict=True)])


def purity(sound, rate, frequency, width):
    """dB of a tone over all that is more than `width` Hz from it, without the start."""
    sound = sound[rate // 4 :].astype(float)
    power = np.abs(np.fft.rfft(sound * np.blackman(len(sound)))) ** 2
    near = np.abs(np.fft.rfftfreq(len(sound), 1 / rate) - frequency) < width
    return 10 * np.log10(power[near].sum() / power[~near].sum())


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
@pytest.mark.parametrize("frequency", [440.0, 3000.0, 7000.0])
def test_a_tone_stays_a_tone(rate, frequency):
    assert purity(resample(rate, frequency, [0.0] * 300), rate, frequency, 20) > 100


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
def test_a_tone_under_the_controller_has_no_clicks(rate):
    control, random = LevelControl(PRIME), np.random.default_rng(1)
    corrections = [control.update(PRIME + random.uniform(-0.02, 0.03), 0.01) for _ in range(1000)]
    assert np.ptp(corrections) > 50
    assert purity(resample(rate, 1000.0, corrections), rate, 1000.0, 5) > 75


def test_even_a_wild_ratio_makes_no_step():
    sound = resample(48000, 997.0, [0.0, MOST_PPM, -MOST_PPM] * 100)[4800:].astype(float)
    pure = 0.5 * (2 * np.pi * 997 * (1 + 1e-6 * MOST_PPM) / 48000) ** 2
    assert np.abs(np.diff(sound, 2)).max() < 1.01 * pure


@pytest.mark.parametrize("ppm", [0.0, 200.0, -200.0, MOST_PPM, -MOST_PPM])
@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_the_length_follows_the_ratio(rate, ppm):
    stream = DriftResampler(16000, rate)
    got = sum(len(stream.push(block, ppm)) for block in np.zeros((2000, BLOCK), np.float32))
    longest = rate * 20 / (1 + 1e-6 * ppm)
    assert longest - rate * stream.held - 10 < got < longest - rate * HELD + 10


def test_any_chunking_gives_the_same_sound():
    source, made = tone(16000, 300.0), []
    for chunk in (160, 1600, 37):
        stream = DriftResampler(16000, 44100)
        made.append(np.concatenate([stream.push(source[at : at + chunk], 0.0) for at in range(0, 16000, chunk)]))
    shortest = min(map(len, made))
    assert all(np.allclose(one[:shortest], made[0][:shortest], atol=1e-6) for one in made)


def test_what_is_held_back_is_declared():
    assert DriftResampler(16000, 48000).held == HELD
    assert DriftResampler(16000, 8000).held == HELD_LOW
    sound = DriftResampler(16000, 48000).push(np.ones(16000, np.float32), 0.0)
    assert len(sound) == pytest.approx(48000 * (1 - HELD), abs=2)


def test_a_correction_beyond_the_limit_is_limited():
    stream = DriftResampler(16000, 48000)
    stream.push(np.zeros(BLOCK, np.float32), 1e9)
    assert stream.ppm == MOST_PPM


def test_minutes_of_buffer_and_resampler_together():
    """The whole way by the sample: nothing underruns, nothing is skipped, for a maker that is 500 ppm fast."""
    buffer, control, stream = JitterBuffer(1280, 6400), LevelControl(PRIME), DriftResampler(16000, 48000)
    source, ring, due, at = tone(16000 * 121, 200.0), 960, 0.0, 0
    for step in range(120 * 100):
        while due <= step / 100:
            buffer.put(source[at : at + 640])
            at, due = at + 640, due + 0.04 / (1 + 500e-6)
        ring -= 480
        while ring < 960:
            block = buffer.take(BLOCK)
            waits = buffer.level / 16000 + ring / 48000
            ppm = control.update(waits, 0.01) if buffer.playing else control.rest()
            ring += len(stream.push(block, ppm))
    assert (buffer.underruns, buffer.lost, buffer.begun) == (0, 0, 1)
    assert control.ppm == pytest.approx(500, abs=250)
