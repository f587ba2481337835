"""What a live run goes on from when something breaks.

It takes snapshots of the session that runs, keeps the last one in memory and, where there is a `State`, on the disk,
and says whether one still fits. Knows no loop of sessions; `sessions` asks it what to begin with and tells it how that
went.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib import metadata
from typing import Any, Final, cast

import structlog

from streamer.commands.state import Kept, State
from streamer.errors import SnapshotError
from streamer.graph import Graph
from streamer.node import Sink
from streamer.registry import load_attribute
from streamer.session import Session

EVERY: Final = 60.0  # seconds between two snapshots
TRIES: Final = 3  # times that a session is restored and dies soon, before one begins without its snapshot
SOON: Final = 60.0  # seconds
PATIENCE: Final = 0.3  # seconds that the sources may be held; less than what a microphone's ring keeps
MAKING: Final = 30.0  # seconds that copying and packing may take beyond that
PUT_OFF: Final = 5  # intervals that a snapshot waits at most for a moment in which nothing is generated
LOOK: Final = 0.1  # seconds between two looks for that moment
PACKAGE: Final = "audiolm-streamer"
SOUND: Final = ("bundle", "engine", "session", "nodes", "edges", "packed")  # of the config: what a state depends on

Also = Callable[[], tuple[Mapping[str, Any], Mapping[str, tuple[str, Mapping[str, Any]]]]]


class Keeper:
    """Keeps snapshots of the sessions of one live run.

    Args:
        graph: a built graph.
        every: seconds between two snapshots; 0: none are taken.
        state: where they are kept on the disk, too.

    Attributes:
        last: the newest snapshot that may be restored. size: bytes of the newest that was taken.
        why_not: why none are taken, though they were asked for; None: they are.
        tries: sessions in a row that were restored and died soon. missed: snapshots that could not be taken or written.
    """

    def __init__(self, graph: Graph, *, every: float = EVERY, state: State | None = None) -> None:
        self.graph, self.every, self.state = graph, every, state
        self.why_not = unkept(graph) if every else None
        self.last: Kept | None = None
        self.size = self.missed = 0
        self.tries = 0 if state is None else state.run.tries
        self._made_by: Mapping[str, str] | None = None
        self._said: set[str] = set()
        self._resets = 0
        if every and self.why_not is not None:
            structlog.get_logger().info("snapshots", note=f"none are taken: {self.why_not}")

    @property
    def made_by(self) -> Mapping[str, str]:
        """What a snapshot of this run fits."""
        if self._made_by is None:
            self._made_by = fingerprint(self.graph)
        return self._made_by

    # -- what to begin with --

    def find(self) -> Kept | None:
        """What the run before left, if it was cut off and it fits; what does not fit is put aside."""
        if self.state is None or not self.state.cut_off:
            return None
        found = self.state.read()
        if found is None:
            return None
        wrong = misfit(found.made_by, self.made_by)
        if wrong is not None:
            self.state.aside(None, wrong)
            return None
        self.last = found
        return found

    def restored(self, extra: Mapping[str, Any]) -> Session | None:
        """A session from the last snapshot; None when there is none, or it has failed too often or does not fit."""
        if self.last is None:
            return None
        if self.tries >= TRIES:
            self.drop(f"{self.tries} sessions that went on from it died within {SOON:g} s")
            return None
        try:
            session = Session.restore(self.graph, self.last.data, extra=extra, recount=False)
        except SnapshotError as error:
            self.drop(str(error))
            return None
        if session.differences:
            structlog.get_logger().warning("snapshot", differs="; ".join(session.differences))
        self._note(tries=self.tries + 1)  # before it begins: it may take the process with it
        return session

    # -- how it went --

    def died(self, lived: float, *, restored: bool) -> None:
        """A session has failed after so many seconds."""
        if not restored or lived >= SOON:
            self._note(tries=0)
        else:
            self.tries += 1

    def drop(self, why: str) -> None:
        """The last snapshot is of no use: put it aside."""
        self.last, self.tries = None, 0
        structlog.get_logger().warning("snapshot", put_aside=why)
        if self.state is not None:
            self.state.aside(None, why)
        self._note(tries=0)

    def forget(self) -> None:
        """What was is not wanted any more."""
        self.last, self.tries = None, 0
        self._resets += 1
        self._write(lambda state: state.forget())
        self._note(tries=0)

    def end(self, why: str) -> None:
        """The run ends by itself: the next one begins anew."""
        self._write(lambda state: state.note(ended=why))

    def status(self) -> dict[str, Any]:
        """What is kept, as plain data."""
        last = self.last
        return {
            "every_s": self.every,
            "taken": None if last is None else last.when,
            "bytes": self.size,
            "missed": self.missed,
            "on_disk": self.state is not None,
            "why_not": self.why_not,
        }

    # -- taking them --

    async def watch(self, session: Session, also: Also) -> None:
        """Take a snapshot of a session now and then, until this is cancelled."""
        begun = time.perf_counter()
        while self.every and self.why_not is None:
            await asyncio.sleep(self.every)
            await self._calm(session)
            resets = self._resets
            data = await self._taken(session)
            if data is None or resets != self._resets:
                continue
            changes, standing = also()
            self.last = kept = Kept(data, time.time(), self.made_by, dict(changes), dict(standing))
            if time.perf_counter() - begun >= SOON:
                await asyncio.to_thread(self._note, tries=0)
            self.size = len(data)
            if self.state is not None:
                await asyncio.to_thread(self._write, partial(State.write, kept=kept))
            structlog.get_logger().debug("snapshot", bytes=self.size)

    async def _calm(self, session: Session) -> None:
        """Wait until nothing is generated, though not for ever: copying the states takes longer than a tick."""
        end = time.perf_counter() + PUT_OFF * self.every
        while _generates(session) and time.perf_counter() < end:  # noqa: ASYNC110 - a gauge tells nobody
            await asyncio.sleep(LOOK)

    async def _taken(self, session: Session) -> bytes | None:
        """A snapshot, if the session runs and can be saved without holding its sources for long."""
        if session.status != "running" or session.wanted is not None:
            return None
        wanted = session.request_snapshot()
        try:
            await asyncio.wait({wanted}, timeout=PATIENCE)
            if not wanted.done() and (session.holding is not None or session.gate is None):
                await asyncio.wait({wanted}, timeout=MAKING)
            if not wanted.done():
                self._miss(
                    "taken", f"the session did not come to rest within {PATIENCE:g} s: it has more to do than it can"
                )
        finally:
            wanted.cancel()
        if wanted.cancelled():
            return None
        error = wanted.exception()
        if error is not None:
            self._miss("taken", str(error))
            return None
        self._said.discard("taken")
        return wanted.result()

    def _miss(self, what: str, why: str) -> None:
        """Count it; say it, but not every minute."""
        self.missed += 1
        if what not in self._said:
            self._said.add(what)
            structlog.get_logger().warning("snapshot", missed=why)

    def _note(self, *, tries: int) -> None:
        """Count a try where a crash of the process does not forget it."""
        if self.state is not None and self.state.run.tries != tries:
            self._write(lambda state: state.note(tries=tries))
        if not tries:
            self.tries = 0

    def _write(self, work: Callable[[State], object]) -> None:
        if self.state is None:
            return
        try:
            work(self.state)
            self._said.discard("written")
        except OSError as error:
            self._miss("written", f"{self.state.folder} cannot be written: {error.strerror}")


def _generates(session: Session) -> bool:
    """Whether it is the model's turn, as a node that takes turns says by its gauge `state`."""
    return any(name.endswith(".state") and value == "continuing" for name, value in session.metrics.gauges.items())


