"""Fakes of a few lines: they stand for models, files and devices, and keep to the contract of `streamer.node`."""

# ruff: noqa: RUF012

import asyncio
import time

import numpy as np
from pydantic import Field

from streamer import Frame, InputError, Node, Registry, Settings, Sink, Source

TICK = 640


class CountSettings(Settings):
    ticks: int = Field(default=10, ge=0)
    size: int = TICK
    fail_at: int = -1
    end: bool = True
    wait: float = 0.0


class Count(Source):
    """`ticks` frames of audio, each filled with its number; LAST on an empty frame."""

    type_name = "count"
    emits = ("audio",)
    Config = CountSettings

    async def frames(self, ctx):
        base = ctx.extra.get("base", 0)
        ticks, size = ctx.extra.get("ticks", self.config.ticks), self.config.size
        for i in range(ticks):
            if i == self.config.fail_at:
                raise InputError("the microphone caught fire")
            if self.config.wait:
                await asyncio.sleep(self.config.wait)
            yield Frame.of("audio", np.full(size, base + i, np.float32), position=i * size, session=ctx.id, seq=i)
        if self.config.end:
            yield Frame.end("audio", position=ticks * size, session=ctx.id)


class Endless(Source):
    type_name = "endless"
    emits = ("audio",)

    async def frames(self, ctx):
        i = 0
        while True:
            yield Frame.of("audio", np.full(TICK, i % 1000, np.float32), position=i * TICK, session=ctx.id)
            await asyncio.sleep(0)
            i += 1


class AddSettings(Settings):
    add: float = 1.0
    work: float = 0.0
    fail_at: int = -1
    gain: float = Field(default=1.0, ge=0, le=10)


class Add(Node):
    """Adds a number, and the count of frames so far, so that state matters."""

    type_name = "add"
    accepts = ("audio", "control")
    emits = ("audio",)
    optional = ("control",)
    Config = AddSettings

    def init_state(self, info):
        return {"n": 0, "add": self.config.add, "total": np.zeros(1)}

    def step(self, frame, state, into):
        if frame.kind == "control":
            state["add"] = float(frame.meta["add"])
            return
        if not frame.payload:
            yield frame
            return
        if state["n"] == self.config.fail_at:
            raise ValueError("no more")
        if self.config.work:
            time.sleep(self.config.work)
        state["n"] += 1
        state["total"] = state["total"] + frame.array[0]
        made = frame.array + np.float32(state["add"]) + np.float32(state["n"] * 1000)
        yield Frame.of("audio", made, position=frame.position, like=frame, flags=frame.flags)


class Pass(Node):
    type_name = "pass"
    accepts = ("audio",)
    emits = ("audio",)

    def step(self, frame, state, into):
        yield frame


class DelaySettings(Settings):
    ticks: int = Field(default=2, ge=0)


class Delay(Node):
    """Gives each frame `ticks` later, as a tokenizer with look-ahead does; the rest in a burst at the end."""

    type_name = "delay"
    accepts = ("audio",)
    emits = ("audio",)
    Config = DelaySettings

    @classmethod
    def facts(cls, config, build):
        base = super().facts(config, build)
        return type(base)(base.inputs, base.emits, delay=config.ticks * TICK)

    def init_state(self, info):
        return []

    def step(self, frame, state, into):
        if not frame.last:
            state.append(frame)
        while state and (frame.last or len(state) > self.config.ticks):
            yield state.pop(0)
        if frame.last:
            yield frame

    def save(self, state):
        return {"frames": [frame.pack() for frame in state]}

    def load(self, saved, info):
        return [Frame.unpack(data) for data in saved["frames"]]


class Mix(Node):
    """Adds two inputs position by position: asks for the one that is behind."""

    type_name = "mix"
    accepts = {"a": ["audio"], "b": ["audio"]}
    emits = ("audio",)

    def init_state(self, info):
        return {"a": None, "b": None}

    def wants(self, state):
        missing = frozenset(name for name in ("a", "b") if state[name] is None)
        return missing or None

    def step(self, frame, state, into):
        state[into] = frame
        a, b = state["a"], state["b"]
        if a is None or b is None:
            return
        assert a.position == b.position
        state["a"] = state["b"] = None
        yield a if a.last else Frame.of("audio", a.array + b.array, position=a.position, like=a)

    def save(self, state):
        return {name: frame and frame.pack() for name, frame in state.items()}

    def load(self, saved, info):
        return {name: data and Frame.unpack(data) for name, data in saved.items()}


