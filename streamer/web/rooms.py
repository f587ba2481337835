"""Rooms: the graphs that visitors' sessions run through, one for a bundle and a kind of mode, opened when asked for.

The rooms of one bundle share its model. This module knows no socket; which nodes are in a graph is told by its config.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import structlog

from streamer import config as configs
from streamer.errors import ConfigError, GraphError, NodeError, StallError, unknown
from streamer.graph import Graph
from streamer.registry import Registry
from streamer.running import Running
from streamer.session import Session

SHIPPED: Final = ("piano", "speech")
CONFIGS: Final[Mapping[str, str]] = {"continue": "page", "duet": "page", "reconstruct": "page_reconstruct"}
OUTPUT: Final = "web_out"


def named(bundles: Iterable[str]) -> dict[str, str]:
    """Name that visitors see -> bundle; of a path only the last part is seen.

    Raises:
        ConfigError: two have the same name, or there is none.
    """
    made: dict[str, str] = {}
    for bundle in bundles:
        name = Path(bundle).name
        if made.setdefault(name, bundle) != bundle:
            raise ConfigError(f"--bundle: {made[name]} and {bundle} have the same name {name!r}; rename one of them")
    if not made:
        raise ConfigError(f"there is no bundle to play with; give --bundle NAME_OR_PATH, such as {SHIPPED[0]}")
    return made


@dataclass
class Room:
    """One graph that runs for any number of sessions, and the task that holds it open."""

    graph: Graph
    ready: asyncio.Future[Running]
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    async def run(self, session: Session) -> None:
        """Run a session of this room's graph to its end; cancelling ends that session only.

        Raises:
            GraphError: it failed. Where that is not its own fault the room is closed; the next visitor gets another.
        """
        try:
            await (await asyncio.shield(self.ready)).run(session)
        except (NodeError, StallError):
            raise
        except GraphError:
            self.closing.set()
            raise

    async def hold(self, loading: asyncio.Lock) -> None:
        """Load the model, and keep the graph running until it is told to close."""
        try:
            async with loading:  # two rooms of one bundle share what the first has loaded
                await asyncio.to_thread(self.graph.build)
            async with Running(self.graph) as running:
                self.ready.set_result(running)
                await self.closing.wait()
        finally:
            self.graph.close()


class Rooms:
    """All rooms of a server, as an async context.

    Args:
        bundles: name or path of each bundle that visitors may choose; the first is what they get unasked.
        slots: sessions at once, in all rooms together.
        guidance: whether visitors may change it.
        choices: mode -> config.
        registry: node types; the built-in ones by default.
        sets: `PATH=VALUE` texts for every config.

    Raises:
        ConfigError: a bundle or a config cannot be used.
    """

    def __init__(
        self,
        bundles: Sequence[str] = SHIPPED,
        slots: int = 1,
        *,
        guidance: bool = False,
        choices: Mapping[str, str] = CONFIGS,
        registry: Registry | None = None,
        sets: Sequence[str] = (),
    ) -> None:
        self.bundles, self.slots, self.guidance = named(bundles), slots, guidance
        self.choices, self.registry, self.sets = dict(choices), registry or Registry.with_builtins(), tuple(sets)
        self._loading = asyncio.Lock()
        self._rooms: dict[tuple[str, str], Room] = {}
        self._shared: dict[str, dict[str, Any]] = {name: {} for name in self.bundles}
        first, *others = dict.fromkeys(self.choices.values())
        self._about = {bundle: _about(self._graph(bundle, first)) for bundle in self.bundles}
        for bundle, choice in product(self.bundles, others):
            self._graph(bundle, choice)  # what is wrong with it is said before anybody comes

    @property
    def default(self) -> str:
        """The bundle of a visitor who names none."""
        return next(iter(self.bundles))

    def check(self, bundle: str | None, mode: str) -> str:
        """The bundle that is meant.

        Raises:
            ConfigError: it, or the mode, is not among those that this server has.
        """
        if bundle is not None and bundle not in self.bundles:
            raise ConfigError(unknown("bundle", bundle, self.bundles))
        if mode not in self.choices:
            raise ConfigError(unknown("mode", mode, self.choices))
        return self.default if bundle is None else bundle

    def about(self, bundle: str) -> Mapping[str, Any]:
        """What a page must know of a bundle, see `WebSink.about`."""
        return self._about[bundle]

    @property
    def loaded(self) -> list[str]:
        """Bundles that are ready."""
        return sorted({bundle for (bundle, _), room in self._rooms.items() if _is_open(room)})

    async def enter(self, bundle: str, mode: str) -> Room:
        """The room for a bundle and a mode, opened if it is not yet; waits until its model is loaded.

        Raises:
            StreamerError: the model cannot be loaded; the next visitor tries again.
        """
        key = (bundle, self.choices[mode])
        if key not in self._rooms:
            room = Room(self._graph(bundle, key[1]), asyncio.get_running_loop().create_future())
            self._rooms[key] = room
            room.task = asyncio.create_task(room.hold(self._loading), name=f"room:{bundle}:{key[1]}")
            room.task.add_done_callback(lambda task: self._over(key, task))
        room = self._rooms[key]
        await asyncio.shield(room.ready)
        return room

    def _over(self, key: tuple[str, str], task: asyncio.Task[None]) -> None:
        """A room is closed, or has failed: whoever waits for it is told, and the next visitor gets a new one."""
        room = self._rooms.pop(key)
        if task.cancelled():
            room.ready.cancel()
            return
        error = task.exception()
        if error is None:
            return
        structlog.get_logger().error("room", bundle=key[0], config=key[1], error=str(error))
        if not room.ready.done():
            room.ready.set_exception(error)

    def _graph(self, bundle: str, choice: str) -> Graph:
        sets = [f"bundle={_quoted(self.bundles[bundle])}", *self.sets]
        loaded = configs.load(choice, sets)
        if self.guidance:
            outputs = [name for name, entry in loaded.config.nodes.items() if entry.type == OUTPUT]
            loaded = configs.load(choice, [*sets, *(f"nodes.{name}.guidance=true" for name in outputs)])
        return Graph.load(loaded, self.registry, slots=self.slots, shared=self._shared[bundle])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every room; sessions that still run are cancelled."""
        tasks = [room.task for room in self._rooms.values() if room.task is not None]
        for room in self._rooms.values():
            room.closing.set()
        if tasks:
            await asyncio.wait(tasks)


def _is_open(room: Room) -> bool:
    return room.ready.done() and not room.ready.cancelled() and room.ready.exception() is None


def _about(graph: Graph) -> dict[str, Any]:
    """What the output of a graph says of the model."""
    plan = graph.plan
    found: dict[str, Any] = {}
    for name, kind in plan.types.items():
        tell = getattr(kind, "about", None)
        if tell is not None:
            found |= tell(plan.settings[name], plan.builds[name])
    return found


def _quoted(text: str) -> str:
    """Text as a YAML value."""
    return "'" + text.replace("'", "''") + "'"
