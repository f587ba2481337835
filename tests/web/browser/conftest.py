"""Fixtures of the page's tests: a real Chromium with a WAV file for its microphone, and the server that it talks to."""

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).parent))

from browsing import FAKE, LEAD, RATE, REST, SOUNDING, chromium, phrase
from fake_server import FakeServer


@pytest.fixture(scope="session")
def microphone_file(tmp_path_factory):
    """What the fake microphone hears, again and again: silence, the phrase, silence."""
    path = tmp_path_factory.mktemp("microphone") / "microphone.wav"
    sound = np.concatenate([np.zeros(round(LEAD * RATE)), phrase(), np.zeros(round(REST * RATE))])
    soundfile.write(path, sound, RATE, subtype="PCM_16")
    return str(path)


@pytest.fixture(scope="module")
def launch():
    """`launch(*flags)`: a browser."""
    with chromium() as made:
        yield made


@pytest.fixture(scope="module")
def browser(launch, microphone_file):
    return launch(*SOUNDING, *FAKE, f"--use-file-for-fake-audio-capture={microphone_file}")


@pytest.fixture
def server():
    made = FakeServer()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def open_at():
    """`open_at(url, browser, **options of the context)`: the page at an address, loaded.

    At the end its console may hold no error and no warning; `open_at.said` is what it holds.
    """
    said, contexts = [], []

    def start(url, browser, *, init="", **options):
        context = browser.new_context(**options)
        contexts.append(context)
        if init:
            context.add_init_script(init)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(url)
        return page

    start.said = said
    yield start
    for context in contexts:
        context.close()
    assert said == []


@pytest.fixture
def open_page(open_at, server):
    """`open_page(browser, path, **options)`: the same at the fake server."""
    return lambda browser, path="", **options: open_at(server.url + path, browser, **options)


@pytest.fixture
def page(browser, open_page):
    return open_page(browser)
