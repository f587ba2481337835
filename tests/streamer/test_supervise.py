"""A live run that nobody looks after: what it goes on from after a failure, a kill, a reset; what it waits for."""

import asyncio
import json
import signal
import subprocess
from types import SimpleNamespace

import lasting_ends
import pytest
import structlog

from streamer import Graph, InputError
from streamer.commands import keeper as keepers
from streamer.commands import sessions, waiting
from streamer.commands.controls import Controls
from streamer.commands.follow import Follower
from streamer.commands.keeper import Keeper, fingerprint, misfit
from streamer.commands.sessions import Live
from streamer.commands.state import Kept, State
from streamer.errors import PeerRestarted

LIMIT = 60.0
CONFIG = """
session: {seconds: 10, seed: 3}
nodes: {ears: ticker, count: counter, mouth: mouth}
edges: [ears -> count -> mouth]
"""


@pytest.fixture(autouse=True)
def logged():
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(sessions, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(lasting_ends.Ticker, "builds", 0)


@pytest.fixture
def made(tmp_path):
    """`made(*overrides, state=False, forever=False)`: a built graph, a Live, and its parts."""
    graphs, states = [], []

    def make(*overrides, text=CONFIG, every=0.01, state=False, forever=False):
        graph = Graph.parse(text, lasting_ends.registry(), overrides=overrides).build()
        graphs.append(graph)
        folder = State(tmp_path / "state") if state else None
        states.append(folder)
        keeper = Keeper(graph, every=every, state=folder)
        live = Live(graph, Follower(graph), keeper=keeper, forever=forever)
        return SimpleNamespace(graph=graph, live=live, keeper=keeper, state=folder, count=graph.nodes["count"])

    yield make
    for graph in graphs:
        graph.close()
    for state in states:
        if state is not None:
            state.close()


async def until(condition):
    """Wait until something is so; there is no event for all that can be waited for."""
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.001)


def gauge(one, name):
    return one.live.session.metrics.gauges.get(name, 0.0)


async def ended(one, running):
    one.live.end("enough")
    async with asyncio.timeout(LIMIT):
        await running


# -- what it goes on from


async def test_a_session_that_fails_is_begun_anew_from_its_last_snapshot(made):
    one = made("nodes.ears.fail_sessions=[1]", "nodes.ears.fail_after=60")
    running = asyncio.create_task(one.live.run())
    await until(lambda: one.live.failed == 1 and one.live.session.began and one.live.phase == "running")
    await until(lambda: gauge(one, "mouth.position") > 0)
    began = gauge(one, "count.began_at")
    assert 0 < began <= 60
    assert one.live.reason.startswith("session failed: node 'ears'")
    assert f"state of {one.keeper.last.when[:4]}" in one.live.reason
    assert gauge(one, "mouth.position") >= began * 640, "the clock goes on; live sound is not skipped"
    assert one.live.session.metrics.audio_samples < 60 * 640, "what was counted before is not counted again"
    await ended(one, running)


async def test_without_snapshots_it_begins_anew(made):
    one = made("nodes.ears.fail_sessions=[1]", every=0)
    running = asyncio.create_task(one.live.run())
    await until(lambda: one.live.failed == 1 and one.live.phase == "running")
    assert one.keeper.last is None
    assert gauge(one, "count.began_at") == 0
    at = "node 'ears' at position 3200 (0.200 s)"
    assert one.live.reason == f"session failed: {at}: InputError: the microphone caught fire"
    await ended(one, running)


async def test_what_holds_is_told_to_a_restored_session_too(made):
    one = made("nodes.ears.fail_sessions=[1]", "nodes.ears.fail_after=40")
    running = asyncio.create_task(one.live.run())
    await until(lambda: one.live.phase == "running")
    one.live.hold("mute", "mute", on=True)
    await until(lambda: one.live.failed == 1 and one.live.phase == "running")
    await until(lambda: len(one.count.told) == 2)
    assert one.count.loads == 1
    assert one.count.told == [("mute", True)] * 2
    await ended(one, running)


async def test_one_that_dies_again_and_again_is_begun_without_its_snapshot(made, logged):
    one = made("nodes.ears.fail_sessions=[1, 2, 3, 4]", "nodes.ears.fail_after=30", forever=True)
    running = asyncio.create_task(one.live.run())
    await until(lambda: one.live.failed == 4 and one.live.phase == "running")
    assert one.count.loads == keepers.TRIES
    assert gauge(one, "count.began_at") == 0
    said = [line for line in logged if "put_aside" in line]
    assert [line["put_aside"] for line in said] == ["3 sessions that went on from it died within 60 s"]
    await ended(one, running)


