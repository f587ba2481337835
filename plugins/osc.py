"""`osc_in`: OSC messages over UDP steer a session, from TouchDesigner, Max, Pd, SuperCollider or a phone.

Addresses are matched by the settings alone: what comes over the network is never taken as a pattern.

    nodes:
      desk:
        type: osc_in
        port: 9000
        map:
          /go: {command: trigger}
          /mute: {command: mute, value: on, kind: switch}
          /temperature/{node}: {value: temperature, input: [0, 1], output: [0.4, 1.3]}
    edges:
      - desk -> turns, semantic, coarse, fine
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

from pydantic import Field, field_validator

from streamer import Build, Frame, SessionInfo, Settings, Source

from ._steer import Desk, Target, finite, needing
from ._wire import listening

SEGMENT = re.compile(r"[^\s#*,/?\[\]{}]{1,64}")


class OscTarget(Target):
    """What a message becomes; without `value` it is a button, and a first value of 0 its release."""

    argument: int = Field(default=0, ge=0, le=255, description="which value of the message counts, from 0")


class OscInSettings(Settings):
    """Where it listens, and what messages mean."""

    bind: str = Field(
        default="127.0.0.1", min_length=1, description="address it listens on; 0.0.0.0: the whole network"
    )
    port: int = Field(default=9000, ge=0, le=65_535, description="UDP port; 0: any, see the gauge `NAME.port`")
    map: dict[str, OscTarget] = Field(
        min_length=1,
        max_length=256,
        description="address -> command; `*` is any segment, `{node}` one that names a node",
    )

    @field_validator("map")
    @classmethod
    def _addresses(cls, found: dict[str, OscTarget]) -> dict[str, OscTarget]:
        for address in found:
            pattern(address)
        return found


def pattern(address: str) -> re.Pattern[str]:
    """What an address of the settings matches.

    Raises:
        ValueError: no address, or with wildcards that are not known.
    """
    start, *segments = address.split("/")
    plain = [each for each in segments if each not in ("*", "{node}")]
    if start or not segments or segments.count("{node}") > 1 or not all(SEGMENT.fullmatch(each) for each in plain):
        raise ValueError(f"address {address!r}: expected /name/name, with `*` for any segment, `{{node}}` for one node")
    parts = {"*": "[^/]*", "{node}": "(?P<node>[^/]{1,64})"}
    return re.compile("".join("/" + parts.get(each, re.escape(each)) for each in segments))


class OscSource(Source):
    """OSC messages as control frames; of each address the newest waits, and a new session begins with what stands.

    Counters: `refused` (no OSC, or not a number), `unmapped`, `superseded`, `dropped`. Gauge: `port`.
    """

    type_name = "osc_in"
    emits = ("control",)
    Config = OscInSettings
    config: OscInSettings

    def __init__(self, config: OscInSettings, build: Build) -> None:
        """Nothing is opened before a session begins.

        Raises:
            ConfigError: python-osc is not installed.
        """
        super().__init__(config, build)
        with needing(self.name, "python-osc", "osc"):
            import pythonosc.osc_message  # noqa: F401 - so that it is missed before anything starts
        self.desk = Desk(self.name)
        self._map = [(pattern(address), target) for address, target in config.map.items()]

    async def frames(self, ctx: SessionInfo) -> AsyncIterator[Frame]:
        """Control frames as they come, until cancelled.

        Raises:
            InputError: the port is taken, or a second session came.
        """

        def take(address: str, values: list[Any]) -> None:
            self._take(address, values, ctx)

        bind, port = self.config.bind, self.config.port
        with self.desk.serving(ctx):
            async with listening(self.name, ctx, bind=bind, port=port, take=take, refuse=self.desk.refuse):
                while True:
                    yield await self.desk.get()

    def _take(self, address: str, values: list[Any], ctx: SessionInfo) -> None:
        found = [(match, target) for each, target in self._map if (match := each.fullmatch(address))]
        if not found:
            ctx.metrics.count(f"{self.name}.unmapped")
            self.desk.say("unmapped", f"OSC {address[:64]!r} means nothing here; known: {', '.join(self.config.map)}")
        for match, target in found:
            number = finite(values[target.argument]) if target.argument < len(values) else None
            if target.value is not None and number is None:
                self.desk.refuse(f"OSC {address[:64]!r} came without a number as its value {target.argument}")
            else:
                self.desk.put(target.frame(number, node=match.groupdict().get("node")))
