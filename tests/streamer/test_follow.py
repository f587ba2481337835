"""What a live run is at and what it did in all, from the metrics of its sessions."""

import json

import live_ends
import pytest
import structlog

from streamer import Graph, Metrics, Session
from streamer.commands.follow import Device, Follower, Speed

CONFIG = """
session: {seconds: 10, seed: 3}
nodes: {mic: {type: fake_mic}, turns: fake_brain, speaker: fake_speaker}
edges: [mic -> turns -> speaker]
"""


def test_speed_is_what_the_busiest_lane_needs_for_a_second_of_sound():
    metrics, speed = Metrics(), Speed([["a", "b"], ["c"]])
    assert speed.now is None
    for step in range(10):
        metrics.ring("a").add(0.01)
        metrics.ring("b").add(0.01)
        metrics.ring("c").add(0.005)
        metrics.sound(640, generated=True)
        speed.look(metrics, step * 0.04)
        speed.look(metrics, step * 0.04 + 0.01)
    assert speed.now == pytest.approx(0.5)
    metrics.ring("c").add(100.0)
    metrics.sound(640, generated=True)
    speed.look(metrics, 10.0)  # it listened in between
    assert speed.overall == pytest.approx(0.5)
    speed.begin()
    speed.look(Metrics(), 11.0)
    assert speed.overall == pytest.approx(0.5)


def test_a_device_is_away_and_back():
    device = Device("USB", connected=True, since=0.0)
    device.see(connected=False, now=5.0)
    device.see(connected=False, now=7.0)
    assert (device.connected, device.since, device.away) == (False, 5.0, None)
    device.see(connected=True, now=9.0)
    assert (device.connected, device.since, device.away) == (True, 9.0, 4.0)


@pytest.fixture
def logged():
    """What is logged, as a list of dicts."""
    with structlog.testing.capture_logs() as lines:
        yield lines


def test_totals_go_over_sessions_and_json_holds_every_status(logged):
    graph = Graph.parse(CONFIG, live_ends.registry())
    follower = Follower(graph)
    for number in (1, 2):
        session = Session(graph)
        follower.begin(session)
        metrics = session.metrics
        for state in ("listening", "continuing"):
            metrics.gauge("turns.state", state)
            follower.look()
        metrics.gauge("mic.level_db", float("-inf"))
        metrics.gauge("mic.device", "USB")
        metrics.gauge("mic.connected", number == 2)
        metrics.sound(640, generated=False)
        metrics.sound(1280, generated=True)
        metrics.count("speaker.underruns", number)
        metrics.latency("decision_to_sound", 0.1 * number)
        follower.look()
        status = json.loads(json.dumps(follower.status(), allow_nan=False))
        follower.end()
    assert status["gauges"]["mic.level_db"] is None
    assert status["counters"] == {"speaker.underruns": 3}
    assert status["generated_s"] == 0.16
    assert status["latency_ms"]["decision_to_sound"] == {"count": 1, "p50": 200.0, "last": 200.0}
    assert status["devices"]["mic"] | {"for_s": 0, "was_away_s": 0} == {
        "name": "USB", "connected": True, "for_s": 0, "was_away_s": 0
    }  # fmt: skip
    assert status["targets_ms"] == {"speaker": 80.0}
    found = follower.summary()
    assert (found["sessions"], found["turns"], found["underruns"]) == (2, 2, 3)
    assert (found["heard_s"], found["generated_s"]) == (0.08, 0.16)
    assert found["latency_ms"]["decision_to_sound"]["count"] == 2
    states = [line["now"] for line in logged if line["event"] == "state"]
    assert states == ["listening", "continuing", "listening", "continuing"]
