"""Work that is captured once as a CUDA graph and replayed, and memory that carries numbers to a device and back.

At the sizes of live models launching kernels costs more than running them; a graph launches a whole step at once. On a
CPU the same objects call through, so everything but the capture itself is tested without a GPU. Nothing here knows of
models.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

WARM_UP = 3  # calls before the capture, in which libraries choose kernels, make plans and take memory


class Captured:
    """A call without arguments, from static tensors to static tensors.

    Args:
        call: the work. It runs a few times before it is captured, so as its inputs stand then it must do no harm:
            execution masks are off.
        device: where it runs; only on a GPU is there anything to capture.
        graph: whether to capture.
        pool: memory shared with other graphs that never run at the same time.
    """

    def __init__(self, call: Callable[[], None], device: torch.device, *, graph: bool = True, pool: Any = None) -> None:
        self.call, self.device = call, device
        self.graph = self._capture(device, pool) if graph and device.type == "cuda" else None

    def _capture(self, device: torch.device, pool: Any) -> torch.cuda.CUDAGraph:
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(device))
        with exact_convolutions(device):
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    self.call()
            torch.cuda.synchronize(device)
            graph = torch.cuda.CUDAGraph()
            # Other threads may go on allocating: only this thread's mistakes break the capture.
            with torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"):
                self.call()
        return graph

    def __call__(self) -> None:
        """Do the work, on the current stream."""
        if self.graph is not None:
            self.graph.replay()
            return
        with exact_convolutions(self.device):
            self.call()


def exact_convolutions(device: torch.device) -> AbstractContextManager[None]:
    """Convolutions in full float32: torch's default rounds their inputs to 10 bits on a GPU, and codes flip."""
    if device.type != "cuda":
        return nullcontext()
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    return flags


class Inlet:
    """A tensor on the device that the host fills without waiting.

    Through pinned memory, where whoever fills it twice has waited for the device in between; else (not ``pinned``, for
    small things) through the driver's own copy.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, *, pinned: bool = True
    ) -> None:
        self.there = torch.zeros(shape, dtype=dtype, device=device)
        on_gpu = device.type == "cuda"
        self._here = torch.zeros(shape, dtype=dtype, pin_memory=pinned) if on_gpu else self.there

    def send(self, value: np.ndarray[Any, Any]) -> None:
        """Fill it."""
        self._here.numpy()[...] = value
        if self._here is not self.there:
            self.there.copy_(self._here, non_blocking=True)


class Outlet:
    """A tensor on the device that the host reads: one copy, and the only wait of a step."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        self.there = torch.zeros(shape, dtype=dtype, device=device)
        self._here = torch.zeros(shape, dtype=dtype, pin_memory=True) if device.type == "cuda" else self.there

    def read(self) -> np.ndarray[Any, Any]:
        """What is there; a copy."""
        if self._here is not self.there:
            self._here.copy_(self.there, non_blocking=True)
            torch.cuda.current_stream(self.there.device).synchronize()
        return np.array(self._here.numpy())


def full_state(one: dict[str, Tensor], slots: int) -> dict[str, Tensor]:
    """The states of ``slots`` fresh streams from that of one; nothing else is allocated."""
    return {
        key: torch.empty((slots, *value.shape[1:]), dtype=value.dtype, device=value.device).copy_(value)
        for key, value in one.items()
    }