class Merge(Node):
    """Gives frames on in the order in which it gets them: shows that order."""

    type_name = "merge"
    accepts = {"a": ["audio"], "b": ["audio"]}
    emits = ("audio",)

    def init_state(self, info):
        return {"open": 2}

    def step(self, frame, state, into):
        if frame.last:
            state["open"] -= 1
            if state["open"]:
                return
        yield frame


class Echo(Node):
    """Adds the mean of what came back by `back` so far: a reference edge that runs backwards."""

    type_name = "echo"
    accepts = {"audio": ["audio"], "back": ["audio"]}
    emits = ("audio",)
    optional = ("back",)

    def init_state(self, info):
        return {"seen": 0}

    def step(self, frame, state, into):
        if into == "back":
            state["seen"] += 1
        elif frame.payload:
            made = frame.array * 0 + np.float32(state["seen"])
            yield Frame.of("audio", made, position=frame.position, like=frame)
        else:
            yield frame


class BurstSettings(Settings):
    size: int = 50


class Burst(Node):
    """Gives everything at the end, in one step."""

    type_name = "burst"
    accepts = ("audio",)
    emits = ("audio",)
    Config = BurstSettings

    def step(self, frame, state, into):
        if frame.last:
            for i in range(self.config.size):
                yield Frame.of("audio", np.full(TICK, i, np.float32), position=i * TICK, like=frame)
            yield Frame.end("audio", position=self.config.size * TICK, like=frame)


class Forever(Pass):
    """Breaks the contract: forgets LAST."""

    type_name = "forever"

    def step(self, frame, state, into):
        if not frame.last:
            yield frame


class Wrong(Pass):
    """Breaks the contract: gives a kind that it does not declare."""

    type_name = "wrong"

    def step(self, frame, state, into):
        yield Frame.of("semantic", [1], position=frame.position)


class LevelSettings(Settings):
    levels: int = 12


class Tokens(Source):
    type_name = "tokens"
    emits = ("acoustic",)
    Config = LevelSettings

    @classmethod
    def facts(cls, config, build):
        base = super().facts(config, build)
        return type(base)(base.inputs, base.emits, levels_out={"acoustic": config.levels})

    async def frames(self, ctx):
        rng = np.random.default_rng(ctx.seed)
        for i in range(20):
            made = rng.integers(0, 1024, (2, self.config.levels))
            yield Frame.of("acoustic", made, position=i * TICK, session=ctx.id, seq=i)
        yield Frame.end("acoustic", position=20 * TICK, session=ctx.id)


class TokenSink(Sink):
    type_name = "token_sink"
    accepts = ("acoustic",)
    Config = LevelSettings

    @classmethod
    def facts(cls, config, build):
        base = super().facts(config, build)
        return type(base)(base.inputs, base.emits, levels_in={"acoustic": config.levels})

    async def write(self, frame, ctx, into):
        ctx.extra["got"].append(frame)


class SinkSettings(Settings):
    wait: float = 0.0
    fail_at: int = -1


class Collect(Sink):
    """Keeps `(position, first value)` of what it gets in `ctx.extra["got"]`."""

    type_name = "collect"
    accepts = ("audio",)
    Config = SinkSettings

    async def write(self, frame, ctx, into):
        got = ctx.extra["got"]
        if len(got) == self.config.fail_at:
            raise OSError("the disk is full")
        if self.config.wait:
            await asyncio.sleep(self.config.wait)
        if frame.payload:
            got.append((frame.position, float(frame.array[0])))

    async def finish(self, ctx):
        ctx.extra["got"].append("end")

    async def abort(self, ctx):
        ctx.extra["got"].append("abort")


ALL = (Count, Endless, Add, Pass, Delay, Mix, Merge, Echo, Burst, Forever, Wrong, Tokens, TokenSink, Collect)


def registry():
    made = Registry.with_builtins()
    for node in ALL:
        made.add(node)
    return made
