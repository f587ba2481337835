"""What takes the place of frames that were lost on the way: the last one again, sound fading. Pure numpy.

Only for what is live: where nothing may be lost, nothing is made up.
"""

from __future__ import annotations

from typing import Final

import numpy as np

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


def _payload(last: Frame, i: int, most: int) -> bytes:
    """Tokens as they are; sound from 1 to 0 over all frames that could follow."""
    if last.kind != AUDIO:
        return last.payload
    fade = 1 - (i + np.arange(1, last.shape[0] + 1) / last.shape[0]) / most
    return (last.array * fade).astype(last.array.dtype).tobytes()
