"""Training of the three stages on token crops with the masks, sinks, look-ahead and offsets of inference.

Crops, and what is fed back in them, are of :mod:`audiolm.train.crops`. Held-out likelihood decides which weights are
kept and when a run that only over-fits ends.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm.stage import Stage, StageSpec, skew
from audiolm.train.crops import StageData, corrupt, drop_conditioning, gap_mask, lose
from audiolm.train.loop import AverageWeights, Learner, Part, Run, load_weights, save_weights, settings_of
from audiolm.train.tokens import Tokens

__all__ = [
    "StageData",
    "StageRecipe",
    "corrupt",
    "drop_conditioning",
    "evaluate",
    "gap_mask",
    "lose",
    "residual_dropout",
    "stage_loss",
    "train_stage",
]

NOTHING = -100  # the target of a token that nobody predicts
LOOK_SECONDS = 320  # of held-out sound, at which a look is aimed
LOOK_CROPS = 4  # in a batch of a look


@dataclass(frozen=True)
class StageRecipe:
    """How a stage is trained.

    Attributes:
        minutes: length of the run; ``steps`` may end it earlier.
        batch: crops a step, of all processes together.
        crop: in seconds; about twice the window, or the sliding mask is not exercised.
        rate: the highest learning rate.
        cond_dropout: share of crops without conditioning.
        level_dropout: share of crops whose levels are masked from a random one on.
        gaps: share of ticks that are masked, in gaps of up to 5, as when frames are lost.
        noise: share of tokens that are replaced at random.
        depth_share: share of frames whose codebooks are predicted; the depth part costs most, and frames are alike.
        dropout: on the branches of every block, against over-fitting.
        average: decay of the average of the weights, which is what is looked at and kept; 0 keeps the weights as is.
        evaluate_every: minutes between looks at held-out tokens.
        patience: looks without improvement after which the run ends; 0 never ends it.
    """

    minutes: float = 15.0
    batch: int = 8
    crop: float = 6.0
    rate: float = 1e-3
    cond_dropout: float = 0.1
    level_dropout: float = 0.1
    gaps: float = 0.02
    noise: float = 0.02
    depth_share: float = 1.0
    dropout: float = 0.0
    weight_decay: float = 0.05
    average: float = 0.999
    evaluate_every: float = 3.0
    patience: int = 4
    seed: int = 0
    steps: int | None = None


def stage_loss(
    stage: Stage,
    tokens: Tensor,
    cond: Tensor | None,
    start: int,
    *,
    feed: Tensor | None = None,
    share: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Cross-entropy per level ``[levels]`` in nats.

    Args:
        stage: in any pattern.
        tokens: frames ``[B, T, levels]``.
        cond: ``[B, T, cond_levels]``, aligned to the rows.
        start: number of the crop's first row.
        feed: what is fed back in place of ``tokens``.
        share: below one, only a random part of the frames is predicted (depth pattern only).
        generator: that part is drawn from it; torch's own when None.
    """
    spec = stage.spec
    feed = tokens if feed is None else feed
    if spec.pattern == "delay":  # what a row holds before its stream begins is forced live, so it is no target
        tokens, feed = skew(tokens, NOTHING), skew(feed, spec.start_token)
    if share < 1 and stage.depth is not None:
        length = tokens.shape[1]
        few = torch.randperm(length, generator=generator)[: max(1, int(share * length))].to(tokens.device)
        tokens = tokens[:, few]
        logits = stage.depth(stage.context(feed, cond, start)[:, few], tokens)
    else:
        logits = stage(tokens, cond, start, feed)
    flat = F.cross_entropy(logits.flatten(0, -2).float(), tokens.flatten(), reduction="none", ignore_index=NOTHING)
    counts = (tokens != NOTHING).flatten(0, 1).sum(0)
    return flat.view(-1, spec.levels).sum(0) / counts.clamp_min(1)


