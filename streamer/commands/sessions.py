"""The sessions of a live run: one after another on one built graph, until it is told to end.

Devices belong to the graph and stay open. A reset, another mode or another seed ends the session and begins the next
with fresh caches; a session that fails is begun anew, with patience that has an end. Knows no key and no screen.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any, Final

import structlog

from streamer.commands.follow import Follower
from streamer.commands.outcome import node_settings
from streamer.errors import StreamerError
from streamer.graph import Graph
from streamer.node import Sink, Source
from streamer.runtime import run as run_sessions
from streamer.session import Session

FAILURES: Final = 5  # so many in `WITHIN` seconds end the run
WITHIN: Final = 60.0
PROVEN: Final = 2.0  # seconds after which a session without sound counts as one that works
FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 5.0
GRACE: Final = 5.0  # seconds that a session has to finish its files once it was stopped
LIVE_GRACE: Final = 0.4  # the same where all sinks are live: what they would still get is not wanted any more
AGAIN: Final = 0.02  # seconds until a session that is still being opened is asked once more to stop


class Live:
    """The loop of sessions, and what can be told to it while it goes; used by one event loop.

    Args:
        graph: a built graph.
        follower: is told of every session.

    Attributes:
        session: the one that runs, or the last one.
        over: why the run ends or has ended; None while it goes on.
        failed: sessions that failed so far. note: what is to be said of it now, or None.
        spoiled: files of a session are lost, since it did not finish them in time.
    """

    def __init__(self, graph: Graph, follower: Follower) -> None:
        self.graph, self.follower = graph, follower
        self.session = Session(graph)
        self.over: str | None = None
        self.failed = 0
        self.note: str | None = None
        self.proven = False
        self.spoiled = False
        self._stopped: Session | None = None
        self._cut: Session | None = None
        self._files = graph.plan.live(Sink) != graph.plan.names(Sink)
        self._task: asyncio.Task[None] | None = None
        self._endless = bool(graph.plan.live(Source))
        self._changes: dict[str, Any] = {}
        self._standing: dict[str, tuple[str, dict[str, Any]]] = {}
        self._failures: deque[float] = deque(maxlen=FAILURES)
        self._anew = False
        self._told = asyncio.Event()

    # -- the loop --

    async def run(self) -> None:
        """Run session after session; returns when `end` was called or the input has ended.

        Raises:
            StreamerError: the first session could not begin, or one failed and there was no use in trying again.
        """
        while self.over is None:
            begun = time.perf_counter()
            session = self._next()
            try:
                await self._play(session)
            except StreamerError as error:
                await self._pause(error, time.perf_counter() - begun)
            else:
                if not self._anew and self.over is None:
                    self.over = "its input has ended"
            finally:
                self.follower.end()

    async def _play(self, session: Session) -> None:
        """One session to its end; one that is cut off has ended, too."""
        self._task = asyncio.create_task(run_sessions(self.graph, session), name=f"session:{session.info.id}")
        try:
            await self._task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if self._cut is not session or (current is not None and current.cancelling()):
                raise

    def _next(self) -> Session:
        """The next session, with what was changed, and told what holds for every session."""
        number = self.follower.sessions + 1
        extra = {"settings": node_settings(self.graph)}
        self.session = Session(self.graph, "main" if number == 1 else f"main-{number}", extra=extra, **self._changes)
        self._anew, self.note = False, None
        self.follower.begin(self.session)
        for command, values in self._standing.values():
            self.session.send(command, **values)
        if number > 1:
            info = self.session.info
            structlog.get_logger().info("session", begun=number, mode=info.mode, seed=info.seed, seconds=info.seconds)
        return self.session

    async def _pause(self, error: StreamerError, lived: float) -> None:
        """After a failure: wait, then try again, or raise it."""
        heard = self.follower.totals.audio_samples + self.session.metrics.audio_samples
        self.proven = self.proven or heard > 0 or lived >= PROVEN
        now = time.perf_counter()
        while self._failures and now - self._failures[0] > WITHIN:
            self._failures.popleft()
        self._failures.append(now)
        self.failed += 1
        log = structlog.get_logger()
        if not self.proven or not self._endless or self.over is not None:
            raise error
        if len(self._failures) >= FAILURES:
            log.error("session", note=f"{FAILURES} sessions failed within {WITHIN:g} s; that was the last one")
            raise error
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (len(self._failures) - 1))
        log.error("session", failed=str(error), again_in_s=wait)
        self.note = f"failed: {error}; again in {wait:g} s"
        self._told.clear()
        try:
            await asyncio.wait_for(self._told.wait(), wait)
        except TimeoutError:
            return

    # -- what it can be told --

    @property
    def phase(self) -> str:
        """`starting`, `running`, `waiting` (after a failure) or `ending`."""
        if self.over is not None:
            return "ending"
        return {"new": "starting", "running": "running"}.get(self.session.status, "waiting")

    def setting(self, name: str) -> Any:
        """What the next session will have: mode, seed, seconds and so on."""
        return self._changes.get(name, getattr(self.session.info, name))

    def end(self, why: str) -> None:
        """End the run: the sources end, what is inside goes to the sinks, and they finish."""
        if self.over is None:
            self.over = why
            self._stop(self.session)

    def anew(self, **changes: Any) -> None:
        """End the session and begin another, with any of mode and seed changed."""
        self._changes |= changes
        self._anew = True
        self._stop(self.session)

    def send(self, command: str, **values: Any) -> bool:
        """Send a command to the session that runs; False when none does."""
        if self.session.status not in ("new", "running"):
            return False
        self.session.send(command, **values)
        return True

    def hold(self, name: str, command: str, **values: Any) -> None:
        """Send a command now, and to every session that follows until another is held under this name."""
        self._standing[name] = (command, values)
        self.send(command, **values)

    def _stop(self, session: Session) -> None:
        """Stop a session, one that is still being opened as soon as it runs; end the wait after a failure."""
        self._told.set()
        if session is not self.session or session is self._stopped:
            return
        loop = asyncio.get_running_loop()
        if session.status == "running":
            self._stopped = session
            loop.call_later(GRACE if self._files else LIVE_GRACE, self._cut_off, session)
            session.interrupt()  # what is not yet played is not waited for
            session.stop()
        elif session.status == "new":
            loop.call_later(AGAIN, self._stop, session)

    def _cut_off(self, session: Session) -> None:
        """A session that still runs has had its time."""
        if session is not self.session or session.status != "running" or self._task is None:
            return
        if self._files:
            self.spoiled = True
            structlog.get_logger().error("session", note=f"not finished within {GRACE:g} s: its files are removed")
        self._cut = session
        self._task.cancel()
