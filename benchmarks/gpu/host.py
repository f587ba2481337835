"""What of a GPU's tick can be told without one: the host's bookkeeping, and how many operations a tick launches.

`python -m benchmarks.gpu.host [--tiny]`. Bookkeeping is CPU time of a tick whose work on the device is left out;
launches are operations of torch that compute or copy, counted on the `meta` device, with a kernel as one.
"""

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from audiolm.compute.depth_kernel import Frame, PackedDepth
from audiolm.compute.fused import Kernels
from audiolm.compute.placed import Placed, Types
from audiolm.compute.ring import At
from audiolm.compute.tick import TickProgram
from audiolm.lockstep import Lockstep
from audiolm.tiny import tiny_parts
from benchmarks.common import Result, run
from benchmarks.gpu.curve import Crowd
from benchmarks.gpu.sizes import make_parts

FREE = frozenset(
    [
        "view",
        "_unsafe_view",
        "slice",
        "select",
        "unsqueeze",
        "squeeze",
        "t",
        "numpy_T",
        "transpose",
        "expand",
        "expand_as",
        "view_as",
        "unbind",
        "split",
        "split_with_sizes",
        "as_strided",
        "permute",
        "detach",
        "alias",
        "reshape",
        "flatten",
        "unfold",
        "empty",
        "new_empty",
        "empty_like",
        "repeat_interleave",
        "lift_fresh",
    ]
)
META = torch.device("meta")


class Launches(TorchDispatchMode):
    """Counts the operations that launch something."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count and go on."""
        name = func.overloadpacket.__name__
        if name not in FREE:
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


def results(tiny: bool = False) -> Iterator[Result]:
    """Bookkeeping by sessions, then launches of each piece with and without kernels."""
    for slots in (4,) if tiny else (1, 256, 1024, 2048):
        taken, ticks = bookkeeping(slots, 5 if tiny else 200)
        yield Result(f"gpu.host.{slots}", 1e3 * taken, "ms", n=ticks, more={"way": "turns"})
    for label, kernels in (("torch", Kernels()), ("kernels", Kernels(_attend, _emit, _uniforms))):
        for piece, count in launches("tiny" if tiny else "default", kernels).items():
            yield Result(f"gpu.launches.{label}.{piece}", count, "")


def bookkeeping(slots: int, ticks: int) -> tuple[float, int]:
    """CPU seconds of a tick of sessions that take turns; nothing is computed for them."""
    engine = Lockstep(tiny_parts(), slots, burst=min(16, slots))
    crowd, program = Crowd(engine, "turns"), engine.program
    for piece in ("hear", "take_heard", "catch_up", "go_on", "speak"):
        setattr(program, piece, lambda: None)
    crowd.tick()
    begun = time.thread_time()
    for _ in range(ticks):
        crowd.tick()
    return (time.thread_time() - begun) / ticks, ticks


@torch.inference_mode()
def launches(size: str, kernels: Kernels) -> dict[str, int]:
    """Operations that each piece of a tick launches."""
    placed = Placed(make_parts(size, torch.device("cpu")), META, Types(torch.bfloat16, torch.bfloat16), kernels)
    program = TickProgram(placed, 4, burst=2, truncates=False, graphs=False)
    found = {}
    for name in ("hear", "go_on", "catch_up"):
        with Launches() as counted:
            getattr(program, name)()
        found[name] = counted.seen.total()
    return found


def _attend(qkv: Tensor, keys: Tensor, values: Tensor, at: At) -> Tensor:
    """One launch, as the kernel."""
    del keys, values, at
    return torch.zeros_like(qkv[:, 0])


def _emit(packed: PackedDepth, frame: Frame) -> Tensor:
    return torch.zeros((len(frame.base), packed.levels), dtype=torch.int64, device=frame.base.device)


def _uniforms(seeds: Tensor, positions: Tensor, keys: Tensor, counters: Tensor, draw: Tensor) -> Tensor:
    del positions, counters, draw
    return torch.zeros((len(seeds), len(keys), 4), device=seeds.device)


def main() -> int:
    """Print the figures."""
    return run(results)


if __name__ == "__main__":
    raise SystemExit(main())
