"""The sessions of a live run: how they begin, go on through failures and resets, and end; and what keys do to them."""

import asyncio
from types import SimpleNamespace

import live_ends
import pytest
import structlog

from streamer import ConfigError, Graph, InputError
from streamer.commands import sessions
from streamer.commands.controls import KEYS, LENGTHS, Controls
from streamer.commands.follow import Follower
from streamer.commands.sessions import Live

LIMIT = 60.0
CONFIG = """
session: {seconds: 10, seed: 3}
nodes: {mic: {type: fake_mic}, turns: fake_brain, speaker: fake_speaker}
edges: [mic -> turns -> speaker]
"""


@pytest.fixture(autouse=True)
def logged():
    """What is logged, as a list of dicts."""
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture
def made():
    """`made(*overrides)`: a built graph of the fakes, a Live and its Controls."""
    graphs = []

    def make(*overrides, text=CONFIG):
        graph = Graph.parse(text, live_ends.registry(), overrides=overrides).build()
        graphs.append(graph)
        one = Live(graph, Follower(graph))
        return SimpleNamespace(graph=graph, live=one, controls=Controls(one))

    yield make
    for graph in graphs:
        graph.close()


async def until(condition):
    """Wait until something is so; there is no event for all that can be waited for."""
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.001)


async def ticks(one, number=3):
    """Wait until the session that runs has carried this many ticks to the speaker."""
    await until(lambda: one.live.session.status == "running" and one.live.session.metrics.audio_samples >= number * 640)


# -- the loop of sessions


async def test_a_reset_begins_a_session_on_the_same_ends(made):
    one = made()
    running = asyncio.create_task(one.live.run())
    await ticks(one)
    first, mic = one.live.session, one.graph.sources["mic"]
    one.live.anew(seed=4)
    await until(lambda: one.live.session is not first)
    await ticks(one)
    second = one.live.session
    assert first.status == "ended"
    assert (first.info.id, first.info.seed) == ("main", 3)
    assert (second.info.id, second.info.seed, second.info.seconds) == ("main-2", 4, 10)
    assert one.graph.sources["mic"] is mic
    assert mic.sessions == 2
    one.live.end("enough")
    await running
    assert (second.status, one.live.over, one.live.failed) == ("ended", "enough", 0)
    assert one.live.follower.summary()["sessions"] == 2
    assert one.live.follower.summary()["turns"] in (0, 1, 2)


async def test_what_holds_is_told_to_the_next_session_too(made):
    one = made()
    running = asyncio.create_task(one.live.run())
    await ticks(one)
    one.live.hold("mute", "mute", on=True)
    one.live.hold("mute", "mute", on=False)
    assert one.live.send("trigger")
    await ticks(one, 6)
    one.live.anew()
    await until(lambda: one.live.session.info.id == "main-2")
    await ticks(one)
    one.live.end("enough")
    await running
    commands = one.graph.nodes["turns"].commands
    assert [each for each in commands if each[0] == "main"][:3] == [
        ("main", "mute", True),
        ("main", "mute", False),
        ("main", "trigger"),
    ]
    assert [each for each in commands if each[0] == "main-2"][0] == ("main-2", "mute", False)  # noqa: RUF015
    assert not one.live.send("trigger")


async def test_an_end_asked_for_while_a_session_is_being_opened(made):
    one = made()
    running = asyncio.create_task(one.live.run())
    await asyncio.sleep(0)
    assert one.live.session.status == "new"
    one.live.end("early")
    async with asyncio.timeout(LIMIT):
        await running
    assert one.live.session.status == "ended"


async def test_an_input_that_ends_ends_the_run(made):
    one = made("nodes.mic.ends_after=7")
    async with asyncio.timeout(LIMIT):
        await one.live.run()
    assert one.live.over == "its input has ended"
    assert one.live.session.metrics.audio_samples == 7 * 640


