"""One session while it runs: its seats, a task for each source and sink, and how it ends, fails, pauses and closes.

Who cannot go on rests; when everyone of a session rests, the session has ended, is to be saved, or stands still, which
is an error that says what each port waits for. So a graph never hangs in silence. It knows nothing of other sessions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import Final, Self

from streamer.driver import Driver, Seat, settled
from streamer.errors import NodeError, StallError, first_of
from streamer.frame import AUDIO, CONTROL, GENERATED, Frame
from streamer.gate import Gate
from streamer.graph import Graph
from streamer.isolate import Routes
from streamer.node import Sink, Source
from streamer.port import Port
from streamer.session import Session

BREATH: Final = 16  # frames after which a source or a sink lets others run, even if it never waits


class Stream:
    """One session while it runs: `open`, then `play`, then `close`, which is called however it ended.

    Attributes:
        active: seats that can go on. gate: where sources hold back for a snapshot.
        over: it has ended, paused or failed; nothing new begins.
        error: what failed, if anything did.
        gone: done when `close` is.
    """

    def __init__(self, graph: Graph, drivers: Sequence[Driver], session: Session, until: int | None) -> None:
        self.graph, self.drivers, self.session = graph, drivers, session
        self.active: set[Seat] = set()
        self.gate = Gate(session, drivers, until)
        self.seats: dict[str, Seat] = {}
        self.sources: list[asyncio.Task[None]] = []
        self.sinks: list[asyncio.Task[None]] = []
        self.unfinished = set(graph.sinks)
        lasting = {port.consumer for port in graph.plan.ports if not port.side}
        self.servants = self.unfinished - lasting  # sinks that take commands only, which have no end
        self.over = asyncio.Event()
        self.error: BaseException | None = None
        self.group = asyncio.TaskGroup()
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.stopping = self.settled = self.closed = self.dry = False

    async def open(self) -> None:
        """Make the states in their threads, seat everyone and join the lanes; sources and sinks do not move yet.

        Raises:
            NodeError: a state cannot be made or loaded.
        """
        session = self.session
        session.on_stop = self.stop
        for driver in self.drivers:
            await driver.call(session.open_cells, driver.lane.order)
        self._seat_all()
        for driver in self.drivers:
            await driver.call(driver.join, session.cells)

    def _seat_all(self) -> None:
        """Everyone is seated before anyone moves, so that nobody is the last to rest too early."""
        for driver in self.drivers:
            seat = driver.seat(self, self.session.info.id)
            self.seats |= dict.fromkeys(driver.lane.order, seat)
        for name in [*self.graph.sources, *self.graph.sinks]:
            self.seats[name] = Seat(self, name)
            self.seats[name].reached = self.session.reached.get(name, 0)
        for port in self.session.ports.values():
            maker, taker = self.seats.get(port.spec.producer), self.seats[port.spec.consumer]
            port.consumer = None if taker is maker else taker
            port.producer = None if taker is maker else maker

    async def play(self) -> None:
        """Carry frames until the session has ended or is paused, then close it.

        Raises:
            NodeError: a node, source or sink failed. StallError: it cannot go on.
        """
        try:
            async with self.group:
                self._start()
                try:
                    await self.over.wait()
                finally:
                    self.over.set()
                self._check()
        except BaseExceptionGroup as group:
            error = first_of(group)
            raise error from error.__cause__
        await self.close()
        self._check()

    def _start(self) -> None:
        session, graph, create = self.session, self.graph, self.group.create_task
        session.metrics.mark("start")  # ready: what a first session has to load is loaded
        session.on_gate, session.status, session.began = self.gate.moved, "running", True
        session.release()
        label = session.info.id
        for name, source in graph.sources.items():
            work = self.pump(name, source, self.seats[name])
            self.sources.append(create(work, name=f"source:{label}:{name}"))
        for name, sink in graph.sinks.items():
            drain = self.drain(name, sink, self.seats[name])
            self.sinks.append(create(drain, name=f"sink:{label}:{name}"))
        if self.stopping:
            self._stop_sources()

    def _check(self) -> None:
        """Raise what failed; also what failed in a lane while the session was ending."""
        if self.error is not None:
            raise self.error

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
        except NodeError:
            raise
        except Exception as error:
            raise NodeError.wrap(name, error, position=seat.reached, session=self.session.info.id) from error
        finally:
            closer = getattr(frames, "aclose", None)
            if closer is not None:
                await closer()
        seat.leave()

    async def _feed_all(self, frames: AsyncIterator[Frame], routes: Routes, seat: Seat) -> None:
        count, given = 0, aiter(frames)
        placed = self.session.placed(seat.name)
        while (frame := await self.gate.next(given, seat)) is not None:
            if placed is not None:
                frame = placed(frame)
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
        if left:
            await self.gate.passes(frame.position, seat)
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
                    if inbox.ended and (self.dry or name not in self.servants):
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
        except NodeError:
            raise
        except Exception as error:
            raise NodeError.wrap(name, error, position=position, session=info.id) from error
        self.unfinished.discard(name)
        if not self.unfinished:
            self.settle("ended")
        elif self.unfinished <= self.servants:
            self.dry_up()
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

    def fail(self, error: BaseException) -> None:
        """End the session with an error, which `play` raises; the first one counts."""
        if self.error is None:
            self.error = error
        self.over.set()

    def dry_up(self) -> None:
        """Nothing more can come that counts: sinks that take commands only end with what they have."""
        self.dry = True
        for name in self.unfinished:
            self.seats[name].wake()

    def all_rest(self) -> None:
        """Nobody can go on: take the snapshot that was asked for, or say what everyone waits for."""
        if self.over.is_set() or self.gate.saving:
            return
        if not self.gate.held:
            if self.unfinished <= self.servants and not self.dry:
                self.dry_up()
                return
            self.fail(StallError(self.session.info.id, list(_waiting(self.session))))
            return
        self.gate.saving = True
        work = self._save(Seat(self, "snapshot"), self.session.wanted)
        self.group.create_task(work, name=f"snapshot:{self.session.info.id}")

    async def _save(self, seat: Seat, wanted: asyncio.Future[bytes] | None) -> None:
        """Take a snapshot for who wanted it and go on; when nobody did, pause."""
        reached = {name: self.seats[name].reached for name in self.graph.sources}
        if wanted is None:
            self.session.pause(await self.gate.pause(reached))
            self.settle("paused")
            return
        await self.gate.save(wanted, reached)
        seat.leave()

    def stop(self) -> None:
        """End every source; each closes its own streams."""
        if not self.stopping:
            self.stopping = self.gate.stopping = True
            self._stop_sources()

    def _stop_sources(self) -> None:
        for task in self.sources:  # not before its first step: what never began could not end its streams
            asyncio.get_running_loop().call_soon(task.cancel)

    def settle(self, status: str) -> None:
        """The session is over for this run; let its tasks go."""
        self.settled = True
        self.session.metrics.mark("end", again=True)
        self.session.status = "paused" if status == "paused" else "ended"
        current = asyncio.current_task()
        for task in [*self.sources, *self.sinks]:
            if task is not current:
                task.cancel()
        self.over.set()

    # -- the end ----------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Abort the sinks of what did not end, leave the lanes and release the states in their threads; once.

        All of it is done even if some of it fails or the caller is cancelled.

        Raises:
            NodeError: a state could not be released.
        """
        if self.closed:
            return
        self.closed = True
        self.over.set()
        errors: list[BaseException] = []
        try:
            self._let_go()
            if not self.settled:
                errors += await self._abort()
        finally:
            try:
                errors += await settled(driver.submit(self._leave, driver) for driver in self.drivers)
            finally:
                self._forget()
        if errors:
            raise errors[0]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; what fails then is a note to an error that was there before."""
        _ = kind, trace
        try:
            await self.close()
        except Exception as late:
            if error is None:
                raise
            error.add_note(f"and then, closing session {self.session.info.id!r}: {late}")

    def _let_go(self) -> None:
        """Nobody is woken any more, and no command comes in."""
        session = self.session
        session.collect()
        session.on_stop = session.on_gate = None
        if session.wanted is not None:
            session.wanted.cancel()
            session.wanted = None
        for seat in self.seats.values():
            seat.gone = True

    async def _abort(self) -> list[BaseException]:
        """Let each sink that has not finished clean up; what they raise is told when all have."""
        self.session.status = "failed"
        errors: list[BaseException] = []
        for name in sorted(self.unfinished):
            info = self.session.info_for(name)
            try:
                await self.graph.sinks[name].abort(info)
            except Exception as error:  # noqa: BLE001 - raised when everything is closed
                errors.append(error if isinstance(error, NodeError) else NodeError.wrap(name, error, session=info.id))
        return errors

    def _leave(self, driver: Driver) -> None:
        """In the lane's thread, between two turns; the lane may be another one than when this was asked for."""
        driver.lane.leave(self.session.cells)
        self.session.close_cells(driver.lane.order)

    def _forget(self) -> None:
        """Keep nothing of the session in the lanes, and nothing of them in the session."""
        for driver in self.drivers:
            driver.unseat(self.session.info.id)
        for port in self.session.ports.values():
            port.consumer = port.producer = None
        self.gone.set_result(None)


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


def _check_ended(name: str, routes: Routes, reached: int) -> None:
    """A source is over: every stream of it must have ended."""
    missing = [port.label for ports in routes.values() for port in ports if not port.side and not port.ended]
    if missing:
        raise NodeError(name, f"ended without a LAST frame on {', '.join(missing)}", position=reached)
