import numpy as np
import pytest

from streamer.conceal import conceal, continued
from streamer.frame import HEARD, TURN, Frame


def sound(value=1.0, dtype=np.float32, **fields):
    return Frame.of("audio", np.full(640, value, dtype), position=6400, session="s", flags=HEARD, **fields)


def test_sound_fades_over_three_ticks_and_then_ends():
    made = conceal(sound(), 6400 + 11 * 640)
    assert [frame.position for frame in made] == [7040, 7680, 8320]
    whole = np.concatenate([frame.array for frame in made])
    assert whole[0] == pytest.approx(1.0, abs=0.01)
    assert whole[-1] == 0.0
    assert np.all(np.diff(whole) < 0)
    assert all(frame.meta == {"concealed": True} and frame.flags == HEARD for frame in made)


def test_only_as_much_as_the_hole_takes():
    assert len(conceal(sound(), 7040 + 640)) == 1
    assert conceal(sound(), 7040) == conceal(sound(), 7040 + 639) == conceal(sound(), 0) == []


def test_int16_stays_int16():
    made = conceal(sound(1000, np.int16), 9999)
    assert made[0].dtype == "i2"
    assert Frame.unpack(made[0].pack()) == made[0]
    assert abs(int(made[0].array[0])) <= 1000


@pytest.mark.parametrize("kind", ["acoustic", "fine"])
def test_tokens_are_held(kind):
    last = Frame.of(kind, [[1, 2], [3, 4]], position=0)
    made = conceal(last, 10 * 640)
    assert [frame.array.tolist() for frame in made] == [[[1, 2], [3, 4]]] * 3


@pytest.mark.parametrize(
    "last",
    [
        Frame.of("semantic", [3], position=0),
        Frame.of("tick", position=0),
        Frame.control("set"),
        Frame.end("audio", position=0),
        Frame.turn("audio", position=0),
    ],
)
def test_what_cannot_be_made_up(last):
    assert conceal(last, 6400) == []


def test_no_turn_is_repeated():
    last = sound().replace(flags=HEARD | TURN)
    assert all(frame.flags == HEARD for frame in conceal(last, 9999))


def test_sound_goes_on_without_a_seam_in_any_pieces():
    at = np.arange(640) / 16000
    past = np.sin(2 * np.pi * 313 * at)
    whole = continued(past, 3000, 2400)
    assert np.abs(np.diff(np.concatenate([past, whole]))).max() <= np.abs(np.diff(past)).max() + 1 / 2400
    assert not whole[2400:].any()
    pieces = [continued(past, count, 2400, begin) for begin, count in ((0, 7), (7, 993), (1000, 2000))]
    assert np.array_equal(np.concatenate(pieces), whole)
