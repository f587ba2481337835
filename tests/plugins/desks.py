"""What the tests of steering plugins share: a graph that keeps the control frames it gets, and a way to play on it."""

import asyncio
import contextlib

import numpy as np
import pytest

from streamer import Frame, Graph, NodeError, Registry, Session, Sink, Source, run

TICK = 640


class Script(Source):
    """Gives the frames that are put into `ctx.extra["script"]`; None ends the sound."""

    type_name = "script"
    emits = ("audio", "semantic", "control")

    async def frames(self, ctx):
        position = 0
        while (frame := await ctx.extra["script"].get()) is not None:
            position = max(position, frame.position + frame.samples)
            yield frame.replace(session=ctx.id)
        for kind in ("audio", "semantic"):
            yield Frame.end(kind, position=position, session=ctx.id)


class Listen(Sink):
    """Keeps what it gets; `ctx.extra["got"]` is a queue."""

    type_name = "heard_by"
    accepts = {"audio": ("audio",), "control": ("control",)}  # noqa: RUF012
    optional = ("control",)

    async def write(self, frame, ctx, into):
        if frame.kind == "control":
            ctx.extra["got"].put_nowait(frame)


def registry():
    """The built-in types, the shipped plugins as they are installed, and these two."""
    import streamer_plugins

    known = Registry.with_builtins()
    streamer_plugins.register(known)
    for each in (Script, Listen):
        known.add(each)
    return known


def sound(number, value=0.5, **fields):
    """Tick `number`, all samples alike."""
    return Frame.of("audio", np.full(TICK, value, np.float32), position=number * TICK, **fields)


class Play:
    """One session on a graph, while it runs."""

    def __init__(self, graph, restore=None, **extra):
        self.got, self.script = asyncio.Queue(1000), asyncio.Queue(1000)
        extra |= {"got": self.got, "script": self.script}
        made = Session(graph, extra=extra) if restore is None else Session.restore(graph, restore, extra=extra)
        self.session = made
        self.metrics = self.session.metrics

    async def took(self, count=1):
        """`count` control frames as `(command, values)`."""
        made = []
        for _ in range(count):
            async with asyncio.timeout(5):
                frame = await self.got.get()
            assert frame.session == self.session.info.id
            values = dict(frame.meta)
            made.append((values.pop("command"), values))
        return made

    async def until(self, true):
        """Wait until something holds."""
        async with asyncio.timeout(5):
            while not true():  # noqa: ASYNC110 - counters and gauges tell nobody
                await asyncio.sleep(0.002)

    def counter(self, name):
        return self.metrics.counters.get(name, 0)


def graph_of(nodes, edges, more=""):
    """A graph of the given nodes and edges (YAML), beside a `script` that leads to `ear`; `more`: other sections."""
    return Graph.parse(
        f"nodes:\n  script: script\n  ear: heard_by\n{nodes}\nedges: [script -> ear.audio{edges}]\n{more}",
        registry=registry(),
    )


@contextlib.asynccontextmanager
async def playing(graph, ends=None, **extra):
    """A session that runs until the end of the block; its error is raised there, or is what `ends` says."""
    play = Play(graph, **extra)
    task = asyncio.create_task(run(graph, play.session))
    play.task = task
    try:
        yield play
        if ends is None:
            play.script.put_nowait(None)
        async with asyncio.timeout(5):
            if ends is None:
                await task
            else:
                with pytest.raises(NodeError, match=ends):
                    await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