@torch.no_grad()
def evaluate(
    stage: Stage,
    data: StageData,
    batches: int = 8,
    *,
    drop: bool = False,
    share: float = 1.0,
    mine: Callable[[int], bool] = lambda _: True,
) -> Tensor:
    """Held-out cross-entropy per level ``[levels]``, nats; ``drop`` masks the conditioning. Always the same crops.

    Args:
        stage: given back in the mode it was in.
        data: held-out crops.
        batches: of 4 crops.
        drop: mask all conditioning.
        share: of the frames that are predicted, always the same ones.
        mine: which batches this process takes; the result is then its share of the mean.
    """
    training, device = stage.training, next(stage.parameters()).device
    stage.eval()
    data.rng = np.random.default_rng(1)
    generator = torch.Generator().manual_seed(1)
    total = torch.zeros(stage.spec.levels)
    for i in range(batches):
        tokens, cond = data.batch(LOOK_CROPS)
        if not mine(i):
            continue
        cond = drop_conditioning(cond, stage.spec, 1.0, generator) if drop else cond
        kept = generator.manual_seed(i)
        total += stage_loss(stage, tokens.to(device), _to(cond, device), 0, share=share, generator=kept).cpu()
    stage.train(training)
    return total / batches


def _to(tensor: Tensor | None, device: torch.device | str) -> Tensor | None:
    return None if tensor is None else tensor.to(device)


