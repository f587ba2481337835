"""Training of the three stages on token crops with the masks, sinks, look-ahead and offsets of inference.

Crops are about twice the window, from random offsets, so that the sliding mask is exercised. What is fed back is not
always the truth: levels are masked from some level on (so that shedding fine levels is safe), conditioning is dropped
now and then (which gives the acoustic-only baseline and guidance), and a few tokens are replaced at random (against
exposure bias).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from audiolm.stage import Stage, StageSpec, skew
from audiolm.train.loop import Learner, Run, load_weights, save_weights
from audiolm.train.tokens import Tokens

NOTHING = -100  # the target of a token that nobody predicts


@dataclass(frozen=True)
class StageRecipe:
    """How a stage is trained.

    Attributes:
        minutes: length of the run; ``steps`` may end it earlier.
        crop: in seconds.
        rate: the highest learning rate.
        cond_dropout: share of crops without conditioning.
        level_dropout: share of crops whose levels are masked from a random one on.
        noise: share of tokens that are replaced at random.
        depth_share: share of frames whose codebooks are predicted; the depth part costs most, and frames are alike.
        evaluate_every: minutes between looks at held-out tokens.
    """

    minutes: float = 15.0
    batch: int = 8
    crop: float = 6.0
    rate: float = 1e-3
    cond_dropout: float = 0.1
    level_dropout: float = 0.1
    noise: float = 0.02
    depth_share: float = 1.0
    weight_decay: float = 0.05
    evaluate_every: float = 3.0
    seed: int = 0
    steps: int | None = None


class StageData:
    """Rows for one stage out of token crops of ``crop`` seconds.

    Raises:
        InputError: no clip is long enough.
    """

    def __init__(self, tokens: Tokens, spec: StageSpec, coarse_levels: int, crop: float, seed: int) -> None:
        self.tokens, self.spec, self.split = tokens, spec, coarse_levels
        self.ticks = max(1, int(crop * 25))
        self.rng = np.random.default_rng(seed)
        tokens.check_crop(self.ticks + spec.ahead)

    def batch(self, size: int) -> tuple[Tensor, Tensor | None]:
        """Frames to be predicted ``[B, T, levels]`` and conditioning ``[B, T, cond_levels]``, aligned to the rows."""
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
    """What is fed back in place of the truth, ``[B, T, levels]``.

    Random tokens here and there, and in some crops the mask token for the levels from a random one on.
    """
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


def stage_loss(
    stage: Stage,
    tokens: Tensor,
    cond: Tensor | None,
    start: int,
    *,
    feed: Tensor | None = None,
    share: float = 1.0,
) -> Tensor:
    """Cross-entropy per level ``[levels]`` in nats.

    Args:
        stage: in any pattern.
        tokens: frames ``[B, T, levels]``.
        cond: ``[B, T, cond_levels]``, aligned to the rows.
        start: number of the crop's first row.
        feed: what is fed back in place of ``tokens``.
        share: below one, only a random part of the frames is predicted (depth pattern only).
    """
    spec = stage.spec
    feed = tokens if feed is None else feed
    if spec.pattern == "delay":  # what a row holds before its stream begins is forced live, so it is no target
        tokens, feed = skew(tokens, NOTHING), skew(feed, spec.start_token)
    if share < 1 and stage.depth is not None:
        few = torch.randperm(tokens.shape[1])[: max(1, int(share * tokens.shape[1]))].to(tokens.device)
        tokens = tokens[:, few]
        logits = stage.depth(stage.context(feed, cond, start)[:, few], tokens)
    else:
        logits = stage(tokens, cond, start, feed)
    flat = F.cross_entropy(logits.flatten(0, -2), tokens.flatten(), reduction="none", ignore_index=NOTHING)
    counts = (tokens != NOTHING).flatten(0, 1).sum(0)
    return flat.view(-1, spec.levels).sum(0) / counts.clamp_min(1)


@torch.no_grad()
def evaluate(stage: Stage, data: StageData, batches: int = 8, *, drop: bool = False) -> Tensor:
    """Held-out cross-entropy per level ``[levels]``, nats; ``drop`` masks the conditioning. Always the same crops."""
    training, device = stage.training, next(stage.parameters()).device
    stage.eval()
    data.rng = np.random.default_rng(1)
    losses = []
    for _ in range(batches):
        tokens, cond = data.batch(4)
        cond = drop_conditioning(cond, stage.spec, 1.0, torch.Generator()) if drop else cond
        losses.append(stage_loss(stage, tokens.to(device), _to(cond, device), 0))
    stage.train(training)
    return torch.stack(losses).mean(0).cpu()


def _to(tensor: Tensor | None, device: torch.device | str) -> Tensor | None:
    return None if tensor is None else tensor.to(device)


class _Trainer:
    """One stage in training: its batches, its loss, and the best held-out likelihood so far."""

    def __init__(self, stage: Stage, train: StageData, held: StageData, recipe: StageRecipe, run: Run) -> None:
        self.stage, self.train, self.held, self.recipe, self.run = stage, train, held, recipe, run
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.best = float("inf")
        self.next_look = recipe.evaluate_every
        self.looked_at = -1

    def loss(self, device: str) -> Tensor:
        """The mean loss over the levels of a fresh batch, corrupted and from a random offset."""
        spec, recipe = self.stage.spec, self.recipe
        tokens, cond = self.train.batch(recipe.batch)
        feed = corrupt(tokens, spec, recipe, self.generator).to(device)
        cond = _to(drop_conditioning(cond, spec, recipe.cond_dropout, self.generator), device)
        start = int(torch.randint(0, 1 << 20, (1,), generator=self.generator))
        share = recipe.depth_share
        return stage_loss(self.stage, tokens.to(device), cond, start, feed=feed, share=share).mean()

    @property
    def look_due(self) -> bool:
        """Whether it is time to look at held-out tokens."""
        return self.run.minutes > self.next_look

    def look(self) -> None:
        """Evaluate on held-out tokens and save the weights if they are the best so far; once a step is enough."""
        if self.looked_at == self.run.step:
            return
        self.looked_at = self.run.step
        self.next_look = self.run.minutes + self.recipe.evaluate_every
        levels = evaluate(self.stage, self.held)
        nll = float(levels.mean())
        self.run.check({"dev_nll": nll})
        self.run.log({"dev_nll": nll}, {f"dev_{q}": float(value) for q, value in enumerate(levels)})
        if nll < self.best:
            self.best = nll
            path = self.run.out / f"{self.stage.spec.name}.safetensors"
            save_weights(path, self.stage.state_dict(), {"dev_nll": nll, "steps": self.run.step})


def train_stage(
    spec: StageSpec,
    train: Tokens,
    dev: Tokens,
    out: str | Path,
    recipe: StageRecipe,
    *,
    coarse_levels: int = 4,
    device: str = "cpu",
    weights_from: Path | None = None,
) -> Stage:
    """Train one stage; the weights of the best held-out likelihood go to ``out/NAME.safetensors``.

    ``weights_from`` starts afresh from earlier weights with a new optimizer and schedule; they are kept unless a later
    look at held-out tokens is better.

    Returns:
        The stage as it was at the end, which need not be its best.

    Raises:
        InputError: no clip is long enough for a crop, or the weights do not fit.
        TrainingError: a loss became NaN, or the disk is full; the last checkpoint is intact.
        StoppedError: a signal ended the run; the best weights are saved.
    """
    torch.manual_seed(recipe.seed)
    data = StageData(train, spec, coarse_levels, recipe.crop, recipe.seed)
    held = StageData(dev, spec, coarse_levels, recipe.crop, 1)
    stage = Stage(spec).train()
    if weights_from is not None:
        load_weights(weights_from, stage)
    stage.to(device)
    with Run(out, spec.name, recipe.minutes, steps=recipe.steps) as run:
        learner = Learner(run, stage.parameters(), recipe.rate, betas=(0.9, 0.95), weight_decay=recipe.weight_decay)
        trainer = _Trainer(stage, data, held, recipe, run)
        if weights_from is not None:
            trainer.look()
        while not run.done:
            loss = trainer.loss(device)
            learner.step(loss, {"nll": float(loss.detach())})
            if trainer.look_due:
                trainer.look()
        trainer.look()
    return stage.cpu().eval()
