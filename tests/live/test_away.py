"""The device vanishes while the program runs, and comes back: the program lives, says so, and sounds again."""

import os
import signal

import pytest
from recorded import heard_through


def gone(status):
    return not any(status["gauges"][f"{node}.connected"] for node in ("mic", "speaker"))


def there(status):
    return all(status["gauges"][f"{node}.connected"] for node in ("mic", "speaker"))


@pytest.mark.slow
def test_the_sound_server_is_killed_and_comes_back(service, card, speech):
    made = service("run", "duplex")
    assert there(made.running())
    card.kill()
    away = made.until(gone, "the program to notice that the device has gone")
    made.until(lambda status: status["run_s"] > away["run_s"] + 2, "the session to live on without a device")
    card.restart()
    made.until(there, "the program to notice that the device is back")
    heard_through(card, speech)
    code, summary = made.stop()
    assert code == 130
    assert summary["sessions"] == 1
    assert summary["failed"] == 0
    said = made.err.read_text()
    assert said.count("vanished") >= 2  # the microphone and the speaker
    assert said.count("came back") >= 2
    assert "Expression" not in said
    assert "ALSA lib" not in said


def test_a_sound_server_that_stands_still_does_not_hold_up_the_end(service, card):
    made = service("run", "duplex")
    made.running()
    os.kill(card.daemon.pid, signal.SIGSTOP)
    try:
        made.until(gone, "the program to notice that the device is silent")
        assert made.stop()[0] == 130
    finally:
        card.kill()  # the next test gets a fresh one
