"""How these tests run a graph: shipped configs with a recorder beside them, nodes that misbehave, what came out."""

import asyncio
import hashlib
import itertools
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from audiolm.io import read_audio
from streamer import Frame, Graph, Node, Registry, Session, Settings, Sink, Source, config, run
from streamer.nodes.record import read_log

TICK = 640
CONTINUE = "continue_file"
LOGGED = {
    "continue_file": ("semantic_tokens", "semantic", "coarse", "fine"),
    "resynthesize_file": ("semantic_tokens", "coarse", "fine"),
    "acoustic_only_file": ("coarse", "fine"),
    "dream": ("semantic", "coarse", "fine"),
    "reconstruct_file": ("acoustic",),
}
_number = itertools.count()


def tone(hertz, samples, seed=0):
    """A tone with some noise, so that its tokens change."""
    rng, t = np.random.default_rng(seed + hertz), np.arange(samples) / 16000
    return 0.1 * np.sin(2 * np.pi * hertz * t) * (1 + np.sin(9 * t)) + 0.02 * rng.standard_normal(samples)


@dataclass
class Result:
    """What a run left: the file, and the tokens that the nodes gave, by node."""

    path: Path
    tokens: dict
    report: dict

    @property
    def sha256(self):
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    @property
    def sound(self):
        return read_audio(self.path)

    @property
    def int16(self):
        return np.rint(self.sound * 32768).astype(np.int16)


def as_int16(sound):
    """What a file holds of float samples."""
    return np.clip(np.rint(sound * 32768), -32768, 32767).astype(np.int16)


def registry():
    made = Registry.with_builtins()
    for node in (Pieces, Frames, Slow, SlowSink, LateSender, Keep):
        made.add(node)
    return made


def with_logs(text, logged, folder, number):
    """The config as YAML, with a recorder beside each named node."""
    path = f"{folder}/{number}-NODE-{{session}}.log"
    nodes = "".join(f"  log_{name}: {{type: record, path: '{path.replace('NODE', name)}'}}\n" for name in logged)
    edges = "".join(f"  - {name} -> log_{name}\n" for name in logged)
    return text.replace("nodes:\n", "nodes:\n" + nodes).replace("edges:\n", "edges:\n" + edges)


def text_of(name):
    return config.find(name).read_text()


def opened(source, *overrides, bundle, folder, logged=None, slots=1, number=None):
    """A graph on a shipped config (by name) or on YAML text, writing into `folder`."""
    number = next(_number) if number is None else number
    logged = LOGGED.get(source, ()) if logged is None else logged
    text = source if "\n" in source else text_of(source)
    own = [f"bundle={bundle}", f"nodes.output.path='{folder}/{number}-{{session}}.wav'"]
    text = with_logs(text, logged, folder, number)
    return Graph.parse(text, registry(), overrides=[*own, *overrides], slots=slots), number, logged


async def play(source, *overrides, bundle, folder, logged=None, slots=1, sessions=None, before=None):
    """Run one session, or several (given as a list of keyword arguments of `Session`); a Result, or a list of them."""
    graph, number, logged = opened(source, *overrides, bundle=bundle, folder=folder, logged=logged, slots=slots)
    with graph:
        made = [Session(graph, **settings) for settings in sessions or [{}]]
        if before is not None:
            before(made[0])
        await run(graph, made)
        results = [result(session, folder, number, logged) for session in made]
    return results if sessions else results[0]


def result(session, folder, number, logged):
    name = session.info.id
    tokens = {node: tokens_of(folder / f"{number}-{node}-{name}.log") for node in logged}
    return Result(folder / f"{number}-{name}.wav", tokens, session.report())


def tokens_of(path):
    """`(position, flags, tokens)` of every frame of a log, empty ones left out."""
    return [(f.position, f.flags, f.array.tolist()) for f in read_log(path) if f.payload]


# -- nodes --


class Pieces(Source):
    """The samples of `ctx.extra["sound"]`, cut at `ctx.extra["cuts"]`: frames of any size."""

    type_name = "pieces"
    emits = ("audio",)

    async def frames(self, ctx):
        sound, cuts = ctx.extra["sound"], sorted(ctx.extra.get("cuts", ()))
        starts = [0, *cuts]
        for start, end in zip(starts, [*cuts, len(sound)], strict=True):
            if end > start:
                yield Frame.of("audio", sound[start:end], position=start, session=ctx.id, flags=1)
        yield Frame.end("audio", position=len(sound), session=ctx.id, flags=1)


class FramesSettings(Settings):
    kind: str = "acoustic"


class Frames(Source):
    """The frames of `ctx.extra["frames"]`, as they are."""

    type_name = "frames"
    emits = ("audio", "acoustic", "semantic", "coarse", "fine")
    Config = FramesSettings

    @classmethod
    def facts(cls, config, build):
        base = super().facts(config, build)
        return type(base)(base.inputs, frozenset({config.kind}))

    async def frames(self, ctx):
        for frame in ctx.extra["frames"]:
            yield frame.replace(session=ctx.id)


class SlowSettings(Settings):
    seconds: float = Field(default=0.05, ge=0)


class Slow(Node):
    """A model that takes its time, in the middle of the sound."""

    type_name = "slow"
    accepts = ("audio",)
    emits = ("audio",)
    Config = SlowSettings

    def step(self, frame, state, into):
        time.sleep(self.config.seconds)
        yield frame


class Keep(Sink):
    """Keeps every frame in `ctx.extra["got"]`, with the time it came."""

    type_name = "keep"
    accepts = ("audio", "semantic", "coarse", "fine", "acoustic")
    optional = accepts

    async def write(self, frame, ctx, into):
        ctx.extra["got"].append((time.perf_counter(), frame))


class SlowSink(Keep):
    """The same, late."""

    type_name = "slow_sink"
    Config = SlowSettings

    async def write(self, frame, ctx, into):
        await asyncio.sleep(self.config.seconds)
        await super().write(frame, ctx, into)


class LateSender(Keep):
    """Asks for greedy sampling at `ctx.extra["at"]`, some ticks after that has sounded."""

    type_name = "late_sender"

    async def write(self, frame, ctx, into):
        await super().write(frame, ctx, into)
        if frame.position == ctx.extra["at"] + 8 * TICK:
            ctx.extra["session"].send("set", position=ctx.extra["at"], temperature=0.0)
