"""One stream to many speakers: constant power, inverse distance, and moves without clicks."""

import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from streamer import GENERATED, HEARD, Frame, Graph, InputError, Session, run
from streamer.contract import check_node

sys.path.insert(0, str(Path(__file__).parent))
from plugin_sounds import SIZES, TICK, again, give, info, made, noise, ordered, registry, samples, stream, through

from plugins.spatial import Spatial

ROOM = {"left": [-2, 0], "right": [2, 0], "back": [0, 3, 1]}


def speaker(name="left", **settings):
    return made(Spatial, name, **({"speakers": ROOM, "speaker": name, "at": [0.5, 0.5]} | settings))


def at(place, name="left", **settings):
    return float(speaker(name, **settings).gains(np.array([[*place, 0.0][:3]]))[0])


@pytest.mark.parametrize("place", [[0, 0], [-2, 0], [1.5, 2], [300, -40, 7]])
def test_the_power_is_the_same_wherever_the_sound_is(place):
    assert sum(at(place, name) ** 2 for name in ROOM) == pytest.approx(1)


def test_the_nearer_the_louder_by_the_inverse_of_the_distance():
    assert at([-1, 0], blur_m=1e-6) / at([-1, 0], "right", blur_m=1e-6) == pytest.approx(3)
    assert at([-2, 0]) > 0.99
    assert at([0, 0]) == at([0, 0], "right")
    gains = [at([x, 0]) for x in np.linspace(-2, 2, 9)]
    assert gains == sorted(gains, reverse=True)


def moving(sizes, name="left"):
    """A sound that moves twice, the second time while it is still on its way."""
    node, sound = speaker(name), noise(8 * TICK)
    state = node.init_state(info("audio", "control"))
    out = give(node, stream(sound[:1280], sizes, end=False), state)
    give(node, [Frame.control("set", x=2.0, y=1.0, glide_ms=200)], state)
    out += give(node, stream(sound[1280:2560], sizes, start=1280, end=False, epoch=1), state)
    give(node, [Frame.control("set", x=-2.0, glide_ms=40)], state)
    return out + give(node, stream(sound[2560:], sizes, start=2560, flags=GENERATED, epoch=1), state), state


@pytest.mark.parametrize("sizes", [SIZES, (1, 1279), (100_000,)])
def test_any_chunking_gives_the_same_samples(sizes):
    whole, _ = moving((TICK,))
    cut, state = moving(sizes)
    np.testing.assert_array_equal(samples(cut), samples(whole))
    assert state.places(np.array([8 * TICK])).tolist() == [[-2.0, 1.0, 0.0]]
    assert {(frame.generated, frame.epoch) for frame in cut} == {(False, 0), (False, 1), (True, 1)}
    assert cut[-1].last
    assert cut[-1].position == 8 * TICK


def test_a_move_has_no_click_and_keeps_the_power_all_the_way():
    power = sum((samples(moving(SIZES, name)[0]).astype(float) / noise(8 * TICK)) ** 2 for name in ROOM)
    np.testing.assert_allclose(power, 1, rtol=1e-5)
    gain = samples(moving((TICK,))[0]).astype(float) / noise(8 * TICK)
    assert np.abs(np.diff(gain)).max() < 0.01


def test_saved_and_loaded_in_the_middle_of_a_move_it_goes_on_the_same():
    node, sound = speaker(), noise(4 * TICK)
    frames = [*stream(sound[:TICK], end=False), Frame.control("set", x=2, glide_ms=80)]
    rest = stream(sound[TICK:], SIZES, start=TICK)
    whole = through(node, [*frames, *rest])
    state = node.init_state(info())
    first = give(node, [*frames, rest[0]], state)
    assert [f.pack() for f in first + give(speaker(), rest[1:], again(node, state))] == [f.pack() for f in whole]


def test_who_is_meant_moves_and_nonsense_is_counted():
    node = speaker(sound="bird")
    state = node.init_state(info())
    give(node, [Frame.control("set", node="cat", x=1.0), Frame.control("mute", x=1.0)], state)
    assert state.go.tolist() == [0.5, 0.5, 0]
    for name in ("bird", "left"):
        give(node, [Frame.control("set", node=name, x=1.0, z=2)], state)
    assert state.go.tolist() == [1, 0.5, 2]
    for values in ({"x": "far"}, {"y": float("nan")}, {"z": 1e9}, {"x": 0, "glide_ms": -1}, {"x": True}):
        give(node, [Frame.control("set", **values)], state)
    assert state.info.metrics.counters == {"left.refused_controls": 5}
    assert state.go.tolist() == [1, 0.5, 2]


def test_bad_samples_silence_and_the_ends():
    node, bad = speaker(), noise(TICK)
    bad[5] = np.nan
    turn = Frame.turn("audio", position=TICK, flags=HEARD, meta={"role": "x"})
    out = through(node, [*stream(bad, end=False), turn, *stream(np.zeros(TICK, np.float32), start=TICK)])
    assert samples(out)[5] == 0
    assert not samples(out)[TICK:].any()
    assert [(f.turns, f.last) for f in out] == [(False, False), (True, False), (False, False), (False, True)]
    assert out[1].meta == {"role": "x"}
    with pytest.raises(InputError, match="8000 Hz came"):
        through(node, [Frame.of("audio", bad, position=0, rate=8000)])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"speaker": "ceiling"}, "'ceiling' has no place; those that have: left, right, back"),
        ({"at": [1]}, r"at: \[1.0\]; expected \[x, y\]"),
        ({"speakers": {}}, "at least 1"),
        ({"speakers": {"left": [0, 1e4]}}, "at most 1000 m away"),
    ],
)
def test_a_room_that_cannot_be_is_refused(settings, said):
    with pytest.raises(ValidationError, match=said):
        speaker(**settings)


def test_it_keeps_the_contract_of_a_node():
    assert check_node(Spatial, {"speakers": ROOM, "speaker": "back", "at": [1, 1]}) == []


GRAPH = """
nodes:
  in: {{type: sounds, size: 320}}
{speakers}
  out: {{type: mixer, limit: false}}
  end: keep
edges:
  - in -> left -> out.a
  - in -> right -> out.b
  - in -> back -> out.c
  - out -> end
"""


async def test_a_room_of_three_speakers_is_one_graph_and_one_command_moves_them_all():
    from plugins.mixer import Mixer

    line = "  {name}: {{type: spatial, speakers: {room}, speaker: {name}, at: [-2, 0], glide_ms: 0}}"
    text = GRAPH.format(speakers="\n".join(line.format(name=name, room=ROOM) for name in ROOM))
    got, gains = [], {}
    with Graph.parse(text, registry=registry(Spatial, Mixer)) as graph:
        session = Session(graph, extra={"sound": np.ones(4 * TICK, np.float32), "got": got})
        session.send("set", position=2 * TICK, x=2.0, y=0.0)
        await run(graph, session)
        gains = {name: session.metrics.gauges[f"{name}.gain"] for name in ROOM}
    sound = samples(ordered(got))
    assert sound[0] == pytest.approx(sum(at([-2, 0], name) for name in ROOM), abs=1e-5)
    assert sound[-1] == pytest.approx(sum(at([2, 0], name) for name in ROOM), abs=1e-5)
    assert gains == pytest.approx({name: at([2, 0], name) for name in ROOM}, abs=1e-4)
