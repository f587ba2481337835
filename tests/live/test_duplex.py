"""`streamer run duplex` on the virtual card: what is said into the microphone comes out of the speaker."""

import signal

import numpy as np
import pytest
from card import samples_of
from sounds import clicks, likeness


@pytest.fixture
def duplex(service):
    """The program, with sound going through."""
    made = service("run", "duplex", "--set", "nodes.mic.echo=off")
    made.running()
    return made


def test_what_is_said_comes_out_without_clicks(duplex, card, speech):
    said = samples_of(speech)
    with card.recording() as tape:
        card.play(speech)
        loud = 0.1 * np.abs(said).max()
        tape.wait(lambda heard: len(heard) > len(said) and np.abs(heard[-24_000:]).max() < loud, "the end of it")
        heard = tape.samples
    code, summary = duplex.stop()
    assert code == 130
    found, _ = likeness(heard, said)
    assert found > 0.8
    assert 0.3 < np.abs(heard).max() / np.abs(said).max() < 3
    late = summary["counters"]["speaker.late_blocks"]
    assert clicks(heard) <= 2 * (late + 1)  # each block that this busy machine was late with has two ends
    assert summary["counters"]["mic.lost_samples"] == 0 or late
    assert summary["failed"] == 0


def test_a_signal_ends_it(duplex):
    assert duplex.stop(signal.SIGTERM)[0] == 143


def test_the_rates_and_channels_of_a_device_do_not_matter(service, card, speech):
    device = ("--set", "nodes.mic.rate=44100", "--set", "nodes.mic.channels=2", "--set", "nodes.mic.channel=2")
    made = service("run", "duplex", *device, "--set", "nodes.mic.echo=off", "--set", "nodes.speaker.rate=44100")
    made.running()
    said = samples_of(speech)
    with card.recording() as tape:
        card.play(speech)
        tape.wait(lambda heard: len(heard) > len(said) + 24_000, "the end of it")
        heard = tape.samples
    assert likeness(heard, said)[0] > 0.8
