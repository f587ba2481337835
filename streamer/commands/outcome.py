"""What every kind of run says of itself in the end: where its sound went, how it was made, what it took."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Final

import structlog

from streamer.graph import Graph
from streamer.node import Sink

NEVER_KEPT: Final = ("path", "chunk_ms", "realtime", "snapshots")  # settings that do not change the sound
TRANSPORTS: Final = ("mqtt_in", "mqtt_out")  # node types that carry frames and change nothing
METADATA_BYTES: Final = 1000  # of the nodes' settings; a sound file holds about 1900 in all


def node_settings(graph: Graph) -> dict[str, str | int | float | bool | None]:
    """What repeats the sound beside the session's settings, for the file's metadata: flat, no path, no time."""
    loaded = graph.plan.loaded
    found: dict[str, str | int | float | bool | None] = {"config": loaded.file}
    for name, entry in loaded.config.nodes.items():
        own = {} if entry.type in TRANSPORTS else entry.own
        for key, value in own.items():
            if key not in NEVER_KEPT and isinstance(value, (str, int, float)):
                found[f"{name}.{key}"] = Path(value).name if key == "bundle" and isinstance(value, str) else value
    if len(json.dumps(found)) > METADATA_BYTES:
        structlog.get_logger().warning("metadata", note="the nodes' settings are too long and are left out")
        return {"config": loaded.file}
    return found


def carries_sound(graph: Graph) -> bool:
    """Whether standard output is where a sink writes to."""
    return any(getattr(graph.plan.settings[name], "path", None) == "-" for name in graph.plan.names(Sink))


def files_of(graph: Graph) -> list[str]:
    """The files that the sinks write, the one of the node `output` first."""
    sinks = sorted(graph.plan.names(Sink), key=lambda name: name != "output")
    paths = [getattr(graph.plan.settings[name], "path", None) for name in sinks]
    return [path for path in paths if isinstance(path, str) and path not in ("", "-")]


def peak_rss_mb() -> float:
    """The most memory this process has held, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024 * 1024 if sys.platform == "darwin" else 1024), 1)


def rounded(value: float | None, digits: int) -> float | None:
    """A measured number with as many digits as it deserves; None stays None."""
    return None if value is None else round(value, digits)
