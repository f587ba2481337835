"""What takes the place of what is lost on the way, or late: tokens again, sound back and forth, fading. Pure numpy.

Only for what is live: where nothing may be lost, nothing is made up.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from streamer.frame import ACOUSTIC, AUDIO, FINE, LAST, TURN, Frame

CONCEALED: Final = frozenset({AUDIO, ACOUSTIC, FINE})
MOST: Final = 3  # frames; after that the position leaps


def conceal(last: Frame, until: int, most: int = MOST) -> list[Frame]:
    """Frames for the hole behind `last`, marked `concealed` in their meta.

    Args:
        last: the frame before the hole.
        until: position at which the stream goes on, in samples at 16 kHz.
        most: frames that are made at most.

    Returns:
        As many as fit into the hole, at most `most`; none for kinds that cannot be made up.
    """
    if last.kind not in CONCEALED or not last.samples:
        return []
    begin = last.position + last.samples
    count = min((until - begin) // last.samples, most)
    flags, meta = last.flags & ~(LAST | TURN), {**last.meta, "concealed": True}
    plain = last.replace(flags=flags, meta=meta)
    return [
        plain.replace(position=begin + i * last.samples, payload=_payload(last, i, most)) for i in range(max(0, count))
    ]


def continued(past: npt.NDArray[Any], count: int, length: int, begin: int = 0) -> npt.NDArray[np.float64]:
    """Sound that goes on from `past` `[n]`: its mirror, then itself, then its mirror, fading from 1 to 0.

    It begins with the value that was last heard, has the colour of the sound, and no seam anywhere. It needs no pitch.

    Args:
        past: what was heard last, at least one sample.
        count: samples to make.
        length: samples from the beginning until there is nothing.
        begin: the first sample to make, counted from there.
    """
    at = begin + np.arange(count)
    place = at % (2 * len(past))
    back = np.where(place < len(past), len(past) - 1 - place, place - len(past))
    return past[back] * np.maximum(0.0, 1 - (at + 1) / length)


def _payload(last: Frame, i: int, most: int) -> bytes:
    """Tokens as they are; sound fades over all frames that could follow."""
    if last.kind != AUDIO:
        return last.payload
    count = last.shape[0]
    return continued(last.array, count, most * count, i * count).astype(last.array.dtype).tobytes()
