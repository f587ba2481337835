"""Live graphs without a sound card: turns of a graph are those of one session of the model, to the bit."""

import graphs
import numpy as np
import pytest
from turn_taking import PATTERNS, Loud, live, sounding

from audiolm import AudioLM
from streamer import Graph, Session, run
from streamer.frame import GENERATED, HEARD
from streamer.nodes import turns

TICK = 640
LOGGED = ("semantic", "coarse", "fine", "decoder")


@pytest.fixture(autouse=True)
def loud(monkeypatch):
    monkeypatch.setattr(turns, "make_detector", lambda kind: Loud())


def steps_of(pattern, mode):
    """What a session does, by a second telling of the rules: `(ticks, heard)` for each of its steps."""
    if mode == "duet":
        first = pattern.index("x")
        return [(i, pattern[i] == "x") for i in range(first, len(pattern))]
    steps, held, silent, sounded, going = [], [], 0, 0, False
    for i, sign in enumerate(pattern):
        if going and sign != "x":
            steps.append((None, False))
            held = [*held, i][-2:]
        elif sign == "x":
            going, silent, sounded = False, 0, 1 if going else sounded + 1
            steps += [(each, True) for each in [*held, i]]
            held = []
        else:
            silent += bool(sounded)
            held = [*held, i] if sounded else [*held, i][-2:]
            if silent == 3:
                going, held, silent = True, [], 0
                steps += [(None, False)] * 2
    return steps


def by_session(bundle, sound, pattern, mode):
    """The same turns through `audiolm.Session`."""
    ticks = sound.reshape(-1, TICK)
    with AudioLM.load(bundle).session(mode=mode, seed=5) as session:
        out = []
        for index, heard in steps_of(pattern, mode):
            if index is None:
                out.append(session.generate())
            else:
                out.append(session.listen(ticks[index], **({} if heard else {"heard": False})))
    return out


DUETS = ["..xxxxxx....xxxx...x.x..x...", "xxxxx......xxxxxx"]


CASES = [("mic_continue", "continue", pattern) for pattern in PATTERNS] + [("duet", "duet", p) for p in DUETS]


@pytest.mark.parametrize("kind", ["depth", "delay", "flat"])
@pytest.mark.parametrize("case", CASES)
def test_the_turns_of_a_graph_are_those_of_a_session(play, bundles, case, kind):
    config, mode, pattern = case
    sound = sounding(pattern)
    expected = by_session(bundles[kind], sound, pattern, mode)
    got = play(
        live(config), "session.seconds=null", bundle=bundles[kind], logged=LOGGED,
        sessions=[{"seed": 5, "extra": {"sound": sound}}],
    )[0]  # fmt: skip
    fine = {position: (flags, tokens) for position, flags, tokens in got.tokens["fine"]}
    for tick in expected:
        flags, tokens = fine[tick.position]
        assert flags & (HEARD | GENERATED) == (GENERATED if tick.generated else HEARD), tick.position // TICK
        assert tokens == tick.codes.tolist(), (tick.position // TICK, tick.generated)
    assert np.array_equal(
        got.int16[: len(expected) * TICK], graphs.as_int16(np.concatenate([t.audio for t in expected]))
    )
    assert sum(tick.generated for tick in expected) > 5


@pytest.mark.parametrize("pattern", PATTERNS)
def test_turns_do_not_depend_on_pieces_lanes_or_packing(play, bundle, pattern):
    sound = sounding(pattern)
    cuts = np.random.default_rng(0).integers(1, len(sound), 90).tolist()
    one_lane = live("mic_continue").split("lanes:")[0]

    def sha256(text, *settings, **extra):
        given = {"sessions": [{"seed": 5, "extra": {"sound": sound} | extra}], "logged": ()}
        return play(text, "session.seconds=null", *settings, **given)[0].sha256

    usual = sha256(live("mic_continue"))
    assert sha256(live("mic_continue"), cuts=cuts) == usual
    assert sha256(one_lane) == usual
    assert sha256(live("mic_continue"), "packed=true") == usual


WITHOUT_SEMANTICS = {
    "mode: continue": "mode: acoustic_only",
    "turns -> semantic.tick": "turns -> coarse.tick",
    "  - semantic_tokens -> semantic -> coarse": "  - coarse",
    "-> acoustic, semantic_tokens": "-> acoustic",
    "  semantic_tokens: semantic_tokens\n  semantic: semantic\n": "",
    "[semantic_tokens, semantic, coarse, fine]": "[coarse, fine]",
}


def test_a_session_of_acoustic_tokens_alone_takes_turns_too(play, bundle):
    text = live("mic_continue")
    for old, new in WITHOUT_SEMANTICS.items():
        assert old in text
        text = text.replace(old, new)
    sound = sounding(PATTERNS[0])
    expected = by_session(bundle, sound, PATTERNS[0], "acoustic_only")
    got = play(text, "session.seconds=null", sessions=[{"seed": 5, "extra": {"sound": sound}}], logged=("fine",))[0]
    assert [tokens for _, _, tokens in got.tokens["fine"]][: len(expected)] == [
        tick.codes.tolist() for tick in expected
    ]


def test_what_is_generated_after_an_interruption_is_of_the_next_epoch(play, bundle):
    sound, got = sounding(PATTERNS[1]), []
    text = live("mic_continue").replace("output: {type: file_out}", "output: {type: file_out}\n  keep: keep")
    text = text.replace("decoder -> output", "decoder -> output, keep")
    play(text, "session.seconds=null", sessions=[{"extra": {"sound": sound, "got": got}}], logged=())
    epochs = [frame.epoch for _, frame in got if frame.generated and frame.payload]
    assert sorted(epochs) == epochs
    assert set(epochs) == {0, 1, 2}


@pytest.mark.parametrize("tick", [3, 9, 11, 16, 21])
async def test_restored_in_any_turn_it_goes_on_to_the_same_file(bundle, tmp_path, tick):
    pattern = PATTERNS[1]
    extra, files = {"sound": sounding(pattern), "cuts": range(TICK, len(pattern) * TICK, TICK)}, []
    for until in (None, tick * TICK):
        files.append(tmp_path / f"{until}.wav")
        own = [f"bundle={bundle}", f"nodes.output.path={files[-1]}", "session.seconds=null"]
        graph = Graph.parse(live("mic_continue"), graphs.registry(), overrides=own)
        with graph:
            session = Session(graph, extra=extra)
            await run(graph, session, until=until)
            if until is not None:
                assert session.status == "paused"
                await run(graph, Session.restore(graph, session.snapshot(), extra=extra))
    assert files[0].read_bytes() == files[1].read_bytes()
