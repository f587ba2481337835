"""What becomes of a node that fails: its session fails with it, or it begins anew, or it is taken out.

Here stands what a node may do at most (`Guard`), and what goes on in its place when it is passed over (`Passage`). It
knows no lane, no thread and no clock; `Cell.survive` applies it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from streamer.frame import CONTROL, LAST, Frame
from streamer.node import Node, Saved, SessionInfo, State
from streamer.port import Inbox, Port

OnError = Literal["fail", "bypass", "restart"]
Routes = Mapping[str, Sequence[Port]]
RESTARTS: Final = 5
WITHIN: Final = 60.0  # seconds; a node that fails more often than RESTARTS in this time is taken out


@dataclass(frozen=True, slots=True)
class Guard:
    """What a node may do, and what becomes of it when it does more.

    Attributes:
        on_error: `fail`: its session ends; `bypass`: it is taken out; `restart`: it begins anew, with a fresh state.
        step_seconds: how long a step may give nothing.
        most_frames: how many frames it may give for one.
    """

    on_error: OnError = "fail"
    step_seconds: float = 10.0
    most_frames: int = 10_000_000


class Passage:
    """What goes on in the place of a node that is passed over.

    Of each kind that the node gives, that is what comes in of the same kind, unchanged: from the first input that has
    not ended. It never steps back behind what the node itself has given, and each stream ends when no input of its kind
    is left. A frame that cannot go on, and whose time the node has not given, is counted as `NODE.lost`.
    """

    def __init__(self, name: str, info: SessionInfo, inbox: Inbox, routes: Routes) -> None:
        self.name, self.info, self.inbox, self.routes = name, info, inbox, routes

    def over(self, frame: Frame | None, into: str) -> list[Frame]:
        """What is given instead of a step: the frame where it may go on, and every end that is due.

        Args:
            frame: what the step was, or would have been, for; None when there was nothing.
            into: the input it came in by.
        """
        made: list[Frame] = []
        for kind, ports in self.routes.items():
            mine = frame if frame is not None and frame.kind == kind else None
            if kind == CONTROL:
                made += [] if mine is None else [mine]
            elif any(not port.ended and not port.side for port in ports):
                made += self._of(kind, ports, mine, into)
        return made

    def _of(self, kind: str, ports: Sequence[Port], frame: Frame | None, into: str) -> Iterator[Frame]:
        """One stream of it."""
        left = any(port.spec.kind == kind and not port.drained for port in self.inbox.main)
        reach = max(port.reach for port in ports)
        leads = frame is not None and self._leads(frame, into)
        if frame is not None and leads and frame.position >= reach:
            if left and frame.last and not frame.samples:
                return
            flags = (frame.flags & ~LAST) | (0 if left else LAST)
            yield frame if flags == frame.flags else frame.replace(flags=flags)
            return
        if frame is not None and frame.samples and not (leads and frame.position + frame.samples <= reach):
            self.info.metrics.count(f"{self.name}.lost")
        if not left:
            end = max(reach, 0 if frame is None else frame.position)
            yield Frame.end(kind, position=end, like=frame, session=self.info.id, meta={"empty": True})

    def _leads(self, frame: Frame, into: str) -> bool:
        """Whether it came by the first input of its kind that was open when it came."""
        for port in self.inbox.main:
            if port.spec.kind == frame.kind and (not port.drained or (frame.last and port.input == into)):
                return port.input == into
        return False


class Bypass(Node):
    """Stands in a cell for a node that was taken out; its state is the `Passage`."""

    type_name: ClassVar[str] = "bypass"

    def step(self, frame: Frame, state: State, input: str) -> Iterable[Frame]:  # noqa: A002
        """Hand the frame on where it may go on."""
        passage: Passage = state
        return passage.over(frame, input)

    def save(self, state: State) -> Saved:
        """Nothing: where a stream stands is known by its ports."""
        _ = state
        return {}


def report(**values: Any) -> None:
    """Log what became of a node; on standard error when the program has set up no log (output may carry sound)."""
    import structlog

    plain = structlog.wrap_logger(structlog.PrintLogger(sys.stderr))
    (structlog.get_logger() if structlog.is_configured() else plain).error("node", **values)
