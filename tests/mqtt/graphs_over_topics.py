"""Two graphs in one process with a broker between them, and nodes of a few lines for their ends."""

import asyncio

import numpy as np
from pydantic import Field

from streamer import Frame, Graph, Registry, Running, Session, Settings, Sink, Source
from streamer.frame import HEARD

TICK = 640
BOTH = 'mqtt: {{host: 127.0.0.1, port: {port}, instance: {name}, keepalive: 4, protocol: "{protocol}"}}\n'


class SayConfig(Settings):
    kind: str = "audio"
    ticks: int = 20
    pause: float = 0.0
    live: bool = False


class Say(Source):
    """`ticks` frames of one kind, each filled with its number, then LAST."""

    type_name = "say"
    emits = ("audio", "acoustic", "semantic", "tick", "control")
    Config = SayConfig

    @classmethod
    def is_live(cls, config):
        return config.live

    @classmethod
    def facts(cls, config, build):
        return type(super().facts(config, build))({}, frozenset([config.kind]))

    async def frames(self, ctx):
        kind, config = self.config.kind, self.config
        for i in range(ctx.extra.get("ticks", config.ticks)):
            if config.pause:
                await asyncio.sleep(config.pause)
            hold = ctx.extra.get("hold")
            if hold and i == hold[0]:
                await hold[1].wait()
            yield frame_of(kind, i, ctx.id)
        if kind != "control":
            yield Frame.end(kind, position=ctx.extra.get("ticks", config.ticks) * TICK, session=ctx.id)


def frame_of(kind, number, session="other", position=None):
    value = {
        "audio": lambda: np.full(TICK, number / 1000, np.float32),
        "acoustic": lambda: np.full((2, 12), number % 1024),
        "semantic": lambda: np.full(1, number % 1024),
    }.get(kind, lambda: None)()
    at = number * TICK if position is None else position
    return Frame.of(kind, value, position=at, session=session, seq=number, flags=HEARD)


class KeepConfig(Settings):
    wait: float = 0.0
    fail_at: int = Field(default=-1)


class Keep(Sink):
    """Keeps its frames in `ctx.extra["got"]`; waits for `ctx.extra["gate"]` before each, if there is one."""

    type_name = "keep"
    accepts = ("audio", "acoustic", "semantic", "tick", "control")
    optional = accepts
    Config = KeepConfig

    async def write(self, frame, ctx, into):
        if ctx.extra.get("gate") is not None:
            await ctx.extra["gate"].wait()
        if len(ctx.extra["got"]) == self.config.fail_at:
            raise OSError("the disk is full")
        ctx.extra["got"].append(frame)


def registry():
    made = Registry.with_builtins()
    made.add(Say)
    made.add(Keep)
    return made


def writer(broker, *, name="ears", kind="audio", out="", say="", protocol="5"):
    """A graph that says something to its topic."""
    text = BOTH.format(port=broker.port, name=name, protocol=protocol)
    text += (
        f"nodes:\n  src: {{type: say, kind: {kind}, {say}}}\n  out: {{type: mqtt_out, {out}}}\nedges: [src -> out]\n"
    )
    return Graph.parse(text, registry())


def reader(
    broker, *, name="brain", kind="audio", topic="streamer/ears/stream/out/audio", how="", keep="", protocol="5"
):
    """A graph that keeps what it reads."""
    text = BOTH.format(port=broker.port, name=name, protocol=protocol)
    text += f"nodes:\n  in: {{type: mqtt_in, kind: {kind}, topic: {topic}, {how}}}\n  sink: {{type: keep, {keep}}}\n"
    return Graph.parse(text + "edges: [in -> sink]\n", registry())


STRICT_OUT = "policy: block, readers: [brain]"
STRICT_IN = "policy: block, join: start, live: false"


async def play(graph, session):
    async with Running(graph) as running:
        await running.run(session)


def session(graph, name="main", **extra):
    return Session(graph, name, extra={"got": [], **extra})


def numbers(got, size=TICK):
    """The number of each frame of sound."""
    return [round(float(frame.array[0]) * 1000) for frame in got if frame.payload]


async def until(check, seconds=20.0):
    async with asyncio.timeout(seconds):
        while not check():  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.005)
