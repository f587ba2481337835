"""The shape of a config: one pydantic model per section. Knows neither YAML nor which node types exist."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from streamer.isolate import Guard, OnError
from streamer.node import Mode, Settings
from streamer.port import MAX_CAPACITY, Policy

NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
DAY: Final = 86_400.0
TOPIC_PREFIX: Final = r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$"
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$")]
Text = Annotated[str, Field(min_length=1, max_length=4096)]


class SessionSettings(Settings):
    """How a session starts. Times are in seconds."""

    mode: Mode = Field(default="continue", description="what is done with what is heard")
    seed: int = Field(default=0, ge=0, lt=2**63, description="of the noise: same seed, same result")
    seconds: float | None = Field(
        default=10.0, gt=0, le=7 * DAY, description="length of the continuation; null: until stopped"
    )
    prompt_seconds: float | None = Field(
        default=None, gt=0, le=DAY, description="how much of the prompt is used; null: all"
    )
    voice: str | None = Field(default=None, description="file whose voice is forced before the start (resynthesize)")
    include_prompt: bool = Field(default=True, description="whether the output holds the decoded prompt")
    shed: bool = Field(
        default=True, description="leave out fine levels where paced ticks would come too late; never in unpaced runs"
    )
    watermark: bool = Field(default=True, description="mark generated sound, for `audiolm detect` to find")


class NodeSettings(BaseModel):
    """One node: its type, and the settings of that type beside it. `name: TYPE` is short for `name: {type: TYPE}`."""

    model_config = ConfigDict(extra="allow", frozen=True)
    type: Text = Field(description="a node type, see `streamer nodes`")
    on_error: OnError = Field(
        default="fail",
        description="when it raises or hangs: fail ends the session, bypass takes it out, restart begins it anew",
    )
    step_seconds: float = Field(
        default=10.0, gt=0, le=DAY, allow_inf_nan=False, description="a step that gives nothing for so long hangs"
    )
    most_frames: int = Field(default=10_000_000, ge=1, le=10**9, description="frames it may give for one")
    host: Name | None = Field(default=None, description="the machine it runs on, under --host; else all run in one")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        return {"type": value} if isinstance(value, str) else value

    @property
    def own(self) -> dict[str, Any]:
        """The settings beside those above; the class of the node validates them."""
        return dict(self.model_extra or {})

    @property
    def guard(self) -> Guard:
        """What it may do, and what becomes of it when it does more."""
        return Guard(self.on_error, self.step_seconds, self.most_frames)


class Edge(BaseModel):
    """One entry of `edges`: the steps of a chain, each a group of ends, and how its ports behave."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    source: Text = Field(validation_alias=AliasChoices("from", "source"), description="where it starts, or a chain")
    target: str = Field(default="", validation_alias=AliasChoices("to", "target"), description="where it leads")
    policy: Policy | None = Field(default=None, description="what a full port does: block, drop_oldest or raise")
    capacity: int | None = Field(default=None, ge=1, le=MAX_CAPACITY, description="frames a port holds")
    feedback: bool = Field(default=False, description="runs backwards: delivered at the next tick")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        return {"from": value} if isinstance(value, str) else value

    @property
    def text(self) -> str:
        """The chain as one line."""
        return f"{self.source} -> {self.target}" if self.target else self.source

    @field_validator("target")
    @classmethod
    def _target_names(cls, value: str) -> str:
        if value.strip() or not value:
            return value
        raise ValueError("`to` is empty")

    def links(self) -> list[tuple[str, str, str]]:
        """`(from, to, input)` for each pair of the chain; input is empty when not named.

        Raises:
            ValueError: not of the form `a -> b, c -> d.input`.
        """
        groups = [[end.strip() for end in group.split(",")] for group in self.text.split("->")]
        if len(groups) < 2:
            raise ValueError(f"{self.text!r} leads nowhere; expected `a -> b`, `a -> b, c` or `a -> b.input`")
        found: list[tuple[str, str, str]] = []
        for left, right in pairwise(groups):
            for start in left:
                found += [(_split(start, self.text)[0], *_split(end, self.text)) for end in right]
        if any("." in start for start in groups[0]):
            raise ValueError(f"{self.text!r}: an edge starts at a node, not at an input")
        return found


