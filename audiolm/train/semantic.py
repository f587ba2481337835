"""Masked-prediction training of the semantic encoder and k-means over its layers.

Targets come from a random-projection quantizer (BEST-RQ, arXiv 2202.01855): the mel frames of a tick, normalized, are
projected by a fixed random matrix and matched with fixed random codebooks. Spans of ticks are replaced by noise at the
input, before the look-ahead is stacked, and the network says which codes stood there. It sees what inference sees: the
past and the declared look-ahead.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm.errors import ConfigError
from audiolm.tokenizer import SemanticTokenizer, TokenizerConfig
from audiolm.train.data import Corpus, crops, whole_ticks
from audiolm.train.kmeans import lloyd, principal
from audiolm.train.loop import Learner, Run, load_weights, save_weights

HEADS = "encoder_heads.safetensors"


@dataclass(frozen=True)
class SemanticRecipe:
    """How a semantic encoder is trained.

    Attributes:
        minutes: length of the run; ``steps`` may end it earlier.
        seconds: of each item of a batch.
        rate: the highest learning rate.
        mask_share: chance that a masked span, of ``span`` ticks, begins at a tick.
        books: codebooks of ``codes`` targets each, in a space of ``target_width``.
        components: of the whitened features that targets are made of.
        fit_batches: that the whitening is learned from.
    """

    minutes: float = 20.0
    batch: int = 8
    seconds: float = 6.4
    rate: float = 8e-4
    mask_share: float = 0.06
    span: int = 4
    books: int = 4
    codes: int = 1024
    target_width: int = 16
    components: int = 80
    fit_batches: int = 16
    seed: int = 0
    steps: int | None = None


class RandomQuantizer(nn.Module):
    """Fixed random targets: ``[B, ticks, features] -> [B, ticks, books]``.

    Features are whitened first (:meth:`fit`): a random projection of plain log-mel sees loudness and tilt, and little
    of pitch.
    """

    mean: Tensor
    whitening: Tensor
    projection: Tensor
    codebooks: Tensor

    def __init__(self, features: int, recipe: SemanticRecipe) -> None:
        super().__init__()
        if recipe.components > features:
            raise ConfigError(f"{recipe.components} components cannot be made of {features} features; ask for fewer")
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
        """Codes, int64 ``[B, ticks, books]``, of features ``[B, ticks, features]``."""
        projected = torch.einsum("btf,qfd->btqd", (x - self.mean) @ self.whitening, self.projection)
        return torch.einsum("btqd,qcd->btqc", F.normalize(projected, dim=-1), self.codebooks).argmax(-1)


def span_mask(shape: tuple[int, int], share: float, span: int, generator: torch.Generator) -> Tensor:
    """Bool ``[B, ticks]``, true inside spans of ``span`` ticks that begin with chance ``share``; never all false."""
    begins = (torch.rand(shape, generator=generator) < share).float()
    if not begins[:, : max(1, shape[1] // 2)].any():  # a loss over nothing would be NaN
        begins[0, 0] = 1
    return F.max_pool1d(F.pad(begins, (span - 1, 0))[:, None], span, 1)[:, 0] > 0


class MaskedPrediction(nn.Module):
    """The task that a tokenizer's encoder is trained on: targets, and the heads that predict them."""

    def __init__(self, tokenizer: SemanticTokenizer, recipe: SemanticRecipe) -> None:
        super().__init__()
        self.tokenizer, self.recipe = tokenizer, recipe
        config = tokenizer.config
        self.features = tokenizer.per_tick
        self.targets = RandomQuantizer(self.features, recipe)
        self.heads = nn.Linear(config.width, recipe.books * recipe.codes)
        self.generator = torch.Generator().manual_seed(recipe.seed)

    def weights(self) -> dict[str, Tensor]:
        """What the encoder does not need but a later run can go on with."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("tokenizer.")}

    @torch.no_grad()
    def fit(self, batches: Iterator[Tensor], device: str) -> None:
        """Learn the whitening of the targets from batches ``[B, T]``."""
        seen = torch.cat([self.tokenizer.features(next(batches).to(device)) for _ in range(self.recipe.fit_batches)])
        self.targets.fit(seen.reshape(-1, self.features))

    def forward(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy in nats and accuracy over the masked ticks of a batch ``[B, T]``."""
        recipe, tokenizer = self.recipe, self.tokenizer
        ticks = tokenizer.features(audio)
        with torch.no_grad():
            wanted = self.targets(ticks)
        mask = span_mask((len(ticks), ticks.shape[1]), recipe.mask_share, recipe.span, self.generator).to(audio.device)
        noisy = torch.where(mask[..., None], torch.randn_like(ticks) * 0.1, ticks)
        hidden = tokenizer.encoder(tokenizer.stack(noisy))[-1]
        use = mask[:, : hidden.shape[1]]
        logits = self.heads(hidden[use]).view(-1, recipe.codes)
        codes = wanted[:, : hidden.shape[1]][use].flatten()
        return F.cross_entropy(logits, codes), (logits.detach().argmax(-1) == codes).float().mean()


