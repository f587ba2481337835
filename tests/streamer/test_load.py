"""The ladder of what is left out: by a clock of the test's own, so that nothing depends on the machine."""

import itertools

import pytest

from streamer.commands import live, run
from streamer.commands.load import Request
from streamer.load import CALM, LATE, MOST, NO_FINE, RARELY, SETTLE, TICK, TOP, WORDS, Load, told
from streamer.metrics import Metrics

AT = 640


class Machine:
    """One session on a machine that needs `cost(rung)` seconds a tick; ticks are permitted every 40 ms."""

    def __init__(self, cost, **settings):
        self.now, self.number, self.given, self.cost = 100.0, 0, 100.0, cost
        self.metrics = Metrics()
        self.load = Load(self.metrics, clock=lambda: self.now, **settings)

    def run(self, ticks):
        """The rung after each tick."""
        return [self.tick() for _ in range(ticks)]

    def tick(self):
        self.given += TICK
        behind = max(0.0, self.now - self.given)
        self.now = max(self.now, self.given)
        self.load.permit(self.number * AT, behind=behind)
        self.load.place(self.number * AT, self.number * AT + 7 * AT)
        self.now += self.cost(self.load.rung)
        self.load.done(self.number * AT + 7 * AT)
        self.number += 1
        return self.load.rung


def steps(rungs):
    """The rungs in the order in which they were taken, each once."""
    return [rung for i, rung in enumerate(rungs) if not i or rung != rungs[i - 1]]


def test_levels_go_first_then_the_stage():
    load, found = Load(), []
    for rung in range(TOP + 1):
        load.rung = rung
        found.append((load.levels(8), load.levels(2), load.crowded))
    assert found == [(8, 2, False), (4, 1, False), (2, 1, False), (1, 1, False), (0, 0, False), (0, 0, True)]
    assert len(WORDS) == TOP + 1


def test_a_machine_that_is_fast_enough_leaves_nothing_out():
    machine = Machine(lambda rung: 0.039)
    assert set(machine.run(1000)) == {0}
    assert machine.metrics.counters == machine.metrics.gauges == {}
    assert machine.load.report()["ticks"] == [1000, 0, 0, 0, 0, 0]
    assert machine.load.words is None


def test_rungs_are_taken_in_order_within_a_few_ticks_until_it_is_fast_enough():
    machine = Machine(lambda rung: (0.06, 0.052, 0.046, 0.041, 0.03, 0.03)[rung])
    rungs = machine.run(60)
    assert steps(rungs) == [0, 1, 2, 3, 4]
    assert rungs.index(1) <= 4


def test_far_behind_it_takes_two_rungs_at_once():
    machine = Machine(lambda rung: 0.32 / (rung + 1))
    rungs = machine.run(40)
    assert steps(rungs) == [0, 2, 4, TOP]
    assert rungs.index(TOP) <= 3 * (SETTLE + 2)
    assert machine.load.crowded
    assert machine.load.words == "the fine stage and new sessions"


def test_one_hiccup_is_caught_up_and_changes_nothing():
    machine = Machine(lambda rung: 0.5 if machine.number == 50 else 0.02)
    assert set(machine.run(200)) == {0}
    assert machine.metrics.counters["load.late_ticks"] > 3


def test_the_slow_beginning_of_a_turn_is_no_overload():
    machine = Machine(lambda rung: 0.15 if machine.number == 0 else 0.025)
    assert set(machine.run(100)) == {0}


def test_what_waited_for_the_end_of_the_prompt_is_not_late():
    now = [0.0]
    load = Load(clock=lambda: now[0])
    for number in range(4):  # given during the prompt, of which nobody took any
        load.permit(number * AT)
    now[0] = 3.0
    load.begin()
    for number in range(4):
        load.place(number * AT, number * AT)
        now[0] += 0.02
        load.done(number * AT)
    assert load.lateness.percentiles()["max"] == 0


def test_when_the_load_falls_quality_comes_back_rung_by_rung_after_seconds():
    machine = Machine(lambda rung: 0.32 / (rung + 1))
    machine.run(60)
    machine.cost = lambda rung: 0.015
    rungs = machine.run(20 * CALM)
    assert steps(rungs) == [5, 4, 3, 2, 1, 0]
    assert rungs.index(4) >= CALM
    assert rungs.count(3) >= CALM


