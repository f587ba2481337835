"""A plugin with fake live ends: a microphone that ticks in real time, a stage that takes turns, a speaker."""

# ruff: noqa: RUF012

import asyncio
from types import SimpleNamespace

import numpy as np

from streamer import GENERATED, Frame, InputError, Node, Registry, Settings, Sink, Source

TICK = 640


class MicSettings(Settings):
    tick_s: float = 0.002
    fail_sessions: list[int] = []
    fail_after: int = -1
    ends_after: int = -1
    device: str | int | None = None


class Mic(Source):
    """Ticks by the wall clock; the sessions of these numbers fail, and each one after `fail_after` ticks."""

    type_name = "fake_mic"
    emits = ("audio",)
    live = True
    Config = MicSettings

    def __init__(self, config, build):
        super().__init__(config, build)
        if config.device == "nowhere":
            raise InputError("no device 'nowhere'; there are: fake")
        self.sessions = 0

    async def frames(self, ctx):
        self.sessions += 1
        ctx.metrics.gauge(f"{self.name}.device", f"fake {self.config.device!r}")
        ctx.metrics.gauge(f"{self.name}.connected", value=True)
        ctx.metrics.gauge(f"{self.name}.level_db", float("-inf"))
        if self.sessions in self.config.fail_sessions:
            raise InputError("the microphone caught fire")
        at = 0
        while at != self.config.ends_after:
            await asyncio.sleep(self.config.tick_s)
            if at == self.config.fail_after:
                raise InputError("the microphone caught fire")
            yield Frame.of("audio", np.full(TICK, 0.1, np.float32), position=at * TICK, session=ctx.id, seq=at)
            at += 1
        yield Frame.end("audio", position=at * TICK, session=ctx.id)


class Brain(Node):
    """Stands for turns and stages: after five ticks or a trigger it continues, and notes each command."""

    type_name = "fake_brain"
    accepts = ("audio", "control")
    optional = ("control",)
    emits = ("audio",)

    def __init__(self, config, build):
        super().__init__(config, build)
        self.sampling = SimpleNamespace(temperature=0.9)
        self.commands = []

    def init_state(self, info):
        info.metrics.gauge(f"{self.name}.state", "listening")
        return {"info": info, "ticks": 0}

    def step(self, frame, state, into):
        metrics = state["info"].metrics
        if frame.kind == "control":
            self.commands.append((state["info"].id, *frame.meta.values()))
            return
        state["ticks"] += bool(frame.payload)
        if state["ticks"] == 5 and frame.payload:
            metrics.gauge(f"{self.name}.state", "continuing")
            metrics.count(f"{self.name}.continued")
            metrics.latency("decision_to_sound", 0.18)
        yield frame.replace(flags=frame.flags | (GENERATED if state["ticks"] >= 5 else 0))


class SpeakerSettings(Settings):
    prime_ms: float = 80.0
    monitor: bool = False
    hangs: bool = False


class Speaker(Sink):
    type_name = "fake_speaker"
    accepts = ("audio",)
    live = True
    Config = SpeakerSettings

    async def write(self, frame, ctx, into):
        ctx.metrics.gauge(f"{self.name}.buffer_ms", 80.0)
        ctx.metrics.gauge(f"{self.name}.level_db", -20.0)

    async def finish(self, ctx):
        if self.config.hangs:
            await asyncio.Event().wait()


def register(registry):
    for kind in (Mic, Brain, Speaker):
        registry.add(kind)


def registry():
    made = Registry.with_builtins()
    register(made)
    return made
