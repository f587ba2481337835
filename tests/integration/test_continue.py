"""The main job: a sound goes in, its continuation comes out. Streaming equals batch, to the bit."""

import asyncio

import graphs
import numpy as np
import pytest
import soundfile
from graphs import CONTINUE, TICK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audiolm import AudioLM
from audiolm.io import MARK, read_metadata
from streamer.frame import GENERATED, HEARD

PROMPT_TICKS = 27
FROM_MEMORY = graphs.text_of(CONTINUE).replace("{type: file}", "pieces")


@pytest.fixture(scope="session")
def model(bundle):
    return AudioLM.load(bundle)


def overrides(prompt, *more, seconds=0.6, seed=5):
    return [f"nodes.input.path={prompt}", f"session.seconds={seconds}", f"session.seed={seed}", *more]


@pytest.fixture(scope="session")
def whole(bundle, prompt, tmp_path_factory):
    """The run that all others are held against."""
    folder = tmp_path_factory.mktemp("whole")
    return asyncio.run(graphs.play(CONTINUE, *overrides(prompt), bundle=bundle, folder=folder))


def test_the_graph_is_the_model_to_the_bit(whole, model, prompt):
    continued = graphs.as_int16(model.continuation(prompt, 0.6, seed=5))
    assert len(whole.int16) == PROMPT_TICKS * TICK + len(continued) == (PROMPT_TICKS + 15) * TICK
    np.testing.assert_array_equal(whole.int16[PROMPT_TICKS * TICK :], continued)
    heard = graphs.as_int16(model.continuation(prompt, mode="reconstruct"))[: PROMPT_TICKS * TICK]
    np.testing.assert_array_equal(whole.int16[: PROMPT_TICKS * TICK], heard)


def test_the_tokens_have_substance(whole):
    """A model of random weights must still change its mind, or equality would mean nothing."""
    for node, frames in whole.tokens.items():
        values = {tuple(np.ravel(tokens)) for _, _, tokens in frames}
        assert len(values) > 5, node
    assert np.abs(whole.sound).max() > 0.01


@pytest.mark.parametrize("chunk_ms", [1.4, 7, 40, 1000])
def test_chunks_of_the_file_change_nothing(play, prompt, whole, chunk_ms):
    got = play(CONTINUE, *overrides(prompt, f"nodes.input.chunk_ms={chunk_ms}"))
    assert got.sha256 == whole.sha256
    assert got.tokens == whole.tokens


def test_one_sample_at_a_time(play, whole, sound):
    got = _from_memory(play, sound, range(1, 3 * TICK))
    assert got.tokens == whole.tokens
    np.testing.assert_array_equal(got.int16, whole.int16)


