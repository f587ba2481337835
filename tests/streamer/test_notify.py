"""What the service manager is told; a datagram socket stands for systemd."""

import asyncio
import os
import signal
import socket
import subprocess

import lasting_ends
import pytest
import structlog

from streamer import Graph
from streamer.commands import attend
from streamer.commands.attend import Attendant
from streamer.commands.follow import Follower
from streamer.commands.keeper import Keeper
from streamer.commands.notify import Notifier
from streamer.commands.sessions import Live

LIMIT = 60.0
CONFIG = "nodes: {ears: ticker, count: counter, mouth: mouth}\nedges: [ears -> count -> mouth]\nlanes: {one: [count]}"


@pytest.fixture
def manager(tmp_path):
    """A socket as systemd has it, with a timeout."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "notify"))
        made.settimeout(LIMIT)
        yield made


def environment(manager, **more):
    return {"NOTIFY_SOCKET": manager.getsockname(), **more}


def fields(manager):
    """The next message."""
    return dict(line.split("=", 1) for line in manager.recv(4096).decode().splitlines())


def waiting(manager):
    """All messages that are there."""
    manager.settimeout(0)
    found = []
    try:
        while True:
            found.append(fields(manager))
    except BlockingIOError:
        return found
    finally:
        manager.settimeout(LIMIT)


def test_a_message_has_a_field_on_each_line(manager):
    Notifier(environment(manager)).say(READY=1, STATUS="two\nlines  and more " + "x" * 500)
    found = fields(manager)
    assert found["READY"] == "1"
    assert found["STATUS"].startswith("two lines and more xxx")
    assert len(found["STATUS"]) == 200


def test_the_abstract_namespace():
    name = f"streamer-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind("\0" + name)
        made.settimeout(LIMIT)
        Notifier({"NOTIFY_SOCKET": "@" + name}).say(READY=1)
        assert fields(made) == {"READY": "1"}


@pytest.mark.parametrize("address", [None, "", "relative", "vsock:2:1234"])
def test_nobody_to_tell(address):
    notifier = Notifier({} if address is None else {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"})
    assert not notifier.active
    assert notifier.period is None
    notifier.say(READY=1)


@pytest.mark.parametrize(
    ("given", "period"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
    ],
)
def test_the_period_of_the_watchdog(manager, given, period):
    assert Notifier(environment(manager, **given)).period == period


def test_a_manager_that_has_gone_is_said_once(tmp_path):
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    with structlog.testing.capture_logs() as logged:
        for _ in range(3):
            notifier.say(READY=1)
    assert [line["note"] for line in logged] == ["the service manager is not told: No such file or directory"]


def test_a_manager_that_does_not_read_is_not_waited_for(manager):
    notifier = Notifier(environment(manager))
    with structlog.testing.capture_logs() as logged:
        for number in range(2000):
            notifier.say(STATUS=f"{number} " + "x" * 150)
    assert len(logged) == 1


# -- a run


class Told:
    """A live run with an attendant; `look` lets it look until a message fits."""

    def __init__(self, manager, *overrides, **more):
        self.manager = manager
        self.graph = Graph.parse(CONFIG, lasting_ends.registry(), overrides=overrides).build()
        self.live = Live(self.graph, Follower(self.graph), keeper=Keeper(self.graph, every=0), forever=True)
        self.attendant = Attendant(self.live, Notifier(environment(manager, **more)))
        self.said = []

    async def look(self, name, value=None):
        async with asyncio.timeout(LIMIT):
            while True:
                self.attendant.look()
                self.said += waiting(self.manager)
                for found in self.said:
                    if name in found and value in (None, found[name]):
                        self.said.clear()
                        return found
                await asyncio.sleep(0.002)

    async def __aenter__(self):
        self.task = asyncio.create_task(self.live.run())
        return self

    async def __aexit__(self, *exc):
        self.task.cancel()
        await asyncio.wait([self.task])
        self.graph.close()


async def test_ready_when_the_first_session_runs_and_stopping_at_the_end(manager):
    async with Told(manager) as told:
        found = await told.look("READY")
        assert found["STATUS"].startswith("running (started, since 2")
        told.live.end("q")
        found = await told.look("STOPPING")
        assert found["STATUS"] == "ending: q"
        async with asyncio.timeout(LIMIT):
            await told.task


async def test_while_nothing_runs_yet_the_manager_is_asked_for_time(manager):
    async with Told(manager, "nodes.ears.fail_sessions=[1]", "nodes.ears.fail_after=0") as told:
        found = await told.look("EXTEND_TIMEOUT_USEC")
        assert int(found["EXTEND_TIMEOUT_USEC"]) == 60_000_000
        await told.look("READY")
        told.attendant.look()
        assert all("EXTEND_TIMEOUT_USEC" not in each for each in waiting(manager))


async def test_alive_while_the_lanes_answer_and_not_while_one_hangs(manager, monkeypatch):
    import threading

    free, inside = threading.Event(), threading.Event()
    step = lasting_ends.Counter.step
    hangs = threading.Event()

    def hanging(self, frame, state, into):
        if hangs.is_set():
            inside.set()
            assert free.wait(LIMIT)
        yield from step(self, frame, state, into)

    monkeypatch.setattr(lasting_ends.Counter, "step", hanging)
    async with Told(manager, WATCHDOG_USEC="1000000") as told:
        await told.look("WATCHDOG")
        await told.look("WATCHDOG")
        hangs.set()
        await asyncio.to_thread(inside.wait, LIMIT)
        told.attendant.look()  # the answer to what was asked before may be here
        await asyncio.sleep(0.01)
        told.attendant.look()
        waiting(manager)
        with structlog.testing.capture_logs() as logged:
            for _ in range(10):
                told.attendant.look()
                await asyncio.sleep(0.002)
        assert all("WATCHDOG" not in each for each in waiting(manager))
        assert len([line for line in logged if line["event"] == "watchdog"]) <= 1
        assert told.attendant.stuck
        hangs.clear()
        free.set()
        await told.look("WATCHDOG")
        assert not told.attendant.stuck


async def test_without_a_watchdog_nothing_is_said_of_it(manager):
    async with Told(manager) as told:
        await told.look("READY")
        for _ in range(10):
            told.attendant.look()
            await asyncio.sleep(0.002)
        assert all("WATCHDOG" not in each for each in waiting(manager))


async def test_nobody_listens():
    graph = Graph.parse(CONFIG, lasting_ends.registry()).build()
    with graph:
        async with asyncio.timeout(LIMIT):
            await Attendant(Live(graph, Follower(graph)), Notifier({})).attend()


async def test_it_looks_often_enough(manager, monkeypatch):
    pauses = []

    async def sleep(seconds):
        pauses.append(seconds)
        raise asyncio.CancelledError

    monkeypatch.setattr(attend.asyncio, "sleep", sleep)
    for usec in ("30000000", "2000000"):
        told = Told(manager, WATCHDOG_USEC=usec)
        with pytest.raises(asyncio.CancelledError):
            await told.attendant.attend()
        told.graph.close()
    assert pauses == [1.0, 0.5]


def test_the_program_as_a_service(program, manager, tmp_path, monkeypatch):
    (tmp_path / "live.yaml").write_text(CONFIG)
    for name, value in environment(manager, WATCHDOG_USEC="400000").items():
        monkeypatch.setenv(name, value)
    arguments = ["run", tmp_path / "live.yaml", "--plugins", lasting_ends.__file__, "--quiet", "--forever"]
    process = program(*arguments, stdin=subprocess.DEVNULL)
    try:
        seen = set()
        while not {"READY", "WATCHDOG"} <= seen:
            seen |= set(fields(manager))
        process.send_signal(signal.SIGTERM)
        while "STOPPING" not in seen:
            seen |= set(fields(manager))
        assert process.wait(LIMIT) == 143
    finally:
        process.kill()
        process.communicate()
