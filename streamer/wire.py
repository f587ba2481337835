"""Frames in one message: one or several packed frames, one after another. Knows no transport.

A packed frame says itself where it ends (msgpack does), so a message needs no header.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgpack

from streamer.errors import FrameError
from streamer.frame import LIMITS, Frame, FrameLimits

MOST_FRAMES: Final = 64
MOST_BYTES: Final = 2 << 20  # of a message


def pack_many(frames: Iterable[Frame]) -> bytes:
    """1 to 64 frames as one message.

    Raises:
        FrameError: none, too many, or too many bytes.
    """
    packed = [frame.pack() for frame in frames]
    if not 0 < len(packed) <= MOST_FRAMES:
        raise FrameError(f"{len(packed)} frames in a message; expected 1 to {MOST_FRAMES}")
    data = b"".join(packed)
    if len(data) > MOST_BYTES:
        raise FrameError(f"a message of {len(data)} bytes; the limit is {MOST_BYTES}")
    return data


def unpack_many(data: bytes, limits: FrameLimits = LIMITS) -> list[Frame]:
    """The frames of a message, all of them or none.

    Raises:
        FrameError: anything is wrong with it; nothing else is raised, whatever the bytes are.
    """
    if len(data) > MOST_BYTES:
        raise FrameError(f"a message of {len(data)} bytes; the limit is {MOST_BYTES}")
    if not data:
        raise FrameError("an empty message; expected at least one frame")
    return [Frame.unpack(data[start:end], limits) for start, end in _places(data)]


def _places(data: bytes) -> list[tuple[int, int]]:
    """Where each msgpack value begins and ends; what they are is checked one by one afterwards."""
    reader = msgpack.Unpacker(max_buffer_size=MOST_BYTES)
    reader.feed(data)
    ends: list[int] = []
    while not ends or ends[-1] < len(data):
        if len(ends) == MOST_FRAMES:
            raise FrameError(f"more than {MOST_FRAMES} frames in a message")
        try:
            reader.skip()
        except msgpack.OutOfData as error:
            raise FrameError(f"a message that is cut off in its frame {len(ends) + 1}") from error
        except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
            raise FrameError(f"not a frame: {type(error).__name__}") from error
        ends.append(reader.tell())
    return list(zip([0, *ends[:-1]], ends, strict=True))
