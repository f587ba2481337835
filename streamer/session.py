"""A session: one stream through a graph, with its ports, states, epoch, mode, seed and metrics.

It is data and a few commands; `streamer.runtime` moves it. One session is used by one event loop at a time.
"""

from __future__ import annotations

import asyncio
import platform
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from importlib import metadata
from typing import Any, Final, Literal

import numpy as np

from streamer import snapshot as snapshots
from streamer.cell import Cell
from streamer.errors import ConfigError, GraphError, NodeError, SnapshotError, unknown
from streamer.frame import CONTROL, Frame
from streamer.graph import Graph
from streamer.load import Load
from streamer.metrics import Metrics
from streamer.node import MODES, End, SessionInfo, Source
from streamer.port import Inbox, Port, PortSpec

Status = Literal["new", "running", "paused", "ended", "failed"]
CONTROL_CAPACITY: Final = 64
OWN: Final = "session"  # the producer's name of what `Session.send` sends
_FIELDS: Final = ("mode", "seed", "seconds", "prompt_seconds", "voice", "include_prompt")


def _version(package: str) -> str | None:
    """The version of an installed package, which is not imported; None when it is not there."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


class Session:
    """One stream through a graph.

    Args:
        graph: the graph it goes through.
        id: its name, in frames and metrics.
        extra: free values for nodes, sources and sinks, as `SessionInfo.extra`.
        changes: any of mode, seed, seconds, prompt_seconds, voice, include_prompt; the config's values otherwise.

    Attributes:
        info: what nodes see. epoch: raised by `interrupt`. metrics: its measurements.
        status: `new`, `running`, `paused`, `ended` or `failed`.
        differences: what of the machine or program differs from where a restored snapshot was taken.
        began: its sources and sinks have begun to move; before that, it could not be opened.
        holding: the epoch at which it is being saved; None: it is not, and commands need not wait.
    """

    def __init__(
        self,
        graph: Graph,
        id: str = "main",  # noqa: A002
        *,
        extra: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> None:
        for name in changes:
            if name not in _FIELDS:
                raise ConfigError(unknown("session setting", name, _FIELDS))
        if changes.get("mode", "continue") not in MODES:
            raise ConfigError(unknown("mode", str(changes["mode"]), MODES))
        self.graph = graph
        self.metrics = Metrics()
        defaults = next(iter(graph.plan.builds.values())).session
        load = Load(self.metrics, on=defaults.shed)
        self.info = replace(defaults, id=id, metrics=self.metrics, load=load, extra=dict(extra or {}), **changes)
        self.epoch = 0
        self.status: Status = "new"
        self.differences: list[str] = []
        self.ports: dict[str, Port] = {}
        self.cells: dict[str, Cell] = {}
        self.on_stop: Callable[[], None] | None = None
        self.on_gate: Callable[[], None] | None = None
        self.gate: int | None = None
        self.wanted: asyncio.Future[bytes] | None = None
        self.began = False
        self.reached: dict[str, int] = {}
        self._held: deque[Frame] = deque(maxlen=CONTROL_CAPACITY)
        self.holding: int | None = None
        self._recount = True
        self._saved: dict[str, Any] | None = None
        self._blob: bytes | None = None
        self._reset_ports()

    def _reset_ports(self) -> None:
        plan = self.graph.plan
        specs = list(plan.ports)
        for name, facts in plan.facts.items():
            takers = [into for into, kinds in facts.inputs.items() if CONTROL in kinds]
            specs += [PortSpec(OWN, CONTROL, name, into, CONTROL_CAPACITY, "drop_oldest") for into in takers]
        packed = plan.loaded.config.packed
        self.ports = {spec.label: Port(spec, packed=packed) for spec in specs}

    # -- commands ---------------------------------------------------------------------------------------------------

    def send(self, command: str, *, position: int = 0, **values: Any) -> None:
        """Send a control frame to every node that takes control; it takes effect at `position` (0: at once).

        While the session is paused or being saved it waits until that is over, so that it is either in all of a
        snapshot or in none of it.

        Raises:
            GraphError: the session has ended. FrameError: values that a frame cannot hold.
        """
        if self.status in ("ended", "failed"):
            raise GraphError(f"session {self.info.id!r} has {self.status}; it takes no command {command!r}")
        frame = Frame.control(command, position=position, **values)
        frame = Frame.unpack(frame.replace(session=self.info.id, epoch=self.epoch).pack())
        if self.holding is None and self.status != "paused":
            self._tell(frame)
            return
        if len(self._held) == CONTROL_CAPACITY:
            self.metrics.count("session.dropped_controls")
        self._held.append(frame)

    def _tell(self, frame: Frame) -> None:
        for port in self.ports.values():
            if port.spec.producer == OWN:
                port.put(frame)
                if port.consumer is not None:
                    port.consumer.wake()

    def interrupt(self) -> None:
        """Raise the epoch and say so to every node: what was made before and is not played yet is stale."""
        self.epoch += 1
        self.send("interrupt")

    def stop(self) -> None:
        """End every source now; what is inside goes on to the sinks, which finish as usual."""
        if self.on_stop is not None:
            self.on_stop()

    def request_snapshot(self, position: int = 0) -> asyncio.Future[bytes]:
        """A snapshot of the running session, at the first moment when every source holds back at `position`.

        Args:
            position: samples on each source's own clock; a source gives no frame that starts there or later until
                the snapshot is taken. The same position gives the same snapshot, whatever the timing. 0: now, also
                while a source waits for something to come.

        Cancel the future to let the sources go on without it. What cannot be saved is its error; the session goes on.

        Raises:
            SnapshotError: it does not run, or one is already being taken.
        """
        if self.status != "running" or self.on_gate is None:
            raise SnapshotError(f"session {self.info.id!r} is {self.status}; only a running one can be asked")
        if self.wanted is not None:
            raise SnapshotError(f"a snapshot of session {self.info.id!r} is already being taken")
        self.wanted = wanted = asyncio.get_running_loop().create_future()
        wanted.add_done_callback(self._answered)
        self.gate = position
        self.on_gate()
        return wanted

    def _answered(self, future: asyncio.Future[bytes]) -> None:
        if future.cancelled() and self.on_gate is not None:
            self.on_gate()

    # -- snapshots --------------------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """The paused session as bytes, see `run(..., until=)`.

        Raises:
            SnapshotError: it is not paused.
        """
        if self._blob is None or self.status != "paused":
            raise SnapshotError(f"session {self.info.id!r} is {self.status}; run it with `until` to pause it")
        return self._blob

    @classmethod
    def restore(
        cls, graph: Graph, data: bytes, *, extra: Mapping[str, Any] | None = None, recount: bool = True
    ) -> Session:
        """A paused session from `snapshot`, on the same graph anywhere; run it to go on.

        What a source gives is given again up to where it was; a live source begins at the present, and its positions
        go on from where the furthest of the live ones was.

        Args:
            graph: of the same nodes and edges.
            data: the snapshot.
            extra: free values, as for a new session.
            recount: the counters of its metrics go on, too; else they begin at nothing.

        Raises:
            SnapshotError: damaged, or taken on a graph with other nodes or edges; it says which.
        """
        saved = snapshots.loads(data)
        try:
            known = {name: saved["session"][name] for name in _FIELDS}
            made = cls(graph, saved["session"]["id"], extra=extra, **known)
            made._check_same(saved["graph"])
            made.epoch = saved["epoch"]
        except (KeyError, TypeError, ConfigError) as error:
            raise SnapshotError(f"not a session: {error}") from error
        made.differences = [
            f"{name}: {saved['environment'].get(name)} there, {value} here"
            for name, value in made._environment().items()
            if saved["environment"].get(name) != value
        ]
        made._saved, made._blob, made.status, made._recount = saved, data, "paused", recount
        return made

    def _check_same(self, there: Mapping[str, Any]) -> None:
        here = self._shape()
        for what in ("nodes", "ports"):
            lost, new = set(there[what]) - set(here[what]), set(here[what]) - set(there[what])
            if lost or new:
                message = f"the snapshot was taken on another graph: {what} missing here: {', '.join(sorted(lost))}; "
                raise SnapshotError(message + f"only here: {', '.join(sorted(new))}")

    def _shape(self) -> dict[str, list[str]]:
        plan = self.graph.plan
        return {
            "nodes": [f"{name}: {plan.types[name].type_name}" for name in plan.order],
            "ports": [port.label for port in plan.ports],
        }

    def _environment(self) -> dict[str, str | int | None]:
        """Where equality to the bit holds: the same processor type, versions, engine, bundle and slot count."""
        config, builds = self.graph.plan.loaded.config, self.graph.plan.builds.values()
        engines = (build.shared.get("engine") for build in builds)
        return {
            "machine": platform.machine(),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": _version("torch"),
            "slots": max(build.slots for build in builds),
            "engine": next(filter(None, engines), config.engine),
            "bundle": config.bundle,
        }

    def hold(self) -> None:
        """It is being saved from now on: commands wait. For the runtime, like all that follows."""
        self.holding = self.epoch

    def release(self) -> None:
        """Commands that waited are sent."""
        self.holding = None
        while self._held:
            self._tell(self._held.popleft())

    def parts(self, cells: Mapping[str, Any], reached: Mapping[str, int]) -> dict[str, Any]:
        """Everything as plain data that does not change any more.

        Args:
            cells: what `save_cells` gave.
            reached: position up to which each source has given frames.
        """
        graph = self.graph
        info = asdict(replace(self.info, metrics=Metrics(), load=Load(), extra={}))
        return snapshots.plain({
            "session": {name: info[name] for name in ("id", *_FIELDS)},
            "epoch": self.epoch if self.holding is None else self.holding,
            "graph": self._shape(),
            "environment": self._environment(),
            "reached": reached,
            "ports": {label: port.save() for label, port in self.ports.items()},
            "cells": cells,
            "sources": {name: source.save(self.info_for(name)) for name, source in graph.sources.items()},
            "sinks": {name: sink.save(self.info_for(name)) for name, sink in graph.sinks.items()},
            "metrics": {"audio_samples": self.metrics.audio_samples, "counters": dict(self.metrics.counters)},
        })  # fmt: skip

    # -- for the runtime --------------------------------------------------------------------------------------------

    def info_for(self, name: str) -> SessionInfo:
        """The session as one node sees it."""
        return replace(self.info, inputs=self.graph.plan.connected(name))

    def inbox(self, name: str, end: End) -> Inbox:
        """The ports of one consumer."""
        return Inbox([port for port in self.ports.values() if port.spec.consumer == name], end.merge)

    def routes(self, name: str) -> dict[str, list[Port]]:
        """Kind -> ports, for everything that a node may give."""
        made: dict[str, list[Port]] = {kind: [] for kind in self.graph.plan.facts[name].emits}
        for port in self.ports.values():
            if port.spec.producer == name:
                made[port.spec.kind].append(port)
        return made

    def prepare(self) -> None:
        """Make ports and cells, and fill the ports of a paused session again.

        Raises:
            GraphError: it runs already, or has ended. SnapshotError: the saved frames are damaged.
        """
        if self.status not in ("new", "paused"):
            raise GraphError(f"session {self.info.id!r} is {self.status}; make a new Session to run again")
        if self._saved is not None:
            self._reset_ports()
            self._fill(self._saved)
        for name, node in self.graph.nodes.items():
            ring, guard = self.metrics.ring(name), self.graph.plan.loaded.config.nodes[name].guard
            inbox, routes = self.inbox(name, node), self.routes(name)
            self.cells[name] = Cell(node, self.info_for(name), inbox, routes, ring, guard)

    def _fill(self, saved: Mapping[str, Any]) -> None:
        try:
            plan = self.graph.plan
            again = set(plan.names(Source)) - set(plan.live(Source))  # they give again what they have given
            again -= {name for name in again if plan.facts[name].emits == {CONTROL}}  # a desk gives what comes
            self.reached = {name: int(at) for name, at in saved["reached"].items()}
            for label, port in self.ports.items():
                port.load(saved["ports"][label])
                if port.spec.producer in again:
                    port.skip = port.put_count
            for name, sink in self.graph.sinks.items():
                sink.load(saved["sinks"][name], self.info_for(name))
            if self._recount:
                self.metrics.audio_samples = saved["metrics"]["audio_samples"]
                self.metrics.counters.update(saved["metrics"]["counters"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SnapshotError(f"the snapshot is damaged: {type(error).__name__}: {error}") from error

    def placed(self, name: str) -> Callable[[Frame], Frame] | None:
        """What brings the frames of a live source of a restored session to their place; None: they are there.

        The source counts from 0 again, but its consumers have come further. Live sources keep together: all go on
        where the furthest was.
        """
        live = self.graph.plan.live(Source)
        if name not in live or not self.reached:
            return None
        tick = max(self.graph.plan.facts[each].tick for each in live)
        base = -(-max(self.reached.get(each, 0) for each in live) // tick) * tick
        counts: dict[str, int] = {}
        for port in self.ports.values():
            if port.spec.producer == name:
                counts[port.spec.kind] = max(counts.get(port.spec.kind, 0), port.put_count)
        return lambda frame: _moved(frame, base, counts.get(frame.kind, 0))

    def open_cells(self, names: tuple[str, ...]) -> None:
        """Make or load the states of some nodes; called in their lane's thread."""
        for name in names:
            cell = self.cells[name]
            try:
                cell.open(None if self._saved is None else self._saved["cells"][name])
            except Exception as error:
                raise cell.fail(error) from error

    def save_cells(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Copies of the states of some nodes; called in their lane's thread."""
        made: dict[str, Any] = {}
        for name in names:
            try:
                made[name] = snapshots.plain(self.cells[name].save())
            except Exception as error:
                raise self.cells[name].fail(error) from error
        return made

    def pause(self, data: bytes) -> None:
        """Keep the snapshot that it will go on from."""
        self._blob, self._saved, self.status = data, snapshots.loads(data), "paused"

    def close_cells(self, names: tuple[str, ...]) -> None:
        """Release the states of some nodes, all of them even if one fails; called in their lane's thread."""
        errors: list[NodeError] = []
        for name in names:
            cell = self.cells.pop(name)
            try:
                cell.close()
            except Exception as error:  # noqa: BLE001 - raised below, after the others are closed
                errors.append(cell.fail(error))
        if errors:
            raise errors[0]

    def collect(self) -> None:
        """Bring what ports and inboxes counted into the metrics."""
        self.metrics.dropped = {label: port.dropped for label, port in self.ports.items()}
        for name, cell in self.cells.items():
            if cell.inbox.late:
                self.metrics.counters[f"{name}.late_controls"] = cell.inbox.late

    def report(self) -> dict[str, Any]:
        """Status, settings, ports and metrics as plain data."""
        self.collect()
        settings = {name: getattr(self.info, name) for name in _FIELDS}
        ports = {label: port.stats() for label, port in self.ports.items() if port.spec.producer != OWN}
        base = {"session": self.info.id, "status": self.status, "epoch": self.epoch, "load": self.info.load.report()}
        return {**base, **settings, **self.metrics.snapshot(), "ports": ports}


def _moved(frame: Frame, base: int, count: int) -> Frame:
    """A frame `base` samples and `count` numbers further on; control that is due at once stays so."""
    at_once = frame.kind == CONTROL and not frame.position
    return frame.replace(position=0 if at_once else frame.position + base, seq=frame.seq + count)
