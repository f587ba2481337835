"""A lane: nodes that share one worker thread, and the synchronous turn that moves their frames.

Inside a turn a hop is a put and a take of the same immutable frame. The lane knows nothing of asyncio: the runtime
calls `turn` in the worker, wakes whoever is in `touched` afterwards and ends the sessions of those in `failed`. The
rule is that of a bounded dataflow network: a node takes a frame when it wants one, and makes the next when every port
behind it had room for the last; so how nodes are put into lanes never changes a result.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from streamer.cell import Cell
from streamer.errors import NodeError
from streamer.frame import Frame
from streamer.isolate import report
from streamer.node import Node, State
from streamer.port import Port, Waker

_END: Final[Any] = object()
_now = time.perf_counter
SLICE: Final = 0.002  # seconds after which a turn lets its output go out


class AbandonedError(BaseException):
    """Ends the turn of a thread that was given up; nothing but the thread's own loop catches it."""


class Lane:
    """The cells of one lane, row by row: a row is one node in every session, rows stand in the order of the edges.

    A step that hangs is given up from outside (`claim`): the thread in it finds that out when it comes back, before it
    touches anything, and ends. For that it says when it goes into a step, when it is back, and only then looks whether
    somebody suspects it; who suspects does so first and then looks whether it is still in. One of the two sees the
    other, and the lock settles the rest, so a step costs no lock.

    Attributes:
        touched: who is to be woken after a turn.
        failed: the cells that failed in a turn, each with its error; their sessions have left the lane.
        asked: whether something else waits for the lane's thread; a turn ends early for it.
        busy: whose step the thread is in now, if any. began: when it went in.
    """

    def __init__(self, name: str, order: Sequence[str], asked: Callable[[], bool] = bool) -> None:
        self.name = name
        self.order = tuple(order)
        self.rows: list[list[Cell]] = [[] for _ in order]
        self.touched: set[Waker] = set()
        self.failed: list[tuple[Cell, NodeError]] = []
        self.asked = asked
        self.busy: Cell | tuple[Cell, ...] | None = None
        self.began = 0.0
        self.suspect = self.abandoned = False
        self._lock = threading.Lock()
        self._orphans: list[tuple[Node, State]] = []

    def join(self, cells: Mapping[str, Cell]) -> None:
        """Take the cells of one more session, by node name; never during a turn."""
        for row, name in zip(self.rows, self.order, strict=True):
            row.append(cells[name])

    def leave(self, cells: Mapping[str, Cell]) -> None:
        """Let a session go, if it is still here; never during a turn."""
        self._drop(cells[self.order[0]])

    def _drop(self, cell: Cell) -> None:
        """Take the session of a cell out of every row: it has the same place in all of them."""
        row = self.rows[self.order.index(cell.name)]
        if cell in row:
            place = row.index(cell)
            for each in self.rows:
                del each[place]

    def turn(self) -> bool:
        """Move frames until nothing can move; True when it stopped early.

        It stops early to let its output go out, for work that waits for the thread, and when a node failed. A session
        whose node failed is in `failed` and has left the lane; the others go on.
        """
        limit = _now() + SLICE
        while True:
            moved = False
            for row in self.rows:
                if len(row) == 1:
                    moved |= self._visit_one(row[0])
                elif row:
                    moved |= self._visit_many(row)
            if self.failed:
                for cell, _ in self.failed:
                    self._drop(cell)
                return True
            if not moved:
                return False
            if self.asked() or (self.touched and _now() >= limit):
                return True

    # -- a thread that hangs ----------------------------------------------------------------------------------------

    def claim(self, began: float) -> tuple[Cell, ...]:
        """Give the thread up if it is still in the step that began then: whose step that is, else nobody.

        Called outside the thread. What is claimed is no longer the thread's; it may be taken over by an `heir`.
        """
        with self._lock:
            self.suspect = True
            busy = self.busy
            if busy is None or self.began != began:
                self.suspect = False
                return ()
            self.abandoned = True
            cells = busy if isinstance(busy, tuple) else (busy,)
            self._orphans = [(cell.node, cell.state) for cell in cells]
            return cells

    def heir(self) -> Lane:
        """The same lane for another thread, after a claim."""
        made = Lane(self.name, self.order, self.asked)
        made.rows, made.touched, made.failed = self.rows, self.touched, self.failed
        self.rows, self.touched, self.failed = [], set(), []
        for cell, _ in made.failed:
            made._drop(cell)
        return made

    def hung(self, cell: Cell, error: NodeError) -> None:
        """Go on without the node of a claimed cell, or without its session; of the heir, before its first turn."""
        cell.forsake()
        if not cell.survive(error, again=False):
            self.failed.append((cell, error))
            self._drop(cell)

    def _back(self) -> None:
        """In the thread, back from a step while somebody suspects it: go on, or release what it was in and end."""
        with self._lock:
            if not self.abandoned:
                return
        errors: list[Exception] = []
        for node, state in self._orphans:
            try:
                node.close(state)
            except Exception as error:  # noqa: BLE001 - told below
                errors.append(error)
        for each in errors:
            report(lane=self.name, error=f"closing what hung: {type(each).__name__}: {each}")
        raise AbandonedError

    # -- one cell ---------------------------------------------------------------------------------------------------

    def _visit_one(self, cell: Cell) -> bool:
        try:
            return self._visit(cell)
        except NodeError as error:
            return self._failed(cell, error)

    def _failed(self, cell: Cell, error: NodeError) -> bool:
        """A cell failed. True when it goes on all the same, with something to give."""
        if cell.survive(error):
            return True
        self.failed.append((cell, error))
        return False

    def _visit(self, cell: Cell) -> bool:
        """Let one cell give at most one frame. True when a frame moved. This is the hop: it makes few calls."""
        if cell.held is not None:
            return self._deliver(cell, cell.held, cell.blocked)
        gen = cell.gen
        frame = _END
        started = 0.0
        try:
            if gen is not None:
                self.began = started = _now()
                self.busy = cell
                frame = next(gen, _END)
                self.busy = None
                if self.suspect:
                    self._back()
                if frame is _END:
                    cell.over()
                else:
                    cell.count()
            if frame is _END:
                port = cell.pick()
                taken = None if port is None else self._take(cell, port)
                if port is None or taken is None:
                    return False
                self.began = started = _now()
                self.busy = cell
                gen = iter(cell.node.step(taken, cell.state, port.input))
                frame = next(gen, _END)
                self.busy = None
                if self.suspect:
                    self._back()
                cell.gen = gen
        except Exception as error:
            self._out()
            raise cell.fail(error) from error
        cell.spent += _now() - started
        if frame is _END:
            cell.over()
            return True
        return self._deliver(cell, frame, cell.routes_of(frame))

    def _out(self) -> None:
        """The thread is back from a step, or was in none."""
        self.busy = None
        if self.suspect:
            self._back()

    def _visit_many(self, row: Sequence[Cell]) -> bool:
        """The same for one node in several sessions; those that can begin a frame begin it together."""
        moved = False
        begun: list[Cell] = []
        batch: list[tuple[Frame, State, str]] = []
        for cell in row:
            try:
                if cell.gen is not None or cell.held is not None:
                    moved |= self._advance(cell)
                    if cell.gen is not None or cell.held is not None:
                        continue
                item = self._next_item(cell)
            except NodeError as error:
                moved |= self._failed(cell, error)
                continue
            if item is None:
                continue
            moved = True
            if cell.batches:
                begun.append(cell)
                batch.append(item)
            else:
                self._begin((cell,), (item,))
        if begun:
            self._begin(tuple(begun), batch)
        return moved

    def _next_item(self, cell: Cell) -> tuple[Frame, State, str] | None:
        """What a cell takes now, as `step_many` has it; None when there is nothing."""
        try:
            port = cell.pick()
        except Exception as error:
            raise cell.fail(error) from error
        frame = None if port is None else self._take(cell, port)
        return None if port is None or frame is None else (frame, cell.state, port.input)

    def _begin(self, begun: tuple[Cell, ...], batch: Sequence[tuple[Frame, State, str]]) -> None:
        """Begin a frame in several sessions; what the step of all of them raises is the error of each."""
        raised: list[Exception] = []
        self.began = started = _now()
        self.busy = begun
        try:
            made: Sequence[Iterable[Frame]] = begun[0].node.step_many(batch)
            self._out()
            if len(made) != len(begun):
                message = f"step_many gave {len(made)} results for {len(begun)} frames"
                raise NodeError(begun[0].name, message)  # noqa: TRY301 - it is shared like any other
        except Exception as error:  # noqa: BLE001 - kept for each session
            self._out()
            raised.append(error)
        if raised:
            for cell in begun:
                self._failed(cell, cell.share(raised[0]) if len(begun) > 1 else cell.fail(raised[0]))
            return
        share = (_now() - started) / len(begun)
        for cell, frames in zip(begun, made, strict=True):  # all before any goes on: one that hangs takes no other's
            cell.spent, cell.gen, cell.given = share, _each(frames), -1
        for cell in begun:
            try:
                self._advance(cell)
            except NodeError as error:
                self._failed(cell, error)

    def _take(self, cell: Cell, port: Port) -> Frame | None:
        frame = cell.inbox.take(port)
        if port.producer is not None and len(port.queue) >= port.capacity - 1:  # it was full: the producer may wait
            self.touched.add(port.producer)
        if frame is not None:
            cell.frame, cell.port = frame, port
        return frame

    def _advance(self, cell: Cell) -> bool:
        """Deliver what the cell holds, else let its generator make one more frame. True when a frame moved."""
        if cell.held is not None:
            return self._deliver(cell, cell.held, cell.blocked)
        self.began = started = _now()
        self.busy = cell
        try:
            frame = next(cell.gen, _END)  # type: ignore[arg-type]
            self._out()
            if frame is not _END:
                cell.count()
        except Exception as error:
            self._out()
            raise cell.fail(error) from error
        cell.spent += _now() - started
        if frame is _END:
            cell.over()
            return False
        return self._deliver(cell, frame, cell.routes_of(frame))

    def _deliver(self, cell: Cell, frame: Frame, ports: Sequence[Port]) -> bool:
        """Put the frame where there is room; keep it for the ports that have none.

        True when the frame is on its way: a port took it, or it was just made.
        """
        fresh = cell.held is None
        full: list[Port] | None = None
        for port in ports:
            if len(port.queue) >= port.capacity and port.blocks:
                full = [port] if full is None else [*full, port]
                continue
            try:
                port.put(frame)
            except Exception as error:
                raise cell.fail(error) from error
            if port.consumer is not None:
                self.touched.add(port.consumer)
        if full is not None:
            moved = fresh or len(full) < len(ports)
            cell.held, cell.blocked = frame, full
            return moved
        if not fresh:
            cell.held, cell.blocked = None, []
        return True


def _each(frames: Iterable[Frame]) -> Iterator[Frame]:
    """The frames one by one; what cannot be gone through is refused when the first is asked for."""
    yield from frames
