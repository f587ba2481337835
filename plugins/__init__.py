"""Plugins that ship with the package, installed as `streamer_plugins`; they see only the public names of `streamer`.

Each node is named by `"module:attr"`: its module is imported when the type is first used, and the library behind it
when a node is built.
"""

from __future__ import annotations

from streamer import Registry

SHIPPED = {
    "effects": "streamer_plugins.effects:Effects",
    "gate": "streamer_plugins.gate:Gate",
    "midi_in": "streamer_plugins.midi:MidiSource",
    "mixer": "streamer_plugins.mixer:Mixer",
    "osc_in": "streamer_plugins.osc:OscSource",
    "osc_out": "streamer_plugins.osc_out:OscSink",
    "recorder": "streamer_plugins.recorder:Recorder",
    "scheduler": "streamer_plugins.scheduler:SchedulerNode",
    "sensor": "streamer_plugins.sensor:SensorSource",
    "spatial": "streamer_plugins.spatial:Spatial",
}


def register(registry: Registry) -> None:
    """Add every node type of this package."""
    for name, path in SHIPPED.items():
        registry.add(path, name)
