"""The door: what is let in to the model, one tick at a time.

Bad samples are made harmless and counted, and a slow gain brings any microphone to the level of the training data,
-23 dBFS while something sounds. It works tick by tick with explicit state, so it is the same whatever pieces the sound
came in. Nothing sticks: the level is a trimmed mean over the last ten active seconds, so a bang or a burst of NaN does
not move it. Knows numpy only.

How the gain works, per tick:
- the tick is *active* when its power (about its mean, so DC does not count) is above -55 dBFS and within 35 dB of the
  recent ceiling; else everything is held, so that silence and room noise are not pumped up;
- the level is the mean power of the last 250 active ticks without the loudest sixteenth;
- the gain moves towards target - level, within 30 dB either way: 2 dB a tick in the first second of activity, later
  about 0.1 dB a tick, or a 25th of the way where that is more;
- where it would push a peak over full scale it gives way at once, and comes back at 2 dB a tick;
- it runs linearly inside the tick, so that nothing clicks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from audiolm.errors import ConfigError, InputError
from audiolm.ticks import TICK, Samples

__all__ = ["Door", "DoorConfig", "DoorCounts", "DoorState"]

GATE_DB = -55.0  # below this a tick is room noise
RANGE_DB = 35.0  # ticks that far below the ceiling do not count as active
CEILING_RISE_DB = 6.0  # most that one tick lifts the ceiling: a bang barely moves it
CEILING_FALL_DB = 0.08  # per tick: 2 dB a second
WINDOW = 250  # active ticks that make the level: 10 s
SETTLING = 5  # active ticks before the gain first moves: an onset says little about the level
OPENING = 25  # active ticks during which the gain may move fast
FAST_DB, SLOW_DB = 2.0, 0.1  # gain change per tick, at most
SILENCE = 2.0**-15  # one step of 16 bits
DC_OFFSET = 0.01
PEAK = 0.99


@dataclass(frozen=True)
class DoorConfig:
    """Settings of the door: `gain` auto or off, the level to reach and how far to go for it, in dB."""

    gain: Literal["auto", "off"] = "auto"
    target_db: float = -23.0
    limit_db: float = 30.0

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if self.gain not in ("auto", "off"):
            raise ConfigError(f"door.gain is {self.gain!r}; expected 'auto' or 'off'", gain=self.gain)
        if not -60 <= self.target_db <= 0:
            raise ConfigError(f"door.target_db is {self.target_db}; expected -60 to 0", target_db=self.target_db)
        if not 0 <= self.limit_db <= 60:
            raise ConfigError(f"door.limit_db is {self.limit_db}; expected 0 to 60", limit_db=self.limit_db)


@dataclass
class DoorCounts:
    """What the door has met.

    Counted in samples: nan, inf, clipped (came above full scale), limited (the gain made them so). Counted in ticks:
    ticks, dc (more offset than sound), silent.
    """

    ticks: int = 0
    nan: int = 0
    inf: int = 0
    clipped: int = 0
    limited: int = 0
    dc: int = 0
    silent: int = 0

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


@dataclass
class DoorState:
    """One stream's state: always finite, of fixed size.

    `yield_db` (0 or less) is how far the gain gives way at the moment; `powers` is a ring of the last active ticks.
    """

    gain_db: float = 0.0
    yield_db: float = 0.0
    ceiling_db: float = GATE_DB
    active: int = 0
    powers: NDArray[np.float64] = field(default_factory=lambda: np.zeros(WINDOW))
    counts: DoorCounts = field(default_factory=DoorCounts)


class Door:
    """Cleans ticks and evens out their level; the settings are shared, the state is the caller's."""

    def __init__(self, config: DoorConfig | None = None) -> None:
        """Keep the settings; `None` is the default: automatic gain to -23 dBFS."""
        self.config = config or DoorConfig()

    def init_state(self) -> DoorState:
        """Return the state of a fresh stream."""
        return DoorState()

    def step(self, tick: Samples, state: DoorState) -> Samples:
        """Take one tick, float32 `[640]`, and return it cleaned and levelled; `state` is changed in place.

        Raises:
            InputError: not float32 `[640]`; the state is untouched.
        """
        if not isinstance(tick, np.ndarray) or tick.shape != (TICK,) or tick.dtype != np.float32:
            came = f"{getattr(tick, 'dtype', type(tick).__name__)} {list(getattr(tick, 'shape', []))}"
            raise InputError(f"the door takes float32 [{TICK}], {came} came; cut with TickAssembler", came=came)
        clean = _clean(tick, state.counts)
        power = _note(clean, state.counts)
        if self.config.gain == "off":
            return clean
        start = state.gain_db + state.yield_db
        if _is_active(power, state):
            _remember(power, state)
            state.gain_db = self._next_gain(state)
        return _amplify(clean, start, state)

    def save(self, state: DoorState) -> dict[str, NDArray[Any]]:
        """Copy a state out as arrays."""
        return {
            "gain": np.array([state.gain_db, state.yield_db, state.ceiling_db]),
            "active": np.array([state.active], np.int64),
            "powers": state.powers.copy(),
            "counts": np.array(list(state.counts.as_dict().values()), np.int64),
        }

    def load(self, saved: Mapping[str, NDArray[Any]]) -> DoorState:
        """Make a state from what `save` gave.

        Raises:
            InputError: parts are missing, of another shape or not finite.
        """
        expected = {name: value.shape for name, value in self.save(DoorState()).items()}
        found = {name: np.shape(value) for name, value in saved.items()}
        if found != expected or not all(np.isfinite(value).all() for value in saved.values()):
            raise InputError(f"a saved door has {expected}, all finite; {found} came", found=found, expected=expected)
        gain_db, yield_db, ceiling_db = (float(value) for value in saved["gain"])
        counts = DoorCounts(*(int(value) for value in saved["counts"]))
        powers = np.array(saved["powers"], np.float64)
        return DoorState(gain_db, yield_db, ceiling_db, int(saved["active"][0]), powers, counts)

    def _next_gain(self, state: DoorState) -> float:
        if state.active < SETTLING:
            return state.gain_db
        limit = self.config.limit_db
        wanted = min(limit, max(-limit, self.config.target_db - _decibels(_level(state))))
        slow = min(FAST_DB, max(SLOW_DB, abs(wanted - state.gain_db) / OPENING))
        step = FAST_DB if state.active <= OPENING + SETTLING else slow
        return state.gain_db + min(step, max(-step, wanted - state.gain_db))


