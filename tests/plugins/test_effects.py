"""Effects: the same for any chunking, the tail behind the end, settings that are checked."""

import builtins
import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from streamer import GENERATED, HEARD, ConfigError, Frame, Graph, PluginError, Session, run
from streamer.contract import check_node

sys.path.insert(0, str(Path(__file__).parent))
from plugin_sounds import SIZES, TICK, again, give, info, made, noise, ordered, registry, samples, stream, through

from plugins.effects import EFFECTS, Effects

pytest.importorskip("pedalboard")


def chain(*effects, **settings):
    return made(
        Effects, "fx", chain=[{"type": each} if isinstance(each, str) else each for each in effects], **settings
    )


@pytest.mark.parametrize("kind", sorted(EFFECTS))
@pytest.mark.parametrize("sizes", [SIZES, (100_000,)])
def test_any_chunking_gives_the_same_samples(kind, sizes):
    node, sound = chain(kind, tail_ms=50), noise(9 * TICK + 77)
    whole, cut = through(node, stream(sound)), through(node, stream(sound, sizes))
    np.testing.assert_array_equal(samples(ordered(cut)), samples(ordered(whole)))
    assert len(samples(whole)) == len(sound) + 800
    assert whole[-1].position == cut[-1].position == len(sound) + 800


@pytest.mark.parametrize(
    "kind", sorted(set(EFFECTS) - {"limiter", "compressor", "gain", "peak", "lowshelf", "highshelf"})
)
def test_each_changes_the_sound(kind):
    assert np.abs(samples(through(chain(kind, tail_ms=0), stream(noise(20 * TICK)))) - noise(20 * TICK)).max() > 0.01


def test_the_settings_do_what_they_say():
    time = np.arange(8000) / 16_000
    low, high = (np.sin(2 * np.pi * pitch * time).astype(np.float32) for pitch in (100, 6000))

    def level(sound, **effect):
        return float(np.sqrt(np.mean(samples(through(chain(effect), stream(sound)))[4000:8000] ** 2)))

    for kind, kept, cut in (("lowpass", low, high), ("highpass", high, low)):
        assert level(kept, type=kind, cutoff_frequency_hz=1000) > 0.6
        assert level(cut, type=kind, cutoff_frequency_hz=1000) < 0.2
    assert level(low, type="gain", gain_db=-20) == pytest.approx(0.0707, abs=1e-3)
    assert level(low, type="peak", cutoff_frequency_hz=100, gain_db=-12) < 0.25
    assert np.abs(samples(through(chain({"type": "limiter", "threshold_db": -6}), stream(3 * low)))).max() <= 1


def test_what_rings_on_is_given_behind_the_end():
    impulse = np.zeros(TICK, np.float32)
    impulse[0] = 1
    out = ordered(
        through(chain({"type": "delay", "delay_seconds": 0.1, "feedback": 0}), stream(impulse, flags=GENERATED))
    )
    assert len(samples(out)) == TICK + 48_000
    assert np.flatnonzero(np.abs(samples(out)) > 0.1).tolist() == [0, 1600]
    assert all(frame.generated for frame in out if frame.payload), "what rings on is as generated as what it comes from"
    assert len(samples(through(chain("lowpass"), stream(impulse)))) == TICK
    assert len(samples(through(chain("reverb", tail_ms=1), stream(impulse)))) == TICK + 16


def test_bad_samples_silence_turns_and_a_last_frame_with_sound():
    node, bad = chain("reverb", tail_ms=0), noise(TICK)
    bad[:3] = np.nan, np.inf, -np.inf
    turn = Frame.turn("audio", position=TICK, flags=HEARD, epoch=2)
    last = Frame.of("audio", noise(100), position=TICK, flags=GENERATED | 4, epoch=2)
    state = node.init_state(info())
    out = ordered(give(node, [*stream(bad, end=False), turn, last], state))
    assert state.info.metrics.counters == {"fx.not_finite": 3}
    assert [(f.turns, f.generated, f.epoch, f.shape[0]) for f in out] == [
        (False, False, 0, TICK), (True, False, 2, 0), (False, True, 2, 100), (False, False, 2, 0),
    ]  # fmt: skip
    assert not samples(through(node, stream(np.zeros(TICK, np.float32)))).any(), "sessions share nothing"