def test_it_does_not_flap_where_a_rung_is_just_too_much():
    machine = Machine(lambda rung: 0.045 if rung == 0 else 0.02)
    rungs = machine.run(150 * 60)  # six minutes
    tries = sum(a == 1 and b == 0 for a, b in itertools.pairwise(rungs))
    assert 3 <= tries <= 12
    assert rungs.count(0) < 0.05 * len(rungs)
    late = [i for i in range(1, len(rungs)) if rungs[i] == 0 and rungs[i - 1] == 1]
    assert late[-1] - late[-2] >= RARELY


def test_ticks_with_little_to_spare_do_not_lead_up():
    machine = Machine(lambda rung: 0.1 if rung == 0 else 0.03)
    assert set(machine.run(3000)[10:]) == {1} or machine.load.rung > 0


def test_without_permission_there_is_no_deadline():
    load = Load()
    for number in range(100):
        load.permit(number * AT, paced=False)
        load.place(number * AT, number * AT)
        load.done(number * AT)
    assert (load.rung, load.lateness.count) == (0, 0)


def test_switched_off_nothing_is_left_out():
    machine = Machine(lambda rung: 1.0, on=False)
    assert set(machine.run(50)) == {0}
    assert machine.load.report()["ticks"] == [0] * (TOP + 1)


def test_permissions_that_nobody_uses_do_not_grow():
    load = Load()
    for number in range(3 * MOST):
        load.permit(number * AT)
        load.permit(number * AT, placed=True)
    assert max(len(load._given), len(load._permits)) <= MOST


def test_it_says_what_was_left_out():
    machine = Machine(lambda rung: 0.2)
    machine.run(30)
    machine.load.permit(0, placed=True)
    machine.load.done(0, 16)
    report, counters = machine.load.report(), machine.metrics.counters
    assert machine.metrics.gauges == {"load.rung": TOP}
    assert report["rung"] == TOP
    assert report["left_out"] == WORDS[TOP]
    assert sum(report["ticks"]) == 31
    assert report["ticks"][TOP] == counters[f"load.ticks_at_{TOP}"] > 10
    assert (report["tokens_left_out"], report["late_ticks"]) == (16, counters["load.late_ticks"])
    assert report["lateness_ms"]["p99"] > 1000 * LATE


def test_what_was_left_out_in_all_is_said_in_a_line():
    assert told({"load.late_ticks": 3}) is None
    counters = {"load.ticks_at_1": 30, "load.ticks_at_4": 5}
    said = "the machine was too slow: 1.2 s without half of the fine levels, 0.2 s without the fine stage"
    assert told(counters) == said


def test_the_summaries_of_runs_have_that_line():
    counters = {"load.ticks_at_4": 50, "speaker.concealed_samples": 800}
    whole = {
        "output": "a.wav", "heard_s": 1.0, "generated_s": 1.0, "first_sample_ms": None, "rtf": None, "dropped": 0,
        "bundle": "piano", "seconds": 1.0, "prompt_seconds": None, "seed": 1, "counters": counters,
    }  # fmt: skip
    said = "left out      the machine was too slow: 2.0 s without the fine stage"
    assert said in run.summary(Request("continue_file"), whole)
    assert "left out" not in run.summary(Request("continue_file"), {**whole, "counters": {}})
    lived = {
        "wall_s": 9.0, "ended_by": "you", "sessions": 1, "failed": 0, "turns": 1, "generated_s": 1.0, "latency_ms": {},
        "rtf": None, "underruns": 1, "concealed_samples": 800, "dropped": 0, "lost_samples": 0, "peak_rss_mb": 1.0,
        "output": None, "counters": counters,
    }  # fmt: skip
    assert "left out    the machine was too slow" in live.summary(lived)
    assert "underruns 1 (0.05 s made up)" in live.summary(lived)


@pytest.mark.parametrize("rung", range(NO_FINE))
def test_at_least_one_level_is_made_until_the_stage_stands_still(rung):
    load = Load()
    load.rung = rung
    assert all(1 <= load.levels(count) <= count for count in range(1, 13))
