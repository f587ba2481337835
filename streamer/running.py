"""A graph that runs: its lanes stay while sessions come and go.

One worker thread per lane, shared by all sessions; each session has a TaskGroup of its own, so that one that fails, or
is cancelled, takes no other with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Self

from streamer.driver import Driver, settled
from streamer.errors import GraphError, first_of
from streamer.graph import Graph
from streamer.session import Session
from streamer.stream import Stream
from streamer.watchdog import Watchdog


class Running:
    """The lanes of a graph, for sessions that come and go.

    >>> async with Running(graph) as running:  # doctest: +SKIP
    ...     await running.run(session)

    `run` is called from any task of the event loop, also while others run. A session takes part from the next turn of
    each lane on and leaves between two turns; the results of the others stay the same to the bit. Sessions that have a
    frame for a node at once are stepped together (`Node.step_many`): what such a step raises cannot be told apart and
    ends each session that took part in it, while what one of the iterables raises that it gave ends that session only.

    At the end of the block, sessions that still run end with a `GraphError`; when it is left, their states are released
    and the threads have ended. The graph stays built.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._drivers: list[Driver] = []
        self._streams: dict[str, Stream] = {}
        self._lanes: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._open = False

    @property
    def sessions(self) -> Sequence[str]:
        """Names of the sessions that are in it now, in the order in which they came."""
        return tuple(self._streams)

    async def __aenter__(self) -> Self:
        if self._lanes is not None:
            raise GraphError("this Running has been entered before; make a new one")
        await asyncio.to_thread(self.graph.build)  # loading a model takes seconds, and the loop may serve others
        self._drivers = [Driver(name, members) for name, members in self.graph.plan.lanes.items()]
        self._lanes = asyncio.create_task(self._drive(), name="lanes")
        nodes = self.graph.plan.loaded.config.nodes.values()
        watchdog = Watchdog(self._drivers, min(node.step_seconds for node in nodes), self._end_all)
        self._watch = asyncio.create_task(watchdog.watch(), name="watchdog")
        self._open = True
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._open = False
        for stream in self._streams.values():
            stream.fail(GraphError(f"session {stream.session.info.id!r} was ended: its graph stops running"))
        try:
            await settled(stream.gone for stream in self._streams.values())
        finally:
            errors = await self._end_lanes()
        if errors and exc[0] is None:
            raise errors[0]

    async def _end_lanes(self) -> list[BaseException]:
        for driver in self._drivers:
            driver.stop()
        try:
            return await settled([self._lanes] if self._lanes is not None else [])
        finally:
            for driver in self._drivers:
                driver.close()
            if self._watch is not None:  # until now, since what is being closed may hang in a step
                self._watch.cancel()
                await asyncio.wait([self._watch])

    async def _drive(self) -> None:
        """Drive every lane; an error that is nobody's ends all sessions."""
        try:
            async with asyncio.TaskGroup() as group:
                for driver in self._drivers:
                    group.create_task(driver.drive(), name=f"lane:{driver.lane.name}")
        except BaseExceptionGroup as found:
            error = first_of(found)
            self._end_all(error)
            raise error from error.__cause__

    def _end_all(self, error: BaseException) -> None:
        self._open = False
        for stream in self._streams.values():
            stream.fail(error)

    async def run(self, *sessions: Session, until: int | None = None) -> None:
        """Run a session until it has ended; others may run beside it. It may be called again, with another one.

        Args:
            sessions: one; or several that begin together, of which one that fails ends the others of this call.
            until: pause as `streamer.run` does.

        Raises:
            NodeError: a node, source or sink failed. StallError: the session cannot go on. GraphError: it cannot begin
            here, or the graph stops running. The session is closed when this returns or raises, also when it is
            cancelled, which ends the sessions of this call and no other.
        """
        async with AsyncExitStack() as stack:
            streams = []
            for session in sessions:
                stream = self._admit(session, until)
                stack.callback(self._streams.pop, session.info.id)
                streams.append(await stack.enter_async_context(stream))
                await stream.open()
            await _play(streams)

    async def answers(self) -> None:
        """Return when every lane has come round to it: none of their threads hangs in a step."""
        await settled(driver.submit(_nothing) for driver in self._drivers)

    def _admit(self, session: Session, until: int | None) -> Stream:
        name = session.info.id
        if not self._open:
            raise GraphError("the graph does not run; call `run` inside `async with Running(graph)`")
        if session.graph is not self.graph:
            raise GraphError(f"session {name!r} was made for another graph; make it with the graph that runs")
        if name in self._streams:
            raise GraphError(f"a session {name!r} runs already; give each session a name of its own")
        session.prepare()
        stream = self._streams[name] = Stream(self.graph, self._drivers, session, until)
        return stream


async def _play(streams: Sequence[Stream]) -> None:
    """Play several sessions to their end; one that fails ends the others."""
    try:
        async with asyncio.TaskGroup() as group:
            for stream in streams:
                group.create_task(stream.play(), name=f"session:{stream.session.info.id}")
    except BaseExceptionGroup as found:
        error = first_of(found)
        raise error from error.__cause__


def _nothing() -> None:
    """What is done when a lane comes round to it."""
