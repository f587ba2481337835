"""Principal components and k-means, for semantic targets and clusters."""

import torch
from torch import Tensor

from audiolm.errors import InputError


def principal(x: Tensor, components: int, power: float = 1.0) -> tuple[Tensor, Tensor]:
    """Mean ``[width]`` and matrix ``[width, components]`` that gives the first principal components of ``x``.

    Args:
        x: ``[N, width]``.
        components: how many, at most ``width``.
        power: how far they are whitened: each is divided by its standard deviation to this power. Whitened fully, the
            many components that hardly vary outvote the few that carry the sound; left as they are, loudness decides.
    """
    mean = x.mean(0)
    centred = (x - mean).double()
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(x))
    values, vectors = values.flip(0)[:components], vectors.flip(1)[:, :components]
    return mean, (vectors / (values.clamp_min(0).sqrt() + 1e-4) ** power).float()


def nearest(x: Tensor, centroids: Tensor, chunk: int = 8192) -> Tensor:
    """Number of the nearest centroid, int64 ``[N]``, of ``x`` ``[N, dim]``; in pieces, to bound the memory."""
    return torch.cat(
        [(centroids.square().sum(-1) - 2 * part @ centroids.T).argmin(-1) for part in torch.split(x, chunk)]
    )


def lloyd(x: Tensor, clusters: int, rounds: int, generator: torch.Generator) -> Tensor:
    """Centroids ``[clusters, dim]`` of ``x`` ``[N, dim]`` by Lloyd's k-means.

    A cluster that is empty starts again at a random point.

    Raises:
        InputError: there are fewer points than clusters.
    """
    if len(x) < clusters:
        raise InputError(
            f"{clusters} clusters cannot be made of {len(x)} points; give more sound or ask for fewer clusters",
            clusters=clusters,
            points=len(x),
        )
    centroids = x[torch.randperm(len(x), generator=generator)[:clusters]].clone()
    for _ in range(rounds):
        index = nearest(x, centroids)
        counts = torch.bincount(index, minlength=clusters).to(x.dtype)
        sums = torch.zeros_like(centroids).index_add_(0, index, x)
        fresh = x[torch.randint(len(x), (clusters,), generator=generator)]
        centroids = torch.where((counts == 0)[:, None], fresh, sums / counts.clamp_min(1)[:, None])
    return centroids