def unkept(graph: Graph) -> str | None:
    """Why sessions of a graph are not saved as they run; None: they can be."""
    plan = graph.plan
    live = plan.live(Sink)
    for name in plan.names(Sink):
        if name not in live and getattr(plan.types[name], "save", None) is not Sink.save:
            return f"{name!r} writes a file, and a snapshot would hold all of it"
    return None


def fingerprint(graph: Graph) -> dict[str, str]:
    """What a state depends on: the program, the config, and the weights of the bundles."""
    loaded = graph.plan.loaded
    shape = {name: loaded.config.model_dump(mode="json")[name] for name in SOUND}
    bundles = {entry.own.get("bundle", loaded.config.bundle) for entry in loaded.config.nodes.values()}
    sums = {name: _weights(name) for name in sorted(each for each in bundles if isinstance(each, str))}
    return {
        "program": _version(),
        "config": _sum(shape),
        **{f"bundle {name}": weights for name, weights in sums.items()},
    }


def _version() -> str:
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return "unknown"


def _weights(bundle: str) -> str:
    """The checksums of a bundle, as one; empty for one that is not there, which then no node uses."""
    read = cast(Callable[[str], Mapping[str, Any]], load_attribute("audiolm.bundle:read_config"))
    absent = cast(type[Exception], load_attribute("audiolm.errors:AudioLMError"))
    try:
        return _sum(read(bundle)["checksums"])
    except absent:
        return ""


def _sum(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def misfit(there: Mapping[str, str], here: Mapping[str, str]) -> str | None:
    """What of a snapshot does not fit; None: it fits."""
    names = [name for name in (*there, *here) if there.get(name) != here.get(name)]
    if not names:
        return None
    if names[0] == "program":
        return f"it is of version {there.get('program')} of the program, this is {here['program']}"
    return f"the {names[0]} has changed since"
