"""The gate: what is found passes whole, with its onset; the rest is silence or a gap; the same for any chunking."""

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from streamer import GENERATED, HEARD, ConfigError, Frame, Graph, InputError, Session, run
from streamer.contract import check_node

sys.path.insert(0, str(Path(__file__).parent))
from plugin_sounds import (
    SIZES,
    TICK,
    again,
    give,
    info,
    made,
    noise,
    ordered,
    registry,
    samples,
    stream,
    through,
    timeline,
)

from plugins import gate
from plugins.gate import Gate

ASSETS = Path(__file__).parents[2] / "assets"
SHORT = {"look_back_ms": 80, "hold_ms": 40, "fade_ms": 10}
FADE = 160  # samples


class Loud:
    """Active above a level; its state is the number of ticks."""

    def init_state(self):
        return {"ticks": 0}

    def step(self, tick, state):
        assert tick.shape == (TICK,)
        state["ticks"] += 1
        return type("Heard", (), {"active": bool(np.abs(tick).max() > 0.05)})

    def save(self, state):
        return dict(state)

    def load(self, saved):
        return dict(saved)


@pytest.fixture
def loud(monkeypatch):
    monkeypatch.setattr(gate, "make_detector", lambda kind: Loud())


def pattern(text):
    """`x`: a loud tick, `.`: a faint one; no sample is 0."""
    return np.concatenate([np.full(TICK, 0.5 if sign == "x" else 0.01, np.float32) for sign in text])


def shape(frames, length):
    """For each tick of the output: `x` as it came, `.` silence, `/` and `\\` fades, `_` a gap."""
    sound, out = np.full(length, np.nan, np.float32), ""
    for frame in frames:
        sound[frame.position : frame.position + frame.shape[0]] = frame.array
    for tick in sound.reshape(-1, TICK):
        there = tick[np.isfinite(tick)]
        if not len(there):
            out += "_"
        elif not there.any():
            out += "."
        else:
            steps = np.diff(there)
            out += "/" if (steps > 0).any() else "\\" if (steps < 0).any() else "x"
    return out


@pytest.mark.usefixtures("loud")
@pytest.mark.parametrize(
    ("text", "silence", "left_out"),
    [
        ("......xx......", "..../xxxx\\....", "____/xxxx\\____"),
        ("x....x........", "/x\\/xxx\\......", "/x\\/xxx\\______"),
        ("..............", "..............", "______________"),
        (".............x", ".........../xx", "___________/xx"),
        ("x.x.x.x.x.x.x.", "/xxxxxxxxxxxxx", "/xxxxxxxxxxxxx"),
    ],
)
def test_it_opens_before_the_onset_and_closes_after_the_hold(text, silence, left_out):
    sound = pattern(text)
    for rest, expected in (("silence", silence), ("leave_out", left_out)):
        out = ordered(through(made(Gate, **SHORT, rest=rest), stream(sound)))
        assert shape(out, len(sound)) == expected
        assert out[-1].position == len(sound)
        assert len(samples(out)) == len(sound) or rest == "leave_out"


@pytest.mark.usefixtures("loud")
def test_open_it_changes_nothing_and_its_edges_do_not_click():
    sound = pattern("....xxxx......")
    out = samples(through(made(Gate, **SHORT), stream(sound)))
    inside = slice(2 * TICK + FADE, 9 * TICK)
    np.testing.assert_array_equal(out[inside], sound[inside])
    closing = out[9 * TICK : 10 * TICK]
    assert (closing[FADE:] == 0).all()
    assert np.abs(np.diff(closing[: FADE + 1])).max() < 0.01 * 0.02
    short = samples(through(made(Gate, **SHORT, rest="leave_out"), stream(sound)))
    assert len(short) == 7 * TICK + FADE


@pytest.mark.usefixtures("loud")
@pytest.mark.parametrize("rest", ["silence", "leave_out"])
@pytest.mark.parametrize("sizes", [SIZES, (1, 4000), (100_000,)])
def test_any_chunking_gives_the_same_samples_flags_and_epochs(rest, sizes):
    def story(pieces):
        first = stream(pattern("..x...x.."), pieces, end=False)
        turn = Frame.turn("audio", position=9 * TICK, flags=HEARD)
        made_ = stream(pattern("x..x")[:-100], pieces, start=9 * TICK, flags=GENERATED, epoch=1, end=False)
        return [*first, turn, *made_, *stream(pattern("..x")[:-1], pieces, start=20 * TICK, epoch=1)]

    node = made(Gate, **SHORT, rest=rest)
    whole, cut = ordered(through(node, story((TICK,)))), ordered(through(node, story(sizes)))
    assert timeline(cut) == timeline(whole)
    turns = [[frame.position for frame in out if frame.turns] for out in (whole, cut)]
    assert turns == [[9 * TICK]] * 2
    place = next(place for place, frame in enumerate(cut) if frame.turns)
    assert all(frame.position < 9 * TICK for frame in cut[:place]), "what waits is given before the turn ends"