def _clean(tick: Samples, counts: DoorCounts) -> Samples:
    """NaN and infinity become 0, the rest is held within full scale; each is counted."""
    counts.ticks += 1
    finite = np.isfinite(tick)
    nans = int(np.isnan(tick).sum())
    counts.nan += nans
    counts.inf += TICK - int(finite.sum()) - nans
    clean = np.where(finite, tick, np.float32(0))
    counts.clipped += int((np.abs(clean) > 1).sum())
    return np.clip(clean, np.float32(-1), np.float32(1))


def _note(tick: Samples, counts: DoorCounts) -> float:
    """Count silence and DC; return the mean power about the mean."""
    wide = tick.astype(np.float64)
    mean = float(wide.mean())
    power = float(np.square(wide - mean).mean())
    counts.silent += int(float(np.abs(tick).max()) < SILENCE)
    counts.dc += int(abs(mean) >= DC_OFFSET and mean * mean > power)
    return power


def _decibels(power: float) -> float:
    return 10 * math.log10(power + 1e-12)


def _is_active(power: float, state: DoorState) -> bool:
    """Follow the ceiling and say whether this tick counts."""
    level = _decibels(power)
    risen = min(level, state.ceiling_db + CEILING_RISE_DB)
    state.ceiling_db = max(GATE_DB, risen, state.ceiling_db - CEILING_FALL_DB)
    return level > max(GATE_DB, state.ceiling_db - RANGE_DB)


def _remember(power: float, state: DoorState) -> None:
    state.powers[state.active % WINDOW] = power
    state.active += 1


def _level(state: DoorState) -> float:
    """Mean power of the remembered ticks without the loudest sixteenth: a bang does not count."""
    known = np.sort(state.powers[: min(state.active, WINDOW)])
    dropped = (len(known) + 11) // 16
    return float(known[: len(known) - dropped].mean())


def _give_way(peak: float, state: DoorState) -> float:
    """How far (0 or less, dB) to stay below the gain; never below unity, so what came within full scale leaves so."""
    back = min(0.0, state.yield_db + FAST_DB)
    if peak == 0 or state.gain_db <= 0:
        return back
    room = max(0.0, 20 * math.log10(PEAK / peak))
    return min(back, room - state.gain_db)


def _amplify(tick: Samples, start_db: float, state: DoorState) -> Samples:
    """Ramp from the last tick's gain to this one's."""
    state.yield_db = _give_way(float(np.abs(tick).max()), state)
    end_db = state.gain_db + state.yield_db
    if start_db == end_db == 0:
        return tick
    ramp = np.linspace(10 ** (start_db / 20), 10 ** (end_db / 20), TICK + 1)[1:]
    loud = tick * ramp.astype(np.float32)
    state.counts.limited += int((np.abs(loud) > 1).sum())
    return np.clip(loud, np.float32(-1), np.float32(1))
