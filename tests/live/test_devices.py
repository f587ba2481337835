"""Devices on the virtual card: what is listed, and what is said when the one that is wanted is not there."""

import json

import pytest

NOWHERE = ("PULSE_RUNTIME_PATH", "XDG_RUNTIME_DIR")


@pytest.fixture
def said(live, card):
    """`said(*arguments, **environment)`: exit code, standard output and standard error of the program on the card."""

    def call(*arguments, env=None):
        process = live(*arguments, env=env or {})
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    return call


@pytest.fixture
def nowhere(tmp_path):
    """The environment of a machine without a sound server."""
    return dict.fromkeys(NOWHERE, str(tmp_path / "nowhere"))


def test_the_card_is_listed_without_chatter(said):
    code, out, err = said("devices")
    assert (code, err) == (0, "")
    assert "pulse" in out
    assert "* 32" in out


def test_the_list_for_programs(said):
    code, out, _ = said("devices", "--json")
    found = {each["name"]: each for each in json.loads(out)}
    assert code == 0
    assert found["pulse"]["inputs"] > 0
    assert found["pulse"]["outputs"] > 0
    assert sum(each["default_input"] for each in found.values()) == 1
    assert sum(each["default_output"] for each in found.values()) == 1


def test_no_device_at_all(said, nowhere):
    for arguments in (("devices",), ("run", "duplex", "--quiet")):
        code, _, err = said(*arguments, env=nowhere)
        assert code == 2
        assert "no sound" in err
        assert "start the sound server" in err
        assert "ALSA lib" not in err


@pytest.mark.parametrize(("node", "direction"), [("mic", "input"), ("speaker", "output")])
def test_a_wrong_name(said, node, direction):
    code, _, err = said("run", "duplex", "--quiet", "--set", f"nodes.{node}.device=pulze")
    assert code == 2
    assert f"no sound {direction} is named 'pulze'; did you mean 'pulse'?" in err
    assert f"{direction}s that are there:\n  0: pulse" in err


def test_more_channels_than_there_are(said):
    code, _, err = said("run", "duplex", "--quiet", "--set", "nodes.mic.channels=64")
    assert code == 2
    assert "with 64 channel(s); it has 32" in err
