"""The depth Transformer: what one level of a frame costs, in blocks, head and sampling.

Sizes of the default bundle: coarse emits 4 levels of width 192, fine 8 of width 128.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from audiolm.depth import DepthTransformer
from audiolm.parts import for_inference
from audiolm.sampler import Sampling, SamplingTensors, sample
from benchmarks.common import Result, Times, Work, interleave, run

CONTEXT, CODES = 256, 1024
STAGES = {"coarse": (4, 192, 3), "fine": (8, 128, 2)}


def results(tiny: bool = False) -> Iterator[Result]:
    """Microseconds a level of each stage."""
    for name, (levels, width, heads) in STAGES.items():
        torch.manual_seed(0)
        codes = 32 if tiny else CODES
        depth = DepthTransformer(CONTEXT, levels, codes, layers=2, width=width, heads=heads)
        for_inference(depth)
        with torch.inference_mode():
            times = interleave(make_works(depth, codes), bursts=2 if tiny else 60, calls=2 if tiny else 10)
        yield split(name, levels, times)


def split(name: str, levels: int, times: dict[str, Times]) -> Result:
    """A frame's time and its parts, each divided by the levels."""
    us = {part: 1e6 * taken.cpu_s / levels for part, taken in times.items()}
    more = {
        "frame_ms": 1e-3 * us["frame"] * levels, "head_us": us["heads"], "sampling_us": us["sampling"],
        "blocks_us": us["forced"] - us["heads"], "wall_us": 1e6 * times["frame"].wall_s / levels, "levels": levels,
    }  # fmt: skip
    return Result(f"depth_step.{name}", us["frame"], "us/level", n=len(times["frame"].cpu), more=more)


def make_works(depth: DepthTransformer, codes: int) -> dict[str, Work]:
    """A frame as it is emitted, the same without sampling, and heads and sampling alone."""
    settings, u = SamplingTensors([Sampling(0.8)]), torch.full((1,), 0.5)
    h, x, logits = torch.randn(1, CONTEXT), torch.randn(1, depth.width), torch.randn(1, codes)
    token = torch.tensor([3])
    levels = range(depth.levels)

    def drawn(scores: Tensor, _: int) -> Tensor:
        return sample(scores, u, settings)

    def fixed(_: Tensor, __: int) -> Tensor:
        return token

    def frame(pick: Callable[[Tensor, int], Tensor]) -> Work:
        return lambda: depth.emit(h, pick)

    return {
        "frame": frame(drawn),
        "forced": frame(fixed),
        "heads": lambda: [depth.heads[q](depth.norm(x)) for q in levels],
        "sampling": lambda: [sample(logits, u, settings) for _ in levels],
    }


def main() -> int:
    """Print the figures."""
    return run(results)


if __name__ == "__main__":
    raise SystemExit(main())
