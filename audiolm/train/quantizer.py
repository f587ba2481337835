"""Residual codebooks that learn: moving averages of what fell to each code, restarts of dead ones, k-means to begin."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from audiolm.rvq import ResidualVQ
from audiolm.train.kmeans import lloyd


class Group(Protocol):
    """The processes that learn together; a :class:`audiolm.train.device.Compute` is one."""

    def sum_over_processes(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensors of all processes end to end."""

    def same(self, tensor: Tensor) -> Tensor:
        """The main process's value, in place."""


class TrainableRVQ(ResidualVQ):
    """The same codebooks, learned by an exponential moving average with restarts of dead codes.

    Formulas: van den Oord et al. (arXiv 1711.00937, appendix A.1); the restart rule is SoundStream's. ``use`` and
    ``total`` are the averages' numerators and denominators.

    Args:
        levels, cardinality, dim: as in :class:`audiolm.rvq.ResidualVQ`.
        decay: how much of an average stays at a step.
        dead: a code starts again when its use falls below this share of the mean use.
    """

    use: Tensor
    total: Tensor

    def __init__(
        self, levels: int = 12, cardinality: int = 1024, dim: int = 128, *, decay: float = 0.99, dead: float = 0.05
    ) -> None:
        super().__init__(levels, cardinality, dim)
        self.decay, self.dead = decay, dead
        self.group: Group | None = None
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
        if self.group is not None:
            counts, sums = self.group.sum_over_processes(counts), self.group.sum_over_processes(sums)
        self.use[level].lerp_(counts, 1 - self.decay)
        self.total[level].lerp_(sums, 1 - self.decay)
        self._restart(level, residual, float(counts.sum()) / self.cardinality)
        self.codebooks[level] = self.total[level] / self.use[level].clamp_min(1e-6)[:, None]

    def _restart(self, level: int, residual: Tensor, mean_use: float) -> None:
        """Dead codes begin again at random residuals."""
        dead = self.use[level] < self.dead * mean_use
        if not dead.any():
            return
        fresh = residual[torch.randint(len(residual), (int(dead.sum()),), device=residual.device)]
        if self.group is not None:
            fresh = self.group.same(fresh)
        mean = self.use[level].mean()
        self.use[level][dead] = mean
        self.total[level][dead] = fresh * mean

    @torch.no_grad()
    def seed(self, z: Tensor, rounds: int = 8, seed: int = 0) -> None:
        """Begin every level with k-means on the residuals of ``z`` ``[N, dim]``.

        Raises:
            InputError: there are fewer vectors than codes.
        """
        z = z if self.group is None else self.group.gather(z)
        residual, generator = z.cpu(), torch.Generator().manual_seed(seed)
        for level in range(self.levels):
            centroids = lloyd(residual, self.cardinality, rounds, generator)
            self.codebooks[level] = centroids.to(self.codebooks.device)
            index = self.nearest(residual.to(self.codebooks.device), level).cpu()
            share = torch.bincount(index, minlength=self.cardinality).to(z.dtype) / len(z)
            # On the scale of the averages, about one a code and step; none begins as dead.
            self.use[level] = (share * self.cardinality).clamp_min(0.5)
            self.total[level] = self.codebooks[level] * self.use[level][:, None]
            residual = residual - centroids[index]

    def resume(self) -> None:
        """Start the averages from the codebooks, which were loaded without them."""
        self.total.copy_(self.codebooks)
        self.use.fill_(1.0)

    def perplexity(self) -> Tensor:
        """Of each level's codes by the averages, ``[levels]``: how many codes are used as if evenly."""
        share = self.use / self.use.sum(-1, keepdim=True)
        return (-(share * share.clamp_min(1e-12).log()).sum(-1)).exp()


def details(perplexity: Tensor) -> Mapping[str, Any]:
    """Perplexity by level, for a log."""
    return {f"perplexity_{level}": round(float(value), 1) for level, value in enumerate(perplexity, 1)}
