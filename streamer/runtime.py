"""Running sessions through a graph from their beginning to their end, in one call."""

from __future__ import annotations

from collections.abc import Iterable

from streamer.graph import Graph
from streamer.running import Running
from streamer.session import Session


async def run(graph: Graph, sessions: Session | Iterable[Session] | None = None, *, until: int | None = None) -> None:
    """Run sessions through a graph until they have ended. `Running` lets them come and go.

    Args:
        graph: built here if it is not yet.
        sessions: one, several (they share the lanes), or None for one with the config's settings.
        until: pause each session when its sources have given everything before this position (samples on each
            source's own clock); a session that ends before it ends. `Session.snapshot()` then gives its bytes, and
            another `run` goes on.

    Raises:
        NodeError: a node, source or sink failed. StallError: a session cannot go on. Both end all sessions of the run;
        everything is closed when this returns or raises, also when it is cancelled.
    """
    if sessions is None:
        sessions = Session(graph)
    listed = [sessions] if isinstance(sessions, Session) else list(sessions)
    async with Running(graph) as running:
        await running.run(*listed, until=until)