async def test_a_failure_at_the_very_start_is_not_tried_again(made):
    one = made("nodes.mic.fail_sessions=[1]")
    with pytest.raises(Exception, match="the microphone caught fire") as failed:
        await one.live.run()
    assert failed.value.exit_code == 2
    assert one.graph.sources["mic"].sessions == 1


async def test_a_failure_later_is_said_counted_and_got_over(made, monkeypatch, logged):
    monkeypatch.setattr(sessions, "FIRST_WAIT", 0.001)
    one = made("nodes.mic.fail_sessions=[2, 3]")
    running = asyncio.create_task(one.live.run())
    await ticks(one)
    one.live.anew()
    await until(lambda: one.live.session.info.id == "main-4")
    await ticks(one)
    assert one.live.failed == 2
    one.live.end("enough")
    await running
    said = [line for line in logged if line["log_level"] == "error"]
    assert [line["again_in_s"] for line in said] == [0.001, 0.002]
    assert all("the microphone caught fire" in line["failed"] for line in said)


async def test_failures_without_end_end_it(made, monkeypatch, logged):
    monkeypatch.setattr(sessions, "FIRST_WAIT", 0.001)
    one = made("nodes.mic.fail_after=3")
    async with asyncio.timeout(LIMIT):
        with pytest.raises(Exception, match="the microphone caught fire"):
            await one.live.run()
    assert one.live.failed == sessions.FAILURES
    assert f"{sessions.FAILURES} sessions failed" in logged[-1]["note"]


async def test_failures_long_ago_do_not_count(made, monkeypatch):
    monkeypatch.setattr(sessions, "FIRST_WAIT", 0.0)
    monkeypatch.setattr(sessions, "WITHIN", 0.0)
    one = made("nodes.mic.fail_after=1")
    running = asyncio.create_task(one.live.run())
    await until(lambda: one.live.failed > 2 * sessions.FAILURES)
    one.live.over = "enough"
    with pytest.raises(Exception, match="caught fire"):
        await running


async def test_the_wait_after_a_failure_ends_at_once_when_it_should(made, monkeypatch):
    monkeypatch.setattr(sessions, "FIRST_WAIT", 1000.0)
    monkeypatch.setattr(sessions, "LONGEST_WAIT", 1000.0)
    one = made("nodes.mic.fail_after=3")
    running = asyncio.create_task(one.live.run())
    async with asyncio.timeout(LIMIT):
        for failures in (1, 2):
            await until(lambda failures=failures: one.live.failed >= failures)
            await asyncio.sleep(0)
            assert one.live.phase == "waiting"
            assert "the microphone caught fire" in one.live.note
            if failures == 1:
                one.live.anew()
        one.live.end("q")
        await running
    assert one.live.phase == "ending"


async def test_an_input_that_is_a_file_is_not_begun_again_after_a_failure(made, monkeypatch):
    monkeypatch.setattr(live_ends.Mic, "live", False)
    one = made("nodes.mic.fail_after=3")
    with pytest.raises(Exception, match="caught fire"):
        await one.live.run()
    assert one.graph.sources["mic"].sessions == 1


def test_an_error_that_is_ours_is_raised_at_the_end(made):
    """A file that cannot be completed is not passed over because the run was to end anyway."""

    async def story():
        one = made("nodes.mic.fail_after=6")
        one.live.proven, one.live.over = True, None
        running = asyncio.create_task(one.live.run())
        await ticks(one)
        one.live.over = "q"
        await running

    with pytest.raises(Exception, match="caught fire") as failed:
        asyncio.run(story())
    assert isinstance(failed.value.__cause__, InputError)


async def test_a_reset_does_not_wait_for_a_speaker_that_hangs(made):
    one = made("nodes.speaker.hangs=true")
    running = asyncio.create_task(one.live.run())
    await ticks(one)
    one.live.anew()
    one.live.anew(seed=9)
    await until(lambda: one.live.session.info.id == "main-2")
    await ticks(one)
    assert one.live.session.info.seed == 9
    assert one.live.failed == 0
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert one.live.session.status == "failed"


