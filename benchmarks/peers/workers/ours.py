"""Ours, in the project's own environment, once for each thing that a peer does: `ours.py WHAT [--engine NAME]`.

Steps go through the engine and the runner, as in a graph: noise, masks and numpy at both ends are in the figures.
"""

import argparse
import importlib.metadata
import time
from collections.abc import Callable, Iterable
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch

from audiolm.bundle import load_bundle
from audiolm.codec import CodecConfig, SoundStream
from audiolm.compute.choose import make_compute
from audiolm.engine import Engine
from audiolm.parts import PAPER_SAMPLING, Parts
from audiolm.runner import StageRunner, drive
from audiolm.session import Session
from audiolm.stage import Stage, StageSpec
from audiolm.tiny import tiny_parts
from audiolm.tokenizer import SemanticTokenizer, TokenizerConfig
from benchmarks.common import Work
from benchmarks.peers.talk import Prepared, serve
from benchmarks.peers.workers import yardstick as y

BUNDLE, RATE, TICK = "piano", 16000, 640
BATCH_SECONDS = 10
PROMPT_SECONDS = 3


def make(chosen: argparse.Namespace) -> Prepared:
    """The worker of what was asked for."""
    y.prepare()
    return MAKERS[chosen.what](chosen)


def engine_of(parts: Parts, name: str) -> Engine:
    """An engine by the name that the config's `engine` takes."""
    return Engine(parts, compute=make_compute(name, parts))


def _version() -> str:
    return importlib.metadata.version("audiolm-streamer")


# -- a decode step --


def spec_of(name: str, index: int, rate: int, levels: int, *, tiny: bool, **more: Any) -> StageSpec:
    """A stage of the peers' sizes, whose ring and sinks together hold as many entries as their caches."""
    layers, width, heads, context = (1, 64, 1, 32) if tiny else (y.LAYERS, y.WIDTH, y.HEADS, y.CONTEXT)
    sizes = {"depth_layers": y.DEPTH_LAYERS, "depth_width": y.DEPTH_WIDTH, "depth_heads": y.DEPTH_HEADS}
    return StageSpec(
        name, index, rate, levels, y.VOCABULARY,
        window=context - 4, layers=layers, width=width, heads=heads, sinks=4, **{**sizes, **more},
    )  # fmt: skip


def parts_of(semantic: StageSpec, coarse: StageSpec, fine: StageSpec, *, tiny: bool = False) -> Parts:
    """Random weights: these stages, the default tokenizer, and a codec with as many levels as the stages make."""
    codec_size: dict[str, Any] = {"channels": 2, "residual_units": (1, 1, 1, 1), "latent": 16} if tiny else {}
    ear_size: dict[str, Any] = {"layers": 2, "layer": 1, "width": 32, "heads": 2, "components": 16} if tiny else {}
    levels = coarse.levels + fine.levels
    codec = SoundStream(CodecConfig(levels=levels, coarse_levels=coarse.levels, **codec_size))
    tokenizer = SemanticTokenizer(TokenizerConfig(clusters=semantic.cardinality, **ear_size))
    stages = {spec.name: Stage(spec) for spec in (semantic, coarse, fine)}
    return Parts(codec, tokenizer, stages, dict(PAPER_SAMPLING), "random")


def step(chosen: argparse.Namespace) -> Prepared:
    """One sampled row of one stage, at a full ring: `--levels` codebooks by `--pattern`."""
    levels, tiny = chosen.levels, chosen.tiny
    small: dict[str, Any] = {"layers": 1, "width": 64, "heads": 1}
    spec = spec_of("semantic", 0, 25, levels, tiny=tiny, pattern=chosen.pattern)
    coarse = StageSpec("coarse", 1, 50, 4, 1024, levels, y.VOCABULARY, **small)
    fine = StageSpec("fine", 2, 50, 4, 1024, 4, 1024, **small)
    engine = engine_of(parts_of(spec, coarse, fine, tiny=tiny), chosen.engine)
    works = {"reference": y.plain_step(tiny=tiny), "step": row(engine, spec)}
    about = {"layers": spec.layers, "width": spec.width, "levels": levels, "pattern": spec.pattern}
    return Prepared(_version(), lambda: y.turns(works, tiny=tiny), about)


def row(engine: Engine, spec: StageSpec) -> Work:
    """A row as the graph takes it, far from the start, so that the ring is full."""
    runner, slot = StageRunner(spec, seed=1, start=10_000), engine.open()

    def work() -> None:
        runner.sample_until(runner.row + 1 - spec.span)
        drive(engine, spec.name, [(slot, runner)])

    return work


