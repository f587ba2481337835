"""Keys from a terminal: how they are read, and that the terminal gets back what it had."""

import asyncio
import os
import pty
import signal
import termios
import time

import pytest

from streamer.commands.keys import Keys, Parser

LIMIT = 30.0


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"t l?", ["t", " ", "l", "?"]),
        (b"\x1b[A\x1b[B\x1bOA", ["up", "down", "up"]),
        (b"\x1b[C\x1b[D", ["right", "left"]),
        (b"a\x1b[15~b", ["a", "b"]),
        (b"\x1b[1;5Ab", ["b"]),
        (b"\x1bt", ["t"]),
        (b"\x00\x01\r\n\x7f", []),
        (b"\xff\xfe", ["\ufffd", "\ufffd"]),
        (b"", []),
    ],
)
def test_names_of_keys(data, names):
    assert Parser().feed(data) == names


@pytest.mark.parametrize("cut", [1, 2])
def test_a_sequence_that_comes_in_two_pieces(cut):
    parser = Parser()
    assert parser.feed(b"\x1b[A"[:cut]) == []
    assert parser.feed(b"\x1b[A"[cut:] + b"q") == ["up", "q"]


def test_a_sequence_without_an_end_is_not_kept_for_ever():
    parser = Parser()
    for _ in range(100):
        parser.feed(b"\x1b[" + b"1" * 50)
    assert len(parser._rest) < 100
    assert parser.feed(b"Aq")[-1] == "q"


@pytest.fixture
def terminal():
    """(the end that types, the end that is read)."""
    master, slave = pty.openpty()
    yield master, slave
    for fd in (master, slave):
        try:
            os.close(fd)
        except OSError:
            continue


async def test_keys_come_at_once_and_the_terminal_is_given_back(terminal):
    master, slave = terminal
    before = termios.tcgetattr(slave)
    got = asyncio.Queue()
    with Keys(got.put_nowait, slave) as keys:
        assert keys.active
        during = termios.tcgetattr(slave)[3]
        assert not during & (termios.ICANON | termios.ECHO)
        assert during & termios.ISIG, "Ctrl-C is still a signal"
        os.write(master, b" \x1b[Aq")
        async with asyncio.timeout(LIMIT):
            assert [await got.get() for _ in range(3)] == [" ", "up", "q"]
        keys.pause()
        assert termios.tcgetattr(slave) == before
        keys.resume()
        keys.resume()
        assert not termios.tcgetattr(slave)[3] & termios.ICANON
    assert termios.tcgetattr(slave) == before
    assert not asyncio.get_running_loop().remove_reader(slave)


async def test_it_is_given_back_after_an_error(terminal):
    _, slave = terminal
    before = termios.tcgetattr(slave)
    with pytest.raises(RuntimeError, match="on fire"), Keys(lambda _: None, slave):
        raise RuntimeError("on fire")
    assert termios.tcgetattr(slave) == before


async def test_a_terminal_that_goes_away(terminal):
    master, slave = terminal
    with Keys(lambda _: None, slave) as keys:
        gone = asyncio.Event()
        read = keys._read
        asyncio.get_running_loop().add_reader(slave, lambda: (read(), gone.set()))
        os.close(master)
        async with asyncio.timeout(LIMIT):
            await gone.wait()
        assert not keys.active
        keys.resume()
        assert not keys.active


async def test_nothing_is_done_where_there_is_no_terminal(tmp_path):
    with (tmp_path / "input").open("w+") as file, Keys(lambda _: None, file.fileno()) as keys:
        assert not keys.active
    with Keys(lambda _: None, 12_345) as keys:
        assert not keys.active


# -- a whole run on a terminal of its own

