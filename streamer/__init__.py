"""An asyncio graph for streams of sound and tokens; these are its public names.

A graph is read and checked with `Graph.load`; sessions go through it with `run`, or come and go with `Running`. What a
node, source or sink has to do is told by the docstrings of `Node`, `Source` and `Sink`.
"""

from streamer.contract import Finding, check_node
from streamer.errors import (
    ConfigError,
    FrameError,
    GraphError,
    InputError,
    NodeError,
    PluginError,
    SnapshotError,
    StallError,
    StreamerError,
)
from streamer.frame import GENERATED, HEARD, LAST, TURN, Frame, FrameLimits
from streamer.graph import Graph
from streamer.metrics import Metrics
from streamer.node import Build, Facts, Node, SessionInfo, Settings, Sink, Source
from streamer.registry import Registry
from streamer.running import Running
from streamer.runtime import run
from streamer.session import Session
from streamer.tools import SoundFile, make_detector, mqtt_messages, settings_of, sound_file, sound_of

__all__ = [
    "GENERATED",
    "HEARD",
    "LAST",
    "TURN",
    "Build",
    "ConfigError",
    "Facts",
    "Finding",
    "Frame",
    "FrameError",
    "FrameLimits",
    "Graph",
    "GraphError",
    "InputError",
    "Metrics",
    "Node",
    "NodeError",
    "PluginError",
    "Registry",
    "Running",
    "Session",
    "SessionInfo",
    "Settings",
    "Sink",
    "SnapshotError",
    "SoundFile",
    "Source",
    "StallError",
    "StreamerError",
    "check_node",
    "make_detector",
    "mqtt_messages",
    "run",
    "settings_of",
    "sound_file",
    "sound_of",
]
