"""What a live run says of itself to others: its status, its measurements, and what it is. Plain data for JSON.

Knows no transport but by name: how often what is published, the station knows.
"""

from __future__ import annotations

import platform
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Any, Final

from streamer.commands.controls import Controls
from streamer.commands.remote import Remote
from streamer.commands.sessions import Live
from streamer.frame import VERSION as FRAME_VERSION
from streamer.metrics import Ring
from streamer.registry import load_attribute

PACKAGE: Final = "audiolm-streamer"
LIBRARIES: Final = ("torch", "numpy", "aiomqtt")
CARRIERS: Final = ("mqtt_in", "mqtt_out")
STATION: Final = "streamer.nodes.mqtt.station:station_for"
DESCRIPTION: Final = 1  # version of the form of the description


class Account:
    """What is said of a run.

    Args:
        live: the run. remote: what it can be told.
    """

    def __init__(self, live: Live, remote: Remote) -> None:
        self.live, self.remote = live, remote

    def do(self, name: str, payload: bytes) -> dict[str, Any]:
        """Obey a command, see `Remote.do`."""
        return self.remote.do(name, payload)

    def status(self) -> dict[str, Any]:
        """What holds now and is worth telling at once when it changes.

        `state` is `ready` while a session runs and `online` else; `turn` is `listening` or `continuing`, where a node
        takes turns; `left_out` is what the machine is too slow for now, in words, or null.
        """
        live = self.live
        return {
            "state": "ready" if live.phase == "running" else "online",
            "turn": live.follower.state,
            "left_out": live.session.info.load.words,
            **self.remote.now(),
            "note": live.note,
            "failed": live.failed,
            "reason": live.reason,
            "session_since": live.since,
        }

    def metrics(self) -> dict[str, Any]:
        """What is measured: times in ms as percentiles, counters since the start, gauges that are numbers."""
        live = self.live
        found = live.follower.status()
        gauges = {name: value for name, value in found["gauges"].items() if _is_number(value)}
        counters = found["counters"]
        rings = live.session.metrics.rings.copy()
        kept = ("run_s", "session", "turns", "generated_s", "rtf", "dropped", "latency_ms")
        return {
            **{name: found[name] for name in kept},
            "underruns": sum(number for name, number in counters.items() if name.endswith(".underruns")),
            "lost_samples": sum(number for name, number in counters.items() if name.endswith(".lost_samples")),
            "level_db": _loudest(gauges),
            "tick_ms": _spread(live.session.metrics.ticks),
            "node_ms": {name: _spread(ring) for name, ring in rings.items() if ring.count},
            "gauges": gauges,
            "counters": counters,
        }

    def description(self) -> dict[str, Any]:
        """What this is: versions, bundle, nodes with their kinds, commands with their ranges."""
        plan = self.live.graph.plan
        nodes = {
            name: {
                "type": kind.type_name,
                "in": sorted({each for kinds in plan.facts[name].inputs.values() for each in kinds}),
                "out": sorted(plan.facts[name].emits),
            }
            for name, kind in plan.types.items()
        }
        return {
            "description": DESCRIPTION,
            "program": "streamer",
            "versions": versions(),
            "frame_version": FRAME_VERSION,
            "config": plan.loaded.file,
            "bundle": _name_of(plan.loaded.config.bundle),
            "nodes": nodes,
            "modes": self.remote.modes,
            "commands": self.remote.describe(),
        }


@asynccontextmanager
async def on_air(live: Live, controls: Controls) -> AsyncIterator[None]:
    """Inside, a run is on its broker, where its config has one: it says how it is and takes commands.

    Raises:
        ConfigError, InputError: the settings cannot be used, or the broker refuses us.
    """
    plan = live.graph.plan
    if plan.loaded.config.mqtt is None and not any(kind.type_name in CARRIERS for kind in plan.types.values()):
        yield
        return
    station_for: Any = load_attribute(STATION)
    async with station_for(next(iter(plan.builds.values())), Account(live, Remote(live, controls))):
        yield


def versions() -> dict[str, str | None]:
    """Of the program, of Python, and of the libraries that matter; None: not installed."""
    return {"streamer": _version(PACKAGE), "python": platform.python_version()} | {
        name: _version(name) for name in LIBRARIES
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _name_of(bundle: str | None) -> str | None:
    """The last part of a path: where it lies is nobody's business."""
    return None if bundle is None else bundle.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _loudest(gauges: dict[str, Any]) -> float | None:
    """The level of what is played, else of what is heard."""
    return max((value for name, value in gauges.items() if name.endswith(".level_db")), default=None)


def _spread(ring: Ring) -> dict[str, float] | None:
    found = ring.percentiles()
    return {name: round(found[name], 2) for name in ("p50", "p95", "p99", "max")} if ring.count else None
