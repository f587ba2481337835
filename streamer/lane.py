"""A lane: nodes that share one worker thread, and the synchronous turn that moves their frames.

Inside a turn a hop is a put and a take of the same immutable frame. The lane knows nothing of asyncio: the runtime
calls `turn` in the worker, wakes whoever is in `touched` afterwards and ends the sessions of those in `failed`. The
rule is that of a bounded dataflow network: a node takes a frame when it wants one, and makes the next when every port
behind it had room for the last; so how nodes are put into lanes never changes a result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from streamer.errors import NodeError
from streamer.frame import CONTROL, Frame
from streamer.metrics import Ring
from streamer.node import Node, Saved, SessionInfo, State
from streamer.port import Inbox, Port, Waker

Routes = Mapping[str, Sequence[Port]]
_END: Final[Any] = object()
_now = time.perf_counter
SLICE: Final = 0.002  # seconds after which a turn lets its output go out


class Cell:
    """One node in one session: its state, its inbox, and the frame or generator it is busy with."""

    __slots__ = (
        "batches", "blocked", "done", "gen", "held", "inbox", "info", "name", "node", "opened", "own_clock", "position",
        "ring", "routes", "spent", "state", "wants",
    )  # fmt: skip

    def __init__(self, node: Node, info: SessionInfo, inbox: Inbox, routes: Routes, ring: Ring) -> None:
        self.node, self.name, self.info = node, node.name, info
        self.inbox, self.routes, self.ring = inbox, routes, ring
        self.wants = node.wants if type(node).wants is not Node.wants else None
        self.own_clock = node.position if type(node).position is not Node.position else None
        self.batches = type(node).step_many is not Node.step_many
        self.state: State = None
        self.gen: Iterator[Frame] | None = None
        self.held: Frame | None = None
        self.blocked: list[Port] = []
        self.position: int | None = None
        self.spent = 0.0
        self.done = self.opened = False

    def open(self, saved: Saved | None) -> None:
        """Make the state, or load it from what `save` gave."""
        if saved is None:
            self.state = self.node.init_state(self.info)
        else:
            self._load(saved)
        self.opened = True

    def pick(self) -> Port | None:
        """The port to take the next frame from, or None."""
        if self.done:
            return None
        wanted = None if self.wants is None else self.wants(self.state)
        clock = None if self.own_clock is None else self.own_clock(self.state)
        return self.inbox.pick(wanted, clock)

    def fail(self, error: Exception) -> NodeError:
        """The error with this node's name and the position of the frame it had."""
        if isinstance(error, NodeError):
            return error
        made = NodeError.wrap(self.name, error, position=self.position, session=self.info.id)
        made.__cause__ = error
        return made

    def share(self, error: Exception) -> NodeError:
        """The same for an error of a step of several sessions: each has one of its own to raise."""
        if not isinstance(error, NodeError):
            return self.fail(error)
        made = NodeError(error.node, error.message, position=self.position, session=self.info.id)
        made.exit_code, made.__cause__ = error.exit_code, error
        return made

    def routes_of(self, frame: Frame) -> Sequence[Port]:
        """Where a frame goes that this node gave."""
        ports = self.routes.get(frame.kind) if isinstance(frame, Frame) else None
        if ports is None:
            given = f"a {frame.kind} frame" if isinstance(frame, Frame) else repr(frame)[:60]
            message = f"gave {given}, but declares only {', '.join(sorted(self.routes)) or 'nothing'}"
            raise NodeError(self.name, message, position=self.position, session=self.info.id)
        return ports

    def over(self) -> None:
        """The step is over: keep its time, and see whether the node is done."""
        self.gen = None
        self.ring.add(self.spent)
        self.spent = 0.0
        if not self.done and self.inbox.last_taken and self.inbox.ended:
            self.finish()

    def finish(self) -> None:
        """All inputs have ended and the last step is over: every output must have ended too."""
        self.done = True
        for kind, ports in self.routes.items():
            if kind != CONTROL and any(not port.ended and not port.side for port in ports):
                message = f"took the end of all its inputs but gave no {kind} frame with LAST"
                raise NodeError(self.name, message, position=self.position, session=self.info.id)

    def save(self) -> Saved:
        """State, and the frames that are made but not yet delivered, as plain data."""
        rest = list(self.gen) if self.gen is not None else []
        self.gen = iter(rest) if rest else None
        return {
            "state": self.node.save(self.state), "done": self.done, "clock": self.inbox.clock, "late": self.inbox.late,
            "held": None if self.held is None else self.held.pack(), "rest": [frame.pack() for frame in rest],
            "blocked": [port.label for port in self.blocked],
        }  # fmt: skip

    def _load(self, saved: Saved) -> None:
        self.state = self.node.load(saved["state"], self.info)
        self.done, self.inbox.clock, self.inbox.late = saved["done"], saved["clock"], saved["late"]
        self.held = None if saved["held"] is None else Frame.unpack(saved["held"])
        rest = [Frame.unpack(data) for data in saved["rest"]]
        self.gen = iter(rest) if rest else None
        labels = set(saved["blocked"])
        self.blocked = [port for ports in self.routes.values() for port in ports if port.label in labels]

    def close(self) -> None:
        """Drop what it was busy with and release the state."""
        closer = getattr(self.gen, "close", None)
        if closer is not None:
            closer()
        self.gen, self.held, self.blocked = None, None, []
        if self.opened:
            self.opened = False
            self.node.close(self.state)