@contextmanager
def residual_dropout(stage: Stage, share: float) -> Iterator[None]:
    """Drop a share of what every branch of every block adds (arXiv 1706.03762, section 5.4), while it trains."""

    def drop(module: nn.Module, _: object, out: Tensor) -> Tensor:
        return F.dropout(out, share, module.training)

    branches = [m for name, m in stage.named_modules() if share and name.rsplit(".", 1)[-1] in ("out", "down")]
    hooks = [branch.register_forward_hook(drop) for branch in branches]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Trainer:
    """One stage in training: its batches, its loss, and the best held-out likelihood so far."""

    def __init__(self, stage: Stage, train: StageData, held: StageData, recipe: StageRecipe, run: Run) -> None:
        self.stage, self.train, self.held, self.recipe, self.run = stage, train, held, recipe, run
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.average = AverageWeights(stage, recipe.average)
        self.best = float("inf")
        self.next_look = recipe.evaluate_every
        self.looked_at = -1
        self.worse = 0

    def loss(self) -> Tensor:
        """The mean loss over the levels of a fresh batch, corrupted and from a random offset.

        Everything random is drawn for the global batch; this process's slice of it is computed.
        """
        spec, recipe, run = self.stage.spec, self.recipe, self.run
        tokens, cond, ends = self.train.joined(recipe.batch)
        feed = corrupt(tokens, spec, recipe, self.generator)
        cond = drop_conditioning(cond, spec, recipe.cond_dropout, self.generator)
        feed, cond = lose(feed, cond, spec, recipe.gaps, self.generator)
        feed = run.share(torch.where(ends[..., None], spec.start_token, feed))
        start = int(torch.randint(0, 1 << 20, (1,), generator=self.generator))
        cond = None if cond is None else run.share(cond)
        share, generator = recipe.depth_share, self.generator
        with run.autocast():
            return stage_loss(
                self.stage, run.share(tokens), cond, start, feed=feed, share=share, generator=generator
            ).mean()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """The stage computes with the weights that are kept."""
        if not self.recipe.average:
            yield
            return
        with self.average.applied():
            yield

    def look_if_due(self) -> None:
        """Look at held-out tokens when it is time."""
        if self.run.minutes > self.next_look:
            self.look()

    def look(self) -> None:
        """Evaluate on held-out tokens and save the weights if they are the best so far; once a step is enough.

        Raises:
            TrainingError: the likelihood is NaN, or the weights cannot be written.
        """
        if self.looked_at == self.run.step:
            return
        self.looked_at = self.run.step
        self.next_look = self.run.minutes + self.recipe.evaluate_every
        with self.kept():
            levels = self._levels()
            nll = float(levels.mean())
            self.run.check({"dev_nll": nll})
            self.run.log({"dev_nll": nll}, {f"dev_{q}": float(value) for q, value in enumerate(levels)})
            self.worse = 0 if nll < self.best else self.worse + 1
            if nll < self.best:
                self.best = nll
                self._save()
        if self.recipe.patience and self.worse >= self.recipe.patience:
            self.run.finish(f"dev_nll has not been below {self.best:.4f} for {self.worse} looks")

    def _levels(self) -> Tensor:
        """Held-out loss per level; the processes share the batches."""
        run = self.run
        batches = max(2, min(8, round(LOOK_SECONDS / (LOOK_CROPS * self.recipe.crop))))
        with run.autocast():
            part = evaluate(
                self.stage,
                self.held,
                batches,
                share=self.recipe.depth_share,
                mine=lambda i: i % run.processes == run.index,
            )
        return run.sum_over_processes(part.to(run.device)).cpu()

    def _save(self) -> None:
        if self.run.main:
            path = self.run.out / f"{self.stage.spec.name}.safetensors"
            save_weights(path, self.stage.state_dict(), {"dev_nll": self.best, "steps": self.run.step})

    def save(self) -> dict[str, Any]:
        """What a resumed run must know of the looks so far."""
        best = self.best if self.looked_at >= 0 else None
        return {"best": best, "next_look": self.next_look, "looked_at": self.looked_at, "worse": self.worse}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Take back what :meth:`save` gave; a run that is given more time gets its patience anew."""
        self.best = float("inf") if saved["best"] is None else float(saved["best"])
        self.next_look, self.looked_at = float(saved["next_look"]), int(saved["looked_at"])
        self.worse = int(saved["worse"]) if int(saved["worse"]) < max(1, self.recipe.patience) else 0


def train_stage(
    spec: StageSpec,
    train: Tokens,
    dev: Tokens,
    out: str | Path,
    recipe: StageRecipe,
    *,
    coarse_levels: int = 4,
    device: str = "cpu",
    precision: str = "bf16",
    weights_from: Path | None = None,
    restart: bool = False,
) -> Stage:
    """Train one stage; the weights of the best held-out likelihood go to ``out/NAME.safetensors``.

    Called again with the same arguments it goes on from ``out/NAME.state.safetensors``, or does nothing if it had
    finished. ``weights_from`` starts afresh from earlier weights with a new optimizer and schedule; they are looked at
    first and kept unless a later look at held-out tokens is better. ``restart`` begins anew whatever is there.

    Returns:
        The stage as it was at the end (its averaged weights), which need not be its best.

    Raises:
        InputError: no clip is long enough for a crop, the weights do not fit, or the state is of other settings.
        TrainingError: a loss became NaN, or the disk is full; the last checkpoint is intact.
        StoppedError: a signal ended the run; the best weights and the state are saved.
    """
    torch.manual_seed(recipe.seed)
    data = StageData(train, spec, coarse_levels, recipe.crop, recipe.seed)
    held = StageData(dev, spec, coarse_levels, recipe.crop, 1)
    stage = Stage(spec).train()
    settings = settings_of(recipe, spec) | {"tokens": {"train": fingerprint(train), "dev": fingerprint(dev)}}
    run = Run(
        out,
        spec.name,
        recipe.minutes,
        steps=recipe.steps,
        device=device,
        precision=precision,
        settings=settings,
        weights_from=weights_from,
        restart=restart,
    )
    if weights_from is not None:
        load_weights(weights_from, stage)
    stage.to(run.device)
    trainer = _Trainer(stage, data, held, recipe, run)
    with run, residual_dropout(stage, recipe.dropout):
        _train(trainer, look_first=weights_from is not None)
    if recipe.average:
        stage.load_state_dict(trainer.average.weights())
    return stage.cpu().eval()


def _train(trainer: _Trainer, *, look_first: bool) -> None:
    """The loop; ``look_first`` looks at held-out tokens before it, when there is no state to go on from."""
    run, recipe, stage = trainer.run, trainer.recipe, trainer.stage
    average = trainer.average if recipe.average else None
    learner = Learner(
        run, stage.parameters(), recipe.rate, betas=(0.9, 0.95), weight_decay=recipe.weight_decay, average=average
    )
    parts: dict[str, Part] = {"stage": stage, "learner": learner, "looks": trainer}
    parts |= {"generator": trainer.generator, "rng": trainer.train.rng}
    if not run.resume(parts | ({"average": average} if average else {})) and look_first:
        trainer.look()
    for _ in run:
        loss = trainer.loss()
        learner.step(loss, {"nll": float(loss.detach())})
        trainer.look_if_due()
    if not run.finished:
        trainer.look()


def fingerprint(tokens: Tokens) -> str:
    """Tells token files apart: the number of ticks, and sums that change with what they hold."""
    sums = [int(part.long().sum()) for part in (tokens.semantic, tokens.acoustic, tokens.index)]
    return f"{tokens.ticks} ticks, {sums[0]}/{sums[1]}/{sums[2]}"
