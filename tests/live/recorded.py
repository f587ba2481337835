"""Whether a recording holds a sound, and whether it clicks."""

import numpy as np
from card import RATE, samples_of, until

STEP = RATE // 100
CLICK_DB = -80.0  # what is made at 16 kHz leaves -100 dBFS above 9.5 kHz; a cut in it -60 or more


def loudness(sound):
    """Level of each 10 ms on a log scale, so that phases do not count: the codec makes up its own."""
    whole = sound[: len(sound) // STEP * STEP].reshape(-1, STEP)
    return np.log(np.sqrt(np.mean(whole**2, axis=1)) + 1e-3)


def likeness(heard, played):
    """The best correlation of the loudness of `played` with a stretch of `heard`, and where that begins in seconds."""
    one, two = loudness(heard), loudness(played)
    starts = range(max(0, len(one) - len(two)) + 1)
    found = [_correlation(one[start : start + len(two)], two[: len(one)]) for start in starts]
    best = int(np.argmax(found))
    return found[best], best / 100


def _correlation(one, two):
    one, two = one - one.mean(), two - two.mean()
    return float(one @ two / (np.linalg.norm(one) * np.linalg.norm(two) + 1e-9))


def heard_through(card, sound, least=0.8, source="speaker.monitor", patience=45.0):
    """Say `sound` into the microphone until `source` gives it again as a whole: what was recorded then.

    A machine that is busy with other things may break up one or the other attempt.
    """
    said = samples_of(sound)

    def attempt():
        with card.recording(source) as tape:
            card.play(sound)
            tape.wait(lambda heard: len(heard) > len(said) + RATE, "the recording")
            heard = tape.samples
        return [heard] if likeness(heard, said)[0] > least else None

    (found,) = until(attempt, "the sound to come through", patience)
    return found


def clicks(sound):
    """How many places of a recording hold what only a cut makes: sound far above 8 kHz."""
    size, hop = 256, 64
    window = np.hanning(size)
    pieces = np.lib.stride_tricks.sliding_window_view(sound, size)[::hop] * window
    power = np.abs(np.fft.rfft(pieces, axis=1)) ** 2
    high = power[:, np.fft.rfftfreq(size, 1 / RATE) > 9_500].sum(axis=1) * 2 / size / (window**2).sum()
    loud = np.flatnonzero(10 * np.log10(high + 1e-18) > CLICK_DB)
    return int((np.diff(loud, prepend=-1000) > RATE // 100 // hop).sum())
