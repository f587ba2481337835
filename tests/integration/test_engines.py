"""Whole graphs under ONNX Runtime: any chunking, any process, alone or among others, the same sound to the bit."""

import os
import subprocess
import sys
from pathlib import Path

import graphs
import numpy as np
import pytest
from graphs import CONTINUE, TICK

from audiolm import AudioLM
from audiolm.io import read_audio, read_metadata
from streamer.errors import ConfigError

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
ENGINES = ("onnx", "onnx-int8")
PROMPT_TICKS = 27


def overrides(prompt, engine, *more):
    return (f"nodes.input.path={prompt}", "session.seconds=0.6", "session.seed=5", f"engine={engine}", *more)


@pytest.fixture(scope="session", params=ENGINES)
def engine(request):
    return request.param


@pytest.fixture
def whole(play, prompt, engine):
    return play(CONTINUE, *overrides(prompt, engine))


def test_the_graph_is_the_model_to_the_bit(whole, engine, bundle, prompt):
    continued = graphs.as_int16(AudioLM.load(bundle, engine).continuation(prompt, 0.6, seed=5))
    np.testing.assert_array_equal(whole.int16[PROMPT_TICKS * TICK :], continued)


@pytest.mark.parametrize("chunk_ms", [1.4, 7, 1000])
def test_chunks_of_the_file_change_nothing(play, prompt, whole, engine, chunk_ms):
    assert play(CONTINUE, *overrides(prompt, engine, f"nodes.input.chunk_ms={chunk_ms}")).sha256 == whole.sha256


def test_another_process_gives_the_same_sound(whole, engine, bundle, prompt, tmp_path):
    made = tmp_path / "made.wav"
    sets = [f"--set={each}" for each in (*overrides(prompt, engine), f"nodes.output.path={made}", f"bundle={bundle}")]
    command = [sys.executable, "-m", "streamer", "run", CONTINUE, *sets]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(read_audio(made), whole.sound)


def test_neighbours_in_the_engine_change_nothing(play, prompt, engine):
    """The same number of slots, alone or with others in them."""
    many = [{"id": f"s{seed}", "seed": seed} for seed in (5, 6, 7)]
    together = play(CONTINUE, *overrides(prompt, engine), slots=3, sessions=many)
    alone = play(CONTINUE, *overrides(prompt, engine), slots=3, sessions=many[1:2])
    np.testing.assert_array_equal(together[1].int16, alone[0].int16)
    assert len({one.sha256 for one in together}) == 3


def test_the_sound_says_which_engine_made_it(whole, engine):
    assert read_metadata(Path(whole.path)).settings["engine"] == engine


def test_float32_gives_the_tokens_of_the_reference(play, prompt):
    ours, reference = (play(CONTINUE, *overrides(prompt, engine)) for engine in ("onnx", "torch"))
    assert ours.tokens == reference.tokens
    np.testing.assert_allclose(ours.sound, reference.sound, atol=1e-3)


def test_an_unknown_engine_is_refused_with_those_there_are(play, prompt):
    with pytest.raises(ConfigError, match=r"engine: unknown engine 'fast'; expected one of auto, torch"):
        play(CONTINUE, *overrides(prompt, "fast"))
