"""The terminal view: what is on the screen for a status, at any size, without a terminal."""

import io
import os
import pty
import sys
import termios
import time

import pytest
from rich.cells import cell_len
from rich.console import Console

from streamer.commands import view
from streamer.commands.controls import KEYS
from streamer.commands.view import View, render

STATUS = {
    "config": "mic_continue.yaml",
    "bundle": "piano",
    "phase": "running",
    "run_s": 3754.3,
    "state": "continuing",
    "state_s": 3.2,
    "mode": "continue",
    "seed": 7,
    "seconds": 10.0,
    "temperature": {"semantic": 0.9, "coarse": 1.0},
    "keys": True,
    "muted": False,
    "monitor": False,
    "turns": 14,
    "generated_s": 83.2,
    "gauges": {
        "mic.level_db": -23.4,
        "speaker.level_db": None,
        "speaker.buffer_ms": 82.0,
        "speaker.drift_ppm": 12.3,
        "turns.speech": 0.87,
        "turns.state": "continuing",
        "some.thing": 4711.0,
    },
    "targets_ms": {"speaker": 80.0},
    "latency_ms": {"decision_to_sound": {"count": 3, "p50": 190.0, "last": 183.0}},
    "rtf": 0.46,
    "tick_ms": {"p50": 40.0, "p99": 44.0},
    "dropped": 0,
    "failed": 0,
    "counters": {"speaker.underruns": 2, "mic.lost_samples": 0, "other.things": 9},
    "devices": {
        "mic": {"name": "USB Audio", "connected": True, "for_s": 90.0, "was_away_s": None},
        "speaker": {"name": "Built-in", "connected": True, "for_s": 90.0, "was_away_s": None},
    },
}
LOG = [f"12:00:{i:02} state now={i}" for i in range(60)]


def screen(status, width=80, height=24, *, force=False, **options):
    """The lines of the screen as a terminal of this size would have them."""
    console = Console(
        width=width, height=height, file=io.StringIO(), force_terminal=force, color_system="standard" if force else None
    )
    console.print(render(status, width=width, height=height, **options))
    return console.file.getvalue().splitlines()


def test_what_there_is_to_see_at_80_by_24():
    text = "\n".join(screen(STATUS, log=LOG))
    for part in (
        "mic_continue.yaml · piano", "1:02:34", "continuing for 3 s", "mode continue", "seed 7", "10 s",
        "semantic 0.9", "-23.4 dBFS", "silence", "82 of 80 ms", "+12 ppm (speaker)", "0.87", "turns 14",
        "decision to sound 183 ms (p50 190)", "real-time factor 0.46", "tick p50 40, p99 44 of 40 ms",
        "dropped frames 0", "underruns 2", "lost samples 0", "connected: USB Audio", "connected: Built-in",
        "now=59", "q quit", "? help",
    ):  # fmt: skip
        assert part in text, f"{part!r} is missing in\n{text}"
    assert "MUTED" not in text
    assert "monitor on" not in text


def test_unknown_gauges_and_counters_are_not_shown():
    text = "\n".join(screen(STATUS))
    assert "4711" not in text
    assert "things" not in text


def test_a_status_that_tells_nothing_shows_nothing_of_it():
    text = "\n".join(screen({}))
    for word in ("latency", "speed", "drift", "dBFS", "buf", "connected", "speech", "quit"):
        assert word not in text


@pytest.mark.parametrize("helped", [False, True])
@pytest.mark.parametrize("size", [(80, 24), (200, 60), (40, 12), (24, 8), (20, 3), (10, 2), (8, 1), (1, 1)])
def test_it_fits_whatever_the_size(size, helped):
    width, height = size
    long = STATUS | {"config": "a" * 300, "note": "failed: " + "b" * 300, "help": helped}
    group = render(long, width=width, height=height, log=[*LOG, "x" * 500])
    assert len(group.renderables) <= height
    assert [each for each in group.renderables if cell_len(each.plain) > max(width, 10)] == []
    assert [each for each in group.renderables if "\n" in each.plain] == []


def test_the_screen_is_filled_so_that_the_keys_stay_at_its_foot():
    lines = render(STATUS, width=80, height=40).renderables
    assert len(lines) == 40
    assert "quit" in lines[-1].plain


def test_what_matters_stays_when_there_is_little_room():
    away = {"mic": {"name": "USB Audio", "connected": False, "for_s": 12.0, "was_away_s": None}}
    text = "\n".join(screen(STATUS | {"devices": away}, width=40, height=6, log=LOG))
    assert "VANISHED 12 s ago" in text
    assert "continuing" in text
    assert "ppm" not in text
    assert "now=" not in text


