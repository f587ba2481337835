"""What a page is told of its session five times a second: what the model is doing now, and how healthy it is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from streamer.frame import SAMPLE_RATE, Frame
from streamer.link import Link
from streamer.metrics import Ring
from streamer.session import Session
from streamer.web.meters import LATENCIES


class Health:
    """The work of one session between two looks at it."""

    def __init__(self, session: Session, link: Link) -> None:
        self.session, self.link = session, link
        self._work = dict.fromkeys(session.graph.plan.lanes, 0.0)
        self._audio = 0
        self._rtf: float | None = None

    def frame(self, values: Mapping[str, Any]) -> Frame:
        """A `status`; `values` are those that the server adds."""
        metrics, link = self.session.metrics, self.link
        ticks = metrics.ticks.percentiles()
        gauges = metrics.gauges
        found = {
            "state": gauges.get("turns.state", "listening"),
            "level_db": gauges.get(f"{next(iter(self.session.graph.sources), '')}.level_db"),
            "speech": gauges.get("turns.speech"),
            "rtf": self._load(),
            "tick_p50": ticks["p50"],
            "tick_p99": ticks["p99"],
            "left_out": self.session.info.load.words,
            "inbox": len(link.inbox),
            "outbox": len(link.outbox),
            "dropped_in": link.inbox.dropped,
            "dropped_out": link.outbox.dropped,
            "heard_s": (metrics.audio_samples - metrics.generated_samples) / SAMPLE_RATE,
            "generated_s": metrics.generated_samples / SAMPLE_RATE,
        }
        last = {f"{name}_ms": _last_ms(metrics.latencies.get(name)) for name in LATENCIES}
        made = Frame.control("status", **{key: _short(value) for key, value in {**found, **last, **values}.items()})
        return made.replace(session=self.session.info.id, epoch=self.link.epoch)

    def _load(self) -> float | None:
        """Work of the busiest thread over the sound that came out, since there was last enough of it to say."""
        metrics = self.session.metrics
        sound = (metrics.audio_samples - self._audio) / SAMPLE_RATE
        if sound >= 0.2:
            lanes = self.session.graph.plan.lanes.items()
            work = {lane: sum(metrics.ring(node).total for node in members) for lane, members in lanes}
            self._rtf = max((work[lane] - self._work[lane] for lane in work), default=0.0) / sound
            self._work, self._audio = work, metrics.audio_samples
        return self._rtf


def loading(values: Mapping[str, Any]) -> Frame:
    """A `status` before there is a session: its model is being loaded."""
    return Frame.control("status", state="loading", **values)


def remaining(begin: float, limit: float | None) -> float | None:
    """Seconds left of a visit that began at an instant of the monotonic clock; None: it has no limit."""
    return None if limit is None else max(0.0, limit - (time.monotonic() - begin))


def _last_ms(ring: Ring | None) -> float | None:
    if ring is None or not ring.count:
        return None
    return 1000 * ring.values[(ring.count - 1) % len(ring.values)]


def _short(value: Any) -> Any:
    """Numbers with as many digits as anybody reads."""
    return round(value, 3) if isinstance(value, float) else value
