"""The ears and the mouth as nodes: chunks, ends, marks, snapshots, and sessions side by side."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiolm.watermark import Marker
from streamer import ConfigError, InputError
from streamer.frame import GENERATED, HEARD, Frame
from streamer.node import Build, SessionInfo
from streamer.nodes.ears import AcousticNode, DecoderNode, SemanticTokensNode

TICK = 640
LOOKAHEAD = 2
TICKS = 8


def made(kind, bundle, slots=1, shared=None, **config):
    return kind(kind.Config(**config), Build("ear", bundle=bundle, slots=slots, shared=shared or {}))


@pytest.fixture(scope="module")
def acoustic(tiny_bundle):
    return made(AcousticNode, tiny_bundle, slots=4)


@pytest.fixture(scope="module")
def semantic_tokens(tiny_bundle):
    return made(SemanticTokensNode, tiny_bundle, slots=4)


@pytest.fixture(scope="module")
def decoder(tiny_bundle):
    return made(DecoderNode, tiny_bundle, slots=4)


@pytest.fixture(scope="module")
def sound():
    t = np.arange(TICKS * TICK + 55)
    wave = 0.2 * np.sin(t * 0.17) * (1 + np.sin(t / 900)) + np.random.default_rng(0).normal(0, 0.02, len(t))
    return wave.astype(np.float32)


def audio(sound, cuts=(), **meta):
    """Frames of the pieces between the cuts, and the end."""
    edges = [0, *sorted(cuts), len(sound)]
    pieces = [(a, sound[a:b]) for a, b in itertools.pairwise(edges)]
    frames = [Frame.of("audio", piece, position=at, flags=HEARD, meta=meta) for at, piece in pieces]
    return [*frames, Frame.end("audio", position=len(sound))]


def through(node, frames, info=None, into="audio"):
    """What a session of its own gives: `(position, flags, values)`, and where it ends."""
    state = node.init_state(info or SessionInfo())
    try:
        found = [out for frame in frames for out in node.step(frame, state, into)]
    finally:
        node.close(state)
    assert [frame.last for frame in found] == [False] * (len(found) - 1) + [True]
    assert [frame.seq for frame in found] == list(range(len(found)))
    return plain(found[:-1]), found[-1].position


def plain(frames):
    return [(frame.position, frame.flags, frame.array.tolist()) for frame in frames]


def test_the_ears_give_a_frame_a_tick(acoustic, semantic_tokens, sound):
    codes, end = through(acoustic, audio(sound))
    assert [position for position, _, _ in codes] == [i * TICK for i in range(TICKS)]
    assert {flags for _, flags, _ in codes} == {HEARD}
    assert {np.shape(values) for _, _, values in codes} == {(2, 6)}
    tokens, other = through(semantic_tokens, audio(sound))
    assert [position for position, _, _ in tokens] == [i * TICK for i in range(TICKS - LOOKAHEAD)]
    assert {flags for _, flags, _ in tokens} == {HEARD}
    assert end == other == TICKS * TICK, "a part of a tick is no tick"


@settings(max_examples=10, deadline=None, database=None)
@given(cuts=st.lists(st.integers(1, TICKS * TICK + 54), max_size=20))
def test_any_chunks_give_the_same_tokens(acoustic, semantic_tokens, sound, cuts):
    for node in (acoustic, semantic_tokens):
        assert through(node, audio(sound, cuts)) == through(node, audio(sound))


def test_int16_is_the_same_sound(acoustic, sound):
    whole = np.round(sound * 32768).astype(np.int16)
    assert through(acoustic, audio(whole)) == through(acoustic, audio(whole.astype(np.float32) / 32768))


def test_an_end_that_brings_sound_counts_too(acoustic, sound):
    tick = Frame.of("audio", sound[:TICK], position=0, flags=HEARD)
    frames, end = through(acoustic, [tick.replace(flags=tick.flags | 4)])
    assert (len(frames), end) == (1, TICK)


@pytest.mark.parametrize("node", ["acoustic", "semantic_tokens"])
def test_nothing_heard_is_an_end_alone(request, node):
    assert through(request.getfixturevalue(node), audio(np.zeros(0, np.float32))[-1:]) == ([], 0)


@pytest.mark.parametrize("node", ["acoustic", "semantic_tokens"])
def test_another_rate_is_refused(request, node):
    ear = request.getfixturevalue(node)
    frame = Frame.of("audio", np.zeros(480, np.float32), position=0, rate=48000)
    with pytest.raises(InputError, match="takes sound at 16000 Hz, 48000 Hz came; resample"):
        through(ear, [frame])
    assert ear.engine.free == 4, "a slot is still taken"


def test_the_door_counts_what_it_meets(acoustic, sound):
    bad = sound.copy()
    bad[[5, 900]] = [np.nan, np.inf]
    info = SessionInfo()
    through(acoustic, audio(bad), info)
    counters = info.metrics.counters
    assert (counters["door.nan"], counters["door.inf"], counters["door.ticks"]) == (1, 1, TICKS)
    after, _ = through(acoustic, audio(np.concatenate([bad, sound])))
    assert all(np.ptp(codes) > 0 for _, _, codes in after[TICKS:]), "one bad sample has stuck"


def test_in_resynthesis_the_acoustic_ear_takes_the_voice_alone(acoustic, semantic_tokens, sound):
    info = SessionInfo(mode="resynthesize")
    voice = audio(sound[: 3 * TICK], [TICK], role="voice")[:-1]
    frames = [*voice, *audio(sound[: 2 * TICK])]
    assert through(acoustic, frames, info) == (through(acoustic, audio(sound[: 3 * TICK]))[0], 3 * TICK)
    tokens, end = through(semantic_tokens, frames, info)
    ahead = semantic_tokens.parts.ahead
    assert [position for position, _, _ in tokens] == [i * TICK for i in range(5 + ahead)]
    assert end == (5 + LOOKAHEAD + ahead) * TICK


@pytest.mark.parametrize("at", [0, 1, 4, TICKS])
@pytest.mark.parametrize("node", ["acoustic", "semantic_tokens"])
def test_a_saved_ear_goes_on_the_same(request, tiny_bundle, sound, node, at):
    ear = request.getfixturevalue(node)
    frames = audio(sound, range(500, len(sound), 500))
    whole, end = through(ear, frames)
    state = ear.init_state(SessionInfo())
    first = [out for frame in frames[:at] for out in ear.step(frame, state, "audio")]
    saved = ear.save(state)
    ear.close(state)
    other = made(type(ear), tiny_bundle, slots=4)
    state = other.load(saved, SessionInfo())
    rest = [out for frame in frames[at:] for out in other.step(frame, state, "audio")]
    assert plain(first + rest[:-1]) == whole
    assert rest[-1].position == end


def test_a_state_of_another_kind_is_refused_and_its_slot_is_free_again(acoustic, semantic_tokens):
    state = semantic_tokens.init_state(SessionInfo())
    saved = semantic_tokens.save(state)
    semantic_tokens.close(state)
    with pytest.raises(ConfigError, match="saved"):
        acoustic.load(saved, SessionInfo())
    assert acoustic.engine.free == 4


@pytest.mark.parametrize("node", ["acoustic", "semantic_tokens"])
def test_sessions_side_by_side_are_as_alone(request, sound, node, monkeypatch):
    """Of other lengths and other chunks; the sizes at a turn decide whether they share a call."""
    ear = request.getfixturevalue(node)
    given = [audio(sound, range(n, len(sound), n)) for n in (640, 640, 500)] + [audio(sound[TICK:])]
    alone = [through(ear, frames, SessionInfo(id=f"alone{i}")) for i, frames in enumerate(given)]
    calls = spy(monkeypatch, ear.engine, {"acoustic": "encode", "semantic_tokens": "listen"}[node])
    assert side_by_side(ear, given, "audio") == alone
    assert max(calls) >= 3
    assert sum(calls) > len(calls)


def spy(monkeypatch, engine, name):
    """The number of slots of each call."""
    calls, work = [], getattr(engine, name)
    monkeypatch.setattr(engine, name, lambda given: calls.append(len(given)) or work(given))
    return calls


def side_by_side(node, given, into):
    """Every session's frames through `step_many`, as long as it has some."""
    states = [node.init_state(SessionInfo(id=f"s{i}")) for i in range(len(given))]
    found = [[] for _ in given]
    for turn in range(max(map(len, given))):
        who = [i for i, frames in enumerate(given) if turn < len(frames)]
        outs = node.step_many([(given[i][turn], states[i], into) for i in who])
        for i, out in zip(who, outs, strict=True):
            found[i] += out
    for state in states:
        node.close(state)
    return [(plain(frames[:-1]), frames[-1].position) for frames in found]


