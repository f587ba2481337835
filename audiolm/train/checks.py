"""Checks of one sound on its way into a corpus: what is refused and why, what is corrected, and by how much.

The level is measured as the door measures it (:mod:`audiolm.door`): the mean power, about each tick's mean, of the
ticks in which something sounds, without the loudest sixteenth. Knows numpy only; sound files are read by
:mod:`audiolm.io`, imported when used. This module imports no torch, so that reading processes start quickly.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from audiolm.door import CEILING_FALL_DB, CEILING_RISE_DB, GATE_DB, PEAK, RANGE_DB
from audiolm.errors import ConfigError, InputError
from audiolm.train.duplicates import fingerprint
from audiolm.train.shards import to_int16

if TYPE_CHECKING:
    from audiolm.io import AudioReader

Array = np.ndarray[Any, Any]
RATE = 16000
TICK = 640
FULL_SCALE = 0.999  # a sample that high counts as clipped
DC_LIMIT = 0.003  # -50 dBFS: an offset above it is taken out
TOLERANCE_DB = 0.5  # a level that close is left as it came, to the bit
GAIN_LIMIT_DB = 30.0  # as the door
LONG_END, KEPT_END = 25, 8  # ticks: an end is trimmed when silent for a second, to a third of a second


@dataclass(frozen=True)
class Checks:
    """What a sound must be like and what is done to it.

    ``minimum`` and ``longest`` are in seconds (longer files are cut in equal pieces), ``level_db`` the active level in
    dBFS that sounds are brought to, or none; ``trim`` shortens long silent ends; ``most_silent`` and ``most_clipped``
    are shares beyond which a sound is refused.
    """

    minimum: float = 0.5
    longest: float = 600.0
    level_db: float | None = -23.0
    trim: bool = False
    most_silent: float = 0.9
    most_clipped: float = 0.01

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        low_high = {
            "minimum": (0.04, 60),
            "longest": (2 * self.minimum, 7200),
            "level_db": (-60, 0),
            "most_silent": (0, 1),
            "most_clipped": (0, 1),
        }
        for item in fields(self):
            value, (low, high) = getattr(self, item.name), low_high.get(item.name, (None, None))
            if low is not None and value is not None and not low <= value <= high:
                raise ConfigError(f"prepare.{item.name} is {value}; expected {low} to {high}", value=value)


@dataclass(frozen=True)
class Examined:
    """A sound after its checks.

    ``samples`` are int16 ``[n]``, empty where it was refused: then ``kind`` says why in a word, ``reason`` in a
    sentence. ``seconds`` is its length as read, ``start`` its place in the file, ``corrected`` what was done to it
    (gain in dB, offset, seconds trimmed, ...), ``key`` tells equal sounds, ``mark`` similar ones.
    """

    seconds: float
    start: float = 0.0
    samples: Array = field(default_factory=lambda: np.zeros(0, np.int16))
    kind: str = ""
    reason: str = ""
    corrected: dict[str, float] = field(default_factory=dict)
    silent: float = 0.0
    clipped: float = 0.0
    key: bytes = b""
    mark: bytes = b""


def examine_file(path: Path, checks: Checks) -> Iterator[Examined]:
    """Read a file and check it, piece by piece where it is long; what cannot be read is refused, never raised."""
    from audiolm.io import AudioReader

    start = 0.0
    try:
        reader = AudioReader(path, minimum=0)
        pieces = max(1, -(-reader.length // int(checks.longest * RATE)))
        for samples in _cut(reader, -(-reader.length // pieces) if pieces > 1 else None):
            yield examine(samples, checks, start, _from_file(reader) | ({"cut": 1.0} if pieces > 1 else {}))
            start += len(samples) / RATE
    except InputError as error:
        yield Examined(0.0, start, kind="unreadable", reason=str(error))


def examine_all(path: Path, checks: Checks) -> list[Examined]:
    """All pieces of a file; what a reading process runs."""
    return list(examine_file(path, checks))


def _cut(reader: "AudioReader", size: int | None) -> Iterator[Array]:
    """The sound in pieces of ``size`` samples, or in one."""
    held, have = [np.zeros(0, np.float32)], 0
    for block in reader.blocks():
        held.append(block)
        have += len(block)
        if size is not None and have >= size:
            whole = np.concatenate(held)
            yield whole[:size]
            held, have = [whole[size:]], have - size
    if have or size is None:
        yield np.concatenate(held)


def _from_file(reader: "AudioReader") -> dict[str, float]:
    info = reader.info
    done = {"resampled": info.rate != reader.rate, "down-mixed": info.channels > 1}
    return {name: 1.0 for name, was in done.items() if was}


def examine(samples: Array, checks: Checks, start: float = 0.0, corrected: dict[str, float] | None = None) -> Examined:
    """Check float32 samples ``[n]`` at 16 kHz; correct offset, level and, if asked, silent ends."""
    seconds, done = len(samples) / RATE, dict(corrected or {})
    if seconds < checks.minimum:
        return _refused("too short", f"{seconds:.2f} s, shorter than {checks.minimum} s", seconds, start)
    if not np.isfinite(samples).all():
        return _refused("not finite", "holds samples that are not finite", seconds, start)
    key = hashlib.blake2b(samples.tobytes(), digest_size=16).digest()
    sound = _without_offset(samples, done)
    powers = tick_powers(sound)
    active = active_ticks(powers)
    if checks.trim and active.any():
        sound, active, powers = _trimmed(sound, active, powers, done)
    silent = 1.0 - float(active.mean())
    clipped = float((np.abs(samples) >= FULL_SCALE).mean())
    kind, reason = _fault(sound, active, clipped, checks)
    if kind:
        return _refused(kind, reason, seconds, start)
    if checks.level_db is not None:
        sound = _levelled(sound, checks.level_db - level_db(powers[active]), done)
    return Examined(seconds, start, to_int16(sound), "", "", done, silent, clipped, key, fingerprint(samples))


def _refused(kind: str, reason: str, seconds: float, start: float) -> Examined:
    return Examined(seconds, start, kind=kind, reason=reason)


def _fault(sound: Array, active: Array, clipped: float, checks: Checks) -> tuple[str, str]:
    """Why a sound is of no use, in a word and in a sentence; or nothing."""
    if not active.any():
        return "silent", f"silent: no tick of 40 ms above {GATE_DB:.0f} dBFS"
    if (silent := 1 - float(active.mean())) > checks.most_silent:
        return "silent", f"silent for {silent:.0%} of its time, more than {checks.most_silent:.0%}"
    if clipped > checks.most_clipped:
        return "clipped", f"clipped: {clipped:.1%} of its samples at full scale, more than {checks.most_clipped:.1%}"
    if len(sound) < checks.minimum * RATE:
        return "too short", f"{len(sound) / RATE:.2f} s without its silent ends, shorter than {checks.minimum} s"
    return "", ""


def tick_powers(sound: Array) -> Array:
    """Mean power about the mean of each whole tick, float64 ``[n // 640]``; a sound of less than a tick is one."""
    ticks = sound[: max(len(sound) // TICK, 1) * TICK].reshape(-1, min(TICK, len(sound)))
    return np.asarray(ticks.astype(np.float64).var(axis=1))


def active_ticks(powers: Array) -> Array:
    """Which ticks sound: above the gate and within 35 dB of the recent ceiling, as the door decides."""
    levels = 10 * np.log10(powers + 1e-12)
    ceiling, out = GATE_DB, np.zeros(len(levels), bool)
    for k, level in enumerate(levels.tolist()):
        ceiling = max(GATE_DB, min(level, ceiling + CEILING_RISE_DB), ceiling - CEILING_FALL_DB)
        out[k] = level > max(GATE_DB, ceiling - RANGE_DB)
    return out


def level_db(powers: Array) -> float:
    """Level of active ticks in dBFS: their mean power without the loudest sixteenth, as the door takes it."""
    kept = np.sort(powers)[: len(powers) - (len(powers) + 11) // 16]
    return float(10 * np.log10((kept if len(kept) else powers).mean() + 1e-12))


def _without_offset(samples: Array, done: dict[str, float]) -> Array:
    mean = float(samples.mean(dtype=np.float64))
    if abs(mean) < DC_LIMIT:
        return samples
    done["offset"] = mean
    return samples - np.float32(mean)


def _trimmed(sound: Array, active: Array, powers: Array, done: dict[str, float]) -> tuple[Array, Array, Array]:
    """Long silent ends shortened."""
    where = np.flatnonzero(active)
    first, last = int(where[0]), int(where[-1]) + 1
    begin = first - KEPT_END if first >= LONG_END else 0
    end = last + KEPT_END if len(active) - last >= LONG_END else len(active)
    if (begin, end) == (0, len(active)):
        return sound, active, powers
    kept = sound[begin * TICK : end * TICK]
    done["trimmed"] = (len(sound) - len(kept)) / RATE
    return kept, active[begin:end], powers[begin:end]


def _levelled(sound: Array, wanted_db: float, done: dict[str, float]) -> Array:
    """One gain for the whole sound, within 30 dB and what its highest peak allows."""
    peak = float(np.abs(sound).max())
    room = max(0.0, 20 * np.log10(PEAK / peak))
    gain = min(max(wanted_db, -GAIN_LIMIT_DB), GAIN_LIMIT_DB, room)
    if gain < min(wanted_db, GAIN_LIMIT_DB) - TOLERANCE_DB:
        done["held back by its peak"] = wanted_db - gain
    if abs(gain) < TOLERANCE_DB:
        return sound
    done["level"] = gain
    return sound * np.float32(10 ** (gain / 20))