def test_settings_can_be_changed_while_it_runs():
    node = chain({"type": "gain", "gain_db": 0}, {"type": "lowpass"})
    state = node.init_state(info())
    give(node, [Frame.control("set", node="other", gain_db=-60), Frame.control("mute", gain_db=-60)], state)
    assert state.board[0].gain_db == 0
    give(node, [Frame.control("set", gain_db=-60, cutoff_frequency_hz=50, q="x")], state)
    assert (state.board[0].gain_db, state.board[1].cutoff_frequency_hz) == (-60, 50)
    give(node, [Frame.control("set", gain_db=value) for value in (900, "loud", True, None)], state)
    assert state.info.metrics.counters == {"fx.refused_controls": 4}
    assert node.config.chain[0]["gain_db"] == 0


def test_a_restored_session_begins_with_effects_at_rest():
    node = chain("reverb")
    assert node.restorable is False
    state = node.init_state(info())
    give(node, stream(noise(TICK), end=False), state)
    assert not samples(give(node, stream(np.zeros(TICK, np.float32), end=False), again(node, state))).any()


@pytest.mark.parametrize(
    ("effect", "said"),
    [
        ({"type": "reverbb"}, "effect 1: type is 'reverbb'; expected one of reverb, delay"),
        ({}, "type is None"),
        ({"type": "reverb", "room": 1}, "reverb has no 'room'; it has room_size, damping"),
        ({"type": "reverb", "room_size": 2}, "room_size of reverb is 2.0; expected 0 to 1"),
        ({"type": "gain", "gain_db": "loud"}, "gain_db of gain is 'loud'; expected -60 to 24"),
        ({"type": "gain", "gain_db": float("nan")}, "gain_db"),
    ],
)
def test_a_chain_that_cannot_be_is_refused(effect, said):
    with pytest.raises(ValidationError, match=said):
        chain(effect)


def test_without_the_library_it_says_what_to_install(monkeypatch):
    known = builtins.__import__

    def missing(name, *rest):
        if name == "pedalboard":
            raise ImportError("No module named 'pedalboard'", name=name)
        return known(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(PluginError, match="pip install pedalboard"):
        chain("reverb")
    assert Effects.type_name == "effects", "it is listed all the same"


@pytest.mark.parametrize("kind", sorted(EFFECTS))
def test_it_keeps_the_contract_of_a_node(kind):
    assert check_node(Effects, {"chain": [{"type": kind}], "tail_ms": 100}) == []


GRAPH = "{nodes: {in: sounds, fx: {type: effects, chain: [%s]}, out: keep}, edges: [in -> fx -> out]}"


async def test_in_a_graph_paused_and_restored():
    got = []
    with Graph.parse(GRAPH % "{type: gain, gain_db: 6}", registry=registry(Effects)) as graph:
        session = Session(graph, extra={"sound": noise(10 * TICK), "got": got})
        await run(graph, session, until=4 * TICK)
        await run(graph, Session.restore(graph, session.snapshot(), extra={"sound": noise(10 * TICK), "got": got}))
    assert [frame.position for frame in got] == [*range(0, 11 * TICK, TICK)]
    np.testing.assert_allclose(samples(got), noise(10 * TICK) * 10 ** (6 / 20), rtol=1e-5)


def test_a_config_with_a_wrong_effect_names_the_line():
    with pytest.raises(ConfigError, match=r"line 1.*has no 'wet'"):
        Graph.parse(GRAPH % "{type: reverb, wet: 1}", registry=registry(Effects))
