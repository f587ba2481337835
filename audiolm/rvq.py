"""Residual vector quantization (SoundStream, arXiv 2107.03312, section III-C), in inference and in training.

Every level quantizes what the levels before it left over, so that any first ``n`` levels are a coarser code of the
same sound.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm.errors import ConfigError


class ResidualVQ(nn.Module):
    """``levels`` codebooks of ``cardinality`` vectors of width ``dim``."""

    codebooks: Tensor
    use: Tensor
    total: Tensor

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


class TrainableRVQ(ResidualVQ):
    """The same codebooks, learned by an exponential moving average with restarts of dead codes.

    Formulas: van den Oord et al. (arXiv 1711.00937, appendix A.1); the restart rule is SoundStream's. ``use`` and
    ``total`` are the averages' numerators and denominators.
    """

    def __init__(
        self, levels: int = 12, cardinality: int = 1024, dim: int = 128, *, decay: float = 0.995, dead: float = 0.05
    ) -> None:
        super().__init__(levels, cardinality, dim)
        self.decay, self.dead = decay, dead
        self.register_buffer("use", torch.ones(levels, cardinality))
        self.register_buffer("total", self.codebooks.clone())

    def forward(self, z: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Quantize ``z`` ``[B, T, dim]`` with the gradient passed straight through, once for the whole stack.

        Args:
            z: the latent.
            keep: int ``[B]``, how many levels each item uses (quantizer dropout); all when None.

        Returns:
            The quantized latent ``[B, T, dim]``, the codes ``[B, T, levels]`` and the commitment loss.
        """
        residual, total, codes = z.detach(), torch.zeros_like(z), []
        for level in range(self.levels):
            index = self.nearest(residual.reshape(-1, self.dim), level).view(z.shape[:-1])
            vectors = self.codebooks[level][index]
            if self.training:
                self._learn(level, residual.reshape(-1, self.dim), index.reshape(-1))
            on = 1.0 if keep is None else (keep > level).to(z.dtype)[:, None, None]
            total = total + vectors * on
            residual = residual - vectors
            codes.append(index)
        commitment = F.mse_loss(z, total)
        return z + (total - z).detach(), torch.stack(codes, -1), commitment

    @torch.no_grad()
    def _learn(self, level: int, residual: Tensor, index: Tensor) -> None:
        counts = torch.bincount(index, minlength=self.cardinality).to(residual.dtype)
        sums = torch.zeros_like(self.total[level]).index_add_(0, index, residual)
        self.use[level].lerp_(counts, 1 - self.decay)
        self.total[level].lerp_(sums, 1 - self.decay)
        dead = self.use[level] < self.dead * len(index) / self.cardinality
        if dead.any():
            fresh = residual[torch.randint(len(residual), (int(dead.sum()),), device=residual.device)]
            mean = self.use[level].mean()
            self.use[level][dead] = mean
            self.total[level][dead] = fresh * mean
        self.codebooks[level] = self.total[level] / self.use[level].clamp_min(1e-6)[:, None]

    @torch.no_grad()
    def seed(self, z: Tensor, rounds: int = 8) -> None:
        """Initialize every level by k-means on the residuals of ``z`` ``[N, dim]``.

        Raises:
            ConfigError: there are fewer vectors than codes.
        """
        if len(z) < self.cardinality:
            raise ConfigError(f"{self.cardinality} codes cannot start from {len(z)} vectors; give at least as many")
        residual = z
        for level in range(self.levels):
            pick = torch.randperm(len(residual), device=z.device)[: self.cardinality]
            self.codebooks[level] = residual[pick]
            for _ in range(rounds):
                index = self.nearest(residual, level)
                counts = torch.bincount(index, minlength=self.cardinality).to(z.dtype)
                sums = torch.zeros_like(self.codebooks[level]).index_add_(0, index, residual)
                filled = counts > 0
                self.codebooks[level][filled] = sums[filled] / counts[filled, None]
            index = self.nearest(residual, level)
            self.use[level] = torch.bincount(index, minlength=self.cardinality).clamp_min(1).to(z.dtype)
            self.total[level] = self.codebooks[level] * self.use[level][:, None]
            residual = residual - self.codebooks[level][index]