# -- the decoder --


def fine(ticks=4, levels=6, per=1, flags=GENERATED, seed=0, **meta):
    codes = np.random.default_rng(seed).integers(0, 32, (ticks // per, 2 * per, levels))
    frames = [Frame.of("fine", c, position=i * per * TICK, flags=flags, meta=meta) for i, c in enumerate(codes)]
    return [*frames, Frame.end("fine", position=ticks * TICK)]


def test_the_decoder_gives_sound_marked_as_its_tokens(decoder):
    sounds, end = through(decoder, fine(flags=HEARD), into="fine")
    assert [(position, flags, len(values)) for position, flags, values in sounds] == [
        (i * TICK, HEARD, TICK) for i in range(4)
    ]
    assert end == 4 * TICK
    for flags in (GENERATED, 0):  # what says nothing of itself is not passed off as heard
        assert {found for _, found, _ in through(decoder, fine(flags=flags), into="fine")[0]} == {GENERATED}


@pytest.mark.parametrize(("flags", "marked"), [(GENERATED, True), (0, True), (HEARD, False)])
def test_what_is_generated_carries_the_watermark(decoder, flags, marked):
    on, off = (through(decoder, fine(flags=flags), SessionInfo(watermark=on), into="fine") for on in (True, False))
    marker = Marker()
    wanted = [marker.pass_on(np.array(values, np.float32), mark=marked).tolist() for *_, values in off[0]]
    assert [values for *_, values in on[0]] == wanted
    assert (on == off) is not marked


def test_the_voice_stays_marked(decoder):
    state = decoder.init_state(SessionInfo())
    (frame,) = decoder.step(fine(role="voice")[0], state, "fine")
    decoder.close(state)
    assert frame.meta == {"role": "voice"}


def test_several_ticks_at_once_are_the_same_sound(decoder):
    assert through(decoder, fine(per=2), into="fine") == through(decoder, fine(), into="fine")


@pytest.mark.parametrize("levels", [1, 2, 6])
def test_any_first_levels_decode(decoder, levels):
    sounds, _ = through(decoder, fine(levels=levels), into="fine")
    assert len(sounds) == 4


@pytest.mark.parametrize(
    ("array", "message"),
    [(np.zeros((2, 7)), r"takes tokens \[2 x ticks, up to 6\], \[2, 7\] came"), (np.zeros((3, 6)), r"\[3, 6\] came"),
     (np.full((2, 6), 32), "takes tokens from 0 to 31, 32 came; they are of another model")],
)  # fmt: skip
def test_tokens_that_do_not_fit_are_refused(decoder, array, message):
    with pytest.raises(InputError, match=message):
        through(decoder, [Frame.of("fine", array.astype(int), position=0)], into="fine")


def test_a_saved_decoder_goes_on_the_same(decoder, tiny_bundle):
    frames = fine()
    whole, _ = through(decoder, frames, into="fine")
    state = decoder.init_state(SessionInfo())
    first = [out for frame in frames[:2] for out in decoder.step(frame, state, "fine")]
    saved = decoder.save(state)
    decoder.close(state)
    other = made(DecoderNode, tiny_bundle, slots=4)
    state = other.load(saved, SessionInfo())
    rest = [out for frame in frames[2:] for out in other.step(frame, state, "fine")]
    assert plain(first + rest[:-1]) == whole


def test_a_decoder_that_was_saved_before_there_was_a_mark_goes_on(decoder):
    state = decoder.init_state(SessionInfo())
    saved = {key: value for key, value in decoder.save(state).items() if key != "marker"}
    decoder.close(state)
    decoder.close(decoder.load(saved, SessionInfo()))


def test_decoders_side_by_side_are_as_alone(decoder, monkeypatch):
    given = [fine(6), fine(4, seed=1), fine(4, levels=2), fine(6, per=2, seed=2)]
    alone = [through(decoder, frames, SessionInfo(id=f"alone{i}"), "fine") for i, frames in enumerate(given)]
    calls = spy(monkeypatch, decoder.engine, "decode")
    assert side_by_side(decoder, given, "fine") == alone
    assert max(calls) >= 2


def test_one_session_that_is_refused_does_not_end_the_batch(tiny_bundle):
    node = made(AcousticNode, tiny_bundle, slots=2)
    states = [node.init_state(SessionInfo(id=name)) for name in ("good", "bad")]
    tick = Frame.of("audio", np.zeros(640, np.float32), position=0, flags=HEARD)
    good, bad = node.step_many([(tick, states[0], "audio"), (tick.replace(rate=8000), states[1], "audio")])
    assert [frame.kind for frame in good] == ["acoustic"]
    with pytest.raises(InputError, match="8000 Hz came"):
        next(iter(bad))
    for state in states:
        node.close(state)
