"""Frames that do not fit end a run with a clear error and exit code 2; nothing hangs, nothing is half written."""

import re

import numpy as np
import pytest
from graphs import TICK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamer import NodeError
from streamer.frame import GENERATED, HEARD, LAST, Frame

PLAIN = {
    "audio": "- source -> acoustic -> decoder -> output",
    "acoustic": "- source -> decoder.fine -> output",
    "heard": "- source -> coarse, fine\n  - clock -> coarse -> fine -> decoder -> output",
    "semantic": "- source -> coarse -> fine -> decoder -> output",
    "prompt": "- source -> semantic\n  - clock -> semantic -> coarse -> fine -> decoder -> output",
    "coarse": "- source -> fine -> decoder -> output",
    "fine": "- source -> decoder -> output",
}
KIND = {"heard": "acoustic", "prompt": "semantic"}
MODE = {"audio": "reconstruct", "acoustic": "reconstruct", "heard": "acoustic_only", "coarse": "dream", "fine": "dream"}


def text_for(where):
    edges = PLAIN[where]
    names = set(re.findall(r"(?<!\.)\b(acoustic|semantic|coarse|fine|decoder|clock)\b", edges))
    nodes = "".join(f"  {name}: {name}\n" for name in sorted(names))
    kind = KIND.get(where, where)
    return f"nodes:\n  source: {{type: frames, kind: {kind}}}\n{nodes}  output: {{type: file_out}}\nedges:\n  {edges}\n"


def feed(play, where, frames, **options):
    mode = MODE.get(where, "continue")
    given = {"sessions": [{"mode": mode, "extra": {"frames": frames}}], "logged": (), **options}
    return play(text_for(where), f"session.mode={mode}", "session.seconds=0.2", **given)[0]


def tokens(kind, shape, value=0, position=0, flags=HEARD):
    return Frame.of(kind, np.full(shape, value), position=position, flags=flags)


def end(kind, position=TICK):
    return Frame.end(kind, position=position)


BAD = {
    "too few levels to the stages": (
        "heard",
        [tokens("acoustic", (2, 5))],
        "takes acoustic frames of 6 levels, 5 came",
    ),
    "too many levels to the stages": ("heard", [tokens("acoustic", (2, 7))], "of 6 levels, 7 came"),
    "coarse levels that do not fit": ("coarse", [tokens("coarse", (2, 4))], "takes coarse frames of 2 levels, 4 came"),
    "too many levels to the decoder": ("fine", [tokens("fine", (2, 7))], r"takes tokens \[2 x ticks, up to 6\]"),
    "half a tick": ("fine", [tokens("fine", (3, 6))], r"\[3, 6\] came"),
    "an acoustic token out of range": ("heard", [tokens("acoustic", (2, 6), 33)], "takes tokens from 0 to 31.*33"),
    "a token that the decoder has not": ("fine", [tokens("fine", (2, 6), 32)], "takes tokens from 0 to 31, 32 came"),
    "a semantic token out of range": ("prompt", [tokens("semantic", 1, 25)], "takes tokens from 0 to 23.*25"),
    "the same as conditioning": ("semantic", [tokens("semantic", 1, 25)], "takes tokens from 0 to 23.*25"),
    "a coarse token out of range": ("coarse", [tokens("coarse", (2, 2), 1023)], "takes tokens from 0 to 31.*1023"),
    "another rate": (
        "audio",
        [Frame.of("audio", np.zeros(960, np.float32), position=0, rate=24000)],
        "takes sound at 16000 Hz, 24000 Hz came; resample",
    ),
    "a place far away": ("prompt", [tokens("semantic", 1, 0, position=10**12)], "its position is wrong"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_frame_that_does_not_fit_ends_the_run_clearly(play, tmp_path, name):
    where, frames, message = BAD[name]
    with pytest.raises(NodeError, match=message) as caught:
        feed(play, where, [*frames, end(KIND.get(where, where))])
    assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == [], "something was left half written"


def test_the_same_graphs_run_with_frames_that_fit(play):
    """Or the tests above would show nothing."""
    rng = np.random.default_rng(0)

    def stream(kind, levels, limit, ticks=5, flags=HEARD):
        shapes = [(1,) if kind == "semantic" else (2, levels)] * ticks
        made = [rng.integers(0, limit, shape) for shape in shapes]
        frames = [Frame.of(kind, a, position=i * TICK, flags=flags) for i, a in enumerate(made)]
        return [*frames, end(kind, ticks * TICK)]

    lengths = {
        "audio": [Frame.of("audio", np.zeros(5 * TICK, np.float32), position=0, flags=HEARD), end("audio", 5 * TICK)],
        "acoustic": stream("acoustic", 6, 32),
        "heard": stream("acoustic", 6, 32),
        "semantic": stream("semantic", 1, 24),
        "prompt": stream("semantic", 1, 24),
        "coarse": stream("coarse", 2, 32, flags=GENERATED),
        "fine": stream("fine", 3, 32, flags=GENERATED),
    }
    wanted = {"audio": 5, "acoustic": 5, "heard": 10, "semantic": 3, "prompt": 10, "coarse": 5, "fine": 5}
    got = {where: len(feed(play, where, frames).int16) / TICK for where, frames in lengths.items()}
    assert got == wanted


kinds = st.sampled_from(["acoustic", "heard", "semantic", "prompt", "coarse", "fine"])


@st.composite
def some_frames(draw):
    where = draw(kinds)
    kind = KIND.get(where, where)
    frames = []
    for _ in range(draw(st.integers(0, 4))):
        shape = (draw(st.integers(0, 3)),) if kind == "semantic" else (draw(st.integers(0, 4)), draw(st.integers(1, 8)))
        limit = draw(st.sampled_from([24, 32, 33, 1024]))
        array = np.random.default_rng(draw(st.integers(0, 99))).integers(0, limit, shape)
        position = draw(st.sampled_from([0, 1, 320, 640, 1280, 64000, 2**40]))
        frames.append(Frame.of(kind, array, position=position, flags=draw(st.sampled_from([0, HEARD, GENERATED]))))
    if draw(st.booleans()) and frames:
        frames[-1] = frames[-1].replace(flags=frames[-1].flags | LAST)
    else:
        frames.append(end(kind, draw(st.sampled_from([0, 640, 64000]))))
    return where, frames


@settings(
    max_examples=60, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(some_frames())
def test_any_frames_end_well_or_in_a_clear_error(play, made):
    """No hang, no other error, whatever levels, tokens, places and ends come."""
    where, frames = made
    try:
        feed(play, where, frames)
    except NodeError as error:
        assert error.exit_code == 2, error  # noqa: PT017 - either is right
