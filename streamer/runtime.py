"""Running sessions through a graph: one TaskGroup, one worker thread per lane, named tasks for sources and sinks.

Who cannot go on rests; when everyone of a session rests, the session has ended, is to be paused, or stands still, which
is an error that says what each port waits for. So a graph never hangs in silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Final

from streamer.driver import Driver, LaneSeat, Seat
from streamer.errors import NodeError, StallError, StreamerError
from streamer.frame import AUDIO, CONTROL, GENERATED, Frame
from streamer.graph import Graph
from streamer.lane import Cell, Lane, Routes
from streamer.node import Sink, Source
from streamer.port import Port
from streamer.session import Session

BREATH: Final = 16  # frames after which a source or a sink lets others run, even if it never waits


async def run(graph: Graph, sessions: Session | Iterable[Session] | None = None, *, until: int | None = None) -> None:
    """Run sessions through a graph until they have ended.

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
    await asyncio.to_thread(graph.build)  # loading a model takes seconds, and the loop may serve others
    await _Run(graph, listed, until).go()


class _Stream:
    """One session while it runs."""

    def __init__(self, owner: _Run, session: Session) -> None:
        self.owner, self.session = owner, session
        self.active: set[Seat] = set()
        self.gated: set[Seat] = set()
        self.sources: list[asyncio.Task[None]] = []
        self.sinks: list[asyncio.Task[None]] = []
        self.unfinished = set(owner.graph.sinks)
        self.stopping = self.settled = self.saving = False

    @property
    def cells(self) -> Mapping[str, Cell]:
        """The cells of the session by node name."""
        return self.session.cells

    def start(self, group: asyncio.TaskGroup) -> None:
        """Seat everyone first, then let the tasks go."""
        session, graph = self.session, self.owner.graph
        seats: dict[str, Seat] = {}
        for driver in self.owner.drivers:
            seat = LaneSeat(self, driver)
            seats |= dict.fromkeys(driver.lane.order, seat)
        for name in [*graph.sources, *graph.sinks]:
            seats[name] = Seat(self, name)
        for port in session.ports.values():
            maker, taker = seats.get(port.spec.producer), seats[port.spec.consumer]
            port.consumer = None if taker is maker else taker
            port.producer = None if taker is maker else maker
        session.on_stop, session.on_gate, session.status = self.stop, self.regate, "running"
        label = session.info.id
        for name, source in graph.sources.items():
            work = self.pump(name, source, seats[name])
            self.sources.append(group.create_task(work, name=f"source:{label}:{name}"))
        for name, sink in graph.sinks.items():
            drain = self.drain(name, sink, seats[name])
            self.sinks.append(group.create_task(drain, name=f"sink:{label}:{name}"))

    # -- sources ----------------------------------------------------------------------------------------------------

    async def pump(self, name: str, source: Source, seat: Seat) -> None:
        """Carry the frames of one source to its ports."""
        routes = self.session.routes(name)
        frames = source.frames(self.session.info_for(name))
        try:
            try:
                await self._feed_all(frames, routes, seat)
            except asyncio.CancelledError:
                if not self.stopping or self.settled:
                    raise
                await self._feed_ends(routes, seat)
            _check_ended(name, routes, seat.reached)
        except (NodeError, StallError):
            raise
        except Exception as error:
            raise NodeError.wrap(name, error, position=seat.reached, session=self.session.info.id) from error
        finally:
            closer = getattr(frames, "aclose", None)
            if closer is not None:
                await closer()
        seat.leave()

    async def _feed_all(self, frames: AsyncIterator[Frame], routes: Routes, seat: Seat) -> None:
        count = 0
        async for frame in frames:
            ports = routes.get(frame.kind)
            if ports is None:
                raise NodeError(seat.name, f"gave a {frame.kind} frame, but declares only {', '.join(sorted(routes))}")
            await self._feed(frame, ports, seat)
            seat.reached = max(seat.reached, frame.position + frame.samples)
            count += 1
            if count % BREATH == 0:
                await asyncio.sleep(0)

    async def _feed_ends(self, routes: Routes, seat: Seat) -> None:
        """The source was stopped: end its streams in its place."""
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        for kind, ports in routes.items():
            left = [port for port in ports if not port.ended and kind != CONTROL]
            for port in left:
                port.skip = 0
            await self._feed(
                Frame.end(kind, position=seat.reached, session=self.session.info.id, meta={"empty": True}), left, seat
            )

    async def _feed(self, frame: Frame, ports: Sequence[Port], seat: Seat) -> None:
        """Put one frame everywhere, waiting for room; what a restored session has already had is left out."""
        left = []
        for port in ports:
            if port.skip:
                port.skip -= 1
            else:
                left.append(port)
        while left and self.session.gate is not None and frame.position >= self.session.gate and not self.stopping:
            self.gated.add(seat)
            try:
                await seat.wait()
            finally:
                self.gated.discard(seat)
        while True:
            left = [port for port in left if not self._offer(port, frame)]
            if not left:
                return
            await seat.wait()

    def _offer(self, port: Port, frame: Frame) -> bool:
        if not port.has_room():
            return False
        port.put(frame)
        if port.consumer is not None:
            port.consumer.wake()
        return True

    # -- sinks ------------------------------------------------------------------------------------------------------

    async def drain(self, name: str, sink: Sink, seat: Seat) -> None:
        """Carry frames from the ports of one sink into it."""
        info, inbox = self.session.info_for(name), self.session.inbox(name, sink)
        count, position = 0, None
        heard = self.session.metrics.audio_samples
        try:
            while True:
                port = inbox.pick(None)
                frame = None if port is None else inbox.take(port)
                if port is None or frame is None:
                    if inbox.ended:
                        break
                    await seat.wait()
                    continue
                if port.producer is not None and len(port.queue) >= port.capacity - 1:
                    port.producer.wake()
                position = frame.position
                heard = self._measure(frame, heard)
                await sink.write(frame, info, port.input)
                count += 1
                if count % BREATH == 0:
                    await asyncio.sleep(0)
            await sink.finish(info)
        except (NodeError, StallError):
            raise
        except Exception as error:
            raise NodeError.wrap(name, error, position=position, session=info.id) from error
        self.unfinished.discard(name)
        if not self.unfinished:
            self.settle("ended")
        seat.leave()

    def _measure(self, frame: Frame, heard: int) -> int:
        """Samples that this sink has had; what is new to all sinks goes into the metrics."""
        metrics = self.session.metrics
        if frame.kind == AUDIO and frame.payload:
            heard += frame.samples
            if heard > metrics.audio_samples:
                metrics.sound(heard - metrics.audio_samples, generated=bool(frame.flags & GENERATED))
        return heard

    # -- the whole session ------------------------------------------------------------------------------------------

    def all_rest(self) -> None:
        """Nobody can go on: take the snapshot that was asked for, or say what everyone waits for."""
        if self.settled or self.saving:
            return
        if self.gated:
            self.saving = True
            work = self.take_snapshot(Seat(self, "snapshot"))
            self.owner.spawn(work, f"snapshot:{self.session.info.id}")
            return
        raise StallError(self.session.info.id, list(_waiting(self.session)))

    async def take_snapshot(self, seat: Seat) -> None:
        """Save every state in its lane's thread, then pause or go on."""
        cells: dict[str, Any] = {}
        for driver in self.owner.drivers:
            cells |= await driver.call(self.session.save_cells, driver.lane.order)
        data = self.session.pack(cells)
        wanted, self.session.wanted, self.session.gate = self.session.wanted, None, None
        self.saving = False
        if wanted is None:
            self.session.pause(data)
            self.settle("paused")
            return
        if not wanted.done():
            wanted.set_result(data)
        self.session.gate = self.owner.until
        self.regate()
        seat.leave()

    def regate(self) -> None:
        """The gate has moved: whoever waits at it looks again."""
        for seat in list(self.gated):
            seat.wake()

    def stop(self) -> None:
        """End every source; each closes its own streams."""
        if self.stopping:
            return
        self.stopping = True
        for task in self.sources:  # not before its first step: what never began could not end its streams
            asyncio.get_running_loop().call_soon(task.cancel)

    def settle(self, status: str) -> None:
        """The session is over for this run; let its tasks and lanes go."""
        self.settled = True
        self.session.metrics.mark("end", again=True)
        self.session.status = "paused" if status == "paused" else "ended"
        current = asyncio.current_task()
        for task in [*self.sources, *self.sinks]:
            if task is not current:
                task.cancel()
        for driver in self.owner.drivers:
            driver.leaving.append(self)
        self.owner.one_settled()