def train_semantic(
    parts: list[tuple[Corpus, float]],
    out: str | Path,
    config: TokenizerConfig,
    recipe: SemanticRecipe,
    *,
    device: str = "cpu",
    weights_from: Path | None = None,
) -> SemanticTokenizer:
    """Train a tokenizer's encoder; its weights, without clusters, go to ``out/encoder.safetensors``.

    ``weights_from`` starts afresh from earlier weights with a new optimizer and schedule; targets and heads go on too
    where they lie beside them.

    Raises:
        InputError: the weights do not fit, or a corpus cannot be cropped.
        TrainingError: the loss became NaN, or the disk is full; the last checkpoint is intact.
        StoppedError: a signal ended the run; the weights are saved.
    """
    torch.manual_seed(recipe.seed)
    tokenizer = SemanticTokenizer(config).train()
    task = MaskedPrediction(tokenizer, recipe)
    length = whole_ticks(recipe.seconds)
    known = _resume(task, weights_from)
    task.to(device)
    if not known:
        task.fit(crops(parts, length, recipe.batch, recipe.seed + 2), device)
    batches = crops(parts, length, recipe.batch, recipe.seed)
    with Run(out, "encoder", recipe.minutes, steps=recipe.steps) as run:
        weights = [*tokenizer.encoder.parameters(), *task.heads.parameters()]
        learner = Learner(run, weights, recipe.rate, betas=(0.9, 0.98))
        while not run.done:
            loss, accuracy = task(next(batches).to(device))
            learner.step(loss, {"masked": float(loss.detach()), "accuracy": float(accuracy)})
            if run.save_due():
                _save(task, Path(out), run.step)
        _save(task, Path(out), run.step)
    return tokenizer.cpu().eval()


def _save(task: MaskedPrediction, out: Path, steps: int) -> None:
    save_weights(out / "encoder.safetensors", task.tokenizer.encoder.state_dict(), {"steps": steps})
    save_weights(out / HEADS, task.weights(), {"steps": steps})


def _resume(task: MaskedPrediction, path: Path | None) -> bool:
    """Load earlier weights, if any; whether the targets came with them."""
    if path is None:
        return False
    load_weights(path, task.tokenizer.encoder)
    heads = path.with_name(HEADS)
    if not heads.is_file():
        return False
    load_weights(heads, nn.ModuleDict({"targets": task.targets, "heads": task.heads}))
    return True


@torch.no_grad()
def embeddings(
    tokenizer: SemanticTokenizer, corpora: list[tuple[Corpus, float]], layer: int, ticks: int, seed: int = 0
) -> Tensor:
    """About ``ticks`` embeddings ``[N, width]`` of ``layer`` from random crops of 8 s."""
    rows: list[Tensor] = []
    batches = crops(corpora, whole_ticks(8.0), 8, seed, gain_db=3.0)
    while sum(map(len, rows)) < ticks:
        rows.append(tokenizer.embed(next(batches), layer).flatten(0, 1))
    return torch.cat(rows)


def fit_clusters(tokenizer: SemanticTokenizer, x: Tensor, *, rounds: int = 30, seed: int = 0) -> float:
    """k-means on embeddings ``x`` ``[N, width]`` in whitened principal components, into ``tokenizer``.

    Returns:
        The share of the components' variance that the clusters explain.

    Raises:
        InputError: there are fewer embeddings than clusters.
    """
    generator = torch.Generator().manual_seed(seed)
    mean, whitening = principal(x, tokenizer.config.components)
    y = (x - mean) @ whitening
    centroids = lloyd(y, tokenizer.config.clusters, rounds, generator)
    tokenizer.mean.copy_(mean)
    tokenizer.whitening.copy_(whitening)
    tokenizer.centroids.copy_(centroids)
    index = tokenizer.assign_clusters(x)
    return 1 - float((y - centroids[index]).square().sum() / y.square().sum())
