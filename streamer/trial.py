"""What the contract check plays a node with: made-up streams, a lane of one node, and what came out of it.

Frames go through a real cell and a real lane, so inputs are merged, steps are batched and ends are watched as in a
graph. It judges nothing but what breaks the order of a stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from streamer.cell import Cell
from streamer.errors import GraphError, NodeError
from streamer.frame import (
    ACOUSTIC,
    AUDIO,
    COARSE,
    CONTROL,
    FINE,
    HEARD,
    LAST,
    RATES,
    SAMPLE_RATE,
    SEMANTIC,
    TICK,
    Frame,
)
from streamer.isolate import Guard
from streamer.lane import Lane
from streamer.metrics import Metrics
from streamer.node import Facts, Node, Saved, SessionInfo
from streamer.port import MAX_CAPACITY, Inbox, Port, PortSpec

LEVELS: Final = {ACOUSTIC: 12, COARSE: 4, FINE: 12}
CODEBOOK: Final = 1024
MOST_FRAMES: Final = 20_000
WORLD: Final = "world"  # the name of whoever feeds and takes


class BreachError(NodeError):
    """A rule of the contract is broken, and the run cannot go on. `rule` names it."""

    def __init__(self, rule: str, node: str, message: str) -> None:
        super().__init__(node, message)
        self.rule = rule


@dataclass(frozen=True, slots=True)
class Stream:
    """What comes into one input.

    Attributes:
        items: `[n]` or `[n, levels]` along the time; ticks have no levels: `[n, 0]`.
        step: items of one tick.
    """

    input: str
    kind: str
    rate: int
    step: int
    items: NDArray[Any]

    @classmethod
    def random(cls, name: str, kind: str, facts: Facts, ticks: int, *, seed: int) -> Self:
        """Noise that swells and fades, or tokens."""
        rng = np.random.default_rng(seed)
        rate = facts.rates_in.get(name) or RATES[kind]
        step = max(1, facts.tick * rate // SAMPLE_RATE)
        count = ticks * step
        if kind == AUDIO:
            swell = 0.5 + 0.5 * np.sin(np.arange(count) * 2 * np.pi / (8 * step))
            return cls(name, kind, rate, step, (0.2 * swell * rng.standard_normal(count)).astype(np.float32))
        wanted = facts.levels_in.get(name, LEVELS.get(kind, 0))
        levels = wanted[0] if isinstance(wanted, tuple) else wanted
        shape = (count,) if kind == SEMANTIC else (count, 0 if kind == TICK else levels)
        return cls(name, kind, rate, step, rng.integers(0, CODEBOOK, shape))

    def changed(self, change: Callable[[Any], Any]) -> Self:
        """The same with other items."""
        return replace(self, items=change(self.items))

    def at(self, item: int) -> int:
        """Where an item starts, in samples at 16 kHz."""
        return item * SAMPLE_RATE // self.rate

    def _sizes(self, *, seed: int = 0, most: float = 2.5, whole: bool = False) -> Iterator[int]:
        """Items of each piece: a tick; everything; or, with a seed, what comes, tokens by whole ticks."""
        rng = np.random.default_rng(seed)
        while True:
            if self.kind == TICK:
                yield 1
            elif whole:
                yield max(1, len(self.items))
            elif not seed:
                yield self.step
            elif self.kind == AUDIO:
                yield int(rng.integers(1, max(2, round(most * self.step))))
            else:
                yield self.step * int(rng.integers(1, 4))

    def frames(self, *, joined: bool = False, **how: Any) -> Iterator[Frame]:
        """The pieces, then the end; with `joined` the end is on the last piece."""
        start = seq = 0
        for size in self._sizes(**how):
            if start >= len(self.items):
                break
            end = min(start + size, len(self.items))
            flags = HEARD | (LAST if joined and end == len(self.items) else 0)
            array = None if self.kind == TICK else self.items[start:end]
            yield self._frame(array, start, seq, flags)
            start, seq = end, seq + 1
        if not joined:
            yield self._frame(None, start, seq, HEARD | LAST, empty=True)

    def _frame(self, array: Any, start: int, seq: int, flags: int, **meta: bool) -> Frame:
        return Frame.of(
            self.kind, array, position=self.at(start), rate=self.rate, session="trial", seq=seq, flags=flags,
            meta={"trial": True, **meta},
        )  # fmt: skip

    @staticmethod
    def line_up(streams: Sequence[Stream], *, control: str = "", **how: Any) -> Iterator[tuple[Frame, str]]:
        """The frames of all streams with their inputs, by position; with `control`, an unknown command midway."""
        seed = how.pop("seed", 0)
        made = []
        for number, stream in enumerate(streams):  # each is cut in its own way
            made += [(frame, stream.input) for frame in stream.frames(seed=seed and seed + 100 * number, **how)]
        made.sort(key=lambda item: (item[0].position, item[0].last))
        if control:
            middle = len(made) // 2
            command = Frame.control("trial_of_the_contract", position=made[middle][0].position)
            made.insert(middle, (command.replace(session="trial"), control))
        return iter(made)


@dataclass
class Given:
    """What a node gave: the frames of each kind, in order."""

    frames: dict[str, list[Frame]] = field(default_factory=dict)

    def __add__(self, other: Given) -> Given:
        kinds = [*self.frames, *(kind for kind in other.frames if kind not in self.frames)]
        return Given({kind: self.frames.get(kind, []) + other.frames.get(kind, []) for kind in kinds})

    def finite(self, after: int = 0) -> bool:
        """Whether all sound from this position on is numbers."""
        sound = [frame for frame in self.frames.get(AUDIO, []) if frame.position >= after]
        return all(bool(np.isfinite(frame.array).all()) for frame in sound)

    def runs(self, kind: str) -> list[tuple[int, int, NDArray[Any]]]:
        """`(position, flags, items)`: frames that follow each other without a gap, joined."""
        made: list[tuple[int, int, list[NDArray[Any]]]] = []
        end = -1
        for frame in self.frames.get(kind, []):
            flags = frame.flags & ~LAST
            if not frame.samples and not flags & ~HEARD:
                continue
            if made and frame.position == end and flags == made[-1][1]:
                made[-1][2].append(_items(frame))
            else:
                made.append((frame.position, flags, [_items(frame)]))
            end = frame.position + frame.samples
        return [(position, flags, np.concatenate(parts)) for position, flags, parts in made]

    def end(self, kind: str) -> int | None:
        """Where the stream ends."""
        frames = [frame for frame in self.frames.get(kind, []) if frame.last]
        return frames[-1].position + frames[-1].samples if frames else None


def _items(frame: Frame) -> NDArray[Any]:
    return np.zeros((1 if frame.samples else 0, 0)) if frame.kind == TICK else frame.array


def difference(wanted: Given, got: Given, tolerance: float = 0.0) -> str:
    """Where two outputs differ first, in words; empty when they are the same."""
    for kind in sorted({*wanted.frames, *got.frames}):
        if kind == CONTROL:
            told = [
                [(frame.position, dict(frame.meta)) for frame in each.frames.get(kind, [])] for each in (wanted, got)
            ]
            if told[0] != told[1]:
                return f"control {told[1][:3]} instead of {told[0][:3]}"
            continue
        a, b = wanted.runs(kind), got.runs(kind)
        for (at, flags, items), (there, others, those) in zip(a, b, strict=False):
            if (at, flags) != (there, others):
                return f"{kind} begins at {there} with flags {others} instead of at {at} with {flags}"
            if (place := _first(items, those, tolerance)) is not None:
                return f"{kind} {place} of the piece from position {at} on"
        if len(a) != len(b):
            return f"{kind} in {len(b)} pieces without a gap instead of {len(a)}"
        if wanted.end(kind) != got.end(kind):
            return f"{kind} ends at {got.end(kind)} instead of {wanted.end(kind)}"
    return ""


def _first(a: NDArray[Any], b: NDArray[Any], tolerance: float) -> str | None:
    """The first item that differs, or the lengths when one goes on."""
    common = min(len(a), len(b))
    x, y = np.asarray(a[:common], np.float64), np.asarray(b[:common], np.float64)
    with np.errstate(invalid="ignore"):
        same = (np.abs(x - y) <= tolerance) | (x == y) | (np.isnan(x) & np.isnan(y))
    wrong = np.flatnonzero(~same.reshape(common, -1).all(axis=1)) if common else np.zeros(0, int)
    if len(wrong):
        place = int(wrong[0])
        return f"is {b[place]} instead of {a[place]} at item {place}"
    return None if len(a) == len(b) else f"has {len(b)} items instead of {len(a)}"


class _Cell(Cell):
    """A cell whose errors say which rule they break."""

    __slots__ = ()

    def routes_of(self, frame: Frame) -> Sequence[Port]:
        try:
            return super().routes_of(frame)
        except NodeError as error:
            raise BreachError("kinds", self.name, error.message) from error

    def finish(self) -> None:
        try:
            super().finish()
        except NodeError as error:
            raise BreachError("last", self.name, error.message) from error

    def flood(self) -> NodeError:
        return BreachError("flood", self.name, super().flood().message)


class Play:
    """One session of a node in a lane of its own: frames are put, and what it gives is in `given`."""

    def __init__(self, node: Node, facts: Facts, inputs: Mapping[str, str]) -> None:
        info = SessionInfo("trial", metrics=Metrics(), inputs=frozenset(inputs))
        self.name = node.name
        self.into = {name: Port(PortSpec(WORLD, kind, node.name, name, MAX_CAPACITY)) for name, kind in inputs.items()}
        self.out = {kind: Port(PortSpec(node.name, kind, WORLD, kind, MAX_CAPACITY)) for kind in facts.emits}
        routes = {kind: [port] for kind, port in self.out.items()}
        inbox = Inbox(list(self.into.values()), node.merge)
        self.cell = _Cell(node, info, inbox, routes, info.metrics.ring(node.name), Guard(most_frames=MOST_FRAMES))
        self.lane = Lane("trial", (node.name,))
        self.lane.join({node.name: self.cell})
        self.given = Given()
        self.mates: list[Play] = []
        self._ends: dict[str, int] = {}
        self._reached = {name: 0 for name, kind in inputs.items() if kind != CONTROL}

    @property
    def heard(self) -> int:
        """Up to where every input has come."""
        return min(self._reached.values(), default=0)

    def open(self, saved: Saved | None) -> None:
        """Make the state, or load what `save` gave."""
        if saved is None:
            self.cell.open(None)
            return
        for port, kept in zip((*self.into.values(), *self.out.values()), saved["ports"], strict=True):
            port.load(kept)
        self.cell.open(saved["cell"])
        self._ends, self._reached = saved["ends"], saved["reached"]

    def save(self) -> Saved:
        """State and ports as plain data."""
        ports = [port.save() for port in (*self.into.values(), *self.out.values())]
        return {"cell": self.cell.save(), "ports": ports, "ends": self._ends, "reached": self._reached}

    def share(self, other: Play) -> Lane:
        """Take another session of the node into this one's lane; it is stepped when this one is."""
        self.lane.join({self.name: other.cell})
        self.mates.append(other)
        return self.lane

    def lay(self, frame: Frame, into: str) -> None:
        """Put a frame into an input, to be taken with the next `put`."""
        self.into[into].put(frame)
        if into in self._reached:
            self._reached[into] = frame.position + frame.samples

    def put(self, frame: Frame, into: str) -> list[Frame]:
        """Put a frame, and let the node do what it can; what it gave for it.

        Raises:
            NodeError: what the node raised, or a `BreachError`.
        """
        self.lay(frame, into)
        new: list[Frame] = []
        while True:
            more = self.lane.turn()
            if self.lane.failed:
                raise _told(self.lane.failed[0][1])
            got = self.collect()
            new += got
            taken = [mate.collect() for mate in self.mates]
            if not more and not got and not any(taken):
                return new

    def collect(self) -> list[Frame]:
        """Take what it has given, and see that it is in order."""
        made: list[Frame] = []
        for kind, port in self.out.items():
            while port.queue:
                frame = port.queue.popleft()
                self._check(frame)
                self.given.frames.setdefault(kind, []).append(frame)
                made.append(frame)
        return made

    def _check(self, frame: Frame) -> None:
        """A frame starts where the one before it ended, or later."""
        if frame.kind == CONTROL:
            return
        end = self._ends.get(frame.kind, 0)
        if frame.position < end:
            message = f"gave {frame.kind} from position {frame.position} on, but the frame before reached to {end}"
            raise BreachError("order", self.name, message)
        self._ends[frame.kind] = frame.position + frame.samples

    def close(self) -> None:
        """Release the state."""
        self.cell.close()


def _told(error: NodeError) -> NodeError:
    """A frame after the end of its stream is a breach; all else stays what it is."""
    cause = error.__cause__
    if isinstance(cause, GraphError) and not isinstance(error, BreachError) and "after the one with LAST" in str(cause):
        return BreachError("last", error.node, error.message)
    return error
