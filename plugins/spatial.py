"""`spatial`: how loud one of many speakers plays a sound that has a place in the room.

A node gives one stream of a kind, so there is one `spatial` for each speaker, all fed by the same edge. Each knows the
whole room and works out its own speaker's share, and so the speakers may hang on different machines; a control frame
without a name moves the sound for all of them. The law is DBAP (distance-based amplitude panning): gains fall with
the distance, and the squares of all gains add up to one, so the sound is as loud wherever it is. Gains are worked out
sample by sample, from the position in the stream.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from streamer import Build, Frame, Node, SessionInfo, Settings, sound_of

FURTHEST = 1000.0  # metres
LONGEST = 600_000.0  # milliseconds
Points = NDArray[np.float64]
AXES = ("x", "y", "z")


class SpatialSettings(Settings):
    """Settings of `spatial`; places are `[x, y]` or `[x, y, z]` in metres."""

    speakers: dict[str, list[float]] = Field(
        min_length=1, max_length=64, description="every speaker of the room: its place"
    )
    speaker: str = Field(description="the one that this node feeds")
    at: list[float] = Field(description="where the sound is at the start")
    sound: str = Field(default="", description="name of the sound, if several can be moved; control frames name it")
    glide_ms: float = Field(default=100, ge=0, le=LONGEST, description="time of a move, without clicks from 5 on")
    blur_m: float = Field(default=0.2, gt=0, le=FURTHEST, description="a sound is never nearer to a speaker than this")

    @model_validator(mode="after")
    def _known(self) -> SpatialSettings:
        if self.speaker not in self.speakers:
            raise ValueError(f"speaker {self.speaker!r} has no place; those that have: {', '.join(self.speakers)}")
        for name, place in {**self.speakers, "at": self.at}.items():
            if not (2 <= len(place) <= 3 and all(-FURTHEST <= value <= FURTHEST for value in place)):
                raise ValueError(f"{name}: {place}; expected [x, y] or [x, y, z], each at most {FURTHEST:g} m away")
        return self


@dataclass
class SpatialState:
    """One session: where the sound comes from and goes to, when the move began and how long it takes, in samples."""

    info: SessionInfo
    come: Points
    go: Points
    since: int
    length: int
    at: int = 0

    def places(self, positions: NDArray[np.int64]) -> Points:
        """Where the sound is at positions of the stream, `[n, 3]`."""
        share = np.clip((positions - self.since) / max(1, self.length), 0, 1)[:, None]
        made: Points = self.come + (self.go - self.come) * share
        return made


class Spatial(Node):
    """Gives what it takes, as loud as its speaker shall play it; never louder than it came.

    Control: `set` with any of `x`, `y`, `z` (metres) and `glide_ms`; `node` names the sound or this node, else all
    listen. Gauges: `gain`, `x`, `y`, `z`. Counters: `not_finite`, `refused_controls`.
    """

    type_name = "spatial"
    accepts = ("audio", "control")
    optional = ("control",)
    emits = ("audio",)
    commands = ("set",)
    Config = SpatialSettings
    config: SpatialSettings

    def __init__(self, config: SpatialSettings, build: Build) -> None:
        """Measure the room."""
        super().__init__(config, build)
        self._room = np.stack([point(place) for place in config.speakers.values()])
        self._own = list(config.speakers).index(config.speaker)

    def init_state(self, info: SessionInfo) -> SpatialState:
        """At rest."""
        start = point(self.config.at)
        return SpatialState(info, start, start, 0, 0)

    def gains(self, places: Points) -> Points:
        """This speaker's gain for each place `[n, 3]`: inverse distance, the squares over all speakers add up to 1."""
        away = places[:, None, :] - self._room[None]
        power = 1.0 / (np.sum(away * away, axis=2) + self.config.blur_m**2)
        made: Points = np.sqrt(power[:, self._own] / np.sum(power, axis=1))
        return made

    def step(self, frame: Frame, state: SpatialState, input: str) -> Iterable[Frame]:  # noqa: A002
        """The frame at the gain of its samples; ends of turns and of the stream go through."""
        _ = input
        if frame.kind == "control":
            self._move(frame, state)
            return
        sound = sound_of(frame, self.name, state.info.metrics)
        end = frame.position + len(sound)
        moves = frame.position < state.since + state.length
        gain = self.gains(state.places(np.arange(frame.position, end) if moves else np.array([end])))
        state.at = max(state.at, end)
        if len(gain):
            self._say(float(gain[-1]), state)
        made = (sound * gain).astype(np.float32)
        yield Frame.of("audio", made, position=frame.position, like=frame, flags=frame.flags, meta=frame.meta)

    def _say(self, gain: float, state: SpatialState) -> None:
        metrics = state.info.metrics
        metrics.gauge(f"{self.name}.gain", round(gain, 4))
        for axis, value in zip(AXES, state.places(np.array([state.at]))[0], strict=True):
            metrics.gauge(f"{self.name}.{axis}", round(float(value), 3))

    def _move(self, frame: Frame, state: SpatialState) -> None:
        """Set out for another place, from where the sound is now; what is no place is counted and changes nothing."""
        values = dict(frame.meta)
        named = values.get("node")
        if values.get("command") != "set" or (named is not None and named not in (self.name, self.config.sound)):
            return
        wanted: dict[str, Any] = {axis: values[axis] for axis in AXES if axis in values}
        glide: Any = values.get("glide_ms", self.config.glide_ms)
        if not (all(within(value, -FURTHEST, FURTHEST) for value in wanted.values()) and within(glide, 0, LONGEST)):
            state.info.metrics.count(f"{self.name}.refused_controls")
        elif wanted:
            state.come = state.places(np.array([state.at]))[0]
            state.go = np.array([float(wanted.get(axis, old)) for axis, old in zip(AXES, state.go, strict=True)])
            state.since, state.length = state.at, round(glide * 16)

    def save(self, state: SpatialState) -> dict[str, Any]:
        """The move."""
        moves = {"come": state.come, "go": state.go, "since": state.since, "length": state.length}
        return moves | {"at": state.at}

    def load(self, saved: dict[str, Any], info: SessionInfo) -> SpatialState:
        """The state again."""
        come, go = (np.array(saved[key], np.float64) for key in ("come", "go"))
        return SpatialState(info, come, go, int(saved["since"]), int(saved["length"]), int(saved["at"]))


def point(place: list[float]) -> Points:
    """`[x, y]` or `[x, y, z]` as `[3]`."""
    return np.array([*place, 0.0][:3])


def within(value: object, least: float, most: float) -> bool:
    """Whether it is a number within limits."""
    return isinstance(value, float | int) and not isinstance(value, bool) and least <= value <= most
