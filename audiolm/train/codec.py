"""Training of the codec: reconstruction losses, quantizer dropout, EMA codebooks, and critics when asked for.

The unquantized phase lets the latent settle before codebooks are laid over it. What is compared depends on the kind of
codec, see :mod:`audiolm.train.compared`. From a share of the run on, critics may join (:mod:`audiolm.train.adversary`);
the losses are then balanced by their gradients.
"""

from collections import deque
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiolm.bundle import weights_of
from audiolm.codec import CodecConfig, SoundStream
from audiolm.errors import ConfigError
from audiolm.train.adversary import Balancer, Critics, critic_loss, generator_losses
from audiolm.train.compared import compared
from audiolm.train.data import Corpus, crops, whole_ticks
from audiolm.train.loop import (
    AverageWeights,
    Learner,
    Run,
    TrainingError,
    load_weights,
    save_weights,
    settings_of,
)
from audiolm.train.quantizer import TrainableRVQ, details

CALIBRATION = 10  # batches that the scale of spectra is measured on


@dataclass(frozen=True)
class CodecRecipe:
    """How a codec is trained.

    Attributes:
        minutes: length of the run; ``steps`` may end it earlier.
        seconds: of each item of a batch.
        rate: the highest learning rate.
        warm_steps: without quantization, until the latent has settled; never more than a quarter of the run.
        seed_batches: the codebooks start from the latents of so many last batches of that phase.
        waveform_weight: of the waveform's distance; ``seanet`` only.
        spectrum_weight: of the distance between short-time spectra; ``spectral`` only.
        mel_weight: of the distance between log-mel levels.
        commitment_weight: of the distance between a latent and its codes.
        adversarial_weight: of the critics' hinge loss; 0 trains without critics.
        feature_weight: of feature matching.
        adversarial_after: share of the run after which the critics join.
        critic_width: channels of a critic.
        dropout: share of items that use a random number of levels.
        decay: of the moving averages behind the codebooks, a step.
        average: decay of the moving average of the weights that is kept; 0 keeps the last weights.
    """

    minutes: float = 40.0
    batch: int = 4
    seconds: float = 0.64
    rate: float = 1e-3
    warm_steps: int = 500
    seed_batches: int = 100
    waveform_weight: float = 12.0
    spectrum_weight: float = 4.0
    mel_weight: float = 4.0
    commitment_weight: float = 1.0
    adversarial_weight: float = 0.0
    feature_weight: float = 4.0
    adversarial_after: float = 0.5
    critic_width: int = 16
    dropout: float = 0.5
    decay: float = 0.99
    average: float = 0.999
    seed: int = 0
    steps: int | None = None


def trainable_codec(config: CodecConfig, decay: float = 0.99) -> SoundStream:
    """A codec whose codebooks can learn."""
    return SoundStream(config, TrainableRVQ(config.levels, config.cardinality, config.latent, decay=decay))


def learning(codec: SoundStream) -> TrainableRVQ:
    """The quantizer of a codec in training.

    Raises:
        ConfigError: its codebooks cannot learn.
    """
    if not isinstance(codec.rvq, TrainableRVQ):
        raise ConfigError("the codebooks of this codec cannot learn; make it with trainable_codec(config)")
    return codec.rvq


def dropped_levels(batch: int, levels: int, share: float, generator: torch.Generator) -> Tensor:
    """How many levels each item keeps, int64 ``[batch]``: all, or a uniform number for ``share`` of the items.

    This is SoundStream's quantizer dropout (arXiv 2107.03312, section III-D).
    """
    few = torch.randint(1, levels + 1, (batch,), generator=generator)
    return torch.where(torch.rand(batch, generator=generator) < share, few, torch.full_like(few, levels))


def resume_codec(codec: SoundStream, path: str | Path) -> None:
    """Load weights that :func:`train_codec` wrote; the averages behind the codebooks start from them."""
    load_weights(path, codec)
    learning(codec).resume()


@dataclass(frozen=True)
class Compare:
    """One batch: what was wanted, what the codec made of it, and the losses between them."""

    wanted: Tensor
    made: Tensor
    losses: dict[str, Tensor]


