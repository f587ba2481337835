"""All levels of a frame in one go: a depth Transformer's weights laid out for it, and the arithmetic in torch.

A frame of 12 levels is some 400 small operations, and launching them costs a GPU far more than doing them. The Triton
kernel (:mod:`audiolm.compute.kernels.depth`) takes one launch: for a block of slots it keeps the frame's state in
registers while the weights stream by. :meth:`PackedDepth.emit` is the same arithmetic, operation by operation: the sum
over blocks is kept in float32, products take the weights' type.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm.depth import DepthBlock, DepthTransformer
from audiolm.sampler import SamplingTensors, sample


@dataclass(frozen=True)
class Frame:
    """What is to be emitted in ``B`` slots.

    Attributes:
        base: ``[B, width]``, the temporal state through the depth Transformer's ``inputs``.
        forced, is_forced, u: ``[B, levels]`` int64, bool and float32.
        settings: how the slots sample, without truncation.
    """

    base: Tensor
    forced: Tensor
    is_forced: Tensor
    u: Tensor
    settings: SamplingTensors


class PackedDepth:
    """The weights of a depth Transformer, stacked by layer and by level; matrices are ``[in, out]``."""

    def __init__(self, depth: DepthTransformer, dtype: torch.dtype) -> None:
        blocks = [block for block in depth.blocks if isinstance(block, DepthBlock)]
        self.dtype, self.layers, self.levels, self.width = dtype, len(blocks), depth.levels, depth.width
        self.heads = blocks[0].heads

        def matrices(layers: list[nn.Module]) -> Tensor:
            return torch.stack([layer.weight.detach().t() for layer in layers]).to(dtype).contiguous()  # type: ignore[operator]

        self.qkv, self.out = matrices([b.qkv for b in blocks]), matrices([b.out for b in blocks])
        self.up, self.down = matrices([b.up for b in blocks]), matrices([b.down for b in blocks])
        norms = [norm for block in blocks for norm in (block.norm1, block.norm2)] + [depth.norm]
        self.norms = torch.stack([torch.stack((norm.weight, norm.bias)) for norm in norms]).detach().float()
        self.logits = matrices(list(depth.heads))
        self.cardinality = self.logits.shape[2]
        tables = [table.weight.detach() for table in depth.tokens]  # type: ignore[operator]
        self.tables = torch.stack(tables).to(dtype)
        self.place = depth.place.detach().float()

    def emit(self, frame: Frame) -> Tensor:
        """The tokens ``[B, levels]`` int64 of a frame."""
        batch, lanes = len(frame.base), (self.heads, self.width // self.heads)
        caches = frame.base.new_empty((self.layers, 2, batch, self.levels, *lanes), dtype=self.dtype)
        chosen: list[Tensor] = []
        for level in range(self.levels):
            x = frame.base.float() + self.place[level]
            if level:
                x = x + self.tables[level - 1][chosen[-1]].float()
            for layer in range(self.layers):
                x = x + self._attend(self._norm(x, 2 * layer), caches[layer], layer, level)
                up = F.gelu(self._times(self._norm(x, 2 * layer + 1), self.up[layer]), approximate="tanh")
                x = x + self._times(up.to(self.dtype), self.down[layer])
            logits = self._times(self._norm(x, -1), self.logits[level])
            drawn = sample(logits, frame.u[:, level], frame.settings)
            chosen.append(torch.where(frame.is_forced[:, level], frame.forced[:, level], drawn))
        return torch.stack(chosen, 1)

    def _norm(self, x: Tensor, which: int) -> Tensor:
        weight, bias = self.norms[which]
        return F.layer_norm(x, (self.width,), weight, bias).to(self.dtype)

    def _times(self, x: Tensor, weight: Tensor) -> Tensor:
        """Products in the weights' type, summed in float32."""
        return x.float() @ weight.float()

    def _attend(self, x: Tensor, cache: Tensor, layer: int, level: int) -> Tensor:
        """``[B, width]``; ``cache`` ``[2, B, levels, heads, head_width]`` is written at ``level`` and read up to it."""
        q, k, v = self._times(x, self.qkv[layer]).view(len(x), 3, *cache.shape[-2:]).unbind(1)
        cache[0, :, level], cache[1, :, level] = k.to(self.dtype), v.to(self.dtype)
        keys, values = cache[:, :, : level + 1].float().transpose(2, 3).unbind(0)
        seen = F.scaled_dot_product_attention(q[:, :, None], keys, values)
        return self._times(seen.reshape(x.shape).to(self.dtype), self.out[layer])
