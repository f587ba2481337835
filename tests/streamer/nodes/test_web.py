"""The ends of a visitor's session, without a server: a link on either side."""

import numpy as np
import pytest

from streamer import GENERATED, HEARD, Frame, Graph, InputError, NodeError, Session, run
from streamer.link import Link
from streamer.node import Build, SessionInfo, Settings
from streamer.nodes.web import WebSink, WebSinkSettings, WebSource, level_db

TICK = 640


def heard(value, number=0):
    return Frame.of("audio", np.full(TICK, value, np.int16), position=number * TICK, flags=HEARD)


def sink():
    return WebSink(WebSinkSettings(), Build("output"))


def info(link):
    return SessionInfo(id="s", extra={"link": link})


async def put(link, *frames):
    made, ctx = sink(), info(link)
    for frame in frames:
        await made.write(frame, ctx, frame.kind)
    return ctx.metrics


async def test_sound_becomes_ticks_of_float_on_a_clock_of_its_own():
    link = Link()
    for value, number in ((16384, 5), (-32768, 9)):
        link.inbox.put(heard(value, number))
    link.inbox.end()
    ctx = info(link)
    frames = [frame async for frame in WebSource(Settings(), Build("input")).frames(ctx)]
    assert [(frame.position, frame.seq, frame.dtype) for frame in frames[:2]] == [(0, 0, "f4"), (TICK, 1, "f4")]
    assert [frame.array[0] for frame in frames[:2]] == [0.5, -1.0]
    assert frames[2].last
    assert frames[2].position == 2 * TICK
    assert all(frame.heard and frame.session == "s" for frame in frames)
    assert ctx.metrics.gauges["input.level_db"] == pytest.approx(0.0)


def test_silence_has_a_level_too():
    assert level_db(np.zeros(TICK, np.float32)) == -100
    assert level_db(np.zeros(0, np.float32)) == -100


async def test_a_session_without_a_visitor_is_told_who_runs_it(tiny_bundle):
    graph = Graph.load("page_reconstruct", overrides=[f"bundle={tiny_bundle}"])
    with pytest.raises(NodeError, match="streamer serve") as caught:
        await run(graph, Session(graph))
    assert caught.value.exit_code == InputError.exit_code


async def test_sound_goes_out_as_int16_and_tokens_as_they_are():
    link = Link()
    sound = Frame.of("audio", np.array([0.5, 1.0, -1.0, 2.0], np.float32), position=TICK, flags=GENERATED, session="s")
    tokens = Frame.of("fine", np.ones((2, 12), int), position=0, flags=GENERATED)
    await put(link, sound, tokens)
    first, second = link.outbox.take(), link.outbox.take()
    assert Frame.unpack(first.pack()).array.tolist() == [16384, 32767, -32768, 32767]
    assert (first.dtype, first.position, first.flags) == ("i2", TICK, GENERATED)
    assert second == tokens


async def test_ends_of_turns_and_streams_go_out_as_valid_frames():
    link = Link()
    await put(link, Frame.turn("audio", position=0, flags=GENERATED), Frame.end("audio", position=0))
    turn, end = (Frame.unpack(link.outbox.take().pack()) for _ in range(2))
    assert turn.turns
    assert turn.generated
    assert end.last


async def test_an_interruption_drops_what_is_stale_on_either_side_of_it():
    link = Link()
    old = Frame.of("audio", np.zeros(TICK, np.float32), position=0, flags=GENERATED)
    stop = Frame.control("interrupt").replace(epoch=1)
    overheard = old.replace(flags=HEARD)
    new = old.replace(epoch=1)
    await put(link, old, stop, old, overheard, new)
    kinds = []
    while (frame := link.outbox.take()) is not None:
        kinds.append((frame.kind, frame.epoch, frame.flags))
    assert kinds == [("control", 1, 0), ("audio", 0, HEARD), ("audio", 1, GENERATED)]


async def test_commands_of_the_session_stay_inside():
    link = Link()
    await put(link, Frame.control("set", temperature=1.0), Frame.control("mute", on=True))
    assert link.outbox.take() is None


async def test_each_decision_is_measured_once():
    link, made = Link(), sink()
    ctx = info(link)
    sound = Frame.of("audio", np.zeros(TICK, np.float32), position=0, flags=GENERATED)
    await made.write(sound, ctx, "audio")
    assert not ctx.metrics.latencies
    for _ in range(2):
        ctx.metrics.mark("decided_continue", again=True)
        for _ in range(3):
            await made.write(sound, ctx, "audio")
    ctx.metrics.mark("decided_stop", again=True)
    await made.write(Frame.control("interrupt"), ctx, "control")
    counts = {name: ring.count for name, ring in ctx.metrics.latencies.items()}
    assert counts == {"decision_to_sound": 2, "stop_to_silence": 1}


def test_what_a_page_must_know(tiny_bundle):
    about = WebSink.about(WebSinkSettings(), Build("output", bundle=tiny_bundle))
    assert {"codebook", "semantic_codebook", "levels", "coarse_levels", "lookahead"} <= set(about)
    assert "guidance_fine" not in about
    assert WebSink.about(WebSinkSettings(guidance=True), Build("output", bundle=tiny_bundle))["guidance_fine"] == 1
    assert WebSink.about(WebSinkSettings(), Build("output")) == {}
