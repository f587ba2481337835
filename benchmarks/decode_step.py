"""Our decode step beside a plain static-cache loop of the same shape and type: what ring, sinks and sampling cost.

Three of ours: the temporal Transformer alone, a stage's whole sampled row (embedding, Transformer, head, sampling), and
the same row as a graph takes it (runner, noise, engine, numpy at both ends). The peer is `plain.PlainDecoder`: token
in, logits out, drawn by `torch.multinomial`. Both are timed with full caches.
"""

from collections.abc import Iterator
from itertools import count

import numpy as np
import torch

from audiolm.engine import Engine
from audiolm.parts import for_inference
from audiolm.runner import StageRunner, drive
from audiolm.sampler import Sampling, SamplingTensors
from audiolm.stage import Stage, StageSpec
from benchmarks.common import Result, Times, Work, interleave, ratio, run
from benchmarks.models import random_parts
from benchmarks.plain import PlainDecoder

SIZES = ((4, 256), (6, 384), (8, 512))
CONTEXT = 512
VOCABULARY = 1024
TEMPERATURE = 0.8
GOAL = 1.15


def results(tiny: bool = False) -> Iterator[Result]:
    """Three figures a size."""
    for layers, width in ((1, 64),) if tiny else SIZES:
        torch.manual_seed(0)
        context, bursts, calls = (32, 2, 2) if tiny else (CONTEXT, 60, 10)
        stage = make_stage(layers, width, context)
        for name, make in {"temporal": temporal_step, "stage": stage_step, "row": row_step}.items():
            with torch.inference_mode():
                works = {"plain": plain_step(layers, width, context), name: make(stage)}
                times = interleave(works, bursts=bursts, calls=calls)
            yield compare(times["plain"], times[name], f"decode_step.{name}.{layers}x{width}")


def compare(plain: Times, ours: Times, name: str) -> Result:
    """CPU milliseconds of ours, and the ratio to the peer."""
    return Result(
        name, 1e3 * ours.cpu_s, "ms", 1e3 * plain.cpu_s, "plain static-cache loop",
        ratio(ours.cpu, plain.cpu), GOAL, len(ours.cpu),
        {"wall_ms": 1e3 * ours.wall_s, "peer_wall_ms": 1e3 * plain.wall_s},
    )  # fmt: skip


def make_stage(layers: int, width: int, context: int) -> Stage:
    """A semantic stage whose ring has `context` entries."""
    heads, sinks = width // 64, 4
    spec = StageSpec(
        "semantic", 0, 25, 1, VOCABULARY, window=context - sinks, layers=layers, width=width, heads=heads, sinks=sinks
    )
    stage = Stage(spec)
    for_inference(stage)
    return stage


def plain_step(layers: int, width: int, context: int) -> Work:
    """The peer at the last position of its cache."""
    model = PlainDecoder(layers, width, context, VOCABULARY).eval().requires_grad_(requires_grad=False)
    token, at = torch.tensor([[3]]), torch.tensor([context - 1])
    return lambda: torch.multinomial(torch.softmax(model(token, at)[0] / TEMPERATURE, -1), 1)


def temporal_step(stage: Stage) -> Work:
    """The temporal Transformer alone."""
    temporal, spec = stage.temporal, stage.spec
    state, x, position = temporal.init_state(1), torch.randn(1, spec.width), count(10_000)
    return lambda: temporal.step(x, state, np.array([next(position)]))


def stage_step(stage: Stage) -> Work:
    """A sampled row."""
    settings, state, position = SamplingTensors([Sampling(TEMPERATURE)]), stage.init_state(1), count(10_000)
    forced, free, u = torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1, dtype=torch.bool), torch.full((1, 1), 0.5)
    return lambda: stage.step(
        None, forced, free, u, settings=settings, state=state, positions=np.array([next(position)])
    )


def row_step(stage: Stage) -> Work:
    """A row as the graph takes it."""
    engine, runner = Engine(random_parts(stage)), StageRunner(stage.spec, seed=1, start=10_000)
    slot = engine.open()

    def step() -> None:
        runner.sample_until(runner.row + 1)
        drive(engine, stage.spec.name, [(slot, runner)])

    return step


def main() -> int:
    """Print the figures."""
    return run(results)


if __name__ == "__main__":
    raise SystemExit(main())
