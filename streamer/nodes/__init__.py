"""The nodes of this package. They come in by the same door as plugins: `register(registry)`.

Each is named by `"module:attr"`: its module, and what is heavy behind it, is imported when the type is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamer.registry import Registry

BUILT_IN = {
    "acoustic": "streamer.nodes.ears:AcousticNode",
    "semantic_tokens": "streamer.nodes.ears:SemanticTokensNode",
    "semantic": "streamer.nodes.stages:SemanticNode",
    "coarse": "streamer.nodes.stages:CoarseNode",
    "fine": "streamer.nodes.stages:FineNode",
    "decoder": "streamer.nodes.ears:DecoderNode",
    "turns": "streamer.nodes.turns:TurnsNode",
    "detector": "streamer.nodes.detector:DetectorNode",
    "clock": "streamer.nodes.clock:ClockSource",
    "file": "streamer.nodes.files:FileSource",
    "file_out": "streamer.nodes.files:FileSink",
    "microphone": "streamer.nodes.microphone:MicrophoneSource",
    "mqtt_in": "streamer.nodes.mqtt.source:MqttSource",
    "mqtt_out": "streamer.nodes.mqtt.sink:MqttSink",
    "pcm_in": "streamer.nodes.pcm:PcmSource",
    "pcm_out": "streamer.nodes.pcm:PcmSink",
    "record": "streamer.nodes.record:RecordSink",
    "replay": "streamer.nodes.record:ReplaySource",
    "speaker": "streamer.nodes.speaker:SpeakerSink",
    "web_in": "streamer.nodes.web:WebSource",
    "web_out": "streamer.nodes.web:WebSink",
}


def register(registry: Registry) -> None:
    """Add every built-in node type."""
    for name, path in BUILT_IN.items():
        registry.add(path, name)
