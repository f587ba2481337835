"""The mixer: sums by position, whatever the chunking and the order of arrival; never beyond full scale."""

import asyncio
import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from streamer import GENERATED, HEARD, TURN, Frame, Graph, InputError, Session, Source, run
from streamer.contract import check_node

sys.path.insert(0, str(Path(__file__).parent))
from plugin_sounds import (
    SIZES,
    TICK,
    Keep,
    again,
    give,
    info,
    made,
    noise,
    ordered,
    registry,
    samples,
    stream,
    timeline,
)

from plugins.mixer import KNEE, Mixer, bent


def feed(node, streams, state=None, stop=None):
    """Let the node take what it wants until it has taken `stop` frames, or everything."""
    state = state or node.init_state(info(*streams))
    left = {name: list(frames) for name, frames in streams.items()}
    out, taken = [], 0
    while any(left.values()) and taken != stop:
        wanted = node.wants(state) or [name for name, frames in left.items() if frames]
        name = min(wanted)
        out += node.step(left[name].pop(0), state, name)
        taken += 1
    return out, state, left


def plain(**settings):
    return made(Mixer, "mix", **({"limit": False} | settings))


def test_inputs_are_added_at_their_positions_and_gains():
    a, b = noise(3 * TICK), noise(TICK, 1)
    streams = {"a": stream(a), "b": stream(b, start=TICK, flags=GENERATED)}
    out, state, _ = feed(plain(gains_db={"b": -6}), streams)
    expected = a.astype(np.float64)
    expected[TICK : 2 * TICK] += b.astype(np.float64) * 10 ** (-6 / 20)
    np.testing.assert_array_equal(samples(ordered(out)), expected.astype(np.float32))
    assert [frame.generated for frame in out if frame.payload] == [False, True, False]
    assert [bool(frame.flags & HEARD) for frame in out if frame.payload] == [True, False, True]
    assert state.at == out[-1].position == 3 * TICK


@pytest.mark.parametrize("sizes", [SIZES, (1000, 3), (100_000,)])
@pytest.mark.parametrize("limit", [True, False])
def test_any_chunking_gives_the_same_samples_flags_and_epochs(sizes, limit):
    sounds = {"a": noise(4000, 1, 0.9), "b": noise(3000, 2, 0.9), "c": noise(500, 3, 0.9)}
    places = {"a": (0, HEARD, 0), "b": (777, GENERATED, 2), "c": (6000, HEARD, 3)}

    def streams(pieces):
        return {
            name: stream(sounds[name], pieces, start=start, flags=flags, epoch=epoch)
            for name, (start, flags, epoch) in places.items()
        }

    whole, _, _ = feed(plain(limit=limit), streams((TICK,)))
    cut, _, _ = feed(plain(limit=limit), streams(sizes))
    assert timeline(ordered(cut)) == timeline(ordered(whole))
    assert 5999 not in timeline(whole), "where nothing sounds the mix leaves a gap"
    assert max(abs(samples(whole))) <= 1 or not limit


@pytest.mark.parametrize("stop", [0, 1, 4, 9, 15])
def test_saved_and_loaded_it_goes_on_the_same(stop):
    streams = {"a": stream(noise(4000)), "b": stream(noise(3000, 1), SIZES, start=500, flags=GENERATED, epoch=1)}
    whole, _, _ = feed(plain(), streams)
    node = plain()
    first, state, left = feed(node, streams, stop=stop)
    rest, _, _ = feed(plain(), left, again(node, state))
    assert [frame.pack() for frame in first + rest] == [frame.pack() for frame in whole]


