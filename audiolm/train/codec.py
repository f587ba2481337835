"""Training of the codec: reconstruction losses, quantizer dropout, EMA codebooks. The recipe's figures are from MEASURED.md."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from audiolm.codec import CodecConfig, SoundStream
from audiolm.rvq import TrainableRVQ
from audiolm.train.data import Corpus, crops
from audiolm.train.loop import Run, cosine, save_weights, set_rate
from audiolm.train.losses import mel_distance, waveform_distance


@dataclass(frozen=True)
class CodecRecipe:
    """How a codec is trained."""

    minutes: float = 40.0
    batch: int = 4
    seconds: float = 0.64
    rate: float = 1e-3
    warm_steps: int = 500  # without quantization, until the latent has settled
    seed_batches: int = 100
    waveform_weight: float = 12.0
    mel_weight: float = 4.0
    commitment_weight: float = 1.0
    dropout: float = 0.5  # share of items that use a random number of levels
    seed: int = 0


def trainable_codec(config: CodecConfig) -> SoundStream:
    """A codec whose codebooks can learn."""
    return SoundStream(config, TrainableRVQ(config.levels, config.cardinality, config.latent))


def dropped_levels(batch: int, levels: int, share: float, generator: torch.Generator) -> Tensor:
    """How many levels each item keeps: all, or a uniform number for ``share`` of the items (SoundStream's quantizer dropout)."""
    few = torch.randint(1, levels + 1, (batch,), generator=generator)
    return torch.where(torch.rand(batch, generator=generator) < share, few, torch.full_like(few, levels))


def codec_weights(codec: SoundStream) -> dict[str, Tensor]:
    """The tensors that inference needs, each once."""
    keep = ("rvq.codebooks", "encoder.net.", "decoder.net.")
    return {name: value for name, value in codec.state_dict().items() if name.startswith(keep)}


def resume_codec(codec: SoundStream, path: Path) -> None:
    """Load weights that :func:`train_codec` wrote; the averages behind the codebooks start from them."""
    codec.load_state_dict(load_file(path), strict=False)
    rvq = codec.rvq
    assert isinstance(rvq, TrainableRVQ)
    rvq.total.copy_(rvq.codebooks)
    rvq.use.fill_(1.0)


def train_codec(
    parts: list[tuple[Corpus, float]],
    out: str | Path,
    config: CodecConfig,
    recipe: CodecRecipe,
    *,
    device: str = "cpu",
    weights_from: Path | None = None,
) -> SoundStream:
    """Train a codec on weighted corpora until the recipe's minutes are over; the weights are in ``out/codec.safetensors``.

    ``weights_from`` starts afresh from earlier weights: a new optimizer and schedule, no unquantized phase.
    """
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    codec = trainable_codec(config).train()
    rvq = codec.rvq
    warm_steps = recipe.warm_steps
    if weights_from is not None:
        resume_codec(codec, weights_from)
        warm_steps = 0
    codec.to(device)
    assert isinstance(rvq, TrainableRVQ)
    weights = [p for p in codec.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=recipe.rate, betas=(0.8, 0.99))
    run = Run(out, recipe.minutes)
    batches = crops(parts, int(recipe.seconds * config.sample_rate) // 640 * 640, recipe.batch, recipe.seed)
    pool: list[Tensor] = []
    while not run.done:
        audio = next(batches).to(device)
        z = codec.encoder.latent(audio)
        losses: dict[str, Tensor] = {}
        if run.step < warm_steps:
            if run.step >= warm_steps - recipe.seed_batches:
                pool.append(z.detach().reshape(-1, config.latent))
            quantized = z
        else:
            if pool:
                rvq.seed(torch.cat(pool))
                pool = []
            keep = dropped_levels(len(audio), config.levels, recipe.dropout, generator).to(device)
            quantized, _, losses["commitment"] = rvq(z, keep)
        fake = codec.decoder.synthesize(quantized)
        losses["mel"] = mel_distance(audio, fake)
        losses["waveform"] = waveform_distance(audio, fake)
        total = recipe.mel_weight * losses["mel"] + recipe.waveform_weight * losses["waveform"]
        if "commitment" in losses:
            total = total + recipe.commitment_weight * losses["commitment"]
        set_rate(optimizer, cosine(run.progress, recipe.rate))
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        run.tick({name: float(value.detach()) for name, value in losses.items()})
        if run.save_due:
            save_weights(Path(out) / "codec.safetensors", codec_weights(codec))
    save_weights(Path(out) / "codec.safetensors", codec_weights(codec), {"steps": run.step})
    return codec.cpu().eval()
