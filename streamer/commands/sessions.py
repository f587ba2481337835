"""The sessions of a live run: one after another on one built graph, until it is told to end.

Devices belong to the graph and stay open. A reset, another mode or another seed ends the session and begins the next
with fresh caches. A session that fails is begun anew, from its last snapshot where there is one (`keeper`), with
patience that has an end, unless nobody is there to see it (`forever`). Knows no key and no screen.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import structlog

from streamer.commands.exits import chain, message_of
from streamer.commands.follow import Follower
from streamer.commands.keeper import Keeper
from streamer.commands.outcome import node_settings
from streamer.commands.state import iso
from streamer.errors import PeerRestarted, StreamerError
from streamer.graph import Graph
from streamer.node import Sink, Source
from streamer.running import Running
from streamer.session import Session

FAILURES: Final = 5  # so many in `WITHIN` seconds end the run
WITHIN: Final = 60.0
PROVEN: Final = 2.0  # seconds after which a session without sound counts as one that works
FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 5.0
LONGEST_ALONE: Final = 60.0  # the same with `forever`
GRACE: Final = 5.0  # seconds that a session has to finish its files once it was stopped
LIVE_GRACE: Final = 0.4  # the same where all sinks are live: what they would still get is not wanted any more
AGAIN: Final = 0.02  # seconds until a session that is still being opened is asked once more to stop


class Live:
    """The loop of sessions, and what can be told to it while it goes; used by one event loop.

    Args:
        graph: a built graph.
        follower: is told of every session.
        keeper: takes snapshots, and has what the run before left; by default, one that keeps them in memory.
        forever: nobody is there: a failure never ends the run, but it waits longer and longer.

    Attributes:
        session: the one that runs, or the last one.
        over: why the run ends or has ended; None while it goes on.
        reason: why the session that runs was begun: `started`, `after a power cut or kill: ...`, `session failed: ...`
            or `reset by command`. since: when, as ISO 8601 in UTC.
        failed: sessions that failed so far. note: what is to be said of it now, or None.
        spoiled: files of a session are lost, since it did not finish them in time.
    """

    def __init__(
        self, graph: Graph, follower: Follower, *, keeper: Keeper | None = None, forever: bool = False
    ) -> None:
        self.graph, self.follower, self.forever = graph, follower, forever
        self.keeper = Keeper(graph) if keeper is None else keeper
        self.session = Session(graph)
        self.reason, self.since = "started", iso(time.time())
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
        self._undo: dict[str, Any] | None = None
        self._standing: dict[str, tuple[str, dict[str, Any]]] = {}
        self._failures: deque[float] = deque(maxlen=FAILURES)
        self._in_a_row = 0
        self._anew = self._restored = False
        self._told = asyncio.Event()
        self._running: Running | None = None
        self._find()

    def _find(self) -> None:
        """Take over what the run before left, if it was cut off."""
        state, found = self.keeper.state, self.keeper.find()
        if state is None or not state.cut_off:
            return
        self.reason = "after a power cut or kill: "
        if found is None:
            self.reason += "begun anew, no snapshot that fits"
        else:
            behind = " (the clock is behind it)" if found.taken > time.time() else ""
            self.reason += f"state of {found.when}{behind}"
            self._changes |= found.changes
            self._standing |= {name: (command, dict(values)) for name, (command, values) in found.standing.items()}
        structlog.get_logger().warning("started", reason=self.reason)

    # -- the loop --

    async def run(self) -> None:
        """Run session after session; returns when `end` was called or the input has ended.

        Raises:
            StreamerError: the first session could not begin, or one failed and there was no use in trying again.
        """
        try:
            while self.over is None:
                begun = time.perf_counter()
                session = self._next()
                try:
                    await self._play(session)
                except StreamerError as error:
                    await self._failed(error, time.perf_counter() - begun)
                else:
                    await self._ended(time.perf_counter() - begun)
                finally:
                    self.follower.end()
        finally:
            if self.over is not None:
                self.keeper.end(self.over)

    async def answers(self) -> None:
        """Return when every lane of the session that runs has answered; at once when none runs."""
        if self._running is not None:
            await self._running.answers()

    async def _play(self, session: Session) -> None:
        """One session to its end; one that is cut off has ended, too."""
        self._task = asyncio.create_task(self._run(session), name=f"session:{session.info.id}")
        keeping = asyncio.create_task(self.keeper.watch(session, self._beside), name="snapshots")
        try:
            await self._task
        except asyncio.CancelledError:
            if self._cut is not session:
                raise
        finally:
            keeping.cancel()
            await asyncio.wait([keeping])
            current = asyncio.current_task()
            if current is not None and current.cancelling():  # a session that was just failing hides it
                raise asyncio.CancelledError
        if not keeping.cancelled():
            keeping.result()

    async def _run(self, session: Session) -> None:
        async with Running(self.graph) as running:
            self._running = running
            try:
                await running.run(session)
            finally:
                self._running = None

    def _beside(self) -> tuple[Mapping[str, Any], Mapping[str, tuple[str, Mapping[str, Any]]]]:
        """What belongs to a snapshot beside the session."""
        return self._changes, self._standing

    def _next(self) -> Session:
        """The next session, with what was changed, and told what holds for every session."""
        number = self.follower.sessions + 1
        self.reason = "reset by command" if self._anew else self.reason
        extra = {"settings": node_settings(self.graph)}
        restored = self.keeper.restored(extra)
        name = "main" if number == 1 else f"main-{number}"
        self.session = Session(self.graph, name, extra=extra, **self._changes) if restored is None else restored
        self._restored = restored is not None
        self._anew, self.note = False, None
        self.follower.begin(self.session)
        for command, values in self._standing.values():
            self.session.send(command, **values)
        if number > 1:
            self._say_next(number)
        return self.session

    def _say_next(self, number: int) -> None:
        info, last, self.since = self.session.info, self.keeper.last, iso(time.time())
        if self._restored and last is not None:
            self.reason += f"; state of {last.when}"
        structlog.get_logger().info(
            "session", begun=number, reason=self.reason, mode=info.mode, seed=info.seed, seconds=info.seconds
        )

    async def _ended(self, lived: float) -> None:
        """A session has ended by itself, or because it was told to."""
        if self._anew:
            return
        if self.over is None and self.forever and self._endless:
            self.reason = "its input had ended"
            self.keeper.forget()
            await self._wait("its input has ended", lived)
        elif self.over is None:
            self.over = "its input has ended"

    async def _failed(self, error: StreamerError, lived: float) -> None:
        """After a failure: wait, then try again, or raise it."""
        heard = self.follower.totals.audio_samples + self.session.metrics.audio_samples
        self.proven = self.proven or heard > 0 or lived >= PROVEN
        if self.over is None and any(isinstance(each, PeerRestarted) for each in chain(error)):
            await self._begin_with_peer(error, lived)
            return
        now = time.perf_counter()
        while self._failures and now - self._failures[0] > WITHIN:
            self._failures.popleft()
        self._failures.append(now)
        self.failed += 1
        self.reason = f"session failed: {error}"
        if self._restored and not self.session.began:
            self.keeper.drop(f"it cannot be gone on from: {error}")
            return
        self.keeper.died(lived, restored=self._restored)
        if self._undo is not None and not self.session.began and self.over is None:
            structlog.get_logger().error("session", undone="what was changed", failed=str(error))
            self.reason = f"a change was undone: {error}"
            self._changes, self._undo = self._undo, None
            return
        if not self.forever:
            self._check_worth_it(error)
        elif self.over is not None:
            raise error
        await self._wait(f"failed: {error}", lived)

    async def _begin_with_peer(self, error: StreamerError, lived: float) -> None:
        """The other end of a stream began at its beginning, so this one does; that is no failure of ours."""
        self.reason = f"a peer began anew: {message_of(error)}"
        self.keeper.forget()
        await self._wait(self.reason, lived)

    def _check_worth_it(self, error: StreamerError) -> None:
        """Raise an error after which there is no use in another try."""
        if not self.proven or not self._endless or self.over is not None:
            raise error
        if len(self._failures) >= FAILURES:
            note = f"{FAILURES} sessions failed within {WITHIN:g} s; that was the last one"
            structlog.get_logger().error("session", note=note)
            raise error

    async def _wait(self, why: str, lived: float) -> None:
        """Wait before the next session, longer after each that came to nothing; something that is told ends it."""
        self._in_a_row = 1 if lived >= WITHIN else self._in_a_row + 1
        times = self._in_a_row if self.forever else max(1, len(self._failures))
        longest = LONGEST_ALONE if self.forever else LONGEST_WAIT
        wait = min(longest, FIRST_WAIT * 2 ** min(times - 1, 30))
        structlog.get_logger().error("session", failed=why.removeprefix("failed: "), again_in_s=wait)
        self.note = f"{why}; again in {wait:g} s"
        self._told.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._told.wait(), wait)

    # -- what it can be told --

    @property
    def phase(self) -> str:
        """`starting`, `running`, `waiting` (after a failure) or `ending`."""
        if self.over is not None:
            return "ending"
        known = {"new": "starting", "paused": "starting", "running": "running"}
        return known.get(self.session.status, "waiting")

    def setting(self, name: str) -> Any:
        """What the next session will have: mode, seed, seconds and so on."""
        return self._changes.get(name, getattr(self.session.info, name))

    def end(self, why: str) -> None:
        """End the run: the sources end, what is inside goes to the sinks, and they finish."""
        if self.over is None:
            self.over = why
            self._stop(self.session)

    def anew(self, **changes: Any) -> None:
        """End the session and begin another, with any of mode and seed changed; undone if it cannot begin so."""
        if self._undo is None or self.session.began:
            self._undo = dict(self._changes)
        self._changes |= changes
        self._anew = True
        self.keeper.forget()
        self._stop(self.session)

    def send(self, command: str, **values: Any) -> bool:
        """Send a command to the session that runs; False when none does."""
        if self.session.status not in ("new", "paused", "running"):
            return False
        self.session.send(command, **values)
        return True

    def hold(self, name: str, command: str, **values: Any) -> None:
        """Send a command now, and to every session that follows until another is held under this name."""
        self._standing[name] = (command, values)
        self.send(command, **values)

    def held(self, name: str, value: str, *, default: Any) -> Any:
        """A value of the command that is held under a name; the default when none is."""
        return self._standing[name][1].get(value, default) if name in self._standing else default

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
        elif session.status in ("new", "paused"):
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
