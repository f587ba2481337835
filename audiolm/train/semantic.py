"""Masked-prediction training of the semantic encoder and k-means over its layers.

Targets come from a random-projection quantizer (BEST-RQ, arXiv 2202.01855): the mel frames of a tick, normalized, are projected by a
fixed random matrix and matched with fixed random codebooks. Spans of ticks are replaced by noise at the input, before the look-ahead is
stacked, and the network says which codes stood there. It sees what inference sees: the past and the declared look-ahead.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm.tokenizer import SemanticTokenizer, TokenizerConfig
from audiolm.train.data import Corpus, crops
from audiolm.train.loop import Run, cosine, save_weights, set_rate


@dataclass(frozen=True)
class SemanticRecipe:
    """How a semantic encoder is trained. ``span`` is in ticks."""

    minutes: float = 20.0
    batch: int = 8
    seconds: float = 6.4
    rate: float = 8e-4
    mask_share: float = 0.06  # chance that a span begins at a tick
    span: int = 4
    books: int = 4
    codes: int = 1024
    target_width: int = 16
    components: int = 80  # of the whitened features that targets are made of
    fit_batches: int = 16
    seed: int = 0


class RandomQuantizer(nn.Module):
    """Fixed random targets: ``[B, ticks, features] -> [B, ticks, books]``.

    Features are whitened first (:meth:`fit`): a random projection of plain log-mel sees loudness and tilt, and little of pitch.
    """

    mean: Tensor
    whitening: Tensor
    projection: Tensor
    codebooks: Tensor

    def __init__(self, features: int, recipe: SemanticRecipe) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(recipe.seed + 1)
        projection = torch.randn(recipe.books, recipe.components, recipe.target_width, generator=generator)
        books = torch.randn(recipe.books, recipe.codes, recipe.target_width, generator=generator)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("whitening", torch.eye(features, recipe.components))
        self.register_buffer("projection", projection / recipe.components**0.5)
        self.register_buffer("codebooks", F.normalize(books, dim=-1))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Learn mean and whitening of features ``[N, features]``."""
        mean, whitening = principal(x, self.whitening.shape[1])
        self.mean.copy_(mean)
        self.whitening.copy_(whitening)

    def forward(self, x: Tensor) -> Tensor:
        projected = torch.einsum("btf,qfd->btqd", (x - self.mean) @ self.whitening, self.projection)
        return torch.einsum("btqd,qcd->btqc", F.normalize(projected, dim=-1), self.codebooks).argmax(-1)


def principal(x: Tensor, components: int) -> tuple[Tensor, Tensor]:
    """Mean ``[width]`` and whitening matrix ``[width, components]`` of the first principal components of ``x`` ``[N, width]``."""
    mean = x.mean(0)
    centred = (x - mean).double()
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(x))
    values, vectors = values.flip(0)[:components], vectors.flip(1)[:, :components]
    return mean, (vectors / (values.clamp_min(0).sqrt() + 1e-4)).float()


def span_mask(shape: tuple[int, int], share: float, span: int, generator: torch.Generator) -> Tensor:
    """Bool ``[B, ticks]``, true inside spans that begin with chance ``share``."""
    begins = (torch.rand(shape, generator=generator) < share).float()
    return F.max_pool1d(F.pad(begins, (span - 1, 0))[:, None], span, 1)[:, 0] > 0


