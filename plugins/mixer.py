"""`mixer`: up to eight streams of sound into one, lined up by their positions, never beyond full scale.

Nothing is mixed by the moment at which it arrives. A stream that has ended early, or leaves a gap, counts as silence
there; where none has sound, the mix leaves the same gap. Knows samples and positions, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from streamer import GENERATED, HEARD, LAST, Build, Frame, Node, SessionInfo, Settings, sound_of

Name = Literal["a", "b", "c", "d", "e", "f", "g", "h"]
NAMES: tuple[Name, ...] = get_args(Name)
SILENT_DB, MOST_DB = -96.0, 24.0
GLIDE = 320  # samples over which a new gain is reached
KNEE = 0.7  # of full scale; below it nothing is changed


class MixerSettings(Settings):
    """Settings of `mixer`."""

    gains_db: dict[Name, float] = Field(default={}, description="of each input, -96 (silent) to 24 dB; default 0")
    limit: bool = Field(default=True, description="bend what is louder than 0.7 of full scale, so that nothing clips")
    wait_ms: float | None = Field(
        default=None, ge=0, le=60_000, description="how far an input may be behind the one ahead before the mix goes "
        "on without it; default: waits, so that timing changes nothing; for live sources 100 to 500",
    )  # fmt: skip

    @field_validator("gains_db")
    @classmethod
    def _in_range(cls, gains: dict[Name, float]) -> dict[Name, float]:
        for name, value in gains.items():
            if not SILENT_DB <= value <= MOST_DB:
                raise ValueError(f"the gain of {name} is {value:g} dB; expected {SILENT_DB:g} to {MOST_DB:g}")
        return gains


@dataclass
class Strand:
    """One input: what waits to be mixed, how far it has come, its gain `before`, and `after` a change at `since`."""

    before: float
    after: float
    since: int = 0
    until: int = 0
    open: bool = True
    frames: list[Frame] = field(default_factory=list)

    def gain(self, at: NDArray[np.int64]) -> NDArray[np.float64]:
        """The gain at positions."""
        made: NDArray[np.float64] = self.before + (self.after - self.before) * np.clip((at - self.since) / GLIDE, 0, 1)
        return made


@dataclass
class MixerState:
    """One session; `at`: mixed up to here."""

    info: SessionInfo
    strands: dict[str, Strand]
    at: int = 0
    seq: int = 0
    epoch: int = 0


class Mixer(Node):
    """Adds its inputs `a` to `h`, lined up by position; nothing clips.

    The sum is generated where any of them is, even one that is turned down. Ends of turns go through.
    Control: `set` with `a_db` to `h_db` (`null`: the config's), reached smoothly; `node` names this one, else all
    listen. Counters: `late_samples` (came when the mix was further), `not_finite`, `refused_controls`.
    """

    type_name = "mixer"
    accepts = dict.fromkeys(NAMES, ("audio",)) | {"control": ("control",)}
    optional = (*NAMES[1:], "control")
    emits = ("audio",)
    commands = ("set",)
    Config = MixerSettings
    config: MixerSettings

    def __init__(self, config: MixerSettings, build: Build) -> None:
        """Where no input is waited for, take what is there."""
        super().__init__(config, build)
        self._gains: dict[str, float] = {name: config.gains_db.get(name, 0.0) for name in NAMES}
        if config.wait_ms is not None:
            self.merge = "arrival"  # type: ignore[misc]

    def init_state(self, info: SessionInfo) -> MixerState:
        """Nothing has come yet."""
        gains = {name: factor(db) for name, db in self._gains.items() if name in info.inputs}
        return MixerState(info, {name: Strand(gain, gain) for name, gain in gains.items()})

    def wants(self, state: MixerState) -> frozenset[str] | None:
        """The input that is furthest behind; any, where none is waited for."""
        left = [(strand.until, name) for name, strand in state.strands.items() if strand.open]
        return frozenset([min(left)[1]]) if left and self.config.wait_ms is None else None

    def step(self, frame: Frame, state: MixerState, input: str) -> Iterable[Frame]:  # noqa: A002
        """Take a frame; give what is complete up to the input that is furthest behind."""
        if frame.kind == "control":
            self._set(frame, state)
            return
        self._take(frame, state.strands[input], state)
        yield from self._mix(self._ready(state), state)
        if not any(strand.open for strand in state.strands.values()):
            yield self._numbered(Frame.end("audio", position=state.at), state)

    def _take(self, frame: Frame, strand: Strand, state: MixerState) -> None:
        """Keep a frame, without what overlaps its own stream or comes too late."""
        sound = sound_of(frame, self.name, state.info.metrics)
        start = max(frame.position, strand.until, state.at)
        late = min(len(sound), start - frame.position)
        if late:
            state.info.metrics.count(f"{self.name}.late_samples", late)
        strand.until, strand.open = max(strand.until, frame.position + len(sound)), not frame.last
        if len(sound) > late or frame.turns:
            flags = frame.flags & ~LAST
            strand.frames.append(
                Frame.of("audio", sound[late:], position=start, like=frame, flags=flags, meta=frame.meta)
            )

    def _ready(self, state: MixerState) -> int:
        """The position up to which everything has come, or is not waited for any more."""
        ahead = max(strand.until for strand in state.strands.values())
        behind = min((strand.until for strand in state.strands.values() if strand.open), default=ahead)
        return behind if self.config.wait_ms is None else max(behind, ahead - round(self.config.wait_ms * 16))

    def _mix(self, ready: int, state: MixerState) -> Iterator[Frame]:
        """One frame for each stretch in which the same frames sound; the ends of turns where they belong."""
        parts = [(strand, frame) for strand in state.strands.values() for frame in strand.frames]
        marks = {state.at, ready} | {mark for _, frame in parts for mark in (frame.position, ends(frame))}
        ordered = sorted(mark for mark in marks if state.at <= mark <= ready)
        for start, end in zip(ordered, ordered[1:] + ordered[-1:], strict=True):
            for _, frame in parts:
                if frame.turns and ends(frame) == start:
                    turn = Frame.turn("audio", position=start, flags=frame.flags, meta=frame.meta, epoch=frame.epoch)
                    yield self._numbered(turn, state)
            here = [(strand, frame) for strand, frame in parts if frame.position <= start < ends(frame)]
            if here and end > start:
                yield self._numbered(self._sum(here, start, end), state)
        state.at = max(state.at, ready)
        for strand in state.strands.values():
            strand.frames = [frame for frame in strand.frames if ends(frame) > state.at]

    def _sum(self, parts: list[tuple[Strand, Frame]], start: int, end: int) -> Frame:
        total, at = np.zeros(end - start), np.arange(start, end)
        for strand, frame in parts:
            total += frame.array[start - frame.position : end - frame.position] * strand.gain(at)
        frames = [frame for _, frame in parts]
        meta = frames[0].meta if all(frame.meta == frames[0].meta for frame in frames) else {}
        sound = (bent(total) if self.config.limit else total).astype(np.float32)
        flags, epoch = GENERATED if any(f.generated for f in frames) else HEARD, max(f.epoch for f in frames)
        return Frame.of("audio", sound, position=start, flags=flags, epoch=epoch, meta=meta)

    def _numbered(self, frame: Frame, state: MixerState) -> Frame:
        state.seq, state.epoch = state.seq + 1, max(state.epoch, frame.epoch)
        return frame.replace(session=state.info.id, epoch=state.epoch, seq=state.seq - 1)

    def _set(self, frame: Frame, state: MixerState) -> None:
        """New gains from here on; what is no gain is counted and left out."""
        if frame.meta.get("command") != "set" or frame.meta.get("node", self.name) != self.name:
            return
        for name, strand in state.strands.items():
            value = frame.meta.get(f"{name}_db", 0.0)
            value = self._gains[name] if value is None else value
            if type(value) not in (int, float) or not SILENT_DB <= float(value) <= MOST_DB:
                state.info.metrics.count(f"{self.name}.refused_controls")
            elif f"{name}_db" in frame.meta:
                strand.before = float(strand.gain(np.array([state.at]))[0])
                strand.after, strand.since = factor(float(value)), state.at

    def save(self, state: MixerState) -> dict[str, Any]:
        """Where it is, and what waits."""
        packed = [(name, strand, [frame.pack() for frame in strand.frames]) for name, strand in state.strands.items()]
        strands = {name: vars(strand) | {"frames": frames} for name, strand, frames in packed}
        return {"strands": strands, "at": state.at, "seq": state.seq, "epoch": state.epoch}

    def load(self, saved: dict[str, Any], info: SessionInfo) -> MixerState:
        """The state again."""
        strands = {
            name: Strand(**(values | {"frames": [Frame.unpack(data) for data in values["frames"]]}))
            for name, values in saved["strands"].items()
        }
        return MixerState(info, strands, saved["at"], saved["seq"], saved["epoch"])


def ends(frame: Frame) -> int:
    """Where a frame ends."""
    return frame.position + frame.shape[0]


def factor(db: float) -> float:
    """A gain in dB as a factor."""
    return 0.0 if db <= SILENT_DB else float(10 ** (db / 20))


def bent(sound: NDArray[np.float64]) -> NDArray[np.float64]:
    """Samples below the knee as they are, those above bent towards full scale, which none exceeds."""
    over = np.minimum(np.maximum(np.abs(sound) - KNEE, 0) / (1 - KNEE), 1e9)
    made: NDArray[np.float64] = np.sign(sound) * (np.minimum(np.abs(sound), KNEE) + (1 - KNEE) * over / (1 + over))
    return made