def _split(end: str, text: str) -> tuple[str, str]:
    node, dot, name = end.partition(".")
    if not NAME.fullmatch(node) or (dot and not NAME.fullmatch(name)):
        raise ValueError(f"{end!r} in {text!r} is not a node name or `node.input` (letters, digits, - and _)")
    return node, name


class HostSettings(Settings):
    """One machine of a graph that spans several: the nodes it runs."""

    nodes: list[Name] = Field(default_factory=list, description="the nodes this host runs")


class MqttSettings(Settings):
    """The broker that edges and commands go through. A password comes best from a file or the environment."""

    model_config = ConfigDict(hide_input_in_errors=True)
    host: Text = Field(default="localhost", description="where the broker is")
    port: int = Field(default=1883, ge=1, le=65_535, description="usually 1883, with TLS 8883")
    protocol: Literal["5", "3.1.1"] = Field(default="5", description="version of MQTT")
    username: str | None = Field(default=None, max_length=1024)
    password: SecretStr | None = Field(default=None, description="better in password_file or the environment")
    password_file: Text | None = Field(default=None, description="file whose first line is the password")
    password_env: Text = Field(default="STREAMER_MQTT_PASSWORD", description="variable that holds the password")
    username_env: Text = Field(default="STREAMER_MQTT_USERNAME", description="variable that holds the user name")
    tls: bool = Field(default=False, description="encrypt, and check the broker's certificate")
    ca_file: Text | None = Field(default=None, description="certificates that are trusted; default: the system's")
    cert_file: Text | None = Field(default=None, description="certificate that this client shows")
    key_file: Text | None = Field(default=None, description="its key, where the certificate's file does not hold it")
    prefix: Annotated[str, Field(pattern=TOPIC_PREFIX, max_length=256)] = "streamer"
    instance: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] | None = Field(
        default=None, description="name of this program on the broker; default: its host's or its config's"
    )
    client_id: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        default=None, description="identity for the broker, one program each; default: from prefix and instance"
    )
    keepalive: int = Field(default=10, ge=2, le=3600, description="seconds within which a dead connection is noticed")
    session_expiry: int = Field(
        default=3600, ge=0, le=31_536_000, description="seconds that the broker keeps commands for us while we are away"
    )
    control: bool = Field(default=True, description="take commands")
    control_prefix: Annotated[str, Field(pattern=TOPIC_PREFIX, max_length=256)] | None = Field(
        default=None, description="prefix of the control topics; default: prefix"
    )
    discovery: bool = Field(default=False, description="announce switches and sensors to Home Assistant")
    discovery_prefix: Annotated[str, Field(pattern=TOPIC_PREFIX, max_length=256)] = "homeassistant"
    metrics_seconds: float = Field(default=5.0, ge=0.1, le=3600, description="from one metrics message to the next")
    verify: bool = Field(default=True, description="at the start, check by an echo that we may publish")

    @field_validator("protocol", mode="before")
    @classmethod
    def _unquoted(cls, value: object) -> object:
        return "5" if type(value) is int and value == 5 else value  # YAML takes 5 for a number, and 3.1.1 for text

    @model_validator(mode="after")
    def _fits(self) -> Self:
        given = [name for name in ("ca_file", "cert_file", "key_file") if getattr(self, name)]
        if given and not self.tls:
            raise ValueError(f"{given[0]} is given but tls is off; set mqtt.tls: true")
        if self.key_file and not self.cert_file:
            raise ValueError("key_file is given without cert_file; both belong together")
        return self


class Config(Settings):
    """A whole config."""

    version: Literal[1] = Field(default=1, description="of this format")
    bundle: Text | None = Field(default=None, description="name or path of the model bundle")
    engine: Text = Field(default="auto", description="what runs the model: auto, torch, onnx, onnx-int8, cuda")
    session: SessionSettings = Field(default_factory=SessionSettings)
    nodes: dict[Name, NodeSettings] = Field(default_factory=dict)
    edges: list[Edge] = Field(default_factory=list)
    lanes: dict[Name, list[Name]] = Field(default_factory=dict, description="nodes that share a worker thread")
    hosts: dict[Name, HostSettings] = Field(default_factory=dict)
    mqtt: MqttSettings | None = None
    plugins: list[Text] = Field(default_factory=list, description="modules, files or folders with register(registry)")
    packed: bool = Field(default=False, description="pack and unpack frames on every edge, as between machines")
