"""A plugin with live ends whose sessions can be saved: a source that ticks or fails on demand, a counter, a sink."""

# ruff: noqa: RUF012

import asyncio

import numpy as np

from streamer import Frame, InputError, Node, Registry, Settings, Sink, Source

TICK = 640


class TickerSettings(Settings):
    tick_s: float = 0.002
    fail_sessions: list[int] = []
    fail_after: int = 5
    ends_after: int = -1
    missing: int = 0


class Ticker(Source):
    """Ticks by the wall clock; some of its sessions fail after some ticks. Its device is missing for some builds."""

    type_name = "ticker"
    emits = ("audio",)
    live = True
    Config = TickerSettings
    builds = 0

    def __init__(self, config, build):
        super().__init__(config, build)
        type(self).builds += 1
        if type(self).builds <= config.missing:
            raise InputError("no sound input is here; plug one in")
        self.sessions = 0

    async def frames(self, ctx):
        self.sessions += 1
        at = 0
        while at != self.config.ends_after:
            await asyncio.sleep(self.config.tick_s)
            if self.sessions in self.config.fail_sessions and at >= self.config.fail_after:
                raise InputError("the microphone caught fire")
            yield Frame.of("audio", np.full(TICK, 0.1, np.float32), position=at * TICK, session=ctx.id, seq=at)
            at += 1
        yield Frame.end("audio", position=at * TICK, session=ctx.id, seq=at)


class CounterSettings(Settings):
    form: int = 1
    unsavable: bool = False


class Counter(Node):
    """Counts ticks, and says where the count began; a state of another form is refused."""

    type_name = "counter"
    accepts = ("audio", "control")
    optional = ("control",)
    emits = ("audio",)
    Config = CounterSettings

    def __init__(self, config, build):
        super().__init__(config, build)
        self.told, self.loads, self.refuses = [], 0, False

    def init_state(self, info):
        info.metrics.gauge(f"{self.name}.began_at", 0.0)
        return {"info": info, "ticks": 0}

    def step(self, frame, state, into):
        if frame.kind == "control":
            self.told.append(tuple(frame.meta.values()))
            return
        state["ticks"] += bool(frame.payload)
        state["info"].metrics.gauge(f"{self.name}.ticks", float(state["ticks"]))
        yield frame

    def save(self, state):
        if self.config.unsavable:
            raise TypeError("it is a live thing")
        return {"form": self.config.form, "ticks": state["ticks"]}

    def load(self, saved, info):
        self.loads += 1
        if self.refuses:
            raise InputError("a state of another form")
        info.metrics.gauge(f"{self.name}.began_at", float(saved["ticks"]))
        return {"info": info, "ticks": saved["ticks"]}


class Mouth(Sink):
    type_name = "mouth"
    accepts = ("audio",)
    live = True

    async def write(self, frame, ctx, into):
        ctx.metrics.gauge(f"{self.name}.position", float(frame.position))


def register(registry):
    for kind in (Ticker, Counter, Mouth):
        registry.add(kind)


def registry():
    made = Registry.with_builtins()
    register(made)
    return made
