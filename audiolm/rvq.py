"""Residual vector quantization (SoundStream, arXiv 2107.03312, section III-C); the codebooks are fixed here.

Every level quantizes what the levels before it left over, so that any first ``n`` levels are a coarser code of the
same sound.
"""

import torch
from torch import Tensor, nn


class ResidualVQ(nn.Module):
    """``levels`` codebooks of ``cardinality`` vectors of width ``dim``."""

    codebooks: Tensor

    def __init__(self, levels: int = 12, cardinality: int = 1024, dim: int = 128) -> None:
        super().__init__()
        self.levels, self.cardinality, self.dim = levels, cardinality, dim
        self.register_buffer("codebooks", torch.randn(levels, cardinality, dim) / dim**0.5)

    def nearest(self, residual: Tensor, level: int) -> Tensor:
        """Indices ``[N]`` of the codes nearest to ``residual`` ``[N, dim]`` (squared Euclidean distance)."""
        book = self.codebooks[level]
        return (book.square().sum(-1) - 2 * residual @ book.T).argmin(-1)

    def encode(self, z: Tensor) -> Tensor:
        """``[..., dim] -> [..., levels]`` int64 codes."""
        residual = z.reshape(-1, self.dim)
        codes = []
        for level in range(self.levels):
            codes.append(self.nearest(residual, level))
            residual = residual - self.codebooks[level][codes[-1]]
        return torch.stack(codes, -1).view(*z.shape[:-1], self.levels)

    def decode(self, codes: Tensor) -> Tensor:
        """``[..., n] -> [..., dim]`` for any ``1 <= n <= levels``: the sum of the first ``n`` levels' vectors."""
        z = self.codebooks[0][codes[..., 0]]
        for level in range(1, codes.shape[-1]):
            z = z + self.codebooks[level][codes[..., level]]
        return z
