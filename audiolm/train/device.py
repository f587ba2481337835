"""Where a run computes: its device, its precision, and the processes that share its batches.

Processes are those that ``torchrun`` or ``accelerate launch`` started; accelerate finds them and joins them. All of
them draw the same global batch and each takes its slice, so that several processes compute what one would. A process
on its own needs no accelerate.
"""

import atexit
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module

import torch
import torch.distributed as dist
from torch import Tensor

from audiolm.errors import ConfigError, InputError

DEVICES = ("cpu", "cuda")
PRECISIONS = ("no", "bf16")


class Compute:
    """A device, a precision and a place among ``processes``.

    Attributes:
        device: of this process.
        index: number of this process; 0 is the main one, which alone writes files and logs.
        processes: how many work together; their batches are slices of one.

    Args:
        device: cpu or cuda.
        precision: ``no`` is float32. ``bf16`` rounds the factors of matrix products to bfloat16 and keeps weights and
            sums in float32: by autocast on a GPU, by :func:`torch.set_float32_matmul_precision` on a CPU, where it is
            twice as fast if the processor knows bfloat16 and changes nothing otherwise.

    Raises:
        InputError: an unknown device or precision, or no such device here.
        ConfigError: several processes, but accelerate is not installed.
    """

    def __init__(self, device: str = "cpu", precision: str = "no") -> None:
        if device not in DEVICES:
            raise InputError(f"device is {device!r}; expected cpu or cuda", device=device)
        if precision not in PRECISIONS:
            raise InputError(f"precision is {precision!r}; expected no or bf16", precision=precision)
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError("there is no CUDA device here; use --device cpu", device=device)
        self.precision = precision
        self.device, self.index, self.processes = torch.device(device), 0, 1
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            self.device, self.index, self.processes = _join(device)

    @property
    def main(self) -> bool:
        """Whether this process writes the files and the log."""
        return self.index == 0

    @contextmanager
    def matmuls(self) -> Iterator[None]:
        """Products of float32 matrices in the run's precision inside; as they were outside."""
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("medium" if self.precision == "bf16" else before)
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)

    def autocast(self) -> AbstractContextManager[object]:
        """For the forward pass and the loss: bfloat16 on a GPU where the precision says so."""
        if self.precision == "bf16" and self.device.type == "cuda":
            return torch.autocast("cuda", torch.bfloat16)
        return nullcontext()

    # -- several processes --

    def share(self, batch: Tensor) -> Tensor:
        """This process's slice of a global batch ``[B, ...]``, on its device: ``[B / processes, ...]``.

        Raises:
            InputError: the batch cannot be divided.
        """
        if len(batch) % self.processes:
            raise InputError(
                f"a batch of {len(batch)} cannot be shared by {self.processes} processes; "
                f"use a multiple of {self.processes}, such as {-(-len(batch) // self.processes) * self.processes}"
            )
        size = len(batch) // self.processes
        return batch[self.index * size : (self.index + 1) * size].to(self.device)

    def sum_over_processes(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all processes, without a gradient."""
        return self._reduced(tensor, dist.ReduceOp.SUM)

    def largest(self, tensor: Tensor) -> Tensor:
        """The largest value over all processes, element by element."""
        return self._reduced(tensor, dist.ReduceOp.MAX)

    def _reduced(self, tensor: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
        tensor = tensor.detach()
        if self.processes > 1:
            tensor = tensor.to(self.device, copy=True).contiguous()
            dist.all_reduce(tensor, how)
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensors ``[n, ...]`` of all processes end to end, ``[n * processes, ...]``, without a gradient."""
        tensor = tensor.detach().contiguous()
        if self.processes == 1:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.processes)]
        dist.all_gather(parts, tensor)
        return torch.cat(parts)

    def same(self, tensor: Tensor) -> Tensor:
        """Give ``tensor`` the main process's value, in place, and return it."""
        if self.processes > 1:
            data = tensor.detach().to(self.device).contiguous()
            dist.broadcast(data, 0)
            with torch.no_grad():
                tensor.copy_(data)
        return tensor

    def share_of(self, total: Tensor, count: Tensor | float) -> Tensor:
        """``total / count`` of this process's slice, scaled so that the processes' average is the global mean.

        That is ``total * processes / (sum of the counts)``: gradients, which are averaged, are then those of one
        process on the whole batch. A count of zero everywhere gives zero.
        """
        counts = torch.as_tensor(count, dtype=torch.float32, device=total.device)
        return total * self.processes / self.sum_over_processes(counts).clamp_min(1e-12)

    def mean(self, values: Tensor, weights: Tensor) -> Tensor:
        """Like :meth:`share_of`, for ``values`` weighted by ``weights`` (a bool mask, or numbers) of the same shape."""
        weights = weights.to(values.dtype)
        return self.share_of((values * weights).sum(), weights.detach().sum())

    def averages(self, values: Mapping[str, float]) -> dict[str, float]:
        """The mean of each value over all processes; NaN in one is NaN in all, so that all end together."""
        if self.processes == 1:
            return dict(values)
        sums = self.sum_over_processes(torch.tensor(list(values.values()), dtype=torch.float64, device=self.device))
        return dict(zip(values, (sums / self.processes).tolist(), strict=True))

    def average_gradients(self, weights: Sequence[Tensor]) -> None:
        """Replace every gradient by its mean over the processes, in one exchange.

        The arithmetic of DistributedDataParallel without its wrapper, so that any part of a model may be called. A
        weight that has a gradient nowhere keeps none.
        """
        if self.processes == 1 or not weights:
            return
        used = torch.tensor([float(w.grad is not None) for w in weights], device=self.device)
        grads = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
        flat = self.sum_over_processes(torch.cat([used, *(grad.reshape(-1).float() for grad in grads)]))
        anywhere, flat = flat[: len(weights)].tolist(), flat[len(weights) :] / self.processes
        pieces = torch.split(flat, [w.numel() for w in weights])
        for weight, piece, some in zip(weights, pieces, anywhere, strict=True):
            weight.grad = piece.view_as(weight).to(weight.dtype) if some else None

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.processes > 1:
            dist.barrier()


def _join(device: str) -> tuple[torch.device, int, int]:
    """Join the processes that a launcher started: device, number and count."""
    try:
        accelerate = import_module("accelerate")
    except ImportError as error:
        raise ConfigError(
            "several processes need accelerate, which is not installed: pip install 'audiolm-streamer[train]'; "
            "or start one process, without torchrun"
        ) from error
    state = accelerate.PartialState(cpu=device == "cpu")
    atexit.register(state.destroy_process_group)  # else its threads may outlive the interpreter and abort the process
    return state.device, state.process_index, state.num_processes
