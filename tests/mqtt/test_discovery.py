"""What Home Assistant is told: the fields that it requires, and templates that read what is really published."""

import json
import re

import jinja2
import pytest

from streamer.nodes.mqtt.discovery import config_topic, discovery, is_ours

DESCRIPTION = {
    "versions": {"streamer": "1.2", "python": "3.11.7", "torch": None},
    "frame_version": 1,
    "bundle": "piano",
    "modes": ["continue", "duet"],
    "commands": {
        "mode": {"value": {"type": "string"}}, "trigger": {}, "listen": {}, "reset": {}, "ping": {}, "seed": {},
        "temperature": {"value": {"minimum": 0.0, "maximum": 2.0}}, "gain": {"value": {"minimum": 0, "maximum": 4.0}},
        "length": {"value": {"minimum": 0.04, "maximum": 86_400, "nullable": True}},
        "mute": {"value": {"type": "boolean"}}, "monitor": {"value": {"type": "boolean"}},
    },
}  # fmt: skip
STATUS = {
    "state": "ready", "phase": "running", "turn": "continuing", "mode": "duet", "muted": True, "monitor": False,
    "gain": 1.5, "seconds": 10.0, "temperature": {"semantic": 0.5, "coarse": 0.7},
}  # fmt: skip
METRICS = {"rtf": 0.31, "underruns": 4, "level_db": -20.5, "reconnects": 2}
REQUIRED = {  # by platform, from Home Assistant's documentation of its MQTT platforms
    "button": {"command_topic"}, "switch": {"command_topic"}, "number": {"command_topic"},
    "select": {"command_topic", "options"}, "sensor": {"state_topic"},
}  # fmt: skip


def config(description=DESCRIPTION, *, control=True, before=None):
    made = discovery(
        description,
        prefix="art/streamer",
        instance="brain",
        status="art/streamer/brain/status",
        metrics="art/streamer/brain/metrics",
        every=5.0,
        control=(lambda name: f"art/streamer/brain/control/{name}") if control else None,
        before=before,
    )
    return json.loads(json.dumps(made, allow_nan=False))


def shown(part):
    """What Home Assistant makes of the state that the part reads."""
    state = STATUS if part["state_topic"].endswith("status") else METRICS
    return jinja2.Template(part["value_template"], undefined=jinja2.StrictUndefined).render(value_json=state)


def test_the_device_has_what_is_required():
    found = config()
    assert found["device"]["identifiers"]
    assert found["device"]["name"] == "brain"
    assert found["device"]["sw_version"] == "streamer 1.2, frames 1"
    assert found["origin"]["name"] == "streamer"
    assert found["qos"] == 1
    assert is_ours(found)


@pytest.mark.parametrize(("state", "shows"), [("ready", "online"), ("online", "online"), ("offline", "offline")])
def test_it_is_available_while_it_is_online(state, shows):
    (one,) = config()["availability"]
    assert one["topic"] == "art/streamer/brain/status"
    assert jinja2.Template(one["value_template"]).render(value_json={"state": state}) == shows


def test_each_part_has_what_its_platform_requires():
    parts = config()["components"]
    kinds = {name: part["platform"] for name, part in parts.items()}
    assert kinds == {
        "trigger": "button", "listen": "button", "reset": "button", "mute": "switch", "monitor": "switch",
        "temperature": "number", "gain": "number", "length": "number", "mode": "select", "phase": "sensor",
        "rtf": "sensor", "underruns": "sensor", "level_db": "sensor", "reconnects": "sensor",
    }  # fmt: skip
    for name, part in parts.items():
        assert REQUIRED[part["platform"]] <= set(part), name
        assert part["name"]
        if part["platform"] != "sensor":
            assert part["command_topic"] == f"art/streamer/brain/control/{name}"
    assert len({part["unique_id"] for part in parts.values()}) == len(parts)


def test_numbers_have_a_range_and_a_step():
    parts = config()["components"]
    assert [(parts["temperature"][each]) for each in ("min", "max", "step")] == [0, 2, 0.05]
    assert [(parts["gain"][each]) for each in ("min", "max", "step")] == [0, 4, 0.05]
    assert [(parts["length"][each]) for each in ("min", "max", "step")] == [1, 300, 1]
    assert parts["mode"]["options"] == ["continue", "duet"]


def test_what_is_shown_is_what_is_published():
    parts = config()["components"]
    shows = {name: shown(part) for name, part in parts.items() if "state_topic" in part}
    assert shows == {
        "mute": "true", "monitor": "false", "temperature": "0.6", "gain": "1.5", "length": "10.0", "mode": "duet",
        "phase": "continuing", "rtf": "0.31", "underruns": "4", "level_db": "-20.5", "reconnects": "2",
    }  # fmt: skip
    assert parts["mute"]["state_on"] == parts["mute"]["payload_on"] == "true"


def test_a_last_will_is_unknown_in_all_parts():
    parts = config()["components"]
    reads = {name: part for name, part in parts.items() if part.get("state_topic", "").endswith("status")}
    will = {"state": "offline", "boot": "1"}
    shows = {name: jinja2.Template(part["value_template"]).render(value_json=will) for name, part in reads.items()}
    assert shows == {
        "mute": "false", "monitor": "false", "temperature": "None", "gain": "None", "length": "None", "mode": "None",
        "phase": "offline",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("phase", "turn", "shows"),
    [("starting", None, "starting"), ("running", None, "running"), ("waiting", "listening", "waiting")],
)
def test_the_phase_is_the_turn_while_it_runs(phase, turn, shows):
    part = config()["components"]["phase"]
    state = STATUS | {"phase": phase, "turn": turn}
    assert jinja2.Template(part["value_template"]).render(value_json=state) == shows


def test_only_commands_that_the_graph_takes_and_none_without_control():
    few = config(DESCRIPTION | {"commands": {"reset": {}, "mode": {}}})["components"]
    assert {name for name, part in few.items() if part["platform"] != "sensor"} == {"reset", "mode"}
    assert {part["platform"] for part in config(control=False)["components"].values()} == {"sensor"}


def test_what_is_no_longer_there_is_taken_back_once():
    before = config()
    first = config(control=False, before=before)["components"]
    assert first["mute"] == {"platform": "switch"}
    assert "unique_id" in first["phase"]
    second = config(control=False, before={**before, "components": first})["components"]
    assert "mute" not in second


OTHERS = [
    None,
    {},
    [],
    "x",
    {"origin": {"name": "zigbee"}, "components": {"a": {"platform": "x", "name": "y"}}},
    {"origin": "streamer"},
    {"origin": {"name": "streamer"}, "components": [1]},
    {"origin": {"name": "streamer"}, "components": {"mute": 3, "old": {"name": "x"}}},
]


@pytest.mark.parametrize("before", OTHERS)
def test_what_others_retain_there_changes_nothing(before):
    assert config(before=before) == config()


@pytest.mark.parametrize(("prefix", "instance"), [("streamer", "brain"), ("a/b.c", "room-1"), ("a/b_c", "room-1")])
def test_topics_are_such_as_home_assistant_reads(prefix, instance):
    topic = config_topic("homeassistant", prefix, instance)
    assert re.fullmatch(r"homeassistant/device/[A-Za-z0-9_-]+/config", topic)
    assert topic == config_topic("homeassistant", prefix, instance)


def test_no_two_instances_share_a_device():
    names = [("a/b", "c"), ("a_b", "c"), ("a", "b.c"), ("a", "b_c"), ("a.b", "c")]
    assert len({config_topic("homeassistant", *each) for each in names}) == len(names)
