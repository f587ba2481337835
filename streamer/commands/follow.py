"""What a live run is at, and what it did in all: plain data from the metrics of one session after another.

It reads gauges, counters and latencies by the ends of their names (`.state`, `.device`, ...), so it fits any graph.
Knows no terminal and no event loop; somebody calls `look` some ten times a second.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from streamer.frame import SAMPLE_RATE
from streamer.graph import Graph
from streamer.metrics import Metrics, Ring
from streamer.session import Session

GAP: Final = 1.0  # seconds without a new generated sample after which what was computed was for something else
LOOKS: Final = 30  # over so many looks at fresh sound the real-time factor is taken
BACK: Final = 10.0  # seconds for which it is said that a device is back


@dataclass(slots=True)
class Totals:
    """The sum of the sessions that are over."""

    audio_samples: int = 0
    generated_samples: int = 0
    dropped: int = 0
    counters: Counter[str] = field(default_factory=Counter)
    latencies: dict[str, Ring] = field(default_factory=dict)
    ticks: Ring = field(default_factory=Ring)

    def add(self, metrics: Metrics) -> None:
        """Take in what a session measured."""
        self.audio_samples += metrics.audio_samples
        self.generated_samples += metrics.generated_samples
        self.dropped += sum(metrics.dropped.values())
        self.counters.update(metrics.counters)
        _pour(metrics.ticks, self.ticks)
        for name, ring in metrics.latencies.copy().items():
            _pour(ring, self.latencies.setdefault(name, Ring()))


def _pour(ring: Ring, into: Ring) -> None:
    for value in list(ring.values):
        into.add(value)


class Speed:
    """The real-time factor: seconds that the busiest lane computes for one second of generated sound.

    Wall time says nothing here, since a live graph goes as fast as its microphone.
    """

    def __init__(self, lanes: Iterable[Iterable[str]]) -> None:
        self.lanes = [tuple(lane) for lane in lanes]
        self.recent: deque[tuple[list[float], float]] = deque(maxlen=LOOKS)
        self.busy, self.sound = [0.0] * len(self.lanes), 0.0
        self._busy, self._made, self._at = [0.0] * len(self.lanes), 0, -math.inf

    def begin(self) -> None:
        """Another session: its clocks start at nothing."""
        self._busy, self._made, self._at = [0.0] * len(self.lanes), 0, -math.inf

    def look(self, metrics: Metrics, now: float) -> None:
        """Take the difference to the last look at which there was new sound."""
        made = metrics.generated_samples
        if made == self._made:
            return
        busy = [sum(metrics.rings[name].total for name in lane if name in metrics.rings) for lane in self.lanes]
        if now - self._at <= GAP:
            spent = [later - before for later, before in zip(busy, self._busy, strict=True)]
            sound = (made - self._made) / SAMPLE_RATE
            self.recent.append((spent, sound))
            self.busy = [whole + part for whole, part in zip(self.busy, spent, strict=True)]
            self.sound += sound
        self._busy, self._made, self._at = busy, made, now

    @property
    def now(self) -> float | None:
        """Of the last seconds of generated sound; None before there is any."""
        sound = sum(each for _, each in self.recent)
        busy = [sum(lane) for lane in zip(*(spent for spent, _ in self.recent), strict=True)]
        return max(busy, default=0.0) / sound if sound else None

    @property
    def overall(self) -> float | None:
        """Of the whole run."""
        return max(self.busy, default=0.0) / self.sound if self.sound else None


@dataclass(slots=True)
class Device:
    """A device as its node tells of it, and since when."""

    name: str
    connected: bool
    since: float
    away: float | None = None  # how long it was away before it came back

    def see(self, connected: bool, now: float) -> None:
        """Take note whether it is there."""
        if connected == self.connected:
            return
        self.away = now - self.since if connected else None
        self.connected, self.since = connected, now


class Follower:
    """Follows the sessions of a live run.

    Args:
        graph: the graph they go through.

    Attributes:
        sessions: how many there were. turns: how many times it began to continue.
        state: of the node that has one (`listening`, `continuing`), None before it is told.
    """

    def __init__(self, graph: Graph) -> None:
        plan = graph.plan
        self.targets = {name: float(each.prime_ms) for name, each in plan.settings.items() if hasattr(each, "prime_ms")}
        self.begun = time.perf_counter()
        self.session: Session | None = None
        self.sessions = 0
        self.totals = Totals()
        self.speed = Speed(plan.lanes.values())
        self.gauges: dict[str, float | str | bool] = {}
        self.devices: dict[str, Device] = {}
        self.state: str | None = None
        self.changed = self.begun
        self._turns = 0

    def begin(self, session: Session) -> None:
        """From now on, follow this session."""
        self.session = session
        self.sessions += 1
        self.speed.begin()

    def end(self) -> None:
        """The session is over: add it to the totals."""
        if self.session is None:
            return
        self.look()
        self.session.collect()
        self.totals.add(self.session.metrics)
        self.session = None

    def look(self) -> None:
        """See what has changed; a change of state is logged."""
        if self.session is None:
            return
        now, metrics = time.perf_counter(), self.session.metrics
        self.gauges.update(metrics.gauges)
        self.speed.look(metrics, now)
        for name, value in self.gauges.items():
            node, _, what = name.rpartition(".")
            if what == "state":
                self._see_state(str(value), now)
            elif what in ("device", "connected"):
                self._see_device(node, now)

    def _see_state(self, state: str, now: float) -> None:
        if state == self.state:
            return
        was, after = self.state, now - self.changed
        self.state, self.changed = state, now
        self._turns += state == "continuing"
        structlog.get_logger().info("state", now=state, was=was or "starting", after_s=round(after, 1))

    def _see_device(self, node: str, now: float) -> None:
        name, connected = str(self.gauges.get(f"{node}.device", "")), bool(self.gauges.get(f"{node}.connected", True))
        device = self.devices.setdefault(node, Device(name, connected, now))
        device.name = name
        device.see(connected, now)

    @property
    def turns(self) -> int:
        """How many times it began to continue: as a node counts them, else as they were seen here."""
        counters = self._counters()
        counted = [number for name, number in counters.items() if name.endswith(".continued")]
        return sum(counted) if counted else self._turns

    def _counters(self) -> Counter[str]:
        found = Counter(self.totals.counters)
        if self.session is not None:
            found.update(self.session.metrics.counters.copy())
        return found

    def status(self) -> dict[str, Any]:
        """What is true now, as plain data that JSON can hold; percentiles are those of the session that runs."""
        now = time.perf_counter()
        metrics = Metrics() if self.session is None else self.session.metrics
        if self.session is not None:
            self.session.collect()
        ticks = metrics.ticks.percentiles()
        return {
            "run_s": round(now - self.begun, 1),
            "session": self.sessions,
            "state": self.state,
            "state_s": round(now - self.changed, 1),
            "turns": self.turns,
            "generated_s": round((self.totals.generated_samples + metrics.generated_samples) / SAMPLE_RATE, 2),
            "rtf": _digits(self.speed.now, 3),
            "tick_ms": {name: _digits(ticks[name], 1) for name in ("p50", "p99")} if ticks["count"] else None,
            "latency_ms": {name: _latency(ring) for name, ring in metrics.latencies.copy().items()},
            "load": None if self.session is None else self.session.info.load.report(),
            "dropped": self.totals.dropped + sum(metrics.dropped.values()),
            "counters": dict(self._counters()),
            "gauges": {name: _plain(value) for name, value in self.gauges.items()},
            "targets_ms": self.targets,
            "devices": {node: _device(device, now) for node, device in self.devices.items()},
        }

    def summary(self) -> dict[str, Any]:
        """What all sessions did together; the last one must have ended."""
        totals = self.totals
        counters = dict(totals.counters)
        return {
            "wall_s": round(time.perf_counter() - self.begun, 3),
            "sessions": self.sessions,
            "turns": self.turns,
            "heard_s": round((totals.audio_samples - totals.generated_samples) / SAMPLE_RATE, 2),
            "generated_s": round(totals.generated_samples / SAMPLE_RATE, 2),
            "latency_ms": {name: _spread(ring) for name, ring in totals.latencies.items()},
            "rtf": _digits(self.speed.overall, 4),
            "tick_ms": _spread(totals.ticks) if totals.ticks.count else None,
            "underruns": _of_all(counters, "underruns"),
            "concealed_samples": _of_all(counters, "concealed_samples"),
            "lost_samples": _of_all(counters, "lost_samples"),
            "dropped": totals.dropped,
            "counters": counters,
        }


def _of_all(counters: Mapping[str, int], what: str) -> int:
    return sum(number for name, number in counters.items() if name.rpartition(".")[2] == what)


def _spread(ring: Ring) -> dict[str, float]:
    found = ring.percentiles()
    return {"count": int(found["count"])} | {name: round(found[name], 2) for name in ("p50", "p95", "p99")}


def _latency(ring: Ring) -> dict[str, float]:
    found = ring.percentiles()
    last = ring.values[(ring.count - 1) % len(ring.values)] if ring.values else 0.0
    return {"count": int(found["count"]), "p50": round(found["p50"], 1), "last": round(1000 * last, 1)}


def _device(device: Device, now: float) -> dict[str, Any]:
    for_s = now - device.since
    away = device.away if device.connected and for_s < BACK else None
    return {
        "name": device.name,
        "connected": device.connected,
        "for_s": round(for_s, 1),
        "was_away_s": _digits(away, 1),
    }


def _digits(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _plain(value: float | str | bool) -> float | str | bool | None:
    """A gauge as JSON has it: silence, -inf dB, is null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return round(value, 3) if isinstance(value, float) else value
