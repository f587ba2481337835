"""Every mode of the shipped configs, for every pattern of the stages, is `AudioLM.stream` to the bit."""

import graphs
import numpy as np
import pytest
from graphs import CONTINUE, TICK

from audiolm import AudioLM
from audiolm.io import MARK, read_metadata
from streamer import ConfigError, NodeError
from streamer.frame import GENERATED, HEARD

PATTERNS = ("depth", "delay", "flat")
PROMPT_TICKS = 27  # and 77 samples
MODES = {
    "continue": (CONTINUE, 27 * TICK + 10 * TICK),
    "acoustic_only": ("acoustic_only_file", 27 * TICK + 10 * TICK),
    "dream": ("dream", 10 * TICK),
    "reconstruct": ("reconstruct_file", 27 * TICK + 77),
    "resynthesize": ("resynthesize_file", 27 * TICK + 77),
    "voice": ("resynthesize_file", 27 * TICK + 77),
}


@pytest.fixture(scope="session")
def sounds(prompt, voice):
    return prompt, voice


@pytest.fixture(scope="session")
def models(bundles):
    """Pattern -> the bundle's folder and the model loaded from it."""
    return {pattern: (path, AudioLM.load(path)) for pattern, path in bundles.items()}


def overrides(mode, prompt, voice, seed=5):
    made = [f"session.seed={seed}"]
    made += [f"nodes.input.path={prompt}"] if mode != "dream" else []
    made += [f"session.voice={voice}"] if mode == "voice" else []
    return made + (["session.seconds=0.4"] if mode in ("continue", "acoustic_only", "dream") else [])


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("mode", MODES)
def test_the_graph_is_the_model_to_the_bit(play, models, sounds, mode, pattern):
    (prompt, voice), (bundle, model) = sounds, models[pattern]
    config, length = MODES[mode]
    got = play(config, *overrides(mode, prompt, voice), bundle=bundle)
    given = {"mode": "resynthesize", "voice": str(voice)} if mode == "voice" else {"mode": mode}
    made = model.continuation(None if mode == "dream" else prompt, 0.4, seed=5, **given)
    wanted = graphs.as_int16(made)
    assert len(got.int16) == length
    follows = mode in ("reconstruct", "resynthesize", "voice")
    np.testing.assert_array_equal(got.int16 if follows else got.int16[-10 * TICK :], wanted[:length])
    assert np.abs(wanted).max() > 100


@pytest.mark.parametrize("mode", MODES)
def test_the_file_says_what_it_is(play, prompt, voice, bundle, mode):
    config, _ = MODES[mode]
    got = play(config, *overrides(mode, prompt, voice, seed=7))
    found = read_metadata(got.path)
    assert found.mark.startswith(MARK)
    name = "resynthesize" if mode == "voice" else mode
    said = {"mode": name, "seed": 7, "bundle": bundle.name, "voice": voice.name if mode == "voice" else None}
    assert found.settings.items() >= said.items()
    assert str(bundle) not in str(found.settings), "a path of this machine"


@pytest.mark.parametrize("mode", ["continue", "acoustic_only", "dream", "resynthesize"])
def test_the_same_seed_gives_the_same_file_and_another_one_not(play, prompt, voice, mode):
    config, _ = MODES[mode]
    one, two = (play(config, *overrides(mode, prompt, voice, seed=1)) for _ in range(2))
    other = play(config, *overrides(mode, prompt, voice, seed=2))
    assert one.sha256 == two.sha256
    assert one.tokens == two.tokens
    assert (one.int16[-4 * TICK :] != other.int16[-4 * TICK :]).any()


@pytest.mark.parametrize("mode", ["acoustic_only", "dream", "reconstruct", "voice"])
@pytest.mark.parametrize("how", ["packed=true", "lanes={a: [coarse], b: [decoder], c: [fine]}", "chunk"])
def test_neither_packing_nor_lanes_nor_chunks_change_a_thing(play, prompt, voice, mode, how):
    config, _ = MODES[mode]
    if how == "chunk":
        how = "nodes.input.chunk_ms=3" if mode != "dream" else "nodes.clock.tick_samples=640"
    if mode == "reconstruct":
        how = how.replace("lanes={a: [coarse], b: [decoder], c: [fine]}", "lanes={a: [acoustic], b: [decoder]}")
    given = overrides(mode, prompt, voice)
    assert play(config, *given, how).sha256 == play(config, *given).sha256


def test_nothing_that_is_made_is_unmarked(play, prompt, voice):
    """In resynthesis the voice alone is heard; the words come out as the model makes them."""
    got = play("resynthesize_file", *overrides("voice", prompt, voice))
    assert {flags for _, flags, _ in got.tokens["coarse"]} == {GENERATED}
    flags = {position: flags for position, flags, _ in got.tokens["fine"]}
    assert flags == {i * TICK: HEARD if i < 20 else GENERATED for i in range(max(flags) // TICK + 1)}
    dream = play("dream", "session.seconds=0.4")
    for node in ("semantic", "coarse", "fine"):
        assert {flags for _, flags, _ in dream.tokens[node]} == {GENERATED}, node
    assert dream.report["generated_seconds"] == dream.report["audio_seconds"] == 0.4


@pytest.mark.parametrize(
    ("config", "mode"),
    [(CONTINUE, "reconstruct"), (CONTINUE, "acoustic_only"), (CONTINUE, "resynthesize"), (CONTINUE, "duet"),
     ("dream", "duet"), ("acoustic_only_file", "reconstruct")],
)  # fmt: skip
def test_a_mode_that_the_graph_has_no_part_for_is_refused_by_the_check(play, prompt, config, mode):
    given = [f"session.mode={mode}"] + ([f"nodes.input.path={prompt}"] if config != "dream" else [])
    with pytest.raises(ConfigError, match=f"not '{mode}'") as caught:
        play(config, *given)
    assert caught.value.exit_code == 2


REFUSED = {
    "dream": (CONTINUE, "mode 'dream' hears nothing.*dream.yaml"),
    "acoustic_only": ("dream", "not 'acoustic_only'"),
    "continue": ("acoustic_only_file", "needs semantic frames in mode 'continue'"),
}


@pytest.mark.parametrize("mode", REFUSED)
def test_a_session_of_such_a_mode_is_refused_too_and_leaves_nothing(play, prompt, tmp_path, mode):
    config, message = REFUSED[mode]
    given = [f"nodes.input.path={prompt}"] if config != "dream" else []
    with pytest.raises(NodeError, match=message) as caught:
        play(config, *given, logged=(), sessions=[{"mode": mode}])
    assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []
