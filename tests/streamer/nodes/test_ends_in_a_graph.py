"""The file and PCM ends inside whole graphs: copies, snapshots, stops, failures."""

import asyncio
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from audiolm.io import read_audio
from streamer import Graph, InputError, NodeError, Session, run

TICK = 640
TEXT = """
nodes:
  input: {{type: file, path: {path}}}
  output: {{type: file_out, path: {out}}}
edges: [input -> output]
"""


@pytest.fixture
def prompt(tmp_path):
    path = tmp_path / "prompt.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 60 * TICK + 123), 16000)
    return path


def parse(prompt, out, *overrides):
    return Graph.parse(TEXT.format(path=prompt, out=out), overrides=["session.mode=reconstruct", *overrides])


@pytest.mark.parametrize("chunk_ms", [1, 40, 1000])
@pytest.mark.parametrize("packed", [True, False])
async def test_a_graph_of_two_ends_copies_the_sound(tmp_path, prompt, chunk_ms, packed):
    out = tmp_path / "out.wav"
    with parse(prompt, out, f"nodes.input.chunk_ms={chunk_ms}", f"packed={str(packed).lower()}") as graph:
        await run(graph)
    np.testing.assert_array_equal(read_audio(out), read_audio(prompt))


@pytest.mark.parametrize("tick", [0, 1, 30, 60])
async def test_a_session_paused_and_restored_writes_the_same_file(tmp_path, prompt, tick):
    with parse(prompt, tmp_path / "whole.wav") as graph:
        await run(graph)
    with parse(prompt, tmp_path / "cut.wav") as graph:
        session = Session(graph)
        await run(graph, session, until=tick * TICK)
        data = session.snapshot()
    assert not (tmp_path / "cut.wav").exists()
    with parse(prompt, tmp_path / "cut.wav") as graph:
        await run(graph, Session.restore(graph, data))
    assert (tmp_path / "cut.wav").read_bytes() == (tmp_path / "whole.wav").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.wav", "prompt.wav", "whole.wav"]


async def test_a_paused_session_that_goes_on_writes_the_same_file(tmp_path, prompt):
    with parse(prompt, tmp_path / "cut.wav") as graph:
        session = Session(graph)
        await run(graph, session, until=20 * TICK)
        await run(graph, session)
    np.testing.assert_array_equal(read_audio(tmp_path / "cut.wav"), read_audio(prompt))


async def test_a_run_that_is_cancelled_leaves_nothing(tmp_path, prompt):
    with parse(prompt, tmp_path / "out.wav", "nodes.input.realtime=true") as graph:
        task = asyncio.create_task(run(graph))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [path.name for path in tmp_path.iterdir()] == ["prompt.wav"]


async def test_a_file_that_breaks_midway_leaves_nothing(tmp_path, prompt):
    with parse(prompt, tmp_path / "out.wav") as graph:
        prompt.unlink()
        with pytest.raises(NodeError, match="no such file") as caught:
            await run(graph)
    assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_bad_input_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        parse(tmp_path / "none.wav", tmp_path / "out.wav").build()
    assert list(tmp_path.iterdir()) == []


PIPE = """
import asyncio, sys
from streamer import Graph, run
text = "{nodes: {i: {type: pcm_in, rate: 8000}, o: {type: pcm_out, rate: 8000}}, edges: [i -> o]}"
asyncio.run(run(Graph.parse(text, overrides=["session.mode=reconstruct"]).build()))
"""


@pytest.mark.parametrize("how", ["pipe", "file"])
def test_standard_input_to_standard_output(tmp_path, how):
    data = np.rint(8000 * np.sin(np.arange(8000) / 5)).astype("<i2")
    (tmp_path / "in.pcm").write_bytes(data.tobytes())
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PIPE]
    if how == "pipe":
        done = subprocess.run(command, input=data.tobytes(), capture_output=True, check=True, env=env)
        got = np.frombuffer(done.stdout, "<i2")
    else:
        with (tmp_path / "in.pcm").open("rb") as file, (tmp_path / "out.pcm").open("wb") as out:
            subprocess.run(command, stdin=file, stdout=out, check=True, env=env)
        got = np.fromfile(tmp_path / "out.pcm", "<i2")
    assert abs(len(got) - 8000) <= TICK
    np.testing.assert_allclose(got[400:7600], data[400:7600], atol=100)
