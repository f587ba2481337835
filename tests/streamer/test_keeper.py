"""When a snapshot is taken."""

import asyncio
import time
from types import SimpleNamespace

import pytest

from streamer.commands import keeper
from streamer.metrics import Metrics


@pytest.fixture
def session():
    return SimpleNamespace(metrics=Metrics())


@pytest.fixture
def calm(session, monkeypatch):
    """`await calm(every=...)`: what a keeper does before it takes one."""
    monkeypatch.setattr(keeper, "LOOK", 0.001)
    return lambda every: keeper.Keeper._calm(SimpleNamespace(every=every), session)


async def test_it_waits_for_the_end_of_the_models_turn(session, calm):
    session.metrics.gauge("turns.state", "continuing")
    waiting = asyncio.create_task(calm(every=60.0))
    for _ in range(10):
        await asyncio.sleep(0.001)
        assert not waiting.done()
    session.metrics.gauge("turns.state", "listening")
    await waiting


async def test_one_that_never_ends_is_not_waited_for(session, calm):
    session.metrics.gauge("turns.state", "continuing")
    begun = time.perf_counter()
    await calm(every=0.01)
    assert time.perf_counter() - begun >= 0.01 * keeper.PUT_OFF


async def test_without_turns_it_is_taken_at_once(session, calm):
    session.metrics.gauge("louder.state", "running")
    await calm(every=60.0)