async def test_one_that_lived_long_enough_is_restored_as_often_as_needed(made, monkeypatch):
    monkeypatch.setattr(keepers, "SOON", 0.0)
    one = made("nodes.ears.fail_sessions=[1, 2, 3, 4, 5, 6]", "nodes.ears.fail_after=30", forever=True)
    running = asyncio.create_task(one.live.run())
    await until(lambda: one.live.failed == 6 and one.live.phase == "running")
    assert one.count.loads == 6
    await ended(one, running)


async def test_a_snapshot_that_cannot_be_loaded_is_put_aside_at_once(made, logged):
    one = made("nodes.ears.fail_sessions=[1]", "nodes.ears.fail_after=30")
    one.count.refuses = True
    running = asyncio.create_task(one.live.run())
    await until(lambda: one.live.failed == 2 and one.live.phase == "running")
    assert (one.count.loads, gauge(one, "count.began_at")) == (1, 0.0)
    assert any("it cannot be gone on from" in str(line.get("put_aside")) for line in logged)
    await ended(one, running)


async def test_a_reset_forgets_the_snapshot(made):
    one = made("nodes.ears.fail_sessions=[2]", "nodes.ears.fail_after=0", state=True)
    running = asyncio.create_task(one.live.run())
    await until(lambda: one.keeper.last is not None and one.state.read() is not None)
    one.live.anew(seed=9)
    await until(lambda: one.live.failed == 1 and one.live.phase == "running")
    assert one.live.reason.startswith("session failed")
    assert (gauge(one, "count.began_at"), one.live.session.info.seed, one.count.loads) == (0.0, 9, 0)
    one.live.anew()
    await until(lambda: one.live.reason == "reset by command")
    await ended(one, running)


# -- snapshots


async def test_what_cannot_be_saved_is_said_once_and_plays_on(made, logged):
    one = made("nodes.count.unsavable=true")
    running = asyncio.create_task(one.live.run())
    await until(lambda: one.keeper.missed >= 3)
    assert (one.live.failed, one.keeper.last) == (0, None)
    said = [line["missed"] for line in logged if "missed" in line]
    assert len(said) == 1
    assert "TypeError: it is a live thing" in said[0]
    await ended(one, running)


async def test_a_session_with_more_to_do_than_it_can_is_not_held(made, monkeypatch):
    monkeypatch.setattr(keepers, "PATIENCE", 0.02)
    blocked = asyncio.Event()

    async def write(self, frame, ctx, into):
        await blocked.wait()

    monkeypatch.setattr(lasting_ends.Mouth, "write", write)
    one = made()
    running = asyncio.create_task(one.live.run())
    await until(lambda: one.keeper.missed)
    await until(lambda: one.live.session.gate is None)
    blocked.set()
    await until(lambda: one.keeper.last is not None)
    await ended(one, running)


def test_files_are_not_kept_in_snapshots(made, tmp_path, logged):
    text = CONFIG.replace("mouth: mouth}", f"mouth: mouth, log: {{type: record, path: {tmp_path}/x.log}}}}")
    one = made(text=text.replace("-> mouth]", "-> mouth, ears -> log]"))
    assert "'log' writes a file" in one.keeper.why_not
    assert one.keeper.status()["why_not"] == one.keeper.why_not
    assert "none are taken" in logged[0]["note"]


def test_what_a_snapshot_fits(made):
    one, other = made(), made("nodes.count.form=2")
    here = fingerprint(one.graph)
    assert misfit(here, fingerprint(made("mqtt.port=1884").graph)) is None
    assert misfit(here, fingerprint(other.graph)) == "the config has changed since"
    assert misfit({**here, "program": "0.0"}, here).startswith("it is of version 0.0 of the program, this is ")
    assert misfit({**here, "bundle piano": "x"}, here) == "the bundle piano has changed since"


# -- a run that was cut off


async def test_the_next_run_goes_on_from_the_disk(made, tmp_path):
    first = made(state=True)
    running = asyncio.create_task(first.live.run())
    await until(lambda: first.live.phase == "running")
    first.live.hold("mute", "mute", on=True)
    first.live.hold("length", "length", seconds=None)
    await until(lambda: (kept := first.state.read()) is not None and len(kept.standing) == 2)
    running.cancel()  # as a kill: nobody says that it ends
    with pytest.raises(asyncio.CancelledError):
        await running
    kept = first.state.read()
    first.state.close()
    second = made(state=True)
    assert second.live.reason == f"after a power cut or kill: state of {kept.when}"
    controls = Controls(second.live)
    assert (controls.muted, controls.seconds, controls.monitor) == (True, None, False)
    running = asyncio.create_task(second.live.run())
    await until(lambda: gauge(second, "mouth.position") > 0)
    assert gauge(second, "count.began_at") > 0
    assert ("mute", True) in second.count.told
    await ended(second, running)
    second.state.close()
    third = made(state=True)
    assert third.live.reason == "started", "the second run ended by itself"


