"""A cell: one node in one session, with its state, its inbox, and what it is busy with.

Everything here is called in the thread of the node's lane, save `forsake` and what follows from it, which is called
when that thread was given up. It knows no lane.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from streamer.errors import NodeError, OverflowFrameError
from streamer.frame import CONTROL, Frame
from streamer.isolate import RESTARTS, WITHIN, Bypass, Guard, Passage, Routes, report
from streamer.metrics import Ring
from streamer.node import Node, Saved, SessionInfo, State
from streamer.port import Inbox, Port

UNGUARDED: Final = Guard()
_now = time.monotonic


class Cell:
    """One node in one session: its state, its inbox, and the frame or generator it is busy with."""

    __slots__ = (
        "batches", "blocked", "bypassed", "done", "frame", "gen", "given", "guard", "held", "inbox", "info", "name",
        "node", "opened", "own_clock", "port", "restarts", "ring", "routes", "spent", "state", "wants",
    )  # fmt: skip

    def __init__(  # noqa: PLR0917 - a cell is what it is made of
        self, node: Node, info: SessionInfo, inbox: Inbox, routes: Routes, ring: Ring, guard: Guard = UNGUARDED
    ) -> None:
        self.name, self.info = node.name, info
        self.inbox, self.routes, self.ring, self.guard = inbox, routes, ring, guard
        self._adopt(node)
        self.state: State = None
        self.gen: Iterator[Frame] | None = None
        self.held: Frame | None = None
        self.blocked: list[Port] = []
        self.frame: Frame | None = None
        self.port: Port | None = None
        self.spent = 0.0
        self.given = 0  # frames for the one it is busy with, beyond the first
        self.restarts: deque[float] = deque(maxlen=RESTARTS)
        self.done = self.opened = self.bypassed = False

    def _adopt(self, node: Node) -> None:
        """Take a node in; what it leaves as it is in `Node` is not asked in every turn."""
        self.node = node
        self.wants = node.wants if type(node).wants is not Node.wants else None
        self.own_clock = node.position if type(node).position is not Node.position else None
        self.batches = type(node).step_many is not Node.step_many

    @property
    def position(self) -> int | None:
        """Where the frame starts that it took last."""
        return None if self.frame is None else self.frame.position

    def open(self, saved: Saved | None) -> None:
        """Make the state, or load it from what `save` gave."""
        if saved is None:
            self.state = self.node.init_state(self.info)
        else:
            self._load(saved)
        self.opened = not self.bypassed
        if self.guard.on_error != "fail":
            self._tell("bypassed" if self.bypassed else "running")

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

    def wrong(self, message: str) -> NodeError:
        """An error of this node, where it is."""
        return NodeError(self.name, message, position=self.position, session=self.info.id)

    def count(self) -> None:
        """Count one more frame of the step it is in.

        Raises:
            NodeError: those are too many.
        """
        self.given += 1
        if self.given >= self.guard.most_frames:
            raise self.flood()

    def flood(self) -> NodeError:
        """It has given more frames for one than it may."""
        most = self.guard.most_frames
        return self.wrong(f"gave more than {most} frames for one; if that is right, raise its `most_frames`")

    def routes_of(self, frame: Frame) -> Sequence[Port]:
        """Where a frame goes that this node gave."""
        ports = self.routes.get(frame.kind) if isinstance(frame, Frame) else None
        if ports is None:
            given = f"a {frame.kind} frame" if isinstance(frame, Frame) else repr(frame)[:60]
            raise self.wrong(f"gave {given}, but declares only {', '.join(sorted(self.routes)) or 'nothing'}")
        return ports

    def over(self) -> None:
        """The step is over: keep its time, and see whether the node is done."""
        self.gen = None
        self.ring.add(self.spent)
        self.spent = 0.0
        self.given = 0
        if not self.done and self.inbox.last_taken and self.inbox.ended:
            self.finish()

    def finish(self) -> None:
        """All inputs have ended and the last step is over: every output must have ended too."""
        self.done = True
        for kind, ports in self.routes.items():
            if kind != CONTROL and any(not port.ended and not port.side for port in ports):
                raise self.wrong(f"took the end of all its inputs but gave no {kind} frame with LAST")

    # -- when it fails ----------------------------------------------------------------------------------------------

    def survive(self, error: NodeError, *, again: bool = True) -> bool:
        """Go on without what failed, as the guard says; False: the session fails with it.

        Args:
            error: what failed.
            again: whether the node may begin anew; not when its thread hangs.
        """
        self.info.metrics.count(f"{self.name}.failures")
        if self.guard.on_error == "fail" or self.bypassed or isinstance(error.__cause__, OverflowFrameError):
            return False
        notes = self._release()
        again = again and self.guard.on_error == "restart" and self._begin_anew(notes)
        if not again:
            self._bypass()
        self.gen = self._passed(self.frame, "" if self.port is None else self.port.input)
        then = "it begins anew" if again else "it is bypassed from now on"
        also = {"also": "; ".join(str(note) for note in notes)} if notes else {}
        report(node=self.name, session=self.info.id, position=error.position, error=error.message, then=then, **also)
        self.frame, self.spent, self.given, self.done = None, 0.0, 0, False
        return True

    def _passed(self, frame: Frame | None, into: str) -> Iterator[Frame]:
        """What goes on in the place of a step; made when it is asked for, so that what fails in it is caught there."""
        yield from Passage(self.name, self.info, self.inbox, self.routes).over(frame, into)

    def _release(self) -> list[Exception]:
        """Drop what it was busy with and its state; what that raises too is told, and no more."""
        notes: list[Exception] = []
        try:
            self.close()
        except Exception as error:  # noqa: BLE001 - goes into the report of the failure
            notes.append(error)
        return notes

    def _begin_anew(self, notes: list[Exception]) -> bool:
        """A fresh state, unless it had too many, or would wait for an end that has been: then False."""
        now = _now()
        often = len(self.restarts) == RESTARTS and now - self.restarts[0] < WITHIN
        if often or any(port.drained for port in self.inbox.main):
            return False
        try:
            self.state = self.node.init_state(self.info)
        except Exception as error:  # noqa: BLE001 - goes into the report of the failure
            notes.append(error)
            return False
        self.opened = True
        self.restarts.append(now)
        self.info.metrics.count(f"{self.name}.restarts")
        return True

    def _bypass(self) -> None:
        """Take the node out for the rest of the session."""
        self._adopt(Bypass(self.node.config, self.node.build))
        self.state = Passage(self.name, self.info, self.inbox, self.routes)
        self.inbox.own = None  # it has no clock of its own any more
        self.bypassed = True
        self._tell("bypassed")

    def forsake(self) -> None:
        """Its thread hangs in its step: state and generator are that thread's from now on, and never closed here."""
        self.gen, self.held, self.blocked, self.opened = None, None, [], False
        self._tell("hangs")

    def _tell(self, state: str) -> None:
        self.info.metrics.gauge(f"{self.name}.state", state)

    # -- snapshots and the end --------------------------------------------------------------------------------------

    def save(self) -> Saved:
        """State, and the frames that are made but not yet delivered, as plain data."""
        most = self.guard.most_frames - 1 - self.given
        rest = list(islice(self.gen, most + 1)) if self.gen is not None else []
        if len(rest) > most:
            raise self.flood()
        self.gen = iter(rest) if rest else None
        kept = self.node.restorable or type(self.node).save is not Node.save
        return {
            "state": self.node.save(self.state) if kept else None,
            "done": self.done, "clock": self.inbox.clock, "late": self.inbox.late, "bypassed": self.bypassed,
            "held": None if self.held is None else self.held.pack(), "rest": [frame.pack() for frame in rest],
            "blocked": [port.label for port in self.blocked],
        }  # fmt: skip

    def _load(self, saved: Saved) -> None:
        if saved.get("bypassed"):
            self._bypass()
        else:
            state = saved["state"]
            self.state = self.node.init_state(self.info) if state is None else self.node.load(state, self.info)
        self.done, self.inbox.clock, self.inbox.late = saved["done"], saved["clock"], saved["late"]
        self.held = None if saved["held"] is None else Frame.unpack(saved["held"])
        rest = [Frame.unpack(data) for data in saved["rest"]]
        self.gen = iter(rest) if rest else None
        labels = set(saved["blocked"])
        self.blocked = [port for ports in self.routes.values() for port in ports if port.label in labels]

    def close(self) -> None:
        """Drop what it was busy with and release the state."""
        closer = getattr(self.gen, "close", None)
        try:
            if closer is not None:
                closer()
        finally:
            self.gen, self.held, self.blocked = None, None, []
            if self.opened:
                self.opened = False
                self.node.close(self.state)