def train_semantic(
    parts: list[tuple[Corpus, float]],
    out: str | Path,
    config: TokenizerConfig,
    recipe: SemanticRecipe,
    *,
    device: str = "cpu",
    weights_from: Path | None = None,
) -> SemanticTokenizer:
    """Train a tokenizer's encoder; its weights, without clusters, are in ``out/encoder.safetensors``.

    ``weights_from`` starts afresh from earlier weights with a new optimizer and schedule.
    """
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    tokenizer = SemanticTokenizer(config).train()
    per_tick = tokenizer.frame_size // tokenizer.mel.hop
    targets = RandomQuantizer(per_tick * config.mels, recipe)
    heads = nn.Linear(config.width, recipe.books * recipe.codes).to(device)
    if weights_from is not None:
        tokenizer.encoder.load_state_dict(load_file(weights_from))
    tokenizer.to(device)
    targets.to(device)
    weights = [*tokenizer.encoder.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.01)
    fit = crops(parts, int(recipe.seconds * 16000) // 640 * 640, recipe.batch, recipe.seed + 2)
    with torch.no_grad():
        seen = torch.cat([tokenizer.mel(next(fit).to(device)) for _ in range(recipe.fit_batches)])
    targets.fit(seen.reshape(-1, per_tick * config.mels))
    run = Run(out, recipe.minutes)
    for audio in crops(parts, int(recipe.seconds * 16000) // 640 * 640, recipe.batch, recipe.seed):
        mel = tokenizer.mel(audio.to(device))
        ticks = mel.view(len(mel), -1, per_tick * config.mels)
        with torch.no_grad():
            wanted = targets(ticks)
        mask = span_mask((len(ticks), ticks.shape[1]), recipe.mask_share, recipe.span, generator).to(device)
        noisy = torch.where(mask[..., None], torch.randn_like(ticks) * 0.1, ticks)
        hidden = tokenizer.encoder(tokenizer.stack(noisy.view(mel.shape)))[-1]
        use = mask[:, : hidden.shape[1]]
        logits = heads(hidden[use]).view(-1, recipe.books, recipe.codes)
        loss = F.cross_entropy(logits.flatten(0, 1), wanted[:, : hidden.shape[1]][use].flatten())
        set_rate(optimizer, cosine(run.progress, recipe.rate))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        accuracy = (logits.detach().argmax(-1).flatten() == wanted[:, : hidden.shape[1]][use].flatten()).float().mean()
        run.tick({"masked": float(loss.detach()), "accuracy": float(accuracy)})
        if run.save_due or run.done:
            save_weights(Path(out) / "encoder.safetensors", tokenizer.encoder.state_dict())
        if run.done:
            break
    return tokenizer.cpu().eval()


@torch.no_grad()
def embeddings(tokenizer: SemanticTokenizer, corpora: list[tuple[Corpus, float]], layer: int, ticks: int, seed: int = 0) -> Tensor:
    """About ``ticks`` embeddings ``[N, width]`` of ``layer`` from random crops of 8 s."""
    rows, count = [], 0
    for audio in crops(corpora, 8 * 16000, 8, seed, gain_db=3.0):
        rows.append(tokenizer.embed(audio, layer).flatten(0, 1))
        count += len(rows[-1])
        if count >= ticks:
            break
    return torch.cat(rows)


def fit_clusters(tokenizer: SemanticTokenizer, x: Tensor, *, rounds: int = 30, seed: int = 0) -> float:
    """Lloyd's k-means on ``x`` ``[N, width]`` in whitened principal components; returns the share of their variance explained."""
    generator = torch.Generator().manual_seed(seed)
    mean, whitening = principal(x, tokenizer.config.components)
    tokenizer.mean.copy_(mean)
    tokenizer.whitening.copy_(whitening)
    y = (x - mean) @ whitening
    k = tokenizer.config.clusters
    centroids = y[torch.randperm(len(y), generator=generator)[:k]].clone()
    for _ in range(rounds):
        index = torch.cat([(centroids.square().sum(-1) - 2 * part @ centroids.T).argmin(-1) for part in y.split(8192)])
        counts = torch.bincount(index, minlength=k).float()
        sums = torch.zeros_like(centroids).index_add_(0, index, y)
        empty = counts == 0
        centroids = torch.where(empty[:, None], y[torch.randint(len(y), (k,), generator=generator)], sums / counts.clamp_min(1)[:, None])
    tokenizer.centroids.copy_(centroids)
    index = tokenizer.assign_clusters(x)
    return 1 - float((y - centroids[index]).square().sum() / y.square().sum())
