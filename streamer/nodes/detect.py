"""Whether someone speaks or plays: the interface of the detectors, and the way to one by name.

A detector sees one tick after another and says what is true in it. It knows no turns: how long a pause ends one
(hang-over), and what then follows, is decided by who asks. It adds no latency of its own to the sound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from streamer.errors import ConfigError, InputError, unknown

Samples = npt.NDArray[np.float32]
TICK: Final = 640  # samples at 16 kHz
LEAST_DB: Final = -120.0  # digital silence
KINDS: Final = ("speech", "music")


@dataclass(frozen=True, slots=True)
class Heard:
    """What one tick held.

    Attributes:
        active: someone speaks or plays. With hysteresis, so that it does not flicker; without hang-over.
        level_db: root mean square of the tick in dB of full scale; `LEAST_DB` at least.
        score: how sure, 0 to 1; for speech the model's probability.
        onset: something began in this tick: `active` rose, or (music) a new note was struck while it holds.
    """

    active: bool
    level_db: float
    score: float
    onset: bool


class Detector(Protocol):
    """Decides tick by tick. Weights belong to the detector and are shared, the state belongs to the session.

    Deterministic: the same ticks from the same state give the same answers, to the bit. A detector is used by one
    thread at a time.
    """

    def init_state(self) -> Any:
        """The state of one new stream."""

    def step(self, tick: Samples, state: Any) -> Heard:
        """One tick, float32 `[640]` at 16 kHz. Clipped to full scale (1.0); what is not a number is taken as 0.

        Changes `state` in place.

        Raises:
            InputError: another number of samples.
        """

    def save(self, state: Any) -> dict[str, Any]:
        """The state as arrays and numbers."""

    def load(self, saved: dict[str, Any]) -> Any:
        """The state again, from what `save` gave."""


def make_detector(kind: str, **settings: float) -> Detector:
    """A detector by name.

    Args:
        kind: `speech` (silero-vad through onnxruntime) or `music` (numpy only; takes speech for playing, too).
        settings: other values than the defaults; see `SpeechSettings` and `MusicSettings`.

    Raises:
        ConfigError: an unknown kind or setting, a value that cannot be, or a library that is not installed.
    """
    if kind == "speech":
        from streamer.nodes.silero import SpeechDetector, SpeechSettings

        return SpeechDetector(_filled(SpeechSettings, kind, settings))
    if kind == "music":
        from streamer.nodes.onsets import MusicDetector, MusicSettings

        return MusicDetector(_filled(MusicSettings, kind, settings))
    raise ConfigError(unknown("detector", kind, KINDS))


def _filled(cls: Any, kind: str, settings: dict[str, float]) -> Any:
    for name in settings:
        if name not in cls.__dataclass_fields__:
            raise ConfigError(unknown(f"setting of detector {kind!r}", name, cls.__dataclass_fields__))
    return cls(**settings)


def clean(tick: Samples) -> Samples:
    """The tick as float32 `[640]`, clipped to full scale, 0 where it was not a number.

    Raises:
        InputError: another shape.
    """
    if tick.shape != (TICK,):
        raise InputError(
            f"a detector takes ticks of {TICK} samples at 16 kHz, {list(tick.shape)} came; cut it to ticks"
        )
    safe: Samples = np.clip(np.nan_to_num(tick, nan=0.0), -1.0, 1.0).astype(np.float32)
    return safe


def level_db(tick: Samples) -> float:
    """Root mean square in dB of full scale; `LEAST_DB` at least."""
    power = float(np.mean(np.square(tick, dtype=np.float64)))
    return max(LEAST_DB, 10.0 * float(np.log10(power + 1e-12)))