@settings(
    max_examples=8, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(cuts=st.lists(st.integers(1, PROMPT_TICKS * TICK + 76), max_size=40))
def test_any_cuts_change_nothing(play, whole, sound, cuts):
    got = _from_memory(play, sound, cuts)
    assert got.tokens == whole.tokens
    np.testing.assert_array_equal(got.int16, whole.int16)


def _from_memory(play, sound, cuts):
    extra = {"sound": sound, "cuts": list(cuts)}
    logged = graphs.LOGGED[CONTINUE]
    return play(FROM_MEMORY, "session.seconds=0.6", "session.seed=5", logged=logged, sessions=[{"extra": extra}])[0]


def test_the_same_seed_gives_the_same_file_and_another_one_not(play, prompt, whole):
    assert play(CONTINUE, *overrides(prompt)).sha256 == whole.sha256
    other = play(CONTINUE, *overrides(prompt, seed=6))
    assert other.sha256 != whole.sha256
    np.testing.assert_array_equal(other.int16[: PROMPT_TICKS * TICK], whole.int16[: PROMPT_TICKS * TICK])
    assert (other.int16[PROMPT_TICKS * TICK :] != whole.int16[PROMPT_TICKS * TICK :]).mean() > 0.5


def test_another_prompt_gives_another_continuation(play, voice, whole):
    got = play(CONTINUE, *overrides(voice))
    assert (got.int16[-15 * TICK :] != whole.int16[-15 * TICK :]).mean() > 0.5


def test_packed_edges_change_nothing(play, prompt, whole):
    got = play(CONTINUE, *overrides(prompt, "packed=true"))
    assert got.sha256 == whole.sha256
    assert got.tokens == whole.tokens


LANES = {
    "one": "{all: [acoustic, semantic_tokens, semantic, coarse, fine, decoder]}",
    "mixed": "{a: [acoustic, fine], b: [semantic_tokens, coarse, decoder], c: [semantic]}",
    "each": "{a: [acoustic], b: [semantic_tokens], c: [semantic], d: [coarse], e: [fine], f: [decoder]}",
}


@pytest.mark.parametrize("lanes", LANES)
def test_lanes_change_nothing(play, prompt, whole, lanes):
    got = play(CONTINUE, *overrides(prompt, f"lanes={LANES[lanes]}"))
    assert got.sha256 == whole.sha256
    assert got.tokens == whole.tokens


async def test_alone_or_among_others(aplay, sound):
    """Four sessions of other prompts, seeds and lengths side by side; each to the bit as if it were alone."""
    starts, lengths = (0, 2000, 5000, 100), (27, 9, 15, 1)
    given = [
        {"id": f"s{i}", "seed": 10 + i, "extra": {"sound": sound[start : start + ticks * TICK]}}
        for i, (start, ticks) in enumerate(zip(starts, lengths, strict=True))
    ]
    logged = graphs.LOGGED[CONTINUE]
    alone = [
        (await aplay(FROM_MEMORY, "session.seconds=0.4", sessions=[one], slots=4, logged=logged))[0] for one in given
    ]
    together = await aplay(FROM_MEMORY, "session.seconds=0.4", sessions=given, slots=4, logged=logged)
    for one, other in zip(alone, together, strict=True):
        assert one.tokens == other.tokens
        np.testing.assert_array_equal(one.int16, other.int16)
    assert [len(one.int16) // TICK for one in together] == [ticks + 10 for ticks in lengths]
    assert len({one.sha256 for one in alone}) == 4


# -- the seam, the prompt and the marks --


def test_what_is_heard_and_what_is_made_are_told_apart(play, prompt, whole):
    end = PROMPT_TICKS * TICK
    assert {flags for _, flags, _ in whole.tokens["semantic_tokens"]} == {HEARD}
    assert {flags for _, flags, _ in whole.tokens["coarse"]} == {GENERATED}
    for position, flags, _ in whole.tokens["fine"]:
        assert flags == (HEARD if position < end else GENERATED), position
    lookahead = 2
    for position, flags, _ in whole.tokens["semantic"]:
        assert flags == (HEARD if position < end - lookahead * TICK else GENERATED), position


def test_the_tokens_follow_one_another_without_a_gap(whole):
    ahead = 2
    ends = {"semantic_tokens": 25, "semantic": 42 + ahead, "fine": 42}
    for node, ticks in ends.items():
        assert [position for position, _, _ in whole.tokens[node]] == [i * TICK for i in range(ticks)], node
    assert [position for position, _, _ in whole.tokens["coarse"]] == [i * TICK for i in range(27, 42)]


def test_heard_semantic_tokens_are_never_revised(whole):
    heard = [tokens for _, flags, tokens in whole.tokens["semantic"] if flags == HEARD]
    assert heard == [tokens for _, _, tokens in whole.tokens["semantic_tokens"]]


@pytest.mark.parametrize("ticks", [1, 2, 3, 5, 27])
def test_prompt_seconds_is_a_shorter_prompt(play, prompt, sound, tmp_path, ticks):
    """Also the shortest prompts, of which the tokenizer has not given a single token."""
    short = tmp_path / "short.wav"
    soundfile.write(short, sound[: ticks * TICK + 5], 16000, subtype="FLOAT")
    wanted = play(CONTINUE, *overrides(short, seconds=0.2))
    got = play(CONTINUE, *overrides(prompt, f"session.prompt_seconds={ticks * 0.04}", seconds=0.2))
    np.testing.assert_array_equal(got.int16, wanted.int16)
    assert got.tokens == wanted.tokens
    assert len(got.int16) == (ticks + 5) * TICK


def test_without_the_prompt_the_file_holds_the_continuation_alone(play, prompt, whole):
    got = play(CONTINUE, *overrides(prompt, "session.include_prompt=false"))
    np.testing.assert_array_equal(got.int16, whole.int16[PROMPT_TICKS * TICK :])
    assert got.report["generated_seconds"] == pytest.approx(0.6)


def test_the_file_says_what_it_is(play, prompt, whole, bundle):
    for result in (whole, play(CONTINUE, *overrides(prompt, "session.include_prompt=false"))):
        found = read_metadata(result.path)
        assert found.mark.startswith(MARK)
        wanted = {"bundle": bundle.name, "mode": "continue", "seed": 5, "seconds": 0.6, "prompt_seconds": None}
        assert found.settings.items() >= wanted.items()


def test_the_true_tokens_forced_afterwards_give_the_uninterrupted_recording(play, whole, model, sound):
    """The seam: no state is lost or shifted where listening ends. (What is sampled there is then told otherwise.)"""
    longer = np.concatenate([sound[: 27 * TICK], graphs.tone(440, 12 * TICK, 1).astype(np.float32)])
    session = model.session(mode="reconstruct")
    with session:
        wanted = [session.listen(tick).audio for tick in longer.reshape(-1, TICK)]
    text = FROM_MEMORY.replace("edges:", "edges:\n  - {from: fine, to: log}").replace("nodes:", "nodes:\n  log: keep")
    frames = []
    extra = {"sound": longer, "got": frames}
    play(text, "session.seconds=0.2", logged=(), sessions=[{"extra": extra}])
    stacks = [frame for _, frame in frames if frame.heard and frame.payload]
    assert [frame.position for frame in stacks] == [i * TICK for i in range(39)]
    with model.session(seed=5) as again:
        for tick in longer.reshape(-1, TICK)[:27]:
            again.listen(tick)
        for i, frame in enumerate(stacks[27:], 27):
            again.force(i, codes=frame.array.astype(np.int64))
        forced = [again.generate().audio for _ in range(12)]
    np.testing.assert_array_equal(np.concatenate(forced), np.concatenate(wanted[27:]))
