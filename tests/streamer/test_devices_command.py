"""`streamer devices`: what is there, for people and for programs."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "nodes"))

from fake_sound import BOTH, LOUD, MIC, System

from streamer.nodes.host import Host


@pytest.fixture
def plugged(monkeypatch):
    """`plugged(*devices)`: they are what is there."""

    def plug(*devices):
        host = Host(System(*devices).backend())
        monkeypatch.setattr(Host, "shared", lambda: host)

    return plug


def test_a_table_for_people(plugged, streamer, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    plugged(MIC, LOUD, BOTH)
    said = streamer("devices")
    assert said.code == 0
    rows = {line.split("│")[2].strip(): line for line in said.out.splitlines() if "│" in line}
    assert "* 2" in rows["USB Mic"]
    assert "44100 Hz" in rows["USB Mic"]
    assert "* " not in rows["USB Headset"].replace("USB Headset", "")


def test_json_for_programs(plugged, streamer):
    plugged(MIC, LOUD)
    found = json.loads(streamer("devices", "--json").out)
    assert [each["name"] for each in found] == ["USB Mic", "Speakers"]
    assert found[0]["default_input"] is True
    assert found[1]["outputs"] == 2


def test_none_at_all(plugged, streamer):
    plugged()
    said = streamer("devices")
    assert said.code == 2
    assert "no sound device is here" in said.err


def test_without_pyaudio(monkeypatch, streamer):
    host = Host()
    monkeypatch.setattr(Host, "shared", lambda: host)
    monkeypatch.setitem(sys.modules, "pyaudio", None)
    said = streamer("devices")
    assert said.code == 2
    assert 'pip install "audiolm-streamer[mic]"' in said.err
