"""The virtual sound card as fixtures: `card` is up during the session, `live` runs the program on it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from card import Card, missing, quit_
from program import Service

ASSETS = Path(__file__).parents[2] / "assets"
IN_PROCESS = ("XDG_RUNTIME_DIR", "PULSE_RUNTIME_PATH", "HOME", "PULSE_SOURCE", "PULSE_SINK")


@pytest.fixture(scope="session")
def whole_card(tmp_path_factory):
    """The card of the session; tests take `card`, which is up whatever the test before did."""
    if why := missing():
        pytest.skip(why)
    pytest.importorskip("pyaudio", reason='needs PyAudio: pip install "audiolm-streamer[mic]"')
    made = Card(tmp_path_factory.mktemp("card"))
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def card(whole_card):
    """The virtual sound card (`card.Card`), up and awake."""
    whole_card.start()
    return whole_card


@pytest.fixture
def here(card, monkeypatch):
    """The card, for PortAudio in this very process."""
    for name in IN_PROCESS:
        monkeypatch.setenv(name, card.env[name])
    return card


@pytest.fixture
def live(card):
    """`live(*arguments, **options)`: the program as a process on the card, a `Popen`; ended after the test."""
    started = []

    def start(*arguments, **options):
        command = [sys.executable, "-m", "streamer", *(str(each) for each in arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        pipes["env"] = card.env | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | pipes.get("env", {})
        started.append(subprocess.Popen(command, **pipes))
        return started[-1]

    yield start
    for process in started:
        quit_(process)
        for pipe in (process.stdout, process.stderr, process.stdin):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def service(live, tmp_path):
    """`service("run", config, ...)`: the program on the card with `--json`, as a `program.Service`."""
    return lambda *arguments: Service(live, tmp_path / "service", arguments)


@pytest.fixture(scope="session")
def speech():
    """The path of a shipped sound: somebody speaks for a few seconds."""
    return ASSETS / "prompt_speech.flac"


@pytest.fixture(scope="session")
def piano():
    """The path of a shipped sound: piano."""
    return ASSETS / "prompt_piano.flac"
