"""Training of the codec: reconstruction losses, quantizer dropout, EMA codebooks.

The unquantized phase lets the latent settle before codebooks are laid over it. What is compared depends on the kind of
codec: waveforms and mel spectra of ``seanet``, the short-time magnitudes themselves of ``spectral``.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from audiolm.bundle import weights_of
from audiolm.codec import CodecConfig, SoundStream
from audiolm.errors import ConfigError
from audiolm.features import mel_filters
from audiolm.rvq import TrainableRVQ
from audiolm.spectral import SpectralDecoder, SpectralEncoder, compress, expand
from audiolm.train.data import Corpus, crops, whole_ticks
from audiolm.train.loop import Learner, Run, TrainingError, load_weights, save_weights
from audiolm.train.losses import (
    bin_weights,
    mel_distance,
    mel_spectrum_distance,
    spectrum_distance,
    waveform_distance,
)

CALIBRATION = 10  # batches that the spectra's mean and scale are measured on


@dataclass(frozen=True)
class CodecRecipe:
    """How a codec is trained.

    Attributes:
        minutes: length of the run; ``steps`` may end it earlier.
        seconds: of each item of a batch.
        rate: the highest learning rate.
        warm_steps: without quantization, until the latent has settled; never more than a quarter of the run.
        seed_batches: the codebooks start from the latents of so many last batches of that phase.
        dropout: share of items that use a random number of levels.
        decay: of the moving averages behind the codebooks, a step.
        waveform_weight: of the waveform's distance; ``seanet`` only.
        mel_weight: of log-mel distance.
        spectrum_weight: of the distance between short-time spectra; ``spectral`` only.
        commitment_weight: of the distance between a latent and its codes.
    """

    minutes: float = 40.0
    batch: int = 4
    seconds: float = 0.64
    rate: float = 1e-3
    warm_steps: int = 500
    seed_batches: int = 100
    waveform_weight: float = 12.0
    mel_weight: float = 4.0
    spectrum_weight: float = 4.0
    commitment_weight: float = 1.0
    decay: float = 0.99
    dropout: float = 0.5
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
    rvq = learning(codec)
    rvq.total.copy_(rvq.codebooks)
    rvq.use.fill_(1.0)


class Compared:
    """What the losses of a codec compare, by its kind: the latent of a batch, and the distances of what it becomes."""

    def __init__(self, codec: SoundStream) -> None:
        self.codec = codec

    def latent(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """What is to be matched and the latent ``[B, frames, latent]`` of a batch ``[B, T]``."""
        return audio, self.codec.encoder.latent(audio)

    def distances(self, wanted: Tensor, z: Tensor) -> dict[str, Tensor]:
        """How far the sound of ``z`` is from what was wanted."""
        fake = self.codec.decoder.synthesize(z)
        return {"mel": mel_distance(wanted, fake), "waveform": waveform_distance(wanted, fake)}


class ComparedSpectra(Compared):
    """Short-time magnitudes are compared, so no phase is made up in training."""

    def __init__(self, codec: SoundStream, encoder: SpectralEncoder, decoder: SpectralDecoder) -> None:
        super().__init__(codec)
        self.encoder, self.decoder = encoder, decoder
        rate, window = codec.config.sample_rate, codec.config.window
        self.weights = bin_weights(encoder.bins, rate)
        self.filters = mel_filters(window, 80, rate)

    def to(self, device: torch.device) -> "ComparedSpectra":
        """Move what the distances need."""
        self.weights, self.filters = self.weights.to(device), self.filters.to(device)
        return self

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Tensor]) -> None:
        """Measure mean and scale of the log magnitudes of batches ``[B, T]``."""
        encoder, decoder = self.encoder, self.decoder
        rows = [compress(self._magnitudes(audio)).reshape(-1, len(encoder.mean)) for audio in batches]
        features = torch.cat(rows)
        for net in (encoder, decoder):
            net.mean.copy_(features.mean(0))
            net.scale.copy_(features.std(0).mean())

    def _magnitudes(self, audio: Tensor) -> Tensor:
        return self.encoder.magnitudes(audio[:, None] * self.codec.encoder.INPUT_GAIN)

    def latent(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Magnitudes ``[B, spectra, bins]`` and the latent of a batch."""
        magnitudes = self._magnitudes(audio)
        return magnitudes, self.encoder.latent(magnitudes)

    def distances(self, wanted: Tensor, z: Tensor) -> dict[str, Tensor]:
        """Distances of log, power-law and mel spectra."""
        made = self.decoder.features(z)
        return {
            "spectrum": spectrum_distance(compress(wanted), made, wanted, expand(made), self.weights),
            "mel": mel_spectrum_distance(wanted, expand(made), self.filters),
        }