@pytest.mark.parametrize("wrong", ["config", "program", "damaged", "clock"])
async def test_what_does_not_fit_is_put_aside(made, tmp_path, wrong, logged):
    graph = made().graph
    with State(tmp_path / "state") as state:
        made_by = fingerprint(graph) | ({wrong: "another"} if wrong in ("config", "program") else {})
        taken = 4e9 if wrong == "clock" else 1e9
        state.write(Kept(b"damaged" if wrong == "damaged" else b"", taken, made_by))
    one = made(state=True)
    if wrong in ("config", "program"):
        assert one.live.reason == "after a power cut or kill: begun anew, no snapshot that fits"
        assert (tmp_path / "state" / "aside-000001.state").exists()
        assert any(line.get("put_aside") == "000001.state" for line in logged)
    elif wrong == "clock":
        assert (
            one.live.reason == "after a power cut or kill: state of 2096-10-02T07:06:40+00:00 (the clock is behind it)"
        )
    running = asyncio.create_task(one.live.run())
    await until(lambda: one.live.phase == "running")
    assert (gauge(one, "count.began_at"), one.live.failed) == (0.0, 0)
    await ended(one, running)


async def test_a_snapshot_that_kills_the_process_is_not_tried_for_ever(made, tmp_path):
    one = made(state=True)
    running = asyncio.create_task(one.live.run())
    await until(lambda: one.state.read() is not None)
    running.cancel()
    await asyncio.wait([running])
    one.state.close()
    for number in range(keepers.TRIES):
        again = made(state=True)
        assert again.keeper.tries == number
        assert again.keeper.restored({}) is not None  # and now the process is gone
        again.state.close()
    last = made(state=True)
    assert last.keeper.restored({}) is None
    assert last.state.run.tries == 0


async def test_a_full_disk_does_not_end_it(made, monkeypatch, logged):
    one = made(state=True)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(one.state, "_put", full)
    running = asyncio.create_task(one.live.run())
    await until(lambda: one.keeper.missed >= 3)
    assert one.keeper.last is not None
    assert one.live.failed == 0
    assert len([line for line in logged if "No space left" in str(line.get("missed"))]) == 1
    await ended(one, running)


# -- nobody is there


async def test_failures_never_end_it_but_it_waits_longer(made, logged, monkeypatch):
    monkeypatch.setattr(sessions, "LONGEST_ALONE", 0.004)
    one = made(f"nodes.ears.fail_sessions={list(range(1, 12))}", "nodes.ears.fail_after=0", forever=True)
    running = asyncio.create_task(one.live.run())
    await until(lambda: one.live.failed == 11 and one.live.phase == "running")
    waits = [line["again_in_s"] for line in logged if "again_in_s" in line]
    assert waits == [0.001, 0.002] + [0.004] * 9
    await ended(one, running)


async def test_a_failure_at_the_very_start_is_got_over_too(made):
    one = made("nodes.ears.fail_sessions=[1]", "nodes.ears.fail_after=0", forever=True)
    running = asyncio.create_task(one.live.run())
    await until(lambda: one.live.phase == "running" and one.live.failed == 1)
    await ended(one, running)


async def test_an_input_that_ends_is_begun_again(made):
    one = made("nodes.ears.ends_after=3", forever=True)
    running = asyncio.create_task(one.live.run())
    await until(lambda: one.live.follower.sessions >= 3)
    assert one.live.reason == "its input had ended"
    assert one.count.loads == 0
    await ended(one, running)


def test_a_device_that_comes_later_is_waited_for(monkeypatch, logged):
    pauses = []
    monkeypatch.setattr(waiting.time, "sleep", pauses.append)
    graph = Graph.parse(CONFIG, lasting_ends.registry(), overrides=["nodes.ears.missing=9"])
    with pytest.raises(InputError, match="no sound input"):
        waiting.build(graph, forever=False)
    lasting_ends.Ticker.builds = 0
    with waiting.build(graph, forever=True):
        assert graph.sources
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert len([line for line in logged if line["event"] == "waiting"]) == 8, "the same is not said again"


