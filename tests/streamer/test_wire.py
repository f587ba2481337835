import contextlib

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.errors import FrameError
from streamer.frame import Frame, FrameLimits
from streamer.wire import MOST_BYTES, pack_many, unpack_many


def frames(count):
    return [Frame.of("semantic", [i], position=i * 640, seq=i) for i in range(count)]


@pytest.mark.parametrize("count", [1, 2, 64])
def test_frames_one_after_another(count):
    made = frames(count)
    data = pack_many(made)
    assert data == b"".join(frame.pack() for frame in made)
    assert unpack_many(data) == made


@pytest.mark.parametrize("count", [0, 65])
def test_a_message_holds_1_to_64(count):
    with pytest.raises(FrameError, match="expected 1 to 64"):
        pack_many(frames(count))
    with pytest.raises(FrameError, match=r"more than 64|an empty message"):
        unpack_many(b"".join(frame.pack() for frame in frames(count)))


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1",
        b"\x9c" * 3000,
        b"\x91" * 200_000,
        b"hello, here is text",
        b"\x00" * 64,
        msgpack.packb([2, *[0] * 11]),
        msgpack.packb({"state": "on"}),
        b"\xc6\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"x" * (MOST_BYTES + 1),
    ],
)
def test_what_is_no_message(data):
    with pytest.raises(FrameError):
        unpack_many(data)
    with pytest.raises(FrameError):
        unpack_many(frames(1)[0].pack() + data)


def test_a_message_that_is_cut_off():
    data = pack_many(frames(3))
    whole = [len(pack_many(frames(count))) for count in (1, 2)]
    for end in range(1, len(data)):
        if end in whole:
            assert unpack_many(data[:end]) == frames(whole.index(end) + 1)
        else:
            with pytest.raises(FrameError):
                unpack_many(data[:end])


def test_one_frame_beyond_the_limits_refuses_the_message():
    big = Frame.of("audio", np.zeros(640, np.float32), position=0)
    with pytest.raises(FrameError):
        unpack_many(frames(1)[0].pack() + big.pack(), FrameLimits(payload_bytes=100))


@given(st.binary(max_size=300))
def test_any_bytes_are_frames_or_a_frame_error(data):
    with contextlib.suppress(FrameError):
        assert unpack_many(data)
