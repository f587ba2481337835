"""What sessions measure, as counters of the server and as the status of a page."""

import pytest

from streamer import Graph, Session
from streamer.link import Link
from streamer.metrics import Metrics, Ring
from streamer.web.meters import Meters, Reader, Tally
from streamer.web.status import Health


def value(meters, name):
    return meters.registry.get_sample_value(name)


def test_a_reader_gives_each_duration_once():
    ring, reader = Ring(), Reader()
    assert reader.new(ring) == []
    for number in range(3):
        ring.add(number)
    assert reader.new(ring) == [0, 1, 2]
    assert reader.new(ring) == []
    for number in range(3000):
        ring.add(number)
    assert reader.new(ring) == list(range(3000 - 2048, 3000))
    other = Ring()
    other.add(7.0)
    assert reader.new(other) == [7.0]


def test_a_tally_adds_what_is_new():
    meters, metrics = Meters(), Metrics()
    tally = Tally(meters, metrics)
    for _ in range(2):
        metrics.sound(640, generated=False)
        metrics.sound(1280, generated=True)
        metrics.ring("fine").add(0.004)
        metrics.latency("decision_to_sound", 0.1)
        metrics.count("load.late_ticks", 3)
        metrics.count("load.tokens_left_out", 16)
        tally.update()
        tally.update()
    assert value(meters, "streamer_ticks_total") == 6
    assert value(meters, "streamer_generated_seconds_total") == pytest.approx(0.16)
    assert value(meters, "streamer_heard_seconds_total") == pytest.approx(0.08)
    assert value(meters, "streamer_decision_to_sound_seconds_count") == 2
    assert value(meters, "streamer_late_ticks_total") == 6
    assert value(meters, "streamer_left_out_tokens_total") == 32
    assert meters.registry.get_sample_value("streamer_step_seconds_count", {"node": "fine"}) == 2


def test_two_servers_count_apart():
    first, second = Meters(), Meters()
    first.admitted.inc()
    assert value(second, "streamer_visits_total") == 0


def test_the_load_is_that_of_the_busiest_thread_since_the_last_look(tiny_bundle):
    graph = Graph.load("page", overrides=[f"bundle={tiny_bundle}"])
    session = Session(graph, "s")
    health = Health(session, Link())
    assert health.frame({}).meta["rtf"] is None
    for load in (0.5, 2.0):
        session.metrics.sound(16_000, generated=True)
        session.metrics.ring("fine").add(load / 2)
        session.metrics.ring("coarse").add(load / 2)
        session.metrics.ring("decoder").add(load / 4)
        status = health.frame({"limit": 3})
        assert status.meta["rtf"] == pytest.approx(load)
        assert status.meta["limit"] == 3
        assert status.session == "s"
