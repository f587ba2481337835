"""The jitter buffer: sound arrives in bursts, is taken evenly, and never clicks. Pure arithmetic at 16 kHz, float32.

Knows no clock, no thread and no device: whoever shares it between threads holds a lock round each call.

A turn begins when `prime` samples are there, or when its end is known. It fades in over 5 ms. Where sound stops, at the
end of a turn and at an interruption, 5 ms are added after the last sample that was played: the last 5 ms mirrored in
time, faded out. The mirror begins with the value that was last heard and has the colour of the sound. Repeating the
last pitch period instead would need a pitch, which a chord has not, and most periods are longer than the fade. In an
underrun the last 80 ms go on back and forth and fade over half a second (`streamer.conceal`), until enough waits again:
then the sound is faded into. Apart from fades and what `lost` counts, every sample is played once, unchanged.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamer.conceal import continued

__all__ = ["CONCEALED", "FADE", "JitterBuffer", "Samples"]

Samples = NDArray[np.float32]
FADE = 80  # samples of every fade: 5 ms at 16 kHz
PAST = 1280  # samples that an underrun is concealed with
CONCEALED = 8000  # samples after which that has faded out
_UP: Samples = (0.5 - 0.5 * np.cos(np.pi * (np.arange(FADE) + 0.5) / FADE)).astype(np.float32)
_DOWN: Samples = _UP[::-1].copy()


class JitterBuffer:
    """Put sound as it comes, take as much as is needed at any time.

    `put_samples == played + lost + stale + level` holds after every call.

    Attributes:
        prime: samples that a turn waits for before it begins.
        most: samples that wait at most; what is beyond is skipped down to `prime` at once, with a cross-fade, because
            one skip is heard less than many, and the delay is short again.
        epoch: what carries an older one is stale.
        put_samples: samples given to `put`.
        played: samples given out, without fades and silence.
        lost: samples skipped because more than `most` waited.
        stale: samples of an older epoch, refused or dropped by an interruption.
        underruns: times that a turn had nothing to play before its end.
        concealed: samples that were made up in underruns.
        begun: times that sound began, after silence of any cause.
        begun_at: where it began the last time, in samples taken since the start.
        taken: samples given out in all, with fades and silence; never begins again.
    """

    def __init__(self, prime: int, most: int) -> None:
        if prime < 0 or most < max(prime, 2 * FADE):
            raise ValueError(
                f"prime {prime} and most {most}; expected 0 <= prime <= most, and most at least {2 * FADE}"
            )
        self.prime, self.most = prime, most
        self.epoch = 0
        self.put_samples = self.played = self.lost = self.stale = self.underruns = self.begun = 0
        self.concealed = 0
        self.taken = self.begun_at = 0
        self._queue: Samples = np.zeros(0, np.float32)
        self._ends: list[int] = []  # where turns end, counted from the beginning of the queue, rising
        self._playing = False
        self._risen = FADE  # samples of the fade-in that are done
        self._tail: Samples = self._queue  # what is left of a fade-out, or of what is made up
        self._made_up = False  # the tail is of an underrun: sound that comes is faded into
        self._over: Samples = self._queue  # what of the tail is faded out over the sound that has come
        self._past: Samples = np.zeros(PAST, np.float32)  # what was given out last

    @property
    def level(self) -> int:
        """Samples that wait."""
        return len(self._queue)

    @property
    def playing(self) -> bool:
        """True in a turn: what is taken is sound that was put, and an empty buffer is an underrun."""
        return self._playing

    @property
    def sounding(self) -> bool:
        """True while what is taken is not silence: in a turn, or in the fade after it."""
        return self._playing or len(self._tail) > 0

    @property
    def ready(self) -> bool:
        """True when a turn can begin: enough waits, or its end is known."""
        return self.level > 0 and (self.level >= self.prime or bool(self._ends))

    def put(self, samples: Samples, epoch: int = 0) -> None:
        """Add `[n]` samples made in `epoch`; a newer one interrupts by itself, an older one is refused and counted."""
        self.put_samples += len(samples)
        if epoch < self.epoch:
            self.stale += len(samples)
            return
        self.interrupt(epoch)
        self._queue = np.concatenate([self._queue, samples])
        if self.level > self.most:
            self._skip(self.level - max(self.prime, FADE))

    def take(self, count: int) -> Samples:
        """The next `count` samples, always as many: sound, a fade, or silence."""
        made = np.zeros(count, np.float32)
        filled = 0
        while filled < count:
            if len(self._tail) and not (self._made_up and self.ready):
                filled += self._take_tail(made[filled:])
            elif self._playing and self._here:
                filled += self._take_sound(made[filled:])
            elif self._playing:
                self._stop(self._after(made[:filled]))
            elif self.ready:
                self._begin(self.taken + filled)
            else:
                break
        self._past = self._after(made)
        self.taken += count
        return made

    def end_turn(self) -> None:
        """The turn is complete: what waits is played to its end, however little it is."""
        if self._playing or self.level:
            self._ends = [*self._ends, self.level] if self.level not in self._ends else self._ends
        else:
            self._cut()

    def interrupt(self, epoch: int) -> None:
        """Fade out at once (within 5 ms) and drop what waits, if `epoch` is newer than what waits."""
        if epoch <= self.epoch:
            return
        self.epoch = epoch
        self.drop()

    def drop(self) -> None:
        """Fade out at once and drop what waits, of whatever epoch."""
        self.stale += self.level
        self._queue = self._queue[:0]
        self._ends = [0] if self._playing else []
        if self._playing:
            self._stop(self._past)
        self._cut()

    def restart(self) -> None:
        """Begin a new stream at epoch 0; a fade of the old one goes on, and the counters begin again."""
        self.drop()
        self.epoch = 0
        self.put_samples = self.played = self.lost = self.stale = self.underruns = self.begun = 0
        self.concealed = 0

    @property
    def _here(self) -> int:
        """Samples that wait of the turn that comes first."""
        return self._ends[0] if self._ends else self.level

    def _begin(self, position: int) -> None:
        self._playing, self._risen, self.begun_at = True, 0, position
        self.begun += 1
        self._cut()
        self._over, self._tail = self._tail, self._tail[:0]

    def _cut(self) -> None:
        """What is made up ends here: fade it out."""
        if self._made_up:
            self._tail = self._tail[:FADE] * _DOWN[: len(self._tail)]
            self._made_up = False

    def _stop(self, past: Samples) -> None:
        """The end of a turn has come, or an underrun: go on from what was given out last, `past [PAST]`, and fade."""
        self._made_up = not self._ends
        self.underruns += self._made_up
        self._ends = self._ends[1:]
        self._playing = False
        if self._made_up:
            self._tail = continued(past, CONCEALED, CONCEALED).astype(np.float32)
        else:
            self._tail = past[: -FADE - 1 : -1] * _DOWN

    def _after(self, made: Samples) -> Samples:
        """The last `PAST` samples once `made` is given out."""
        return np.concatenate([self._past, made])[-PAST:]

    def _take_tail(self, out: Samples) -> int:
        count = min(len(out), len(self._tail))
        out[:count] = self._tail[:count]
        self._tail = self._tail[count:]
        self.concealed += count if self._made_up else 0
        return count

    def _take_sound(self, out: Samples) -> int:
        count = min(len(out), self._here)
        out[:count] = self._queue[:count]
        rise, over = _UP[self._risen : self._risen + count], self._over[self._risen : self._risen + count]
        out[: len(rise)] *= rise
        out[: len(over)] += over
        self._risen += len(rise)
        self._advance(count)
        self.played += count
        return count

    def _advance(self, count: int) -> None:
        self._queue = self._queue[count:]
        ended = -1 if self._playing else 0  # an end that is reached in a turn still has its fade to come
        self._ends = [end - count for end in self._ends if end - count > ended]

    def _skip(self, count: int) -> None:
        """Leave out `count` samples at the beginning; in a turn, what would have come is faded into what comes."""
        if self._playing and self._here <= count:  # it ends in what is left out: the next turn begins by itself
            self._stop(self._past)
        old = self._queue[:FADE]
        self._advance(count)
        self.lost += count
        if self._playing:
            self._queue = np.concatenate([old * _DOWN + self._queue[:FADE] * _UP, self._queue[FADE:]])
