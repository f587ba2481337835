"""Torch with the stages' matrices in int8: for machines without ONNX Runtime.

Weights have one scale an output channel, activations one a row: a batch is multiplied row by row, since torch's dynamic
kernel would share one scale among all rows and so let neighbours in. Codec and tokenizer stay as in the reference.
"""

import warnings
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn

from audiolm.compute.eager import TorchCompute
from audiolm.parts import Parts
from audiolm.streaming import State


class Int8Linear(nn.Module):
    """A linear layer ``[..., in] -> [..., out]`` with an int8 matrix and int8 activations."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight = layer.weight.detach().float().contiguous()
        scale = (weight.abs().amax(1) / 127).clamp_min(1e-12)
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        with warnings.catch_warnings():
            # Torch means to replace its quantized tensors and has no other int8 kernel that is fast at batch 1 yet.
            warnings.simplefilter("ignore", UserWarning)
            codes = torch.quantize_per_channel(weight, scale.double(), zeros, 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(codes, layer.bias)
        self.outputs = layer.out_features

    def forward(self, x: Tensor) -> Tensor:
        """Each row by itself."""
        rows = x.reshape(-1, x.shape[-1])
        if len(rows) == 1:
            return torch.ops.quantized.linear_dynamic(rows, self.packed).view(*x.shape[:-1], self.outputs)  # type: ignore[no-any-return]
        done = [torch.ops.quantized.linear_dynamic(row[None], self.packed) for row in rows]
        return torch.cat(done).view(*x.shape[:-1], self.outputs)


class Int8Compute(TorchCompute):
    """See the module's text."""

    name = "torch-int8"

    def __init__(self, parts: Parts) -> None:
        stages = {name: deepcopy(stage) for name, stage in parts.stages.items()}
        for stage in stages.values():
            quantize(stage)
        super().__init__(replace(parts, stages=stages))
        self._exact = TorchCompute(parts)

    def init_state(self, part: str, slots: int, guided: bool = False) -> State:
        """As the reference's: states have nothing to do with how matrices are kept."""
        return self._exact.init_state(part, slots, guided)


def quantize(module: nn.Module) -> None:
    """Put an :class:`Int8Linear` in the place of every linear layer below ``module``."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, Int8Linear(child))
        else:
            quantize(child)
