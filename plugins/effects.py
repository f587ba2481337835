"""`effects`: reverb, filters, delay and more on a stream of sound, by Spotify's pedalboard (`pip install pedalboard`).

The result does not depend on the pieces in which the sound comes. What rings on after the end is given, too. pedalboard
keeps the state of its effects to itself, so a restored session begins with effects at rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from streamer import GENERATED, HEARD, LAST, Build, Frame, Node, PluginError, SessionInfo, Settings, sound_of

RATE, TICK = 16_000, 640
RINGING_MS = 3000.0  # what follows the end by default, where something rings on
FREQUENCY = (500.0, 20.0, 7900.0)
GAIN = (0.0, -60.0, 24.0)
Q = (0.707, 0.05, 20.0)

# Effect -> (its class in pedalboard, setting -> (default, least, most)); the settings are pedalboard's attributes.
EFFECTS: dict[str, tuple[str, dict[str, tuple[float, float, float]]]] = {
    "reverb": ("Reverb", {
        "room_size": (0.5, 0, 1), "damping": (0.5, 0, 1), "wet_level": (0.33, 0, 1), "dry_level": (0.4, 0, 1),
    }),
    "delay": ("Delay", {"delay_seconds": (0.5, 0.001, 10), "feedback": (0.3, 0, 0.95), "mix": (0.5, 0, 1)}),
    "chorus": ("Chorus", {
        "rate_hz": (1, 0.01, 20), "depth": (0.25, 0, 1), "centre_delay_ms": (7, 1, 100), "feedback": (0, 0, 0.95),
        "mix": (0.5, 0, 1),
    }),
    "phaser": ("Phaser", {
        "rate_hz": (1, 0.01, 20), "depth": (0.5, 0, 1), "centre_frequency_hz": (1300, 20, 7900),
        "feedback": (0, 0, 0.95), "mix": (0.5, 0, 1),
    }),
    "highpass": ("HighpassFilter", {"cutoff_frequency_hz": (80.0, 20.0, 7900.0)}),
    "lowpass": ("LowpassFilter", {"cutoff_frequency_hz": (4000.0, 20.0, 7900.0)}),
    "peak": ("PeakFilter", {"cutoff_frequency_hz": FREQUENCY, "gain_db": GAIN, "q": Q}),
    "lowshelf": ("LowShelfFilter", {"cutoff_frequency_hz": FREQUENCY, "gain_db": GAIN, "q": Q}),
    "highshelf": ("HighShelfFilter", {"cutoff_frequency_hz": FREQUENCY, "gain_db": GAIN, "q": Q}),
    "gain": ("Gain", {"gain_db": GAIN}),
    "distortion": ("Distortion", {"drive_db": (12, 0, 60)}),
    "compressor": ("Compressor", {
        "threshold_db": (-20, -80, 0), "ratio": (3, 1, 50), "attack_ms": (5, 0.1, 500), "release_ms": (100, 1, 5000),
    }),
    "limiter": ("Limiter", {"threshold_db": (-3, -60, 0), "release_ms": (100, 1, 5000)}),
}  # fmt: skip
RINGS = ("reverb", "delay")


class EffectsSettings(Settings):
    """Settings of `effects`."""

    chain: list[dict[str, str | float]] = Field(
        min_length=1, max_length=32,
        description=f"the effects in order, each with its `type` ({', '.join(EFFECTS)}) and its settings",
    )  # fmt: skip
    tail_ms: float | None = Field(
        default=None, ge=0, le=60_000, description="what rings on after the end; default: 3000 with reverb or delay"
    )

    @field_validator("chain")
    @classmethod
    def _filled(cls, chain: list[dict[str, str | float]]) -> list[dict[str, str | float]]:
        """Every effect with all of its settings."""
        return [filled(f"effect {place}", dict(each)) for place, each in enumerate(chain, 1)]


def filled(where: str, given: dict[str, str | float]) -> dict[str, str | float]:
    """One effect with its defaults; a ValueError says what does not fit."""
    kind = given.pop("type", None)
    if kind not in EFFECTS:
        raise ValueError(f"{where}: type is {kind!r}; expected one of {', '.join(EFFECTS)}")
    known = EFFECTS[str(kind)][1]
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"{where}: {kind} has no {name!r}; it has {', '.join(known)}")
        if not fits(value, known[name]):
            _, least, most = known[name]
            raise ValueError(f"{where}: {name} of {kind} is {value!r}; expected {least:g} to {most:g}")
    return {"type": str(kind)} | {name: given.get(name, default) for name, (default, _, _) in known.items()}


def fits(value: object, limits: tuple[float, float, float]) -> bool:
    """Whether it is a number within its limits."""
    return isinstance(value, float | int) and not isinstance(value, bool) and limits[1] <= value <= limits[2]


@dataclass
class EffectsState:
    """One session: its own effects, whether what came last was generated, and the number of the next frame."""

    info: SessionInfo
    board: Any
    flags: int = HEARD
    seq: int = 0


class Effects(Node):
    """Sound through a chain of effects, mono; flags, positions and epochs stay.

    The limiter is that of JUCE: it raises its threshold to full scale, which nothing exceeds.
    Control: `set` with a setting of the effects (`wet_level`, `cutoff_frequency_hz`); every effect of the chain that
    has it takes it; `node` names this one, else all listen. Counters: `not_finite`, `refused_controls`.
    """

    type_name = "effects"
    accepts = ("audio", "control")
    optional = ("control",)
    emits = ("audio",)
    commands = ("set",)
    restorable = False
    Config = EffectsSettings
    config: EffectsSettings

    def __init__(self, config: EffectsSettings, build: Build) -> None:
        """Find the library.

        Raises:
            PluginError: pedalboard is not installed.
        """
        super().__init__(config, build)
        try:
            import pedalboard
        except ImportError as error:
            message = f"node {build.name!r} needs pedalboard, which cannot be imported ({error})"
            raise PluginError(f"{message}; pip install pedalboard") from error
        self._library: Any = pedalboard
        rings = any(each["type"] in RINGS for each in config.chain)
        self._tail = round((RINGING_MS * rings if config.tail_ms is None else config.tail_ms) * RATE / 1000)

    def init_state(self, info: SessionInfo) -> EffectsState:
        """Effects at rest."""
        made = []
        for each in self.config.chain:
            own = {name: float(value) for name, value in each.items() if name != "type"}
            made.append(getattr(self._library, EFFECTS[str(each["type"])][0])(**own))
        board = self._library.Pedalboard(made)
        board.process(np.zeros(TICK, np.float32), RATE, reset=False)  # a block longer than all before resets everything
        board.reset()
        return EffectsState(info, board)

    def step(self, frame: Frame, state: EffectsState, input: str) -> Iterable[Frame]:  # noqa: A002
        """The frame through the effects; behind the last one what rings on, then the end."""
        _ = input
        if frame.kind == "control":
            self._set(frame, state)
            return
        sound = sound_of(frame, self.name, state.info.metrics)
        if len(sound):
            state.flags = frame.flags & (HEARD | GENERATED)
            yield self._made(sound, frame, frame.position, frame.flags & ~LAST, state)
        elif not frame.last:
            yield frame.replace(seq=self._number(state))
        if frame.last:
            yield from self._end(frame, state)

    def _end(self, frame: Frame, state: EffectsState) -> Iterator[Frame]:
        start = frame.position + frame.shape[0]
        for at in range(0, self._tail, TICK):
            silence = np.zeros(min(TICK, self._tail - at), np.float32)
            yield self._made(silence, frame, start + at, state.flags, state)
        yield Frame.end("audio", position=start + self._tail, like=frame, seq=self._number(state), meta=frame.meta)

    def _made(self, sound: Any, frame: Frame, position: int, flags: int, state: EffectsState) -> Frame:
        blocks = [sound[at : at + TICK] for at in range(0, len(sound), TICK)]
        wet = np.concatenate([state.board.process(block, RATE, reset=False) for block in blocks])
        seq = self._number(state)
        return Frame.of("audio", wet, position=position, like=frame, seq=seq, flags=flags, meta=frame.meta)

    def _number(self, state: EffectsState) -> int:
        state.seq += 1
        return state.seq - 1

    def _set(self, frame: Frame, state: EffectsState) -> None:
        """New settings from here on; what does not fit is counted and left out."""
        if frame.meta.get("command") != "set" or frame.meta.get("node", self.name) != self.name:
            return
        for each, effect in zip(self.config.chain, state.board, strict=True):
            for name, limits in EFFECTS[str(each["type"])][1].items():
                if fits(frame.meta.get(name), limits):
                    setattr(effect, name, float(frame.meta[name]))  # type: ignore[arg-type]
                elif name in frame.meta:
                    state.info.metrics.count(f"{self.name}.refused_controls")

    def save(self, state: EffectsState) -> dict[str, Any]:
        """Nothing: the effects cannot be asked for their state."""
        _ = state
        return {}

    def load(self, saved: dict[str, Any], info: SessionInfo) -> EffectsState:
        """Effects at rest."""
        _ = saved
        return self.init_state(info)
