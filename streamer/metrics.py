"""Counters, marks and step-time percentiles of one session; plain Python and bounded memory.

Knows no exporter: `Metrics.snapshot()` is a dict that any of them can read.
"""

from __future__ import annotations

import time
from typing import Final

from streamer.frame import SAMPLE_RATE

_RING: Final = 2048  # step times kept per node; a power of two


class Ring:
    """The last `_RING` durations in seconds, and how many there were in all."""

    __slots__ = ("count", "total", "values")

    def __init__(self) -> None:
        self.values: list[float] = []
        self.count = 0
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Add one duration; the oldest goes when the ring is full."""
        if self.count < _RING:
            self.values.append(seconds)
        else:
            self.values[self.count & (_RING - 1)] = seconds
        self.count += 1
        self.total += seconds

    def percentiles(self) -> dict[str, float]:
        """`p50`, `p95`, `p99`, `max` in milliseconds over the ring, and `count`, `total_s` over all."""
        ordered = sorted(self.values)
        made: dict[str, float] = {"count": float(self.count), "total_s": self.total}
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0)):
            made[name] = 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
        return made


class Metrics:
    """What one session measures about itself.

    `rings` holds step times per node, `counters` whole numbers by name, `marks` instants of the monotonic clock.
    `gauges` holds what is true now (a level in dB, a state, a buffer in ms), `latencies` durations from one event to
    another, by name. `ticks` holds the wall time between one audio frame that reaches the sinks and the next; once
    sound is generated, only that of generated frames. Each name has one writer thread, so no lock is needed.
    """

    __slots__ = (
        "audio_samples", "counters", "dropped", "gauges", "generated_samples", "last_tick", "latencies", "marks",
        "rings", "ticks",
    )  # fmt: skip

    def __init__(self) -> None:
        self.rings: dict[str, Ring] = {}
        self.counters: dict[str, int] = {}
        self.marks: dict[str, float] = {}
        self.dropped: dict[str, int] = {}
        self.gauges: dict[str, float | str | bool] = {}
        self.latencies: dict[str, Ring] = {}
        self.audio_samples = self.generated_samples = 0
        self.ticks = Ring()
        self.last_tick: float | None = None

    def ring(self, node: str) -> Ring:
        """The step times of one node; made at first use."""
        return self.rings.setdefault(node, Ring())

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a counter, for instance `semantic.late_controls` or `door.nan`."""
        self.counters[name] = self.counters.get(name, 0) + amount

    def gauge(self, name: str, value: float | str | bool) -> None:
        """Say what is true now, for instance `speaker.buffer_ms` or `turns.state`."""
        self.gauges[name] = value

    def latency(self, name: str, seconds: float) -> None:
        """Add one duration from an event to what follows from it, for instance `decision_to_sound`."""
        self.latencies.setdefault(name, Ring()).add(seconds)

    def mark(self, name: str, *, again: bool = False) -> None:
        """Keep the instant: the first time by default, the latest time with `again`."""
        if again or name not in self.marks:
            self.marks[name] = time.perf_counter()

    def sound(self, samples: int, *, generated: bool) -> None:
        """Take note of an audio frame that has come to the sinks, one that none of them had before."""
        now = time.perf_counter()
        if generated and not self.generated_samples:
            self.marks["first_sample"] = now
            self.ticks, self.last_tick = Ring(), None
        if self.last_tick is not None:
            self.ticks.add(now - self.last_tick)
        self.last_tick = now
        self.audio_samples += samples
        self.generated_samples += samples if generated else 0

    @property
    def first_sample_ms(self) -> float | None:
        """From the prompt's end to the first generated sample; None when nothing was generated.

        The prompt's end is `prompt_end`, marked by the node that takes the last prompt tick; without a prompt it is
        the start.
        """
        begin = self.marks.get("prompt_end", self.marks.get("start"))
        if begin is None or "first_sample" not in self.marks:
            return None
        return 1000 * max(0.0, self.marks["first_sample"] - begin)

    @property
    def rtf(self) -> float | None:
        """Wall time over the length of the sound that reached the sinks; None before there is any."""
        if not self.audio_samples or "start" not in self.marks:
            return None
        end = self.marks.get("end", time.perf_counter())
        return (end - self.marks["start"]) * SAMPLE_RATE / self.audio_samples

    def snapshot(self) -> dict[str, object]:
        """Everything as plain data: ticks, nodes and latencies (percentiles, ms), gauges, counters, dropped, rtf."""
        return {
            "tick_ms": self.ticks.percentiles(),
            "nodes": {name: ring.percentiles() for name, ring in self.rings.items()},
            "latency_ms": {name: ring.percentiles() for name, ring in self.latencies.items()},
            "gauges": dict(self.gauges),
            "counters": dict(self.counters),
            "dropped": sum(self.dropped.values()),
            "dropped_at": {edge: n for edge, n in self.dropped.items() if n},
            "first_sample_ms": self.first_sample_ms,
            "rtf": self.rtf,
            "audio_seconds": self.audio_samples / SAMPLE_RATE,
            "generated_seconds": self.generated_samples / SAMPLE_RATE,
        }