@pytest.mark.usefixtures("loud")
@pytest.mark.parametrize("stop", range(0, 12, 2))
def test_saved_and_loaded_it_goes_on_the_same(stop):
    node, frames = made(Gate, **SHORT), stream(pattern("..xx....x...x.."), SIZES, flags=GENERATED, epoch=3)
    whole = through(node, frames)
    state = node.init_state(info())
    first = give(node, frames[:stop], state)
    rest = give(made(Gate, **SHORT), frames[stop:], again(node, state))
    assert [frame.pack() for frame in first + rest] == [frame.pack() for frame in whole]


@pytest.mark.usefixtures("loud")
def test_it_says_how_much_it_lags_and_holds_no_more():
    node = made(Gate, look_back_ms=100)
    assert Gate.facts(node.config, node.build).delay == 3 * TICK
    state = node.init_state(info())
    for frame in stream(noise(50 * TICK), end=False):
        give(node, [frame], state)
        assert len(state.waiting) <= 3
    assert made(Gate, look_back_ms=0)._back == 0
    assert len(samples(through(made(Gate, look_back_ms=0, hold_ms=0), stream(pattern("..x.."))))) == 5 * TICK


@pytest.mark.usefixtures("loud")
def test_bad_samples_empty_streams_and_other_rates():
    node, bad = made(Gate), noise(TICK)
    bad[7] = np.nan
    state = node.init_state(info())
    out = ordered(give(node, stream(bad), state))
    assert samples(out)[7] == 0
    assert state.info.metrics.counters == {"node.not_finite": 1}
    assert [frame.last for frame in through(node, stream(bad[:0]))] == [True]
    with pytest.raises(InputError, match="8000 Hz came"):
        through(node, [Frame.of("audio", bad, position=0, rate=8000)])


def room(seconds, seed=0):
    return 1e-4 * np.random.default_rng(seed).standard_normal(round(seconds * 16_000)).astype(np.float32)


@pytest.mark.parametrize(("passes", "asset"), [("music", "piano"), ("speech", "speech")])
def test_with_its_detector_the_sound_passes_whole_and_the_room_does_not(passes, asset):
    if passes == "speech":
        pytest.importorskip("onnxruntime")
    sound = soundfile.read(ASSETS / f"prompt_{asset}.flac", dtype="float32")[0][: 2 * 16_000]
    whole = np.concatenate([room(2), sound + room(2, 1), room(3, 2)])
    out = samples(ordered(through(made(Gate, passes=passes), stream(whole, (1600,)))))
    assert len(out) == len(whole)
    assert not out[:16_000].any()
    assert not out[-16_000:].any()
    power = np.square(sound.reshape(-1, TICK)).mean(axis=1)
    loud_ticks = np.flatnonzero(power > power.max() * 1e-3) + 2 * 16_000 // TICK
    passed = [(out == whole)[tick * TICK : (tick + 1) * TICK].all() for tick in loud_ticks]
    assert passed[0], "the onset is not cut"
    assert np.mean(passed) > 0.9


def test_it_takes_only_detectors_that_there_are(monkeypatch):
    with pytest.raises(ConfigError, match="birdsong"):
        Graph.parse(GRAPH % "birdsong", registry=registry(Gate))


@pytest.mark.parametrize(
    "settings", [{"passes": "music"}, {"passes": "music", "rest": "leave_out"}, {"passes": "speech"}]
)
def test_it_keeps_the_contract_of_a_node(settings):
    if settings["passes"] == "speech":
        pytest.importorskip("onnxruntime")
    assert check_node(Gate, settings) == []


GRAPH = "{nodes: {in: sounds, door: {type: gate, passes: %s}, out: keep}, edges: [in -> door -> out]}"


async def test_in_a_graph_paused_and_restored():
    piano = soundfile.read(ASSETS / "prompt_piano.flac", dtype="float32")[0][:24_000]
    sound = np.concatenate([room(0.5), piano, room(1)])
    got = []
    with Graph.parse(GRAPH % "music", registry=registry(Gate)) as graph:
        session = Session(graph, extra={"sound": sound, "got": got})
        await run(graph, session, until=16 * TICK)
        await run(graph, Session.restore(graph, session.snapshot(), extra={"sound": sound, "got": got}))
    expected = samples(through(made(Gate, passes="music"), stream(sound)))
    np.testing.assert_array_equal(samples(ordered(got)), expected)
    assert expected.any()
