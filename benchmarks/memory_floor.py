"""The floor of a decode step: its bytes over the machine's read bandwidth, for each engine.

A step of batch 1 reads every weight and every cached key and value once. No program can be faster than that reading,
so the ratio says how much is left to gain without fewer bytes. Bandwidth is measured at the same footprint: a small
model may live in the last cache, a large one in memory.
"""

from collections.abc import Iterator
from itertools import count

import numpy as np
import torch

from audiolm.compute.choose import make_compute
from audiolm.compute.onnx.graph import BLOCK
from audiolm.rows import RowBatch
from audiolm.runner import Row
from audiolm.sampler import Sampling
from audiolm.stage import Stage
from benchmarks.common import Result, Work, interleave, ratio, run
from benchmarks.decode_step import CONTEXT, SIZES, TEMPERATURE, make_stage
from benchmarks.models import random_parts

LARGE = 256 << 20
LARGEST = (12, 768)
# Bytes a weight. The int8 of ONNX Runtime has a float32 scale for every block, torch's one for a whole channel.
ENGINES = {"torch": 4.0, "onnx": 4.0, "torch-int8": 1.0, "onnx-int8": 1 + 4 / BLOCK}
GOAL = 1.3


def results(tiny: bool = False) -> Iterator[Result]:
    """Read bandwidth of a large buffer, then each size and engine beside the reading of as many bytes."""
    bursts, calls = (2, 1) if tiny else (24, 4)
    large = LARGE // 64 if tiny else LARGE
    with torch.inference_mode():
        times = interleave({"read": reading(large)}, bursts=bursts, calls=1)["read"]
    yield Result("memory_floor.bandwidth", large / times.cpu_s / 1e9, "GB/s", n=len(times.cpu), more={"bytes": large})
    sizes = ((1, 64),) if tiny else (*SIZES, LARGEST)
    for layers, width in sizes:
        torch.manual_seed(0)
        stage = make_stage(layers, width, CONTEXT)
        for engine, weight in ENGINES.items():
            size = bytes_of(stage, weight)
            with torch.inference_mode():
                works = {"read": reading(size), "step": row_of(stage, engine)}
                both = interleave(works, bursts=bursts, calls=calls)
            read, step = both["read"], both["step"]
            yield Result(
                f"memory_floor.{engine}.{layers}x{width}", 1e3 * step.cpu_s, "ms", 1e3 * read.cpu_s,
                "reading the same bytes", ratio(step.cpu, read.cpu), GOAL if (layers, width) in sizes[-2:] else None,
                len(step.cpu), {"bytes": size, "GB/s": size / read.cpu_s / 1e9},
            )  # fmt: skip


def reading(size: int) -> Work:
    """Read `size` bytes of float32 once; a matrix times a vector, as the step does it."""
    rows = max(1, size // 4 // 1024)
    matrix, vector = torch.randn(rows, 1024), torch.randn(1024)
    return lambda: torch.mv(matrix, vector)


def row_of(stage: Stage, engine: str) -> Work:
    """A sampled row of a stage under an engine, with a full cache."""
    name = stage.spec.name
    compute = make_compute(engine, random_parts(stage))
    state, settings = compute.init_state(name, 1), compute.settings([Sampling(TEMPERATURE)])
    compute.bind(name, state)
    position, free = count(10_000), np.zeros(1, np.bool_)
    u, forced = np.full(1, 0.5, np.float32), np.zeros(1, np.int64)

    def step() -> None:
        batch = RowBatch(stage.spec, 1, {0: Row(next(position), None, forced, free, u)})
        compute.row(name, batch, state, settings, None)

    return step


def bytes_of(stage: Stage, weight: float) -> int:
    """What one step reads: weights of `weight` bytes each (of the embedding one row only) and the ring in float32."""
    weights = sum(p.numel() for name, p in stage.named_parameters() if not name.startswith("tokens."))
    ring = sum(value.numel() for key, value in stage.init_state(1).items() if key.startswith(("k.", "v.")))
    return int(weight * weights + 4 * ring)


def main() -> int:
    """Print the figures."""
    return run(results)


if __name__ == "__main__":
    raise SystemExit(main())