def _waiting(session: Session) -> Iterable[str]:
    """What stands in the way, port by port: the full ones, and those that a consumer waits for."""
    for port in session.ports.values():
        if port.side or port.drained:
            continue
        if port.queue:
            full = "full" if len(port.queue) >= port.capacity else "not taken"
            yield f"{port.label} is {full} ({len(port.queue)} of {port.capacity} frames)"
        else:
            yield f"{port.label} is empty and has not ended"


class _Run:
    """One call of `run`."""

    def __init__(self, graph: Graph, sessions: Sequence[Session], until: int | None) -> None:
        self.graph, self.until = graph, until
        self.drivers = [Driver(Lane(name, members)) for name, members in graph.plan.lanes.items()]
        self.streams = [_Stream(self, session) for session in sessions]
        self.group: asyncio.TaskGroup | None = None

    def spawn(self, work: Any, name: str) -> None:
        if self.group is not None:
            self.group.create_task(work, name=name)

    def one_settled(self) -> None:
        if all(stream.settled for stream in self.streams):
            for driver in self.drivers:
                driver.closing = True
                driver.event.set()

    async def go(self) -> None:
        opened: list[_Stream] = []
        try:
            for stream in self.streams:
                stream.session.prepare()
                opened.append(stream)
                await self._open(stream)
            async with asyncio.TaskGroup() as self.group:
                for stream in self.streams:
                    stream.start(self.group)
                for driver in self.drivers:
                    self.group.create_task(driver.drive(), name=f"lane:{driver.lane.name}")
        except BaseExceptionGroup as group:
            first = _first(group)
            raise first from first.__cause__
        finally:
            await self._close(opened)

    async def _open(self, stream: _Stream) -> None:
        session = stream.session
        session.gate = self.until
        session.metrics.mark("start")
        for driver in self.drivers:
            await driver.call(session.open_cells, driver.lane.order)
            driver.lane.join(session.cells)

    async def _close(self, opened: Sequence[_Stream]) -> None:
        """Close states in their threads and abort the sinks of what did not end; called however the run ended."""
        for stream in opened:
            session = stream.session
            session.collect()
            session.on_stop = session.on_gate = None
            if session.wanted is not None:
                session.wanted.cancel()
                session.wanted = None
            if not stream.settled:
                session.status = "failed"
                for name in stream.unfinished:
                    await self.graph.sinks[name].abort(session.info_for(name))
            for driver in self.drivers:
                await driver.call(session.close_cells, driver.lane.order)
            for port in session.ports.values():
                port.consumer = port.producer = None
        for driver in self.drivers:
            driver.close()


def _check_ended(name: str, routes: Routes, reached: int) -> None:
    """A source is over: every stream of it must have ended."""
    missing = [port.label for kind, ports in routes.items() if kind != CONTROL for port in ports if not port.ended]
    if missing:
        raise NodeError(name, f"ended without a LAST frame on {', '.join(missing)}", position=reached)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that started it: the first of ours, else the first."""
    found = list(_leaves(group))
    return next((error for error in found if isinstance(error, StreamerError)), found[0])


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterable[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
