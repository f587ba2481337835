"""`gate`: lets only speech, or only music, through; the rest becomes silence, or is left out.

A detector looks at ticks of 40 ms. The gate opens a little before what it found, so that an onset is not cut: its
output lags by that much. Opening and closing are faded. Knows no turns of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from streamer import GENERATED, HEARD, Build, Facts, Frame, Node, SessionInfo, Settings, make_detector, sound_of

TICK = 640
MS = 16  # samples


class GateSettings(Settings):
    """Settings of `gate`."""

    passes: Literal["speech", "music"] = Field(default="speech", description="what is let through")
    look_back_ms: float = Field(default=160, ge=0, le=2000, description="sound before an onset that is let through")
    hold_ms: float = Field(default=320, ge=0, le=60_000, description="time that it stays open after the last")
    fade_ms: float = Field(default=20, ge=1, le=40, description="of opening and closing")
    rest: Literal["silence", "leave_out"] = Field(
        default="silence", description="what does not pass: silence of the same length, or a gap in the positions"
    )


@dataclass
class GateState:
    """One session.

    Attributes:
        head: what the next piece begins with: its position, flags, epoch and meta; it holds no sound.
        held: samples that do not fill a tick yet.
        waiting: pieces that are not given yet, each with whether someone was active in it.
        hold: pieces for which it stays open. gain: at the end of the last piece, 0 or 1.
    """

    info: SessionInfo
    ear: Any
    waiting: deque[tuple[Frame, bool]]
    head: Frame | None = None
    held: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    hold: int = 0
    gain: float = 0.0
    seq: int = 0


class Gate(Node):
    """Lets speech or music through, with its onset; the rest becomes silence or is left out.

    Gives the same whatever the chunking: pieces of a tick, shorter ones only where a turn or the stream ends, or the
    flags, the epoch or the role change. Gauge: `open`. Counter: `not_finite`.
    """

    type_name = "gate"
    accepts = ("audio",)
    emits = ("audio",)
    Config = GateSettings
    config: GateSettings

    def __init__(self, config: GateSettings, build: Build) -> None:
        """Load the detector.

        Raises:
            ConfigError: its library is not installed.
        """
        super().__init__(config, build)
        self.detector = make_detector(config.passes)
        self._back, self._hold = ticks(config.look_back_ms), ticks(config.hold_ms)

    @classmethod
    def facts(cls, config: GateSettings, build: Build) -> Facts:
        """It lags by the look-back."""
        _ = build
        kinds = frozenset(["audio"])
        return Facts({"audio": kinds}, kinds, delay=ticks(config.look_back_ms) * TICK)

    def init_state(self, info: SessionInfo) -> GateState:
        """Closed."""
        return GateState(info, self.detector.init_state(), deque(maxlen=self._back + 1))

    def step(self, frame: Frame, state: GateState, input: str) -> Iterable[Frame]:  # noqa: A002
        """Take a frame; give the pieces that are old enough, and all at the end of a turn or of the stream."""
        _ = input
        for piece in self._pieces(frame, state):
            tick = np.zeros(TICK, np.float32)
            tick[: piece.shape[0]] = piece.array
            state.waiting.append((piece, self.detector.step(tick, state.ear).active))
            if len(state.waiting) > self._back:
                yield from self._give(state)
        if frame.turns or frame.last:
            while state.waiting:
                yield from self._give(state)
            yield self._numbered(frame.replace(position=ends(frame), payload=b"", shape=(0,), dtype="f4"), state)

    def _pieces(self, frame: Frame, state: GateState) -> Iterator[Frame]:
        """The ticks that a frame completes; what is held goes as it is where the frame does not go on from it."""
        sound = sound_of(frame, self.name, state.info.metrics)
        if len(state.held) and (frame.turns or frame.last or len(sound)) and not goes_on(state, frame):
            yield self._piece(len(state.held), state)
        if len(sound):
            if not len(state.held):
                state.head = frame.replace(payload=b"", shape=(0,), dtype="f4")
            state.held = np.concatenate([state.held, sound])
            while len(state.held) >= TICK:
                yield self._piece(TICK, state)
        if len(state.held) and (frame.turns or frame.last):
            yield self._piece(len(state.held), state)

    def _piece(self, count: int, state: GateState) -> Frame:
        """The first samples of what is held, as a frame."""
        head = state.head
        assert head is not None, "what is held has a head"  # noqa: S101 - for the type
        sound, state.held = state.held[:count], state.held[count:].copy()
        state.head = head.replace(position=head.position + count)
        flags = head.flags & (HEARD | GENERATED)
        return Frame.of("audio", sound, position=head.position, like=head, flags=flags, meta=head.meta)

    def _give(self, state: GateState) -> Iterator[Frame]:
        """The oldest piece that waits: open, closed, or on the way from one to the other."""
        active = any(active for _, active in state.waiting)
        piece, _ = state.waiting.popleft()
        state.hold = self._hold + 1 if active else state.hold
        goal = 1.0 if state.hold > 0 else 0.0
        state.hold = max(0, state.hold - 1)
        count = min(self.config.fade_ms * MS, piece.shape[0])
        way = np.minimum((np.arange(piece.shape[0]) + 1) / count, 1)
        curve = state.gain + (goal - state.gain) * (0.5 - 0.5 * np.cos(np.pi * way))
        length = 0 if not goal and self.config.rest == "leave_out" and not state.gain else piece.shape[0]
        if not goal and state.gain and self.config.rest == "leave_out":
            length = min(length, round(count))
        state.gain = goal
        state.info.metrics.gauge(f"{self.name}.open", bool(goal))
        if length:
            sound = (piece.array * curve).astype(np.float32)[:length]
            flags = piece.flags
            made = Frame.of("audio", sound, position=piece.position, like=piece, flags=flags, meta=piece.meta)
            yield self._numbered(made, state)

    def _numbered(self, frame: Frame, state: GateState) -> Frame:
        state.seq += 1
        return frame.replace(seq=state.seq - 1)

    def save(self, state: GateState) -> dict[str, Any]:
        """What waits, and the detector's state."""
        return {
            "ear": self.detector.save(state.ear), "held": state.held, "hold": state.hold, "gain": state.gain,
            "head": state.head and state.head.pack(), "seq": state.seq,
            "waiting": [[piece.pack(), int(active)] for piece, active in state.waiting],
        }  # fmt: skip

    def load(self, saved: dict[str, Any], info: SessionInfo) -> GateState:
        """The state again."""
        state = self.init_state(info)
        state.ear, state.held = self.detector.load(saved["ear"]), np.array(saved["held"], np.float32)
        state.head = Frame.unpack(saved["head"]) if saved["head"] else None
        state.waiting.extend((Frame.unpack(data), bool(active)) for data, active in saved["waiting"])
        state.hold, state.gain, state.seq = int(saved["hold"]), float(saved["gain"]), int(saved["seq"])
        return state


def ticks(milliseconds: float) -> int:
    """Whole ticks, rounded up."""
    return -int(-milliseconds * MS // TICK)


def ends(frame: Frame) -> int:
    """Where a frame ends."""
    return frame.position + frame.shape[0]


def goes_on(state: GateState, frame: Frame) -> bool:
    """Whether a frame goes on where what is held ends, with the same flags, epoch and meta."""
    head, sides = state.head, HEARD | GENERATED
    if head is None or (not frame.shape[0]):
        return True
    same = (head.flags & sides, head.epoch, head.meta) == (frame.flags & sides, frame.epoch, frame.meta)
    return same and frame.position == head.position + len(state.held)
