"""Whole graphs that leave something out: what is shed by a script, and by a machine that really is too slow."""

import asyncio
import time

import graphs
import numpy as np
import pytest
from turn_taking import PATTERNS, Loud, live, sounding

from audiolm.engine import Engine
from streamer import Graph, Registry, Session, run, session
from streamer.frame import GENERATED, HEARD
from streamer.load import NO_FINE, TOP, Load
from streamer.nodes import turns
from streamer.web.limits import Limits
from streamer.web.protocol import Closed
from streamer.web.rooms import Rooms
from streamer.web.service import Service

TICK = 640
LEVELS, COARSE = 6, 2  # of the tiny bundle
KEPT = {0: 6, 1: 4, 2: 3, 3: 3, 4: 2, 5: 2}  # rung -> levels of a stack
LOGGED = ("coarse", "fine", "decoder")


@pytest.fixture(autouse=True)
def loud(monkeypatch):
    monkeypatch.setattr(turns, "make_detector", lambda kind: Loud())


@pytest.fixture
def script(monkeypatch):
    """`script(rungs)`: from now on sessions take the rung that stands in the list for each tick, the last one after."""

    def take(rungs):
        class Scripted(Load):
            def done(self, position, left_out=0):
                super().done(position, left_out)
                self.rung = rungs[min(position // TICK + 1, len(rungs) - 1)]

        monkeypatch.setattr(session, "Load", Scripted)

    return take


def phrases(play, bundle, pattern, *settings, **extra):
    sound = sounding(pattern)
    given = [{"seed": 5, "extra": {"sound": sound} | extra}]
    return play(live("mic_continue"), "session.seconds=null", *settings, bundle=bundle, logged=LOGGED, sessions=given)[
        0
    ]


def changing(seed, ticks=60):
    """Rungs that change every few ticks."""
    rng = np.random.default_rng(seed)
    return np.repeat(rng.integers(0, TOP + 1, ticks), rng.integers(1, 6, ticks)).tolist()[:ticks]


def stacks(result):
    return {position: (flags, tokens) for position, flags, tokens in result.tokens["fine"]}


@pytest.mark.parametrize("kind", ["depth", "delay", "flat"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_whatever_is_left_out_and_when_everything_else_stays(play, bundles, script, kind, pattern):
    whole = phrases(play, bundles[kind], pattern)
    for seed in range(3):
        script(changing(seed))
        shed = phrases(play, bundles[kind], pattern)
        assert [p for p, *_ in shed.tokens["fine"]] == [p for p, *_ in whole.tokens["fine"]]
        assert shed.tokens["coarse"] == whole.tokens["coarse"]
        assert len(shed.int16) == len(whole.int16)
        sizes = set()
        for position, (flags, tokens) in stacks(whole).items():
            there, got = stacks(shed)[position]
            assert there == flags
            assert [row[:COARSE] for row in got] == [row[:COARSE] for row in tokens]
            assert 0 <= np.min(got) <= np.max(got) < 32, "a mask token has come through"
            if flags & HEARD:
                assert got == tokens
            else:
                sizes.add(len(got[0]))
        assert len(sizes) > 1
        assert sizes <= set(range(COARSE, LEVELS + 1))


@pytest.mark.parametrize("rung", range(TOP + 1))
def test_each_rung_makes_as_many_levels_as_it_says(play, bundles, script, rung):
    script([rung])
    shed = phrases(play, bundles["depth"], PATTERNS[0])
    generated = [tokens for flags, tokens in stacks(shed).values() if flags & GENERATED]
    assert {len(row) for tokens in generated[1:] for row in tokens} == {KEPT[rung]}
    left_out = shed.report["load"]["tokens_left_out"]
    assert left_out == sum(LEVELS - len(row) for tokens in generated for row in tokens)


@pytest.mark.parametrize("kind", ["depth", "delay", "flat"])
def test_when_the_load_has_fallen_everything_is_there_again(play, bundles, script, kind):
    heard = PATTERNS[0].index("x")
    script([0] * (heard + 4) + [NO_FINE] * 3 + [1] * 2 + [0])
    shed = phrases(play, bundles[kind], PATTERNS[0] + "." * 12)
    sizes = [len(tokens[0]) for flags, tokens in stacks(shed).values() if flags & GENERATED]
    assert sizes[-8:] == [LEVELS] * 8
    assert min(sizes) == COARSE


def test_what_leaves_nothing_out_changes_nothing_and_a_script_is_repeated_to_the_bit(play, bundles, script):
    whole = phrases(play, bundles["depth"], PATTERNS[1]).sha256
    script([0])
    assert phrases(play, bundles["depth"], PATTERNS[1]).sha256 == whole
    script(changing(7))
    first = phrases(play, bundles["depth"], PATTERNS[1]).sha256
    assert first == phrases(play, bundles["depth"], PATTERNS[1]).sha256 != whole


@pytest.mark.parametrize("kind", ["depth", "delay"])
@pytest.mark.parametrize("tick", [9, 16, 21])
async def test_saved_while_it_sheds_a_session_goes_on_as_if_nothing_had_been(bundles, tmp_path, script, kind, tick):
    pattern = PATTERNS[1]
    script([0] * 4 + [NO_FINE] * 6 + [2] * 4 + [NO_FINE] * 4 + [1])
    extra, files = {"sound": sounding(pattern), "cuts": range(TICK, len(pattern) * TICK, TICK)}, []
    for until in (None, tick * TICK):
        files.append(tmp_path / f"{until}.wav")
        own = [f"bundle={bundles[kind]}", f"nodes.output.path={files[-1]}", "session.seconds=null"]
        with Graph.parse(live("mic_continue"), graphs.registry(), overrides=own) as graph:
            made = Session(graph, extra=extra)
            await run(graph, made, until=until)
            if until is not None:
                assert made.status == "paused"
                again = Session.restore(graph, made.snapshot(), extra=extra)
                again.info.load.rung = made.info.load.rung
                await run(graph, again)
    assert files[0].read_bytes() == files[1].read_bytes()


# -- a machine that is too slow ---------------------------------------------------------------------------------------


class Paced(graphs.Pieces):
    """A microphone: one tick every 40 ms."""

    type_name = "paced"
    live = True

    async def frames(self, ctx):
        due = time.monotonic()
        async for frame in super().frames(ctx):
            await asyncio.sleep(due - time.monotonic())
            due += 0.04
            yield frame


@pytest.fixture
def slow(monkeypatch):
    """Every sampled level costs its time: a fine row of 4 levels 40 ms, a tick at least 80 ms of 40."""
    rows = Engine.rows

    def slowed(self, name, batch):
        if name == "fine":
            time.sleep(0.01 * max(int((~row.is_forced).sum()) for row in batch.values()))
        return rows(self, name, batch)

    monkeypatch.setattr(Engine, "rows", slowed)


@pytest.fixture
def paced(monkeypatch):
    """Live configs hear a microphone that goes by the clock."""
    known = graphs.registry

    def more() -> Registry:
        made = known()
        made.add(Paced)
        return made

    monkeypatch.setattr(graphs, "registry", more)
    return live("mic_continue").replace("pieces", "paced")


def cuts_of(pattern):
    return range(TICK, len(pattern) * TICK, TICK)


def test_live_a_slow_machine_sheds_and_the_sound_goes_on(play, bundle, paced, slow):
    pattern = "xxxxx" + "." * 45
    given = [{"extra": {"sound": sounding(pattern), "cuts": cuts_of(pattern)}}]
    got = play(paced, "session.seconds=null", bundle=bundle, logged=LOGGED, sessions=given)[0]
    generated = [tokens for flags, tokens in stacks(got).values() if flags & GENERATED]
    load = got.report["load"]
    assert load["tokens_left_out"] > 0
    assert sum(load["ticks"][1:]) > 10
    assert len(generated[-1][0]) < LEVELS
    assert len(generated) >= 40
    positions = [position for position, *_ in got.tokens["decoder"]]
    assert positions == list(range(0, len(positions) * TICK, TICK))
    assert got.report["counters"]["load.late_ticks"] == load["late_ticks"] > 0


def test_a_clock_in_real_time_sheds_too(play, bundle, prompt, slow):
    own = ["nodes.clock.realtime=true", f"nodes.input.path={prompt}", "session.seconds=1.2"]
    got = play("continue_file", *own, bundle=bundle)
    assert got.report["load"]["tokens_left_out"] > 0
    assert len(got.int16) == 27 * TICK + round(1.2 * 16000)


@pytest.mark.parametrize("how", ["unpaced", "off"])
def test_unpaced_or_switched_off_nothing_is_left_out_however_slow(play, bundle, prompt, slow, how):
    own = ["nodes.clock.realtime=true", "session.shed=false"] if how == "off" else []
    got = play("continue_file", *own, f"nodes.input.path={prompt}", "session.seconds=0.6", bundle=bundle)
    assert {len(tokens[0]) for _, tokens in stacks(got).values()} == {LEVELS}
    assert got.report["load"]["tokens_left_out"] == got.report["load"]["rung"] == 0
    assert not [name for name in got.report["counters"] if name.startswith("load.")]


class Guest:
    rung = TOP

    def end(self, text):
        """Nothing to do."""


def test_a_server_that_is_too_slow_for_its_visitors_lets_nobody_else_in(tiny_bundle):
    service = Service(Rooms((tiny_bundle,)), limits=Limits(sessions=3))
    guest = Guest()
    with service.admission.place("here"), service.present(guest):
        with pytest.raises(Closed, match="too slow for one more visitor") as refused, service.admission.place("there"):
            pass
        assert refused.value.code == "busy"
        assert service.health()["crowded"]
        assert service.health()["left_out"] == "the fine stage and new sessions"
        assert b"streamer_load_rung 5.0" in service.metrics()
        guest.rung = NO_FINE
        with service.admission.place("there"):
            assert not service.health()["crowded"]
    assert service.rung == 0