def test_a_stream_that_ends_early_is_silence():
    out, _, _ = feed(plain(), {"a": stream(noise(TICK // 2)), "b": stream(noise(5 * TICK, 1))})
    assert len(samples(ordered(out))) == 5 * TICK
    np.testing.assert_array_equal(samples(out)[TICK:], noise(5 * TICK, 1)[TICK:])


def test_nothing_clips_and_what_is_quiet_is_not_touched():
    loud = np.linspace(-50, 50, 20_001)
    made_ = bent(loud)
    assert np.abs(made_).max() <= 1
    assert (np.diff(made_) >= 0).all()
    quiet = np.abs(loud) <= KNEE
    np.testing.assert_array_equal(made_[quiet], loud[quiet])
    everything, _, _ = feed(made(Mixer), {name: stream(np.full(TICK, 1e38, np.float32)) for name in "abcdefgh"})
    assert samples(everything).max() == 1.0


def test_what_is_no_number_is_silence_and_counted():
    bad = noise(TICK)
    bad[10], bad[20] = np.nan, np.inf
    out, state, _ = feed(plain(), {"a": stream(bad), "b": stream(np.zeros(TICK, np.float32))})
    assert samples(ordered(out))[10] == samples(out)[20] == 0
    assert state.info.metrics.counters["mix.not_finite"] == 2


def test_ends_of_turns_come_where_they_belong():
    heard = [*stream(noise(TICK), end=False), Frame.turn("audio", position=TICK, flags=HEARD, epoch=4)]
    heard += stream(noise(TICK), start=TICK, epoch=4)
    out, _, _ = feed(plain(), {"a": heard, "b": stream(noise(3 * TICK, 1), (1000,))})
    turns = [frame for frame in ordered(out) if frame.flags & TURN]
    assert [(frame.position, frame.payload, frame.epoch) for frame in turns] == [(TICK, b"", 4)]
    before = out[: out.index(turns[0])]
    assert before[-1].position + before[-1].shape[0] == TICK
    assert {frame.epoch for frame in out[out.index(turns[0]) :]} == {4}


def test_live_it_goes_on_without_an_input_that_is_behind():
    node = plain(wait_ms=80)
    assert node.merge == "arrival"
    assert plain().merge == "position"
    state = node.init_state(info("a", "b"))
    a = stream(noise(5 * TICK))
    out = give(node, a[:3], state, "a")
    assert len(samples(out)) == TICK, "two ticks wait for the other input"
    assert node.wants(state) is None
    out += give(node, stream(noise(2 * TICK, 1), end=False), state, "b")
    assert state.info.metrics.counters == {"mix.late_samples": TICK}
    out += give(node, a[3:], state, "a")
    out += give(node, stream(noise(1, 1), start=9 * TICK), state, "b")
    expected = noise(5 * TICK)
    expected[TICK : 2 * TICK] += noise(2 * TICK, 1)[TICK:]
    np.testing.assert_allclose(samples(ordered(out))[:-1], expected, atol=1e-7)
    assert len(state.strands["a"].frames) == 0


def test_a_gain_is_reached_smoothly_and_nonsense_is_counted():
    node, ones = plain(gains_db={"a": 0}), np.ones(TICK, np.float32)
    state = node.init_state(info("a", "control"))
    give(node, stream(ones, end=False), state, "a")
    give(node, [Frame.control("set", a_db=-96), Frame.control("set", node="other", a_db=3)], state)
    down = samples(give(node, stream(ones, SIZES, start=TICK, end=False), state, "a"))
    assert down[0] == 1
    assert (np.diff(down[:320]) < 0).all()
    assert not down[320:].any()
    give(node, [Frame.control("set", a_db=None)], state)
    assert samples(give(node, stream(ones, start=2 * TICK, end=False), state, "a"))[-1] == 1
    give(node, [Frame.control("set", a_db=value) for value in ("loud", True, 1e9, float("nan"))], state)
    assert state.info.metrics.counters["mix.refused_controls"] == 4
    assert samples(give(node, stream(ones, start=3 * TICK), state, "a")).tolist() == ones.tolist()


@pytest.mark.parametrize("seed", range(20))
def test_made_up_streams_with_gaps_give_what_a_plain_sum_gives(seed):
    rng = np.random.default_rng(seed)
    streams, total, own = {}, {}, set()
    for name in "abc"[: rng.integers(1, 4)]:
        at, frames = 0, []
        for _ in range(rng.integers(0, 12)):
            at += int(rng.choice([0, 0, 1, 500, 3000]))
            piece, generated = noise(int(rng.integers(1, 1500)), int(rng.integers(1 << 30))), bool(rng.integers(2))
            frames += stream(piece, (700,), start=at, flags=GENERATED if generated else HEARD, end=False)
            for offset, value in enumerate(piece):
                total[at + offset] = total.get(at + offset, 0.0) + float(value)
            own |= set(range(at, at + len(piece))) if generated else set()
            at += len(piece)
        streams[name] = [*frames, Frame.end("audio", position=at)]
    found = timeline(ordered(feed(plain(), streams)[0]))
    assert {place: value for place, (value, _, _) in found.items()} == {
        place: float(np.float32(value)) for place, value in total.items()
    }
    assert {place for place, (_, generated, _) in found.items() if generated} == own


def test_what_it_cannot_take_is_refused():
    with pytest.raises(ValidationError, match="24"):
        made(Mixer, gains_db={"a": 25})
    with pytest.raises(ValidationError, match="'a', 'b'"):
        made(Mixer, gains_db={"z": 0})
    node = plain()
    with pytest.raises(InputError, match="48000 Hz came"):
        give(node, [Frame.of("audio", noise(8), position=0, rate=48_000)], node.init_state(info("a")), "a")


@pytest.mark.parametrize("settings", [{}, {"limit": False, "gains_db": {"a": -6}}])
def test_it_keeps_the_contract_of_a_node(settings):
    assert check_node(Mixer, settings) == []


GRAPH = """
nodes:
  one: {type: sounds, sound: one, size: 333}
  two: {type: sounds, sound: two, generated: true, start: 640}
  mix: {type: mixer, limit: false, gains_db: {b: -3}}
  out: keep
edges: [one -> mix.a, two -> mix.b, mix -> out]
"""


@pytest.mark.parametrize("until", [None, 640, 3000])
async def test_in_a_graph_and_paused_on_the_way(until):
    extra = {"one": noise(20_000), "two": noise(9000, 1), "got": []}
    with Graph.parse(GRAPH, registry=registry(Mixer)) as graph:
        session = Session(graph, extra=extra)
        await run(graph, session, until=until)
        if until:
            session = Session.restore(graph, session.snapshot(), extra=extra)
            await run(graph, session)
    expected = noise(20_000).astype(np.float64)
    expected[640:9640] += noise(9000, 1).astype(np.float64) * 10 ** (-3 / 20)
    np.testing.assert_array_equal(samples(ordered(extra["got"])), expected.astype(np.float32))
    assert {position for position, (_, generated, _) in timeline(extra["got"]).items() if generated} == set(
        range(640, 9640)
    )


class Held(Source):
    """Gives nothing before the event in `ctx.extra`, then one tick."""

    type_name = "held"
    emits = ("audio",)

    async def frames(self, ctx):
        await ctx.extra["event"].wait()
        for frame in stream(np.ones(TICK, np.float32)):
            yield frame.replace(session=ctx.id)


class Release(Keep):
    """Lets `held` go when it has had eight ticks."""

    type_name = "release"

    async def write(self, frame, ctx, into):
        await super().write(frame, ctx, into)
        if len(samples(ctx.extra["got"])) >= 8 * TICK:
            ctx.extra["event"].set()


async def test_live_nothing_hangs_on_a_source_that_stands_still():
    text = GRAPH.replace("limit: false,", "limit: false, wait_ms: 80,").replace("out: keep", "out: release")
    text = text.replace("{type: sounds, sound: two, generated: true, start: 640}", "held")
    extra = {"one": noise(12 * TICK), "got": [], "event": asyncio.Event()}
    with Graph.parse(text, registry=registry(Mixer, Held, Release)) as graph:
        session = Session(graph, extra=extra)
        await run(graph, session)
    np.testing.assert_array_equal(samples(ordered(extra["got"])), noise(12 * TICK))
    assert session.metrics.counters["mix.late_samples"] == TICK


def test_without_its_first_input_a_graph_is_refused():
    with pytest.raises(Exception, match="input 'a' is not connected"):
        Graph.parse(GRAPH.replace("mix.a", "mix.c"), registry=registry(Mixer))
