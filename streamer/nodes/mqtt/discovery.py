"""What Home Assistant is told so that a running program appears there by itself: one device with its parts.

The form is that of MQTT discovery by device (Home Assistant 2024.11 and later): one retained config, whose parts read
what the station publishes anyway. Pure: topics and a description go in, a topic and a mapping come out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

__all__ = ["config_topic", "discovery", "is_ours"]

ORIGIN: Final = "streamer"
PARTS: Final = "components"
LONGEST: Final = 300.0  # seconds of a continuation that the slider goes to
STALE: Final = 6  # so many intervals without measurements make a sensor unavailable
AVAILABLE: Final = "{{ 'offline' if value_json.state == 'offline' else 'online' }}"
PHASE: Final = (
    "{{ value_json.turn if value_json.phase == 'running' and value_json.turn "
    "else value_json.phase | default(value_json.state) }}"
)
MEAN: Final = (
    "{% if value_json.temperature %}"
    "{{ (value_json.temperature.values() | sum / value_json.temperature | length) | round(3) }}"
    "{% else %}None{% endif %}"
)


def _read(name: str) -> str:
    """A template; a last will has no fields, and None means unknown."""
    return f"{{{{ value_json.{name} | default('None') }}}}"


BUTTONS: Final = {"trigger": "mdi:play", "listen": "mdi:ear-hearing", "reset": "mdi:restart"}
SWITCHES: Final = {
    "mute": ("muted", "mdi:microphone-off"),
    "monitor": ("monitor", "mdi:headphones"),
}
NUMBERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "temperature": {"step": 0.05, "mode": "slider", "icon": "mdi:thermometer", "value_template": MEAN},
    "gain": {"step": 0.05, "mode": "slider", "icon": "mdi:volume-high", "value_template": _read("gain")},
    "length": {
        "min": 1.0,
        "max": LONGEST,
        "step": 1,
        "mode": "box",
        "icon": "mdi:timer-outline",
        "unit_of_measurement": "s",
        "value_template": _read("seconds"),
    },
}
SENSORS: Final[Mapping[str, Mapping[str, Any]]] = {
    "rtf": {"name": "real-time factor", "icon": "mdi:speedometer", "state_class": "measurement"},
    "underruns": {"name": "underruns", "icon": "mdi:waveform", "state_class": "total_increasing"},
    "level_db": {"name": "level", "icon": "mdi:volume-medium", "unit_of_measurement": "dB", "entity_category": None},
    "reconnects": {"name": "reconnects", "icon": "mdi:lan-connect", "state_class": "total_increasing"},
}


def config_topic(discovery_prefix: str, prefix: str, instance: str) -> str:
    """Where the config is retained; the same for an instance each time, and another for each."""
    return f"{discovery_prefix}/device/{_identity(prefix, instance)}/config"


def discovery(
    description: Mapping[str, Any],
    *,
    prefix: str,
    instance: str,
    status: str,
    metrics: str,
    every: float,
    control: Callable[[str], str] | None,
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The config of a device.

    Args:
        description: what the program is, as it is published: versions, bundle, modes, commands.
        prefix: of the topics.
        instance: of the topics, and the name of the device.
        status: the topic of the status, which the parts read.
        metrics: the topic of what is measured, which sensors read.
        every: seconds between two messages on `metrics`.
        control: command -> its topic; None: nothing can be commanded, so there are only sensors.
        before: the config that was retained so far, if any: what is no longer there is taken back.
    """
    identity = _identity(prefix, instance)
    parts = _sensors(status, metrics, every)
    if control is not None:
        parts |= _controls(description, status, control)
    for name, part in parts.items():
        part["unique_id"] = f"{identity}_{name}"
    versions = description.get("versions", {})
    return {
        "device": {
            "identifiers": [identity],
            "name": instance,
            "manufacturer": "AudioLM",
            "model": description.get("bundle") or "graph",
            "sw_version": f"streamer {versions.get('streamer')}, frames {description.get('frame_version')}",
            "hw_version": ", ".join(f"{name} {value}" for name, value in versions.items() if name != "streamer"),
        },
        "origin": {"name": ORIGIN, "sw_version": str(versions.get("streamer"))},
        "availability": [{"topic": status, "value_template": AVAILABLE}],
        "qos": 1,
        PARTS: {**_taken_back(before, parts), **parts},
    }


def is_ours(config: object) -> bool:
    """Whether a retained config was made here, so that it may be removed."""
    return (
        isinstance(config, Mapping)
        and isinstance(config.get("origin"), Mapping)
        and config["origin"].get("name") == ORIGIN
    )


def _identity(prefix: str, instance: str) -> str:
    """A name of letters, digits, - and _ that no other instance has."""
    whole = f"{prefix}/{instance}"
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", whole)
    return f"{plain}_{hashlib.sha256(whole.encode()).hexdigest()[:6]}"


def _controls(description: Mapping[str, Any], status: str, control: Callable[[str], str]) -> dict[str, dict[str, Any]]:
    commands = description.get("commands", {})
    made: dict[str, dict[str, Any]] = {}
    for name, icon in BUTTONS.items():
        made[name] = {"platform": "button", "payload_press": "{}", "icon": icon}
    for name, (value, icon) in SWITCHES.items():
        states = {"payload_on": "true", "payload_off": "false", "state_on": "true", "state_off": "false"}
        read = f"{{{{ 'true' if value_json.{value} else 'false' }}}}"
        made[name] = {"platform": "switch", "state_topic": status, "value_template": read, "icon": icon, **states}
    for name, about in NUMBERS.items():
        value = commands.get(name, {}).get("value", {})
        bounds = {"min": value.get("minimum"), "max": value.get("maximum")}
        made[name] = {"platform": "number", "state_topic": status, **bounds, **about}
    made["mode"] = {
        "platform": "select",
        "state_topic": status,
        "value_template": _read("mode"),
        "options": list(description.get("modes", [])),
        "icon": "mdi:swap-horizontal",
    }
    return {
        name: {"name": name, "command_topic": control(name), **part} for name, part in made.items() if name in commands
    }


def _sensors(status: str, metrics: str, every: float) -> dict[str, dict[str, Any]]:
    made: dict[str, dict[str, Any]] = {
        "phase": {
            "platform": "sensor",
            "name": "phase",
            "state_topic": status,
            "value_template": PHASE,
            "icon": "mdi:swap-vertical",
        }
    }
    for name, about in SENSORS.items():
        part = {
            "platform": "sensor",
            "state_topic": metrics,
            "value_template": _read(name),
            "expire_after": round(STALE * every) + 1,
            "entity_category": "diagnostic",
            **about,
        }
        made[name] = {key: value for key, value in part.items() if value is not None}
    return made


def _taken_back(before: Mapping[str, Any] | None, parts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Parts that were there before and are no more: a part with nothing but its platform is removed there."""
    found = before.get(PARTS) if before is not None and is_ours(before) else None
    if not isinstance(found, Mapping):
        return {}
    return {
        name: {"platform": part["platform"]}
        for name, part in found.items()
        if name not in parts and isinstance(part, Mapping) and "platform" in part and len(part) > 1
    }