def compared(codec: SoundStream) -> Compared:
    """What the losses of ``codec`` compare."""
    encoder, decoder = codec.encoder.net, codec.decoder.net
    if isinstance(encoder, SpectralEncoder) and isinstance(decoder, SpectralDecoder):
        return ComparedSpectra(codec, encoder, decoder).to(codec.encoder.device)
    return Compared(codec)


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
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self._latents: deque[Tensor] = deque(maxlen=max(1, recipe.seed_batches))

    def __call__(self, audio: Tensor, *, warm: bool) -> dict[str, Tensor]:
        """The losses of a batch ``[B, T]``; with ``warm`` false the codebooks are seeded when they are not yet."""
        wanted, z = self.compared.latent(audio)
        losses: dict[str, Tensor] = {}
        if not self.seeded and not warm and self._enough:
            self.seed()
        if self.seeded:
            config = self.codec.config
            keep = dropped_levels(len(audio), config.levels, self.recipe.dropout, self.generator).to(audio.device)
            z, _, losses["commitment"] = self.rvq(z, keep)
        else:
            self._latents.append(z.detach().reshape(-1, z.shape[-1]))
        return losses | self.compared.distances(wanted, z)

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """Their weighted sum."""
        return torch.stack([getattr(self.recipe, f"{name}_weight") * loss for name, loss in losses.items()]).sum()

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


def train_codec(
    parts: list[tuple[Corpus, float]],
    out: str | Path,
    config: CodecConfig,
    recipe: CodecRecipe,
    *,
    device: str = "cpu",
    weights_from: Path | None = None,
) -> SoundStream:
    """Train a codec on weighted corpora until the recipe's minutes are over; weights go to ``out/codec.safetensors``.

    ``weights_from`` starts afresh from earlier weights: a new optimizer and schedule, no unquantized phase.

    Raises:
        InputError: the weights do not fit, or a corpus cannot be cropped.
        TrainingError: a loss became NaN, or the disk is full; the last checkpoint is intact.
        StoppedError: a signal ended the run; the weights are saved.
    """
    torch.manual_seed(recipe.seed)
    codec = trainable_codec(config, recipe.decay).train()
    if weights_from is not None:
        resume_codec(codec, weights_from)
    codec.to(device)
    losses = CodecLosses(codec, recipe, seeded=weights_from is not None)
    batches = crops(parts, whole_ticks(recipe.seconds), recipe.batch, recipe.seed)
    if weights_from is None and isinstance(losses.compared, ComparedSpectra):
        losses.compared.calibrate(next(batches).to(device) for _ in range(CALIBRATION))
    path = Path(out) / "codec.safetensors"
    with Run(out, "codec", recipe.minutes, steps=recipe.steps) as run:
        learner = Learner(run, codec.parameters(), recipe.rate, betas=(0.8, 0.99))
        while not run.done:
            warm = run.step < recipe.warm_steps and run.progress < 0.25
            parts_of = losses(next(batches).to(device), warm=warm)
            learner.step(losses.total(parts_of), {name: float(loss.detach()) for name, loss in parts_of.items()})
            if losses.seeded and run.save_due():
                save_weights(path, weights_of(codec), {"steps": run.step})
        if not losses.seeded:
            losses.seed()
        save_weights(path, weights_of(codec), {"steps": run.step})
    return codec.cpu().eval()