# -- keys


@pytest.fixture
def told(made, monkeypatch):
    """Controls whose run only notes what it is told."""
    calls = []
    monkeypatch.setattr(Live, "send", lambda self, command, **values: calls.append((command, values)) or True)
    monkeypatch.setattr(Live, "anew", lambda self, **changes: calls.append(("anew", changes)))
    controls = made().controls
    return SimpleNamespace(controls=controls, calls=calls, live=controls.live)


@pytest.mark.parametrize(
    ("keys", "calls"),
    [
        (" t", [("trigger", {}), ("trigger", {})]),
        ("l", [("listen", {})]),
        ("mm", [("mute", {"on": True}), ("mute", {"on": False})]),
        ("oo", [("monitor", {"on": True}), ("monitor", {"on": False})]),
        ("r", [("anew", {})]),
        ("s", [("anew", {"seed": 4})]),
        ("+", [("set", {"node": "turns", "temperature": 0.95})]),
        (["down"], [("set", {"node": "turns", "temperature": 0.85})]),
        ("]", [("length", {"seconds": 15.0})]),
        ("[[", [("length", {"seconds": 8.0}), ("length", {"seconds": 5.0})]),
        ("xyz?", []),
    ],
)
def test_what_keys_do(told, keys, calls):
    for key in keys:
        told.controls.press(key)
    assert told.calls == calls


def test_the_temperature_stays_in_its_range(told):
    for _ in range(100):
        told.controls.press("up")
    assert told.controls.status()["temperature"] == {"turns": 2.0}
    told.controls.press("-")
    assert told.controls.status()["temperature"] == {"turns": 1.95}
    for _ in range(100):
        told.controls.press("-")
    assert told.controls.status()["temperature"] == {"turns": 0.0}


def test_stages_keep_their_distance(told):
    told.controls._own = {"semantic": 0.1, "coarse": 1.0}
    for _ in range(10):
        told.controls.press("-")
    assert told.controls.temperatures == {"semantic": 0.0, "coarse": 0.9}
    told.controls._own = {}
    told.controls.press("-")
    assert told.controls.temperatures == {}


def test_lengths_go_up_to_no_end_and_down_to_a_second(told):
    for _ in LENGTHS:
        told.controls.press("]")
    assert told.controls.status()["seconds"] is None
    told.controls.press("[")
    assert told.controls.status()["seconds"] == 300.0
    for _ in LENGTHS:
        told.controls.press("[")
    assert told.controls.status()["seconds"] == 1.0


async def test_quit_and_help(told):
    told.controls.press("?")
    assert told.controls.help
    told.controls.press("q")
    assert told.live.over == "q"


def test_no_key_means_two_things():
    names = [name for key in KEYS for name in key.names]
    assert len(names) == len(set(names))


async def test_a_change_with_which_no_session_can_begin_is_undone(made, monkeypatch, logged):
    one = made()
    brain = one.graph.nodes["turns"]
    init = brain.init_state

    def refuse(info):
        if info.mode == "duet":
            raise ConfigError("no duets here")
        return init(info)

    monkeypatch.setattr(brain, "init_state", refuse)
    running = asyncio.create_task(one.live.run())
    await ticks(one)
    one.live.anew(seed=5)
    await until(lambda: one.live.session.info.seed == 5)
    await ticks(one)
    one.live.anew(mode="duet")
    await until(lambda: one.live.failed == 1)
    await until(lambda: one.live.session.info.id == "main-4" and one.live.session.status == "running")
    assert (one.live.session.info.mode, one.live.session.info.seed) == ("continue", 5)
    assert "no duets here" in one.live.reason
    assert [line for line in logged if line.get("undone")]
    one.live.end("the test")
    await running