# -- the codec --


def codec(chosen: argparse.Namespace) -> Prepared:
    """Encoder and decoder of the shipped bundle: tick by tick through the engine, and ten seconds at once."""
    parts = tiny_parts() if chosen.tiny else load_bundle(BUNDLE)
    engine, net = engine_of(parts, chosen.engine), parts.codec
    slot, seconds = engine.open(), 1 if chosen.tiny else BATCH_SECONDS
    sound = torch.randn(1, RATE * seconds) * 0.1
    with torch.inference_mode():
        codes = net.encoder(sound)
    ticks = cycle(sound.view(-1, TICK).numpy())
    frames = cycle(codes.view(-1, parts.frames_per_tick, codes.shape[-1]).numpy())
    count = seconds * RATE // TICK

    def batch(forward: Callable[[], object]) -> Work:
        def work() -> None:
            with torch.inference_mode():
                forward()

        return work

    streams: dict[str, Work] = {
        "encode.stream": lambda: [engine.encode({slot: tick}) for tick in islice(ticks, count)],
        "decode.stream": lambda: [engine.decode({slot: code}) for code in islice(frames, count)],
    }
    batches = {
        "encode.batch": batch(lambda: net.encoder(sound)),
        "decode.batch": batch(lambda: net.decoder.synthesize(net.rvq.decode(codes))),
    }
    works = {"reference": y.plain_step(tiny=chosen.tiny), **streams, **batches}
    about = {"codec": net.config.kind, "levels": net.config.levels, "bundle": parts.name}
    return Prepared(_version(), lambda: y.per_second(y.once(works), seconds), about)


# -- a whole continuation --


def continuation(chosen: argparse.Namespace) -> Prepared:
    """Three stages of the peers' sizes: 3 s heard, `--seconds` generated, eight codebooks at 50 Hz."""
    if chosen.tiny:
        parts = tiny_parts()
    else:
        semantic = spec_of("semantic", 0, 25, 1, tiny=False)
        coarse = spec_of("coarse", 1, 50, 4, tiny=False, cond_levels=1, cond_cardinality=y.VOCABULARY, ahead=2)
        fine = spec_of("fine", 2, 50, 4, tiny=False, cond_levels=4, cond_cardinality=y.VOCABULARY)
        parts = parts_of(semantic, coarse, fine)
    reference, seconds = y.plain_step(tiny=chosen.tiny), 0.2 if chosen.tiny else chosen.seconds
    prompt = (np.random.default_rng(0).standard_normal(RATE * PROMPT_SECONDS) * 0.05).astype(np.float32)
    count = round(seconds * RATE / TICK)
    engine = engine_of(parts, chosen.engine)

    def measure() -> dict[str, float]:
        before = y.turns({"reference": reference}, tiny=chosen.tiny)["reference"]
        with Session(engine) as session:
            times = _go_on(session, prompt.reshape(-1, TICK), count)
        after = y.turns({"reference": reference}, tiny=chosen.tiny)["reference"]
        return {"reference": (before + after) / 2, "per_second": times["generate"] / seconds, **times}

    return Prepared(_version(), measure, {"seconds": seconds, "prompt_seconds": PROMPT_SECONDS})


def _go_on(session: Session, prompt: Iterable[Any], count: int) -> dict[str, float]:
    """CPU seconds: of the prompt, from its end to the first continued sound, and of the whole continuation."""
    begin = time.thread_time()
    for tick in prompt:
        session.listen(tick)
    heard = time.thread_time()
    session.generate()
    first = time.thread_time()
    for _ in range(count - 1):
        session.generate()
    end = time.thread_time()
    return {"listen": heard - begin, "first": first - heard, "generate": end - heard}


MAKERS: dict[str, Callable[[argparse.Namespace], Prepared]] = {
    "step": step,
    "codec": codec,
    "continuation": continuation,
}


def main() -> int:
    """Speak to the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=sorted(MAKERS))
    parser.add_argument("--engine", default="torch", help="as in the config's `engine`")
    parser.add_argument("--levels", type=int, default=1, help="codebooks a step")
    parser.add_argument("--pattern", default="depth", help="how a step's codebooks are made")
    parser.add_argument("--seconds", type=float, default=7.0, help="of continuation")
    return serve(make, parser)


if __name__ == "__main__":
    raise SystemExit(main())
