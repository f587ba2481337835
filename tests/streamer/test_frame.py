import contextlib

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.errors import FrameError
from streamer.frame import DTYPES, GENERATED, HEARD, LAST, Frame, FrameLimits


def examples():
    yield Frame.of("audio", np.linspace(-1, 1, 640, dtype=np.float32), position=640, session="s", seq=1, flags=HEARD)
    yield Frame.of("audio", np.arange(10, dtype=np.int16), position=0)
    yield Frame.of("acoustic", np.arange(24).reshape(2, 12), position=2**40, epoch=3)
    yield Frame.of("semantic", [1023], position=0, flags=GENERATED, meta={"a": 1, "b": None, "c": 1.5, "d": "x"})
    yield Frame.of("coarse", np.zeros((2, 4), int), position=5)
    yield Frame.of("fine", np.full((2, 7), 1023), position=5)
    yield Frame.of("tick", position=9)
    yield Frame.control("set", position=12, mode="duet")
    yield Frame.end("fine", position=7)


@pytest.mark.parametrize("frame", [*examples()], ids=lambda f: f.kind)
def test_unpack_gives_what_was_packed(frame):
    again = Frame.unpack(frame.pack())
    assert again == frame
    assert np.array_equal(again.array, frame.array)
    assert not again.array.flags.writeable


def test_payload_is_little_endian():
    assert Frame.of("semantic", np.array([258], dtype=">i4"), position=0).payload == b"\x02\x01"


def test_samples_and_flags():
    assert Frame.of("acoustic", np.zeros((2, 12), int), position=0).samples == 640
    assert Frame.of("semantic", [1], position=0).samples == 640
    assert Frame.of("tick", position=0).samples == 640
    end = Frame.end("audio", position=3, flags=GENERATED)
    assert (end.last, end.generated, end.heard, end.samples) == (True, True, False, 0)


@pytest.mark.parametrize(
    ("kind", "array"),
    [
        ("noise", [1]), ("semantic", [1024]), ("semantic", [-1]), ("semantic", [0.5]), ("semantic", [[1]]),
        ("acoustic", [1, 2]), ("audio", np.zeros((2, 3))), ("audio", np.zeros(3, np.int32)), ("tick", [1]),
        ("fine", np.zeros((1, 33), int)), ("audio", np.zeros(1 << 19, np.float32)),
    ],
)  # fmt: skip
def test_of_refuses(kind, array):
    with pytest.raises(FrameError):
        Frame.of(kind, array, position=0)


VALID = (1, "semantic", "s", 0, 0, 0, 25, "u2", (1,), b"\x01\x00", 0, {})


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, 2, "version"), (0, True, "version"), (1, "semantics", "did you mean 'semantic'"), (1, 7, "kind"),
        (2, "x" * 65, "session"), (3, -1, "epoch"), (4, 1.5, "seq"), (5, 2**63, "position"), (5, True, "position"),
        (6, 0, "rate"), (7, "f4", "dtype"), (7, "O", "dtype"), (8, (2,), "takes 4"), (8, (1, 1), "dimensions"),
        (8, (-1,), "sizes"), (8, (2**62,), "sizes"), (9, "\x01", "payload"), (9, b"\x00\x04", "token 1024"),
        (9, b"\x01", "takes 2"), (10, 16, "flags"), (10, -1, "flags"), (11, {"a": [1]}, "metadata"),
        (11, None, "metadata"), (11, {"a": msgpack.ExtType(1, b"")}, "extension"),
        (11, {"a": msgpack.ExtType(1, b"abc")}, "frame"), (11, {str(i): i for i in range(40)}, "frame"),
    ],
)  # fmt: skip
def test_unpack_refuses(at, value, message):
    item = [*VALID]
    item[at] = value
    with pytest.raises(FrameError, match=message):
        Frame.unpack(msgpack.packb(item))


def test_unpack_refuses_other_shapes_of_message():
    for data in (b"", b"\xc0", msgpack.packb(VALID[:-1]), msgpack.packb(VALID) + b"\x00", msgpack.packb({"a": 1})):
        with pytest.raises(FrameError):
            Frame.unpack(data)
    with pytest.raises(FrameError, match="bytes, not str"):
        Frame.unpack("text")


def test_limits_are_checked_before_anything_is_allocated():
    huge_claims = [b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\x91" * 5000]
    for data in huge_claims:
        with pytest.raises(FrameError):
            Frame.unpack(data)
    small = FrameLimits(payload_bytes=100)
    frame = Frame.of("audio", np.zeros(26, np.float32), position=0)
    with pytest.raises(FrameError):
        Frame.unpack(frame.pack(), small)
    with pytest.raises(FrameError, match="largest frame"):
        Frame.unpack(bytes(10_000_000))


@given(st.binary(max_size=300))
def test_any_bytes_give_a_frame_or_a_frame_error(data):
    with contextlib.suppress(FrameError):
        assert isinstance(Frame.unpack(data), Frame)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from([*examples()]), st.integers(0, 11), PLAIN)
def test_any_field_value_gives_a_frame_or_a_frame_error(frame, at, value):
    item = list(msgpack.unpackb(frame.pack()))
    item[at] = value
    try:
        made = Frame.unpack(msgpack.packb(item))
    except FrameError:
        return
    assert made.dtype in DTYPES[made.kind]
    assert made.array.nbytes == len(made.payload)


@given(st.sampled_from([*examples()]), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4))
def test_mutated_frames(frame, changes):
    data = bytearray(frame.pack())
    for at, value in changes:
        data[at % len(data)] = value
    try:
        made = Frame.unpack(bytes(data))
    except FrameError:
        return
    assert Frame.unpack(made.pack()).payload == made.payload


def test_last_is_part_of_the_flags():
    assert Frame.unpack(Frame.end("tick", position=0).pack()).flags == LAST


def test_the_end_of_a_turn():
    turn = Frame.unpack(Frame.turn("semantic", position=1280, flags=HEARD).pack())
    assert (turn.turns, turn.heard, turn.last, turn.samples, turn.position) == (True, True, False, 0, 1280)
    assert Frame.turn("tick", position=0).samples == 0
