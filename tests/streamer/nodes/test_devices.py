"""Which device is meant, and what is said when none is."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fake_sound import BOTH, LOUD, MIC

from streamer.errors import InputError
from streamer.nodes.devices import find

ALL = [MIC, LOUD, BOTH]


@pytest.mark.parametrize(
    ("wanted", "direction", "meant"),
    [
        (None, "input", MIC),
        (None, "output", LOUD),
        (2, "input", BOTH),
        ("USB Mic", "input", MIC),
        ("usb mic", "input", MIC),
        ("headset", "output", BOTH),
        ("usb", "output", BOTH),
    ],
)
def test_a_device_is_found(wanted, direction, meant):
    assert find(ALL, wanted, direction) is meant


def test_without_a_default_the_first_that_can_is_taken():
    assert find([LOUD, BOTH], None, "input") is BOTH


def test_of_the_same_device_by_two_apis_the_default_is_taken():
    other = replace(MIC, index=7, api="JACK", default_input=False)
    assert find([other, MIC], "USB Mic", "input") is MIC
    assert find([other, replace(MIC, default_input=False)], "USB Mic", "input") is other


@pytest.mark.parametrize(
    ("devices", "wanted", "direction", "said"),
    [
        ([], None, "input", ["no sound input is here", "plug a microphone in", "streamer devices"]),
        ([MIC], None, "output", ["no sound output is here", "loudspeaker"]),
        (ALL, "USB Mik", "input", ["no sound input is named 'USB Mik'", "did you mean 'USB Mic'?", "0: USB Mic"]),
        (ALL, "bogus", "output", ["no sound output is named 'bogus'", "1: Speakers (ALSA, 2 channels, 48000 Hz, d"]),
        (ALL, 9, "input", ["there is no sound device 9", "2: USB Headset (ALSA, 1 channel, 16000 Hz)"]),
        (ALL, "Speakers", "input", ["'Speakers' has no inputs", "inputs that are there:\n  0: USB Mic"]),
        (ALL, 1, "input", ["'Speakers' has no inputs"]),
        (ALL, "usb", "input", ["'usb' may mean 2 devices: 'USB Mic', 'USB Headset'", "give more of the name"]),
    ],
)
def test_what_cannot_be_is_said_with_what_is_there(devices, wanted, direction, said):
    with pytest.raises(InputError) as error:
        find(devices, wanted, direction)
    for each in said:
        assert each in str(error.value)
