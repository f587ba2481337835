"""A live session that is gone on from its snapshot: what is heard next goes on where the last tick before it was."""

import asyncio

import graphs
import numpy as np
import pytest
from graphs import TICK

from streamer import Frame, Graph, Session, Source, run
from streamer.nodes import turns
from streamer.nodes.detect import Heard

LIMIT = 60.0
SETTINGS = "{type: turns, hangover_ms: 120, least_ms: 80, pre_roll_ms: 80, burst_ms: 80, gate_ms: 0}"
PATTERN = "..xxxxx........xxxx......."


class Loud:
    """Active above a level."""

    def init_state(self):
        return None

    def step(self, tick, state):
        loud = bool(np.abs(tick).max() > 0.01)
        return Heard(active=loud, level_db=-20.0, score=float(loud), onset=False)

    def save(self, state):
        return {}

    def load(self, saved):
        return None


class LiveTicks(Source):
    """A microphone: gives the ticks of `ctx.extra["ticks"]` from position 0 on, then waits as one does."""

    type_name = "live_ticks"
    emits = ("audio",)
    live = True

    async def frames(self, ctx):
        ticks = ctx.extra["ticks"]
        for i, tick in enumerate(ticks):
            yield Frame.of("audio", tick, position=i * TICK, session=ctx.id, seq=i, flags=1)
        ctx.extra["given"].set()
        await ctx.extra["end"].wait()
        yield Frame.end("audio", position=len(ticks) * TICK, session=ctx.id, seq=len(ticks), flags=1)


@pytest.fixture(autouse=True)
def loud(monkeypatch):
    monkeypatch.setattr(turns, "make_detector", lambda kind: Loud())


def opened(bundle, name):
    text = (
        graphs.text_of(name).replace("{type: microphone}", "live_ticks").replace("turns: turns", f"turns: {SETTINGS}")
    )
    text = text.replace("{type: speaker}", "keep")
    text = (
        "\n".join(line for line in text.splitlines() if "speaker.control" not in line) + "\n  - fine -> speaker.fine\n"
    )
    lanes = text.index("lanes:")
    head, tail = text[:lanes], text[lanes:]
    edge = "  - fine -> speaker.fine\n"
    text = head + edge + tail.replace(edge, "")
    registry = graphs.registry()
    registry.add(LiveTicks)
    return Graph.parse(text, registry, overrides=[f"bundle={bundle}", "session.seconds=null", "session.seed=5"])


def heard(pattern):
    sound = graphs.tone(440, len(pattern) * TICK).astype(np.float32).reshape(-1, TICK)
    return [tick * np.float32(sign == "x") for tick, sign in zip(sound, pattern, strict=True)]


def extra(ticks):
    return {"ticks": ticks, "given": asyncio.Event(), "end": asyncio.Event(), "got": []}


def tokens(*found):
    frames = [frame for each in found for _, frame in each["got"] if frame.kind == "fine" and frame.payload]
    return [(frame.position, frame.flags, frame.array.tolist()) for frame in frames]


async def whole(bundle, name, ticks):
    given = extra(ticks)
    given["end"].set()
    with opened(bundle, name) as graph:
        await run(graph, Session(graph, extra=given))
    return tokens(given)


@pytest.mark.parametrize("name", ["mic_continue", "duet"])
@pytest.mark.parametrize("cut", [3, 9, 13, 16, 21])
async def test_what_is_heard_next_goes_on_where_it_was(bundle, name, cut):
    ticks = heard(PATTERN)
    wanted = await whole(bundle, name, ticks)
    first, second = extra(ticks[:cut]), extra(ticks[cut:])
    with opened(bundle, name) as graph:
        session = Session(graph, extra=first)
        task = asyncio.create_task(run(graph, session))
        async with asyncio.timeout(LIMIT):
            await first["given"].wait()
            blob = await session.request_snapshot()
        before = {**first, "got": list(first["got"])}
        task.cancel()
        await asyncio.wait([task])
    with opened(bundle, name) as graph:
        again = Session.restore(graph, blob, extra=second)
        second["end"].set()
        async with asyncio.timeout(LIMIT):
            await run(graph, again)
    assert tokens(before, second) == wanted
    assert not [name for name in again.metrics.counters if "lost" in name]
