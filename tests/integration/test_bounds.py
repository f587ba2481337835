"""Every port is bounded: who is slow makes others wait, or frames drop, and the report says so; nothing deadlocks."""

import graphs
import numpy as np
import pytest
from graphs import CONTINUE, TICK

from streamer import ConfigError

FROM_MEMORY = graphs.text_of(CONTINUE).replace("{type: file}", "pieces")
EDGES = """
  - {from: input, to: "acoustic, semantic_tokens", capacity: CAP}
  - {from: semantic_tokens -> semantic -> coarse -> fine -> decoder -> output, capacity: CAP}
  - {from: acoustic, to: "coarse, fine", capacity: CAP}
  - {from: clock, to: semantic, capacity: CAP}
"""


def with_capacity(capacity, lanes=None):
    head, _, rest = FROM_MEMORY.partition("edges:")
    tail = rest.partition("lanes:")[2]
    return f"{head}edges:{EDGES.replace('CAP', str(capacity))}lanes:{tail if lanes is None else ' ' + lanes}"


EACH = "{a: [acoustic], b: [semantic_tokens], c: [semantic], d: [coarse], e: [fine], f: [decoder]}"


@pytest.mark.parametrize("lanes", [None, "{}", EACH], ids=["codec and lm", "one", "each"])
def test_the_diamond_runs_or_is_refused_with_the_number_it_needs(play, sound, lanes):
    """Acoustic and semantic tokens meet again in the coarse stage, the latter late by the look-ahead."""
    given = {"sessions": [{"extra": {"sound": sound}}], "logged": ()}
    wanted = play(FROM_MEMORY, "session.seconds=0.4", **given)[0].int16
    needed = 3  # a look-ahead of two ticks and the frame itself
    for capacity in range(1, needed):
        with pytest.raises(ConfigError, match=f"a capacity of {capacity} frames would deadlock.*at least {needed}"):
            play(with_capacity(capacity, lanes), **given)
    for capacity in range(needed, 6):
        got = play(with_capacity(capacity, lanes), "session.seconds=0.4", **given)[0]
        np.testing.assert_array_equal(got.int16, wanted)
        assert all(port["high"] <= capacity for port in got.report["ports"].values())


SLOW = FROM_MEMORY.replace("{type: file_out}", "{type: slow_sink, seconds: 0.04}").replace("output", "speaker")
SLOW = SLOW.replace("nodes:\n", "nodes:\n  output: {type: file_out}\n").replace("-> speaker", "-> speaker, output")


def test_a_slow_sink_makes_the_source_wait(play, sound):
    text = with_capacity(3).replace("{type: file_out}", "{type: slow_sink, seconds: 0.02}")
    text = text.replace("output", "speaker").replace("nodes:\n", "nodes:\n  output: {type: file_out}\n")
    text = text.replace("\nlanes:", "\n  - decoder -> output\nlanes:")
    got = []
    extra = {"sound": sound, "cuts": range(TICK, 27 * TICK, TICK), "got": got}
    report = play(text, "session.seconds=0.4", sessions=[{"extra": extra}], logged=())[0].report
    frames = [frame for _, frame in got if frame.payload]
    assert [frame.position for frame in frames] == [i * TICK for i in range(37)]
    assert report["dropped"] == 0
    for label, port in report["ports"].items():
        assert port["high"] <= port["capacity"], label
        assert port["put"] == port["got"], label
    assert report["ports"]["decoder -> speaker.audio"]["high"] == 3
    assert report["ports"]["input -> acoustic.audio"]["high"] == 3, "the source ran away"


def test_a_slow_sink_drops_by_the_policy_of_its_edge_and_says_so(play, sound):
    text = SLOW.replace("decoder -> speaker, output", "decoder -> output")
    text = text.replace("edges:\n", "edges:\n  - {from: decoder, to: speaker, policy: drop_oldest, capacity: 2}\n")
    got = []
    result = play(text, "session.seconds=2", sessions=[{"extra": {"sound": sound, "got": got}}], logged=())[0]
    report = result.report
    port = report["ports"]["decoder -> speaker.audio"]
    assert report["dropped"] == port["dropped"] > 0
    assert report["dropped_at"] == {"decoder -> speaker.audio": port["dropped"]}
    assert port["got"] + port["dropped"] == port["put"] == 27 + 50 + 1
    assert port["high"] <= 2
    assert got[-1][1].last, "the end is never dropped"
    assert len(result.int16) == 77 * TICK, "the other sink has all of it"
