"""Every error the graph can raise, with its data as attributes.

This module knows nothing of frames, nodes or asyncio: it is the bottom of the package.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class StreamerError(Exception):
    """Base of all errors of this package. `exit_code` is what the command line exits with."""

    exit_code = 1


class FrameError(StreamerError, ValueError):
    """A frame, or bytes that claim to be one, break the frame format."""

    exit_code = 2


class InputError(StreamerError, ValueError):
    """What came from outside (a file, a pipe, a number) cannot be used. Sources and sinks raise it."""

    exit_code = 2


class ConfigError(StreamerError, ValueError):
    """The config is wrong.

    Args:
        message: what came, what was expected, what to do.
        line: line of the YAML file at fault, from 1, or None when unknown.
        path: dotted path from the root of the config, for instance `nodes.coarse.temperature`.
        file: name of the config file.
    """

    exit_code = 2

    def __init__(self, message: str, *, line: int | None = None, path: str = "", file: str = "") -> None:
        super().__init__(message)
        self.message, self.line, self.path, self.file = message, line, path, file

    def __str__(self) -> str:
        where = f"{self.file}:" if self.file else ""
        where += f"line {self.line}: " if self.line is not None else (" " if where else "")
        return f"{where}{self.path + ': ' if self.path else ''}{self.message}"


class PluginError(ConfigError):
    """A node class does not fit the registry, or the module that should hold it cannot be loaded."""


class GraphError(StreamerError, RuntimeError):
    """A running graph cannot go on."""


class PeerRestarted(GraphError):  # noqa: N818 - what happened to the peer; to us it is the end of a session
    """The other end of a stream between machines began anew, so this session cannot go on: begin the next one.

    `peer` is its instance or topic.
    """

    def __init__(self, peer: str, message: str) -> None:
        super().__init__(f"{peer}: {message}")
        self.peer, self.message = peer, message


class OverflowFrameError(GraphError):
    """A port with policy `raise` was full. `edge` names it, `capacity` is its size in frames."""

    def __init__(self, edge: str, capacity: int) -> None:
        super().__init__(
            f"the port {edge} is full ({capacity} frames) and its policy is `raise`; "
            "use policy `block` or `drop_oldest`, or a larger capacity"
        )
        self.edge, self.capacity = edge, capacity


class StallError(GraphError):
    """Nothing in the graph can move. `waiting` says, port by port, what holds it."""

    def __init__(self, session: str, waiting: list[str]) -> None:
        detail = "; ".join(waiting) or "nothing is queued"
        super().__init__(f"session {session!r} stands still: {detail}")
        self.session, self.waiting = session, waiting


class NodeError(GraphError):
    """A node failed. `node` is its name, `position` (samples at 16 kHz) where, `__cause__` the first error."""

    def __init__(self, node: str, message: str, *, position: int | None = None, session: str = "") -> None:
        at = f" at position {position} ({position / 16000:.3f} s)" if position is not None else ""
        super().__init__(f"node {node!r}{at}: {message}")
        self.node, self.position, self.session, self.message = node, position, session, message

    @classmethod
    def wrap(cls, node: str, error: Exception, *, position: int | None = None, session: str = "") -> NodeError:
        """The same failure, with the node's name and the position; keeps the exit code of its cause."""
        made = cls(node, f"{type(error).__name__}: {error}", position=position, session=session)
        made.exit_code = getattr(error, "exit_code", 1)
        return made


class SnapshotError(StreamerError, ValueError):
    """A snapshot cannot be taken now, is damaged, or does not fit this graph."""

    exit_code = 2


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the known name nearest to `name`, or an empty string when none is near."""
    found = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.55)
    return f"; did you mean {found[0]!r}?" if found else ""


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """One sentence for an unknown name: what came, what is known, which is nearest."""
    names = sorted(str(k) for k in known)
    return f"unknown {what} {name!r}; known: {', '.join(names) or 'none'}{nearest(name, names)}"


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that started it: the first of ours, else the first."""
    found = list(_leaves(group))
    return next((error for error in found if isinstance(error, StreamerError)), found[0])


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterable[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
