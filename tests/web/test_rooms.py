"""Rooms: which graphs there are, what they share, and what becomes of those that fail."""

import asyncio
from pathlib import Path

import pytest

import audiolm.bundles
from streamer import ConfigError, GraphError, Session
from streamer.link import Link
from streamer.web.rooms import SHIPPED, Rooms, named


def test_the_shipped_bundles_are_all_of_them():
    folder = Path(audiolm.bundles.__file__).parent
    assert set(SHIPPED) == {path.parent.name for path in folder.glob("*/config.json")}


def test_visitors_see_the_names_of_bundles_only():
    assert named(["piano", "/a/b/mine", "other/"]) == {"piano": "piano", "mine": "/a/b/mine", "other": "other/"}
    with pytest.raises(ConfigError, match="same name"):
        named(["/a/mine", "/b/mine"])
    with pytest.raises(ConfigError, match="no bundle"):
        named([])


def test_a_bundle_or_config_that_is_not_there_is_said_at_once(fake, registry):
    with pytest.raises(ConfigError, match="nowhere"):
        Rooms(("nowhere",), choices={"continue": fake}, registry=registry)
    with pytest.raises(ConfigError, match="no_config"):
        Rooms(("piano",), choices={"continue": "no_config"})


def test_only_what_is_listed_can_be_chosen(fake, registry, tiny_bundle):
    rooms = Rooms((tiny_bundle,), choices={"continue": fake}, registry=registry)
    assert rooms.check(None, "continue") == rooms.check("tiny", "continue") == "tiny"
    for bundle in (tiny_bundle, "piano", ""):
        with pytest.raises(ConfigError, match="unknown bundle"):
            rooms.check(bundle, "continue")
    with pytest.raises(ConfigError, match="unknown mode"):
        rooms.check(None, "dream")


async def test_a_room_is_opened_once_however_many_ask(fake, registry, tiny_bundle):
    choices = {"continue": fake, "duet": fake}
    async with Rooms((tiny_bundle,), choices=choices, registry=registry) as rooms:
        assert rooms.loaded == []
        first, second, third = await asyncio.gather(
            *(rooms.enter("tiny", mode) for mode in ("continue", "continue", "duet"))
        )
        assert first is second is third
        assert rooms.loaded == ["tiny"]
    assert rooms.loaded == []


async def test_rooms_of_one_bundle_share_its_model(tiny_bundle):
    async with Rooms((tiny_bundle,), 2, guidance=True) as rooms:
        page, codec = await rooms.enter("tiny", "continue"), await rooms.enter("tiny", "reconstruct")
        model = page.graph.nodes["decoder"].shared
        assert codec.graph.nodes["decoder"].shared is model
        assert model.slots == 2
        assert model.guided == {"semantic", "coarse", "fine"}
        assert rooms.about("tiny")["guidance_coarse"] == 1


async def test_a_model_that_cannot_be_loaded_is_told_and_tried_again(fake, registry, tiny_bundle, monkeypatch):
    async with Rooms((tiny_bundle,), choices={"continue": fake}, registry=registry) as rooms:
        with monkeypatch.context() as broken:
            broken.setattr("streamer.graph.Graph.build", lambda _: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                await rooms.enter("tiny", "continue")
        assert (await rooms.enter("tiny", "continue")).ready.done()


async def test_a_room_that_stops_running_is_replaced(fake, registry, tiny_bundle):
    async with Rooms((tiny_bundle,), choices={"continue": fake}, registry=registry) as rooms:
        room = await rooms.enter("tiny", "continue")
        link = Link()
        running = asyncio.create_task(room.run(Session(room.graph, extra={"link": link}, seconds=None)))
        link.inbox.end()
        await running
        room.closing.set()
        await room.task
        with pytest.raises(GraphError):
            await room.run(Session(room.graph, extra={"link": link}))
        assert await rooms.enter("tiny", "continue") is not room
