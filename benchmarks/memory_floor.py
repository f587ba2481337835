"""The floor of a decode step: its bytes over the machine's read bandwidth.

A step of batch 1 reads every weight and every cached key and value once. No program can be faster than that reading,
so the ratio says how much is left to gain without fewer bytes. Bandwidth is measured at the same footprint: a small
model may live in the last cache, a large one in memory.
"""

from collections.abc import Iterator

import torch

from audiolm.stage import Stage
from benchmarks.common import Result, Work, interleave, ratio, run
from benchmarks.decode_step import CONTEXT, SIZES, make_stage, stage_step

LARGE = 256 << 20


def results(tiny: bool = False) -> Iterator[Result]:
    """Read bandwidth of a large buffer, then each size of step beside the reading of as many bytes."""
    bursts, calls = (2, 1) if tiny else (40, 6)
    large = LARGE // 64 if tiny else LARGE
    with torch.inference_mode():
        times = interleave({"read": reading(large)}, bursts=bursts // 2, calls=1)["read"]
    yield Result("memory_floor.bandwidth", large / times.cpu_s / 1e9, "GB/s", n=len(times.cpu), more={"bytes": large})
    for layers, width in ((1, 64),) if tiny else SIZES:
        torch.manual_seed(0)
        stage = make_stage(layers, width, CONTEXT)
        size = bytes_of(stage)
        with torch.inference_mode():
            both = interleave({"read": reading(size), "step": stage_step(stage)}, bursts=bursts, calls=calls)
        read, step = both["read"], both["step"]
        yield Result(
            f"memory_floor.decode_step.{layers}x{width}", 1e3 * step.cpu_s, "ms", 1e3 * read.cpu_s,
            "reading the same bytes", ratio(step.cpu, read.cpu), n=len(step.cpu),
            more={"bytes": size, "GB/s": size / read.cpu_s / 1e9},
        )  # fmt: skip


def reading(size: int) -> Work:
    """Read `size` bytes of float32 once; a matrix times a vector, as the step does it."""
    rows = max(1, size // 4 // 1024)
    matrix, vector = torch.randn(rows, 1024), torch.randn(1024)
    return lambda: torch.mv(matrix, vector)


def bytes_of(stage: Stage) -> int:
    """What one step reads: weights (of the embedding one row only) and the ring."""
    weights = sum(p.numel() for name, p in stage.named_parameters() if not name.startswith("tokens."))
    ring = sum(value.numel() for key, value in stage.init_state(1).items() if key.startswith(("k.", "v.")))
    return 4 * (weights + ring)


def main() -> int:
    """Print the figures."""
    return run(results)


if __name__ == "__main__":
    raise SystemExit(main())
