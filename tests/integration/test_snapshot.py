"""A session that is saved in the middle and restored in another process goes on to the same file."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import graphs
import pytest
from graphs import CONTINUE, TICK

from streamer import Graph, NodeError, Session, run

PROMPT_TICKS = 8
OTHER = """
import asyncio, json, sys
from pathlib import Path
from streamer import Graph, Session, run
for text, blob, *overrides in json.load(sys.stdin):
    with Graph.parse(text, overrides=overrides) as graph:
        session = Session.restore(graph, Path(blob).read_bytes())
        assert session.differences == []
        asyncio.run(run(graph, session))
"""


def overrides(bundle, prompt, out, *more):
    given = [f"bundle={bundle}", f"nodes.output.path={out}", "session.seconds=0.72", "session.seed=3"]
    prompted = [f"nodes.input.path={prompt}", f"session.prompt_seconds={PROMPT_TICKS * 0.04}"]
    return [*given, *(prompted if prompt else []), *more]


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def restored_elsewhere(jobs):
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    given = {"env": os.environ | {"PYTHONPATH": path}, "input": json.dumps(jobs), "text": True}
    done = subprocess.run([sys.executable, "-c", OTHER], capture_output=True, check=False, **given)
    assert done.returncode == 0, done.stderr


CASES = {
    "in the prompt": (CONTINUE, 3),
    "at the seam": (CONTINUE, PROMPT_TICKS),
    "at its first tick": (CONTINUE, PROMPT_TICKS + 1),
    "in the continuation": (CONTINUE, 14),
    "in a dream": ("dream", 7),
    "in a conversion": ("resynthesize_file", 5),
}


def test_restored_in_another_process_it_ends_as_the_same_file(bundle, prompt, voice, tmp_path):
    """All cases in one other process: starting it takes the longest."""
    jobs = []
    for case, (name, tick) in CASES.items():
        text, out = graphs.text_of(name), tmp_path / f"{case}.wav"
        more = [f"session.voice={voice}"] if name == "resynthesize_file" else []
        given = overrides(bundle, None if name == "dream" else prompt, f"'{out}'", *more)
        with Graph.parse(text, overrides=given) as graph:
            asyncio.run(run(graph))
            out.rename(tmp_path / f"{case} whole.wav")
            session = Session(graph)
            asyncio.run(run(graph, session, until=tick * TICK))
            assert session.status == "paused", case
            (tmp_path / f"{case}.blob").write_bytes(session.snapshot())
        assert not out.exists()
        jobs.append([text, str(tmp_path / f"{case}.blob"), *given])
    restored_elsewhere(jobs)
    for case in CASES:
        assert digest(tmp_path / f"{case}.wav") == digest(tmp_path / f"{case} whole.wav"), case


@pytest.mark.parametrize("pattern", ["delay", "flat"])
@pytest.mark.parametrize("tick", [1, PROMPT_TICKS, 11, 17])
async def test_paused_and_gone_on_for_the_other_patterns(bundles, prompt, tmp_path, pattern, tick):
    text = graphs.text_of(CONTINUE)
    with Graph.parse(text, overrides=overrides(bundles[pattern], prompt, tmp_path / "whole.wav")) as graph:
        await run(graph)
    given = overrides(bundles[pattern], prompt, tmp_path / "cut.wav")
    with Graph.parse(text, overrides=given) as graph:
        session = Session(graph)
        await run(graph, session, until=tick * TICK)
        blob = session.snapshot()
    with Graph.parse(text, overrides=given, slots=1) as graph:
        await run(graph, Session.restore(graph, blob))
    assert digest(tmp_path / "cut.wav") == digest(tmp_path / "whole.wav")


async def test_a_snapshot_of_a_running_session_among_others(bundle, prompt, tmp_path):
    """It is taken between two ticks and disturbs neither the session nor its neighbour."""
    text = graphs.text_of(CONTINUE)
    out = f"'{tmp_path}/{{session}}.wav'"
    given = overrides(bundle, prompt, out)
    with Graph.parse(text, overrides=given, slots=2) as graph:
        await run(graph, [Session(graph, "a"), Session(graph, "b", seed=9)])
    wanted = {name: digest(tmp_path / f"{name}.wav") for name in "ab"}
    with Graph.parse(text, overrides=given, slots=2) as graph:
        sessions = [Session(graph, "a"), Session(graph, "b", seed=9)]
        task = asyncio.create_task(run(graph, sessions))
        while sessions[0].status != "running":  # noqa: ASYNC110 - becomes so within the first turns of the loop
            await asyncio.sleep(0)
        blob = await sessions[0].request_snapshot(11 * TICK)
        await task
    assert {name: digest(tmp_path / f"{name}.wav") for name in "ab"} == wanted
    (tmp_path / "a.wav").unlink()
    with Graph.parse(text, overrides=given, slots=2) as graph:
        await run(graph, Session.restore(graph, blob))
    assert digest(tmp_path / "a.wav") == wanted["a"]


async def test_changed_sampling_goes_with_the_snapshot(bundle, prompt, tmp_path):
    text = graphs.text_of(CONTINUE)

    async def made(name, *, cut):
        with Graph.parse(text, overrides=overrides(bundle, prompt, tmp_path / name)) as graph:
            session = Session(graph)
            session.send("set", position=(PROMPT_TICKS + 2) * TICK, temperature=0.0)
            if cut:
                await run(graph, session, until=13 * TICK)
                session = Session.restore(graph, session.snapshot())
            await run(graph, session)
        return digest(tmp_path / name)

    wanted = await made("whole.wav", cut=False)
    assert await made("cut.wav", cut=True) == wanted
    with Graph.parse(text, overrides=overrides(bundle, prompt, tmp_path / "plain.wav")) as graph:
        await run(graph)
    assert digest(tmp_path / "plain.wav") != wanted


async def test_a_snapshot_of_another_model_is_refused_and_its_slot_is_free_again(bundles, prompt, tmp_path):
    text = graphs.text_of(CONTINUE)
    with Graph.parse(text, overrides=overrides(bundles["depth"], prompt, tmp_path / "a.wav")) as graph:
        session = Session(graph)
        await run(graph, session, until=3 * TICK)
        blob = session.snapshot()
    with Graph.parse(text, overrides=overrides(bundles["flat"], prompt, tmp_path / "b.wav")) as graph:
        with pytest.raises(NodeError, match="saved") as caught:
            await run(graph, Session.restore(graph, blob))
        assert caught.value.exit_code == 2
        await run(graph)  # the only slot
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.wav"]
