"""Music detection: whether someone plays. numpy only, causal, one thread.

Each hop of 20 ms is seen through a window of 64 ms in 16 bands of 250 Hz. A band stands out when it is louder than its
noise floor and tonal: a few of its bins hold the energy (piano, strings, voice), as they do not in a click, a knock or
a fan. Playing begins when some band stands out for a few hops. It goes on while there is anything above the floor
that has not decayed far below the last note struck: a pedal that rings on is the end of a phrase, quiet playing, which
strikes new notes, is not. A note is struck where the bands rise (spectral flux).

The floor of each band follows what is there while nobody plays. What sounds on and on without a new note and without
decaying is a hum, and becomes the floor.

Knows no turns, and no rhythm or pitch. Drums without pitch are not found.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from streamer.errors import ConfigError
from streamer.nodes.detect import TICK, Heard, Samples, clean, level_db

Bands = npt.NDArray[np.float64]

HOP: Final = 320
WINDOW: Final = 1024
BANDS: Final = 16
WIDTH: Final = 16  # bins of a band; a bin has 15.6 Hz
FIRST: Final = 4  # lowest bin of the lowest band: 62.5 Hz, above the mains
LEAST: Final = -85.0  # dB of full scale in a band: no floor is lower
LOUD: Final = -55.0  # what is louder in a band when a stream begins is no floor
_FALL: Final = 256  # samples over which the window falls at its new end: shorter than its rise, so that onsets show
_WARM: Final = 5  # hops until the window is full and the floor is set
_SETTLE: Final = 25  # hops after a note before a steady level is looked for
_APART: Final = 3  # hops between two notes
_FRESH: Final = 8  # hops within which a note may begin playing again while the last one still rings
_CONFIRM: Final = 4  # hops in which a band must stand out
_DIES: Final = 6.0  # dB by which a knock decays in those hops, and no note
_GONE: Final = 5  # hops in which nothing must be left
_FAINT: Final = 1e-10  # added to power: digital silence is flat
_UP, _DOWN = HOP / 16_000 / 2.0, HOP / 16_000 / 0.3  # how much of the way the floor goes in a hop: in 2 s, in 0.3 s


@dataclass(frozen=True, slots=True)
class MusicSettings:
    """What counts as playing.

    Attributes:
        on_db: a band this far above its floor begins playing.
        off_db: it has ended when no band is this far above its floor.
        tonal_db: mean over geometric mean of a band's bins; less is noise.
        decay_db: it has ended, too, when the sound has decayed this far since the last note.
        note_db: rise of the bands, on average, that is a note.
        hum_s: a steady sound without a new note for so long is a hum.

    Raises:
        ConfigError: not positive, or `off_db` above `on_db`.
    """

    on_db: float = 9.0
    off_db: float = 5.0
    tonal_db: float = 4.0
    decay_db: float = 22.0
    note_db: float = 1.5
    hum_s: float = 4.0

    def __post_init__(self) -> None:
        if not all(getattr(self, each.name) > 0 for each in fields(self)) or self.off_db > self.on_db:
            raise ConfigError(f"all settings of detector 'music' are above 0, and off_db <= on_db; got {self}")


def _levels() -> Bands:
    return np.full(BANDS, LEAST)


@dataclass(slots=True)
class MusicState:
    """One stream. Levels in dB of full scale, times in hops."""

    past: Samples = field(default_factory=lambda: np.zeros(WINDOW, dtype=np.float32))
    power: Bands = field(default_factory=lambda: np.zeros(BANDS * WIDTH))  # bins, smoothed over a few hops
    floor: Bands = field(default_factory=_levels)
    steady: Bands = field(default_factory=_levels)  # bands smoothed over half a second
    anchor: Bands = field(default_factory=_levels)  # `steady` when the wait for a hum began
    before: Bands = field(default_factory=lambda: np.full((2, BANDS), LEAST))  # bands of the last two hops
    hops: int = 0
    since: int = 0  # hops since the last note, or since a hum was looked for
    out: int = 0  # hops in a row in which a band stands out, while nobody plays
    gone: int = 0  # hops in a row in which nothing is left, while someone plays
    peak: float = LEAST  # loudest since the last note
    low: float = LEAST  # softest since the playing ended
    playing: bool = False


class MusicDetector:
    """A `Detector` of playing."""

    def __init__(self, settings: MusicSettings | None = None) -> None:
        self.settings = settings or MusicSettings()
        rise, fall = np.arange(WINDOW - _FALL) / (WINDOW - _FALL), np.arange(_FALL) / _FALL
        shape = np.concatenate([0.5 - 0.5 * np.cos(np.pi * rise), 0.5 + 0.5 * np.cos(np.pi * fall)])
        self._window = shape.astype(np.float32)
        self._scale = 2.0 / (WINDOW * float(np.sum(shape**2)))  # so that the bins of noise add up to its mean square
        self._hum_hops = max(_SETTLE + 1, round(self.settings.hum_s * 16_000 / HOP))

    def init_state(self) -> MusicState:
        """The state of one new stream."""
        return MusicState()

    def step(self, tick: Samples, state: MusicState) -> Heard:
        """One tick: two hops. `score` is 0.5 where playing may begin."""
        safe = clean(tick)
        active, onset, score = False, False, 0.0
        for start in range(0, TICK, HOP):
            best, began = self._hop(safe[start : start + HOP], state)
            active, onset, score = active or state.playing, onset or began, max(score, best / 2.0)
        return Heard(active, level_db(safe), min(1.0, max(0.0, score)), onset)

    def _hop(self, hop: Samples, state: MusicState) -> tuple[float, bool]:
        """How far the best band stands out (1: enough), and whether playing or a note began."""
        state.past = np.concatenate([state.past[HOP:], hop])
        seen = np.square(np.abs(np.fft.rfft(state.past * self._window)[FIRST : FIRST + BANDS * WIDTH])) * self._scale
        state.power = state.power + 0.5 * (seen - state.power)
        bands, now = _db(state.power), _db(seen)
        struck = self._struck(now, state)
        state.steady = state.steady + 0.04 * (bands - state.steady)
        above = bands - state.floor
        out = np.minimum(above, now - state.floor) / self.settings.on_db  # `power` alone would lengthen a click
        best = float(np.max(np.minimum(out, _tonal(state.power) / self.settings.tonal_db)))
        level = float(10.0 * np.log10(np.sum(seen) + _FAINT))
        state.since = 0 if struck else state.since + 1
        began = self._play_on(above, level, state) if state.playing else self._play_first(best, level, state)
        self._follow(bands, above, state)
        return best, began or (struck and state.playing)

    def _struck(self, seen: Bands, state: MusicState) -> bool:
        """Whether the bands, as far as they are above the floor, rise over both hops before."""
        visible = np.maximum(seen, state.floor + 3.0)
        rise = float(np.mean(np.maximum(0.0, visible - np.max(state.before, axis=0))))
        state.before = np.stack([state.before[1], visible])
        return rise > self.settings.note_db and state.hops >= _WARM and state.since >= _APART

    def _play_first(self, best: float, level: float, state: MusicState) -> bool:
        """While nobody plays: whether playing begins, once a band has stood out for a few hops and not died away."""
        state.low = min(state.low, level)
        state.peak = max(state.peak, level) if state.out else level
        fresh = state.out or level >= state.low + 6.0 or state.since <= _FRESH
        state.out = state.out + 1 if best >= 1.0 and fresh and level > state.peak - _DIES else 0
        if state.out < _CONFIRM:
            return False
        state.playing, state.gone, state.peak, state.since = True, 0, level, 0
        return True

    def _play_on(self, above: Bands, level: float, state: MusicState) -> bool:
        """While someone plays: note when it has ended. Nothing begins here."""
        state.peak = level if state.since == 0 else max(state.peak, level)
        left = float(np.max(above)) >= self.settings.off_db and level >= state.peak - self.settings.decay_db
        state.gone = 0 if left else state.gone + 1
        if state.gone >= _GONE:
            state.playing, state.out, state.low = False, 0, level
        return False

    def _follow(self, bands: Bands, above: Bands, state: MusicState) -> None:
        """Move the floors: where nothing is played to what is there, and to what has become a hum."""
        state.hops += 1
        if state.hops <= _WARM:
            state.floor = np.clip(bands, LEAST, LOUD)
            return
        free = (above < self.settings.off_db) if state.playing else np.full(BANDS, state.out == 0)
        step = np.where(above < 0, _DOWN, _UP) * (free | (above < 0))
        state.floor = np.maximum(LEAST, state.floor + step * above)
        if state.since == _SETTLE:
            state.anchor = state.steady = bands
        elif state.since >= self._hum_hops:
            hum = np.abs(state.steady - state.anchor) < 2.0
            state.floor = np.where(hum, np.maximum(state.floor, state.steady), state.floor)
            state.anchor, state.since = state.steady, _SETTLE

    def save(self, state: MusicState) -> dict[str, Any]:
        """The state as arrays and numbers."""
        made = {each.name: getattr(state, each.name) for each in fields(state)}
        return {key: value.copy() if isinstance(value, np.ndarray) else float(value) for key, value in made.items()}

    def load(self, saved: dict[str, Any]) -> MusicState:
        """The state again."""
        blank = MusicState()
        for each in fields(blank):
            kind = type(getattr(blank, each.name))
            value = np.array(saved[each.name]) if kind is np.ndarray else kind(saved[each.name])
            setattr(blank, each.name, value)
        return blank


def _db(power: Bands) -> Bands:
    """Bins to bands, in dB of full scale."""
    made: Bands = np.maximum(LEAST, 10.0 * np.log10(power.reshape(BANDS, WIDTH).sum(axis=1) + _FAINT))
    return made


def _tonal(power: Bands) -> Bands:
    """Mean over geometric mean of each band's bins in dB: 0 for a flat spectrum, high for few partials."""
    bins = power.reshape(BANDS, WIDTH) + _FAINT
    made: Bands = 10.0 * (np.log10(bins.mean(axis=1)) - np.log10(bins).mean(axis=1))
    return made
