"""What the server measures, as Prometheus text. Labels have few values, all known beforehand, none a visitor's."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from streamer.metrics import Metrics, Ring

TICK_BUCKETS: Final = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.12, 0.2, 0.5, 1.0)
LATENCY_BUCKETS: Final = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.5, 1.0, 2.0)
LATENCIES: Final = ("decision_to_sound", "speech_end_to_sound", "stop_to_silence")
LOAD: Final = ("load.late_ticks", "load.tokens_left_out")  # as `streamer.load` counts


class Meters:
    """The counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        self.sessions = Gauge("streamer_visitors", "Visitors that have a place now", registry=own)
        self.limit = Gauge("streamer_visitor_limit", "Places there are", registry=own)
        self.lobby = Gauge("streamer_lobby", "Sockets that have not said hello", registry=own)
        self.ready = Gauge("streamer_ready", "1 when visitors can play", registry=own)
        self.admitted = Counter("streamer_visits", "Visitors that got a place", registry=own)
        self.started = Counter("streamer_sessions_started", "Sessions, each reset is one more", registry=own)
        self.refused = Counter("streamer_refused", "Visitors turned away", ["reason"], registry=own)
        self.closed = Counter("streamer_closed", "Visits that the server ended", ["reason"], registry=own)
        self.bad_frames = Counter("streamer_bad_frames", "Messages that could not be used", registry=own)
        self.received = Counter("streamer_received_bytes", "Bytes of messages from visitors", registry=own)
        self.sent = Counter("streamer_sent_bytes", "Bytes of messages to visitors", registry=own)
        self.dropped = Counter("streamer_dropped_frames", "Frames lost in a full box", ["box"], registry=own)
        self.lost = Counter("streamer_lost_samples", "Samples that visitors skipped", registry=own)
        self.ticks = Counter("streamer_ticks", "Ticks of sound given out", registry=own)
        self.generated = Counter("streamer_generated_seconds", "Seconds of generated sound", registry=own)
        self.heard = Counter("streamer_heard_seconds", "Seconds of heard sound given out", registry=own)
        self.rung = Gauge("streamer_load_rung", "What is left out, 0 nothing to 5 new visitors too", registry=own)
        self.late = Counter("streamer_late_ticks", "Ticks made after their deadline", registry=own)
        self.tokens = Counter("streamer_left_out_tokens", "Fine tokens not made, to be in time", registry=own)
        self.underruns = Counter("streamer_page_underruns", "Underruns that pages reported", registry=own)
        self.page_buffer = Histogram(
            "streamer_page_buffer_seconds", "Sound that pages hold", buckets=LATENCY_BUCKETS, registry=own
        )
        self.page_latency = Histogram(
            "streamer_page_latency_seconds",
            "There and back, as pages measure it",
            buckets=LATENCY_BUCKETS,
            registry=own,
        )
        self.tick_time = Histogram(
            "streamer_tick_seconds", "From one tick of sound to the next", buckets=TICK_BUCKETS, registry=own
        )
        self.step_time = Histogram(
            "streamer_step_seconds", "One step of a node", ["node"], buckets=TICK_BUCKETS, registry=own
        )
        self.latencies = {
            name: Histogram(
                f"streamer_{name}_seconds", f"{name.replace('_', ' ')}", buckets=LATENCY_BUCKETS, registry=own
            )
            for name in LATENCIES
        }

    def report(self, underruns: int, buffer_ms: float | None, latency_ms: float | None) -> None:
        """What a page says of itself."""
        self.underruns.inc(underruns)
        for value, histogram in ((buffer_ms, self.page_buffer), (latency_ms, self.page_latency)):
            if value is not None:
                histogram.observe(value / 1000)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)


class Reader:
    """Gives what is new in a ring of durations since it was last asked."""

    def __init__(self) -> None:
        self._ring: Ring | None = None
        self._seen = 0

    def new(self, ring: Ring) -> list[float]:
        """The durations that came since; those that the ring has overwritten are lost."""
        if ring is not self._ring:
            self._ring, self._seen = ring, 0
        count, size = ring.count, len(ring.values)
        first = max(self._seen, count - size)
        self._seen = count
        return [ring.values[i % size] for i in range(first, count)] if size else []


class Tally:
    """Carries what one session measured into the meters, bit by bit."""

    def __init__(self, meters: Meters, metrics: Metrics) -> None:
        self.meters, self.metrics = meters, metrics
        self._audio = self._generated = 0
        self._load = dict.fromkeys(LOAD, 0)
        self._readers: dict[str, Reader] = {}

    def update(self) -> None:
        """Add what is new since the last time."""
        meters, metrics = self.meters, self.metrics
        audio, generated = metrics.audio_samples, metrics.generated_samples
        meters.ticks.inc((audio - self._audio) // 640)
        meters.generated.inc((generated - self._generated) / 16_000)
        meters.heard.inc(max(0, audio - self._audio - (generated - self._generated)) / 16_000)
        self._audio, self._generated = audio, generated
        for name, counter in zip(LOAD, (meters.late, meters.tokens), strict=True):
            count = metrics.counters.get(name, 0)
            counter.inc(count - self._load[name])
            self._load[name] = count
        for value in self._new("ticks", metrics.ticks):
            meters.tick_time.observe(value)
        for node, ring in list(metrics.rings.items()):
            step = meters.step_time.labels(node)
            for value in self._new(f"node {node}", ring):
                step.observe(value)
        for name, histogram in meters.latencies.items():
            for value in self._new(name, metrics.latencies[name]) if name in metrics.latencies else ():
                histogram.observe(value)

    def _new(self, name: str, ring: Ring) -> list[float]:
        return self._readers.setdefault(name, Reader()).new(ring)