OWN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "streamer", *sys.argv[1:]])
"""
IN_BACKGROUND = """
import fcntl, subprocess, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
sys.exit(subprocess.call([sys.executable, "-m", "streamer", *sys.argv[1:]], process_group=0))
"""
CONFIG = """
nodes: {mic: {type: fake_mic, tick_s: 0.01}, turns: fake_brain, speaker: fake_speaker}
edges: [mic -> turns -> speaker]
"""


class Terminal:
    """A person at a terminal on which the program runs."""

    def __init__(self, master):
        self.master, self.seen = master, b""

    def wait_for(self, text):
        """Read until the program has written this since the last time."""
        deadline = time.monotonic() + LIMIT
        while text not in self.seen:
            assert time.monotonic() < deadline, self.seen[-3000:]
            self.seen += os.read(self.master, 65_536)
        self.seen = self.seen.partition(text)[2]

    def type(self, keys):
        os.write(self.master, keys)


@pytest.fixture
def at_terminal(tmp_path, start_python, plugin):
    """`at_terminal(*options)`: a live run on a terminal; gives the process, the person and the terminal's other end."""
    started = []

    def start(*options, first=OWN_TERMINAL):
        (tmp_path / "live.yaml").write_text(CONFIG)
        master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, 80))
        arguments = ["run", tmp_path / "live.yaml", "--plugins", plugin, *options]
        streams = {"stdin": slave, "stdout": slave, "stderr": slave}
        process = start_python("-c", first, *arguments, start_new_session=True, **streams)
        started.append((process, master, slave))
        return process, Terminal(master), slave

    yield start
    for process, master, slave in started:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)


def mode_of(slave):
    return termios.tcgetattr(slave)[3] & (termios.ICANON | termios.ECHO)


def test_a_run_with_view_and_keys(at_terminal):
    process, person, slave = at_terminal()
    normal = mode_of(slave)
    person.wait_for(b"continuing")
    assert mode_of(slave) == 0
    person.type(b"m")
    person.wait_for(b"MUTED")
    person.type(b"?")
    person.wait_for(b"take the input as silence")
    person.type(b"\x1b[A")
    person.wait_for(b"turns 0.95")
    person.type(b"r")
    person.wait_for(b"begun=2")
    person.type(b"q")
    person.wait_for(b"\x1b[?1049l")
    person.wait_for(b"ended by q; sessions 2")
    assert process.wait(timeout=LIMIT) == 0
    assert mode_of(slave) == normal


def test_it_stops_and_goes_on_as_the_shell_wants(at_terminal):
    process, person, slave = at_terminal()
    normal = mode_of(slave)
    person.wait_for(b"continuing")
    person.type(b"\x1a")
    person.wait_for(b"\x1b[?1049l")
    stopped = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    assert stopped.si_status == signal.SIGSTOP
    assert mode_of(slave) == normal
    process.send_signal(signal.SIGCONT)
    person.wait_for(b"\x1b[?1049h")
    person.type(b"m")
    person.wait_for(b"MUTED")
    assert mode_of(slave) == 0
    person.type(b"\x03")
    person.wait_for(b"ended by SIGINT")
    assert process.wait(timeout=LIMIT) == 130
    assert mode_of(slave) == normal


@pytest.mark.parametrize("options", [("--quiet",), ("--json",)])
def test_no_view_and_no_keys_for_services(at_terminal, options):
    process, person, slave = at_terminal("--for", "0.3", *options)
    normal = mode_of(slave)
    assert process.wait(timeout=LIMIT) == 0
    assert mode_of(slave) == normal
    os.write(slave, b"<end>")
    seen = b""
    while b"<end>" not in seen:
        seen += os.read(person.master, 65_536)
    assert b"\x1b[?" not in seen
    assert (seen == b"<end>") == (options == ("--quiet",))


def test_an_error_leaves_the_terminal_as_it_was(at_terminal):
    process, person, slave = at_terminal("--set", "nodes.mic.fail_sessions=[1]")
    normal = mode_of(slave)
    person.wait_for(b"the microphone caught fire")
    assert process.wait(timeout=LIMIT) == 2
    assert mode_of(slave) == normal


def test_a_terminal_that_hangs_up_ends_it(at_terminal):
    process, person, _ = at_terminal()
    person.wait_for(b"continuing")
    process.send_signal(signal.SIGHUP)
    person.wait_for(b"ended by SIGHUP")
    assert process.wait(timeout=LIMIT) == 143


def test_a_process_in_the_background_leaves_the_terminal_alone(at_terminal):
    process, person, slave = at_terminal("--for", "0.5", first=IN_BACKGROUND)
    normal = mode_of(slave)
    seen = b""
    while b"ended by --for" not in seen:
        seen += os.read(person.master, 65_536)
        assert mode_of(slave) == normal
    assert process.wait(timeout=LIMIT) == 0
    assert b"\x1b[?1049h" not in seen
