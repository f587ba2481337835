"""Training of the three stages on token crops with the masks, sinks, look-ahead and offsets of inference.

Crops are about twice the window, from random offsets, so that the sliding mask is exercised. What is fed back is not always the truth:
levels are masked from some level on (so that shedding fine levels is safe), conditioning is dropped now and then (which gives the
acoustic-only baseline and guidance), and a few tokens are replaced at random (against exposure bias).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from audiolm.stage import Stage, StageSpec, skew
from audiolm.train.loop import Run, cosine, save_weights, set_rate
from audiolm.train.tokens import Tokens


@dataclass(frozen=True)
class StageRecipe:
    """How a stage is trained. ``crop`` is in seconds; rates of dropout are shares of crops or tokens."""

    minutes: float = 15.0
    batch: int = 8
    crop: float = 6.0
    rate: float = 1e-3
    cond_dropout: float = 0.1
    level_dropout: float = 0.1
    noise: float = 0.02
    depth_share: float = 1.0  # share of frames whose codebooks are predicted: the depth part costs most and frames are alike
    weight_decay: float = 0.05
    evaluate_every: float = 3.0
    seed: int = 0


class StageData:
    """Rows for one stage out of token crops."""

    def __init__(self, tokens: Tokens, spec: StageSpec, coarse_levels: int, crop: float, seed: int) -> None:
        self.tokens, self.spec, self.split = tokens, spec, coarse_levels
        self.ticks = int(crop * 25)
        self.rng = np.random.default_rng(seed)

    def batch(self, size: int) -> tuple[Tensor, Tensor | None]:
        """Target rows ``[B, T, levels]`` and conditioning ``[B, T, cond_levels]``."""
        items = [self._item() for _ in range(size)]
        cond = None if items[0][1] is None else torch.stack([c for _, c in items if c is not None])
        return torch.stack([t for t, _ in items]), cond

    def _item(self) -> tuple[Tensor, Tensor | None]:
        spec = self.spec
        acoustic, semantic = self.tokens.crop(self.ticks + spec.ahead, self.rng)
        if spec.name == "semantic":
            return semantic[:, None], None
        frames = 2 * self.ticks
        if spec.name == "coarse":
            aligned = semantic[spec.ahead :].repeat_interleave(2)[:frames, None]
            return acoustic[:frames, : self.split], aligned
        return acoustic[:frames, self.split : self.split + spec.levels], acoustic[:frames, : self.split]


def corrupt(tokens: Tensor, spec: StageSpec, recipe: StageRecipe, generator: torch.Generator) -> Tensor:
    """What is fed back in place of the truth: random tokens here and there, and in some crops the levels from a random one on masked."""
    feed = tokens
    if recipe.noise:
        wrong = torch.randint(spec.cardinality, tokens.shape, generator=generator)
        feed = torch.where(torch.rand(tokens.shape, generator=generator) < recipe.noise, wrong, feed)
    if recipe.level_dropout and spec.levels > 1:
        batch = len(tokens)
        first = torch.randint(1, spec.levels, (batch,), generator=generator)
        hit = torch.rand(batch, generator=generator) < recipe.level_dropout
        masked = (torch.arange(spec.levels) >= first[:, None]) & hit[:, None]
        feed = torch.where(masked[:, None], spec.mask_token, feed)
    return feed


def drop_conditioning(cond: Tensor | None, spec: StageSpec, share: float, generator: torch.Generator) -> Tensor | None:
    """Replace the conditioning of whole crops by the mask token."""
    if cond is None or not share:
        return cond
    hit = torch.rand(len(cond), generator=generator) < share
    return torch.where(hit[:, None, None], spec.cond_mask, cond)


def stage_loss(stage: Stage, tokens: Tensor, cond: Tensor | None, start: int, feed: Tensor | None = None, share: float = 1.0) -> Tensor:
    """Cross-entropy per level ``[levels]`` in nats. ``share`` below one predicts a random part of the frames (depth pattern only)."""
    spec = stage.spec
    if spec.pattern == "delay":
        tokens, feed = skew(tokens, 0), skew(tokens if feed is None else feed, spec.start_token)
    if share < 1 and stage.depth is not None:
        few = torch.randperm(tokens.shape[1])[: max(1, int(share * tokens.shape[1]))]
        picked = tokens[:, few]
        logits = stage.depth(stage.context(tokens if feed is None else feed, cond, start)[:, few], picked)
    else:
        logits, picked = stage(tokens, cond, start, feed), tokens
    flat = F.cross_entropy(logits.flatten(0, -2), picked.flatten(), reduction="none").view(-1, spec.levels)
    return flat.mean(0)


@torch.no_grad()
def evaluate(stage: Stage, data: StageData, batches: int = 8, *, drop: bool = False) -> Tensor:
    """Held-out cross-entropy per level, nats; ``drop`` masks the conditioning. Always the same crops."""
    stage.eval()
    data.rng = np.random.default_rng(1)
    losses = []
    device = next(stage.parameters()).device
    for _ in range(batches):
        tokens, cond = (part if part is None else part.to(device) for part in data.batch(4))
        assert tokens is not None
        if drop and cond is not None:
            cond = torch.full_like(cond, stage.spec.cond_mask)
        losses.append(stage_loss(stage, tokens, cond, 0))
    stage.train()
    return torch.stack(losses).mean(0).cpu()


def train_stage(
    spec: StageSpec,
    train: Tokens,
    dev: Tokens,
    out: str | Path,
    recipe: StageRecipe,
    coarse_levels: int = 4,
    *,
    device: str = "cpu",
    weights_from: Path | None = None,
) -> Stage:
    """Train one stage; the weights of the best held-out likelihood are in ``out/NAME.safetensors``.

    ``weights_from`` starts afresh from earlier weights with a new optimizer and schedule.
    """
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    stage = Stage(spec).train()
    if weights_from is not None:
        stage.load_state_dict(load_file(weights_from))
    stage.to(device)
    optimizer = torch.optim.AdamW(stage.parameters(), lr=recipe.rate, betas=(0.9, 0.95), weight_decay=recipe.weight_decay)
    data = StageData(train, spec, coarse_levels, recipe.crop, recipe.seed)
    held = StageData(dev, spec, coarse_levels, recipe.crop, 1)
    run = Run(out, recipe.minutes)
    path, best, next_check = Path(out) / f"{spec.name}.safetensors", float("inf"), recipe.evaluate_every
    while True:
        tokens, cond = data.batch(recipe.batch)
        feed = corrupt(tokens, spec, recipe, generator)
        cond = drop_conditioning(cond, spec, recipe.cond_dropout, generator)
        start = int(torch.randint(0, 1 << 20, (1,), generator=generator))
        moved = (part if part is None else part.to(device) for part in (tokens, cond))
        loss = stage_loss(stage, *moved, start, feed.to(device), recipe.depth_share).mean()  # type: ignore[misc]
        set_rate(optimizer, cosine(run.progress, recipe.rate))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(stage.parameters(), 1.0)
        optimizer.step()
        run.tick({"nll": float(loss.detach())})
        if run.done or run.progress * recipe.minutes > next_check:
            next_check += recipe.evaluate_every
            levels = evaluate(stage, held)
            run.log({"dev_nll": float(levels.mean())} | {f"dev_{q}": float(value) for q, value in enumerate(levels)})
            if float(levels.mean()) < best:
                best = float(levels.mean())
                save_weights(path, stage.state_dict(), {"dev_nll": best, "steps": run.step})
        if run.done:
            return stage.cpu().eval()
