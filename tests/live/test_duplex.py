"""`streamer run duplex` on the virtual card: what is said into the microphone comes out of the speaker."""

import signal

import numpy as np
import pytest
from card import samples_of
from recorded import clicks, heard_through


@pytest.fixture
def duplex(service):
    """The program, with sound going through."""
    made = service("run", "duplex")
    made.running()
    return made


def test_what_is_said_comes_out_without_clicks(duplex, card, speech):
    heard = heard_through(card, speech)
    code, summary = duplex.stop()
    assert code == 130
    assert 0.3 < np.abs(heard).max() / np.abs(samples_of(speech)).max() < 3
    late = summary["counters"]["speaker.late_blocks"]
    assert clicks(heard) <= 2 * (late + 1)  # each block that a busy machine was late with has two ends
    assert summary["failed"] == 0


def test_a_signal_ends_it(duplex):
    assert duplex.stop(signal.SIGTERM)[0] == 143


def test_the_rates_and_channels_of_a_device_do_not_matter(service, card, speech):
    mic = ("--set", "nodes.mic.rate=44100", "--set", "nodes.mic.channels=2", "--set", "nodes.mic.channel=2")
    made = service("run", "duplex", *mic, "--set", "nodes.speaker.rate=44100")
    made.running()
    heard_through(card, speech)