class CodecLosses:
    """What a codec is trained on: first without quantization, then with codebooks that start from its latents.

    Args:
        codec: with codebooks that can learn.
        recipe: weights of the losses and lengths of the phases.
        seeded: the codebooks are trained already, so there is no first phase.
    """

    def __init__(self, codec: SoundStream, recipe: CodecRecipe, *, seeded: bool) -> None:
        self.codec, self.recipe, self.seeded = codec, recipe, seeded
        self.rvq = learning(codec)
        self.compared = compared(codec)
        self._latents: deque[Tensor] = deque(maxlen=max(1, recipe.seed_batches))

    def __call__(self, audio: Tensor, keep: Tensor | None = None, *, warm: bool = False) -> Compare:
        """The losses of a batch ``[B, T]``; with ``warm`` false the codebooks are seeded when they are not yet.

        Args:
            audio: the batch.
            keep: levels that each item uses, int64 ``[B]``; all when None.
            warm: no quantization yet.
        """
        wanted, z = self.compared.latent(audio)
        losses: dict[str, Tensor] = {}
        if not self.seeded and not warm and self._enough:
            self.seed()
        if self.seeded:
            with torch.autocast(audio.device.type, enabled=False):  # distances between codes need float32
                z, _, losses["commitment"] = self.rvq(z.float(), keep)
        else:
            self._latents.append(z.detach().float().reshape(-1, z.shape[-1]))
        made = self.compared.make(z)
        return Compare(wanted, made, losses | self.compared.distances(wanted, made))

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Their weighted sum."""
        return torch.stack([self.weight(name) * loss for name, loss in losses.items()]).sum()

    def weight(self, name: str) -> float:
        """The recipe's weight of a loss."""
        return float(getattr(self.recipe, f"{name}_weight"))

    @property
    def _enough(self) -> bool:
        return sum(map(len, self._latents)) >= self.codec.config.cardinality

    def seed(self) -> None:
        """Start the codebooks from the latents seen last.

        Raises:
            TrainingError: there were too few.
        """
        if not self._enough:
            raise TrainingError(
                f"{self.codec.config.cardinality} codes cannot start from {sum(map(len, self._latents))} latents; "
                "the run was too short for its first phase: give it more minutes"
            )
        self.rvq.seed(torch.cat(list(self._latents)))
        self._latents.clear()
        self.seeded = True

    def save(self) -> dict[str, Any]:
        """Whether the codebooks are seeded, and the latents that they would start from."""
        latents = torch.cat(list(self._latents)) if self._latents else torch.zeros(0)
        return {"seeded": self.seeded, "latents": latents, "sizes": [len(part) for part in self._latents]}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Take back what :meth:`save` gave."""
        self.seeded = bool(saved["seeded"])
        self._latents.clear()
        if saved["sizes"]:
            self._latents.extend(torch.split(saved["latents"], list(saved["sizes"])))


class Adversary:
    """The critics of a run, their optimizer, and the balance of the losses once they take part."""

    def __init__(self, run: Run, losses: CodecLosses) -> None:
        recipe = losses.recipe
        self.run, self.losses, self.after = run, losses, recipe.adversarial_after
        self.critics = Critics(losses.compared.image_channels, recipe.critic_width).to(run.device)
        self.learner = Learner(run, self.critics.parameters(), recipe.rate / 3, betas=(0.8, 0.99))
        names = ("spectrum", "mel", "waveform", "adversarial", "feature")
        self.balance = Balancer({name: losses.weight(name) for name in names})

    @property
    def on(self) -> bool:
        """Whether the critics take part yet."""
        return self.losses.seeded and self.run.progress >= self.after

    def total(self, step: Compare) -> tuple[Tensor, dict[str, float]]:
        """The balanced loss of the codec, and what the critics add to the log; they learn from the same batch."""
        compared = self.losses.compared
        real, fake = compared.images(compared.real(step.wanted)), compared.images(step.made)
        loss = critic_loss(self.critics, real, fake)
        self.learner.update(loss)
        asked = generator_losses(self.critics, real, fake)
        distances = {name: value for name, value in step.losses.items() if name != "commitment"}
        balanced = self.balance(distances | asked, step.made)
        log = {"critic": loss, **asked}
        total = balanced + self.losses.weight("commitment") * step.losses["commitment"]
        return total, {name: float(value.detach()) for name, value in log.items()}

    @property
    def parts(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"critics": self.critics, "critics_learner": self.learner, "balance": self.balance}


class _Trainer:
    """One codec in training."""

    def __init__(self, codec: SoundStream, recipe: CodecRecipe, run: Run, *, seeded: bool) -> None:
        self.codec, self.recipe, self.run = codec, recipe, run
        self.average = AverageWeights(codec, recipe.average)
        self.learner = Learner(run, codec.parameters(), recipe.rate, betas=(0.8, 0.99), average=self.average)
        self.losses = CodecLosses(codec, recipe, seeded=seeded)
        self.losses.rvq.group = run if run.processes > 1 else None
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.rng = np.random.default_rng(recipe.seed)
        self.adversary = Adversary(run, self.losses) if recipe.adversarial_weight else None

    @property
    def parts(self) -> dict[str, Any]:
        """What a resumed run needs."""
        own = {name: getattr(self, name) for name in ("average", "learner", "losses", "generator", "rng")}
        return {"codec": self.codec, **own, **(self.adversary.parts if self.adversary else {})}

    def step(self, batch: Tensor) -> None:
        """Learn from a global batch ``[B, T]``."""
        recipe, run = self.recipe, self.run
        warm = run.step < recipe.warm_steps and run.progress < 0.25
        keep = dropped_levels(len(batch), self.codec.config.levels, recipe.dropout, self.generator)
        with run.autocast():
            made = self.losses(run.share(batch), run.share(keep), warm=warm)
            log = {name: float(loss.detach()) for name, loss in made.losses.items()}
            if self.adversary is not None and self.adversary.on:
                total, more = self.adversary.total(made)
                log |= more
            else:
                total = self.losses.total(made.losses)
        self.learner.step(total, log)

    def save(self) -> None:
        """Write the weights that are kept, once there are codebooks."""
        if not self.losses.seeded:
            return
        perplexity = self.losses.rvq.perplexity()
        self.run.log({"perplexity": float(perplexity.mean())}, details(perplexity))
        info = {"steps": self.run.step}
        with self.kept():
            save_weights(self.run.out / "codec.safetensors", weights_of(self.codec), info)

    def kept(self) -> AbstractContextManager[None]:
        """The codec computes with the weights that are kept."""
        return self.average.applied() if self.recipe.average else nullcontext()


def train_codec(
    parts: list[tuple[Corpus, float]],
    out: str | Path,
    config: CodecConfig,
    recipe: CodecRecipe,
    *,
    device: str = "cpu",
    precision: str = "no",
    weights_from: Path | None = None,
    restart: bool = False,
) -> SoundStream:
    """Train a codec on weighted corpora until the recipe's minutes are over; weights go to ``out/codec.safetensors``.

    Called again with the same arguments it goes on from ``out/codec.state.safetensors``, or does nothing if it had
    finished. ``weights_from`` starts afresh from earlier weights: a new optimizer and schedule, no unquantized phase.
    ``restart`` begins anew whatever is there.

    Raises:
        InputError: the weights do not fit, or a corpus cannot be cropped.
        TrainingError: a loss became NaN, or the disk is full; the last checkpoint is intact.
        StoppedError: a signal ended the run; the weights are saved.
    """
    torch.manual_seed(recipe.seed)
    codec = trainable_codec(config, recipe.decay).train()
    if weights_from is not None:
        resume_codec(codec, weights_from)
    settings = settings_of(recipe, config)
    with Run(
        out,
        "codec",
        recipe.minutes,
        steps=recipe.steps,
        device=device,
        precision=precision,
        settings=settings,
        weights_from=weights_from,
        restart=restart,
    ) as run:
        codec.to(run.device)
        trainer = _Trainer(codec, recipe, run, seeded=weights_from is not None)
        batches = crops(parts, whole_ticks(recipe.seconds), recipe.batch, trainer.rng)
        if not run.resume(trainer.parts, export=trainer.save) and weights_from is None:
            trainer.losses.compared.calibrate(next(batches).to(run.device) for _ in range(CALIBRATION))
        for _ in run:
            trainer.step(next(batches))
        if not trainer.losses.seeded and not run.signal:  # one that was stopped goes on with its first phase
            trainer.losses.seed()
    if recipe.average:
        codec.load_state_dict(trainer.average.weights())
    return codec.cpu().eval()