def test_a_device_that_vanishes_and_comes_back():
    def devices(**values):
        return STATUS | {"devices": {"mic": {"name": "USB Audio", "was_away_s": None, "for_s": 12.0} | values}}

    assert "mic          VANISHED 12 s ago, waiting for it: USB Audio" in screen(devices(connected=False))
    assert "mic          back after 34 s: USB Audio" in screen(devices(connected=True, was_away_s=34.0))


def test_states_that_are_not_the_usual():
    assert "listening for 3 s   MUTED   monitor on" in "\n".join(
        screen(STATUS | {"state": "listening", "muted": True, "monitor": True})
    )
    waiting = screen(
        STATUS | {"phase": "waiting", "note": "failed: on fire; again in 2 s", "failed": 3, "seconds": None}
    )
    text = "\n".join(waiting)
    for part in ("WAITING to begin anew", "failed: on fire; again in 2 s", "failed sessions 3", "no end"):
        assert part in text
    assert "ending" in "\n".join(screen(STATUS | {"phase": "ending"}))
    assert "starting" in "\n".join(screen(STATUS | {"phase": "starting", "state": None}))


@pytest.mark.parametrize("value", [0.0, 1e9, -1e9, float("inf"), float("nan")])
def test_no_value_breaks_a_bar(value):
    gauges = {"mic.level_db": value, "speaker.buffer_ms": value, "turns.speech": value}
    assert len(screen(STATUS | {"gauges": gauges})) == 24


def test_the_bar_of_a_buffer_marks_its_target():
    line = next(line for line in screen(STATUS) if "of 80 ms" in line)
    bar = line[13 : line.index("   82")]
    assert bar.index("│") == pytest.approx(len(bar) / view.MOST_BUFFER, abs=1)
    plain = STATUS | {"targets_ms": {}}
    assert "82 ms buffered" in "\n".join(screen(plain))


def test_all_keys_are_explained():
    text = "\n".join(screen(STATUS | {"help": True}))
    assert [key.long for key in KEYS if key.long not in text] == []
    assert "dBFS" not in text


def test_ascii_where_the_terminal_has_no_more():
    text = "\n".join(screen(STATUS | {"config": "größe.yaml"}, width=200, ascii_only=True))
    assert text.isascii()
    assert "####" in text


def test_no_colour_when_there_shall_be_none(monkeypatch):
    assert "\x1b[3" in "".join(screen(STATUS, force=True))
    monkeypatch.setenv("NO_COLOR", "1")
    found = "".join(screen(STATUS, force=True))
    assert [code for code in range(30, 38) if f"\x1b[{code}" in found or f";{code}m" in found] == []


@pytest.fixture
def terminal(monkeypatch):
    """`terminal()` makes a terminal of 80 x 24 standard error; gives the end where what is drawn can be read."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    monkeypatch.setenv("TERM", "xterm")
    stream = os.fdopen(slave, "w", encoding="utf-8")

    def use():  # not before the test itself: until then pytest puts its own there
        monkeypatch.setattr(sys, "stderr", stream)
        return master

    yield use
    stream.close()
    os.close(master)


def read_until(master, wanted, seconds=20.0):
    """What comes from a terminal up to some text."""
    got, deadline = b"", time.monotonic() + seconds
    while wanted not in got:
        assert time.monotonic() < deadline, got
        got += os.read(master, 65_536)
    return got


ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"


def test_it_has_a_screen_of_its_own_and_gives_it_back(terminal):
    master = terminal()
    assert view.can_show()
    with View() as shown:
        shown.status = STATUS
        shown.write("12:00:00 \x1b[31mred\x1b[0m lines\n\n")
        drawn = read_until(master, b"lines")
        assert ENTER in drawn
        assert b"\x1b[31mred" not in drawn
        shown.pause()
        read_until(master, LEAVE)
        shown.resume()
        read_until(master, ENTER)
    read_until(master, LEAVE)


def test_frames_are_drawn_over_each_other_without_clearing(terminal):
    master = terminal()
    with View() as shown:
        shown.status = STATUS
        drawn = read_until(master, b"quit")
        while drawn.count(b"\x1b[H") < 4:
            drawn += os.read(master, 65_536)
    assert b"\x1b[2J" not in drawn.split(b"\x1b[H", 2)[2]


def test_a_dumb_terminal_gets_no_view(terminal, monkeypatch):
    terminal()
    monkeypatch.setenv("TERM", "dumb")
    assert not view.can_show()


@pytest.mark.parametrize("size", [(80, 24), (60, 12)])
def test_a_machine_that_is_too_slow_is_said(size):
    load = {"rung": 2, "left_out": "three quarters of the fine levels"}
    text = "\n".join(screen({**STATUS, "load": load}, *size))
    assert "leaves out three quarters of the fine levels" in text
    assert "leaves out" not in "\n".join(screen({**STATUS, "load": {"rung": 0, "left_out": None}}, *size))