def test_it_is_not_waited_for_longer_than_asked(monkeypatch):
    monkeypatch.setattr(waiting, "FIRST_WAIT", 0.001)
    graph = Graph.parse(CONFIG, lasting_ends.registry(), overrides=["nodes.ears.missing=99"])
    with pytest.raises(InputError, match="no sound input"):
        waiting.build(graph, forever=True, limit=0.02)


async def test_a_peer_that_began_anew_is_begun_with_and_is_no_failure(made, monkeypatch):
    frames = lasting_ends.Ticker.frames

    async def interrupted(self, ctx):
        async for frame in frames(self, ctx):
            if self.sessions <= 7 and frame.seq == 20:
                raise PeerRestarted("brain", "it began anew")
            yield frame

    monkeypatch.setattr(lasting_ends.Ticker, "frames", interrupted)
    one = made()
    running = asyncio.create_task(one.live.run())
    await until(lambda: one.live.follower.sessions == 8 and one.live.phase == "running")
    assert one.live.failed == 0
    assert one.live.reason.startswith("a peer began anew: node 'ears'")
    assert (one.count.loads, gauge(one, "count.began_at")) == (0, 0.0), "both ends begin at the beginning"
    await ended(one, running)


# -- as a program


@pytest.fixture
def installed(program, tmp_path):
    """`installed(*options)`: the program as an installation runs it; `status(process, condition)` reads on."""
    started = []
    (tmp_path / "live.yaml").write_text(CONFIG)
    plugin = lasting_ends.__file__

    def start(*options):
        arguments = ["run", tmp_path / "live.yaml", "--plugins", plugin, "--json", "--state", tmp_path / "state"]
        process = program(*arguments, "--snapshot-seconds", "0.2", *options, stdin=subprocess.DEVNULL)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def status(process, condition):
    """The first status that fits."""
    for line in process.stdout:
        found = json.loads(line)
        if condition(found):
            return found
    raise AssertionError(process.stderr.read())


def test_killed_and_started_again_it_goes_on_and_says_when_and_why(installed, tmp_path):
    first = installed()
    found = status(first, lambda each: each.get("snapshot", {}).get("taken"))
    assert found["reason"] == "started"
    assert found["snapshot"]["on_disk"]
    assert found["snapshot"]["bytes"] > 0
    first.send_signal(signal.SIGKILL)
    first.wait(LIMIT)
    states = sorted(path.name for path in (tmp_path / "state").glob("*.state"))
    assert 1 <= len(states) <= 2
    second = installed()
    found = status(second, lambda each: each.get("phase") == "running" and "mouth.position" in each["gauges"])
    assert found["reason"].startswith("after a power cut or kill: state of 2")
    assert found["since"] >= found["reason"].rpartition(" ")[2]
    assert found["gauges"]["count.began_at"] > 0
    assert found["gauges"]["mouth.position"] >= 640 * found["gauges"]["count.began_at"]
    second.send_signal(signal.SIGTERM)
    last = json.loads(second.communicate(timeout=LIMIT)[0].splitlines()[-1])
    assert (second.returncode, last["event"]) == (143, "summary")
    third = installed("--for", "0.3")
    assert json.loads(third.communicate(timeout=LIMIT)[0].splitlines()[-1])["reason"] == "started"


def test_two_runs_do_not_share_a_state(installed):
    first = installed()
    status(first, lambda each: each["phase"] == "running")
    second = installed()
    assert second.wait(LIMIT) == 2
    assert "another run uses it" in second.stderr.read().decode()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--snapshot-seconds", "-1"], "--snapshot-seconds -1: expected 0 (never), or 0.1 to 86400"),
        (["--snapshot-seconds", "nan"], "expected 0 (never)"),
        (["--snapshot-seconds", "0", "--state", "x"], "leave one of them out"),
    ],
)
def test_options_that_make_no_sense(streamer, tmp_path, options, said):
    (tmp_path / "live.yaml").write_text(CONFIG)
    result = streamer("run", tmp_path / "live.yaml", "--plugins", lasting_ends.__file__, *options)
    assert result.code == 2
    assert said in result.err


@pytest.mark.parametrize("option", [["--forever"], ["--state", "x"], ["--snapshot-seconds", "5"]])
def test_options_of_live_runs_elsewhere(streamer, tmp_path, prompt, tiny_bundle, option):
    options = ["--input", prompt, "--output", tmp_path / "y.wav", "--bundle", tiny_bundle, *option]
    result = streamer("run", "continue_file", *options)
    assert result.code == 2
    assert f"{option[0]}: no source or sink of this config is live" in result.err