class Lane:
    """The cells of one lane, row by row: a row is one node in every session, rows stand in the order of the edges.

    Attributes:
        touched: who is to be woken after a turn.
        failed: the cells that failed in a turn, each with its error; their sessions have left the lane.
        asked: whether something else waits for the lane's thread; a turn ends early for it.
    """

    def __init__(self, name: str, order: Sequence[str], asked: Callable[[], bool] = bool) -> None:
        self.name = name
        self.order = tuple(order)
        self.rows: list[list[Cell]] = [[] for _ in order]
        self.touched: set[Waker] = set()
        self.failed: list[tuple[Cell, NodeError]] = []
        self.asked = asked

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

    def _visit_one(self, cell: Cell) -> bool:
        try:
            return self._visit(cell)
        except NodeError as error:
            self.failed.append((cell, error))
            return False

    def _visit(self, cell: Cell) -> bool:
        """Let one cell give at most one frame. True when a frame moved. This is the hop: it makes few calls."""
        if cell.held is not None:
            return self._deliver(cell, cell.held, cell.blocked)
        gen = cell.gen
        started = _now()
        try:
            frame = _END if gen is None else next(gen, _END)
            if frame is _END:
                if gen is not None:
                    cell.over()
                port = cell.pick()
                taken = None if port is None else self._take(cell, port)
                if port is None or taken is None:
                    return False
                started = _now()
                cell.gen = gen = iter(cell.node.step(taken, cell.state, port.input))
                frame = next(gen, _END)
        except Exception as error:
            raise cell.fail(error) from error
        cell.spent += _now() - started
        if frame is _END:
            cell.over()
            return True
        return self._deliver(cell, frame, cell.routes_of(frame))

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
                self.failed.append((cell, error))
                continue
            if item is not None:
                begun.append(cell)
                batch.append(item)
        if begun and begun[0].batches:
            self._begin(begun, batch)
        else:
            for cell, item in zip(begun, batch, strict=True):
                self._begin((cell,), (item,))
        return moved or bool(begun)

    def _next_item(self, cell: Cell) -> tuple[Frame, State, str] | None:
        """What a cell takes now, as `step_many` has it; None when there is nothing."""
        try:
            port = cell.pick()
        except Exception as error:
            raise cell.fail(error) from error
        frame = None if port is None else self._take(cell, port)
        return None if port is None or frame is None else (frame, cell.state, port.input)

    def _begin(self, begun: Sequence[Cell], batch: Sequence[tuple[Frame, State, str]]) -> None:
        """Begin a frame in several sessions; what the step of all of them raises is the error of each."""
        started = _now()
        try:
            made: Sequence[Iterable[Frame]] = begun[0].node.step_many(batch)
            if len(made) != len(begun):
                message = f"step_many gave {len(made)} results for {len(begun)} frames"
                raise NodeError(begun[0].name, message)  # noqa: TRY301 - it is shared like any other
        except Exception as error:  # noqa: BLE001 - kept for each session
            for cell in begun:
                self.failed.append((cell, cell.share(error) if len(begun) > 1 else cell.fail(error)))
            return
        share = (_now() - started) / len(begun)
        for cell, frames in zip(begun, made, strict=True):
            cell.spent = share
            try:
                cell.gen = iter(frames)
                self._advance(cell)
            except Exception as error:  # noqa: BLE001 - kept for its session
                self.failed.append((cell, cell.fail(error)))

    def _take(self, cell: Cell, port: Port) -> Frame | None:
        frame = cell.inbox.take(port)
        if port.producer is not None and len(port.queue) >= port.capacity - 1:  # it was full: the producer may wait
            self.touched.add(port.producer)
        if frame is not None:
            cell.position = frame.position
        return frame

    def _advance(self, cell: Cell) -> bool:
        """Deliver what the cell holds, else let its generator make one more frame. True when a frame moved."""
        if cell.held is not None:
            return self._deliver(cell, cell.held, cell.blocked)
        started = _now()
        try:
            frame = next(cell.gen, _END)  # type: ignore[arg-type]
        except Exception as error:
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
        full: list[Port] = []
        for port in ports:
            if len(port.queue) >= port.capacity and port.blocks:
                full.append(port)
                continue
            try:
                port.put(frame)
            except Exception as error:
                raise cell.fail(error) from error
            if port.consumer is not None:
                self.touched.add(port.consumer)
        if full:
            moved = fresh or len(full) < len(ports)
            cell.held, cell.blocked = frame, full
            return moved
        if not fresh:
            cell.held, cell.blocked = None, []
        return True
