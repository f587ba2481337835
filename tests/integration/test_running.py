"""Sessions of a model come and go in the slots of one engine; who stays makes the same file as alone."""

import asyncio

import graphs
import pytest
from graphs import CONTINUE, TICK

from streamer import NodeError, Running, Session

LENGTH = {"first": 6.0, "second": 0.4, "gone": None, "third": 0.4}


def opened(bundle, prompt, folder, slots):
    given = [f"nodes.input.path={prompt}", "session.prompt_seconds=0.32"]
    graph, number, _ = graphs.opened(CONTINUE, *given, bundle=bundle, folder=folder, slots=slots, logged=())
    return graph, lambda name: folder / f"{number}-{name}.wav"


def session(graph, name):
    return Session(graph, name, seed=len(name), seconds=LENGTH[name])


async def alone(bundle, prompt, folder, name):
    graph, path = opened(bundle, prompt, folder, 2)  # batches of one size: equality to the bit holds for one
    with graph:
        async with Running(graph) as running:
            await running.run(session(graph, name))
    return path(name).read_bytes()


async def sounding(made):
    while made.metrics.audio_samples < 12 * TICK:  # noqa: ASYNC110 - the metrics have no event
        await asyncio.sleep(0.001)


async def test_who_stays_makes_the_same_file_while_others_come_fail_and_go(bundle, prompt, tmp_path):
    wanted = {name: await alone(bundle, prompt, tmp_path, name) for name in ("first", "second", "third")}
    graph, path = opened(bundle, prompt, tmp_path, 2)
    with graph:
        async with Running(graph) as running:
            made = {name: session(graph, name) for name in LENGTH}
            first = asyncio.create_task(running.run(made["first"]))
            await sounding(made["first"])
            gone = asyncio.create_task(running.run(made["gone"]))
            await sounding(made["gone"])
            with pytest.raises(NodeError, match="all 2 slots are taken"):
                await running.run(session(graph, "second"))
            gone.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gone
            await running.run(made["second"])
            await running.run(made["third"])
            await first
    assert {name: path(name).read_bytes() for name in wanted} == wanted
    assert not path("gone").exists()
