"""A tiny random model: the whole pipeline at a few hundred kilobytes, for tests and for trying configs."""

from copy import deepcopy
from typing import Any

import torch

from audiolm.codec import CodecConfig, SoundStream
from audiolm.parts import Parts
from audiolm.sampler import Sampling
from audiolm.stage import Pattern, Stage, StageSpec
from audiolm.tokenizer import SemanticTokenizer, TokenizerConfig


def tiny_parts(seed: int = 0, *, pattern: Pattern = "depth", lookahead: int = 2, ahead: int = 2, **sizes: Any) -> Parts:
    """A model with random weights, the real clock and the real look-ahead, small everywhere else.

    ``sizes`` go to every stage.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        codec = SoundStream(
            CodecConfig(channels=2, residual_units=(1, 1, 1, 1), latent=16, levels=6, cardinality=32, coarse_levels=2)
        )
        clusters = 24
        tokenizer = SemanticTokenizer(
            TokenizerConfig(
                mels=20,
                lookahead=lookahead,
                layers=2,
                layer=1,
                width=32,
                heads=2,
                window=25,
                kernel=5,
                components=16,
                clusters=clusters,
            )
        )
        size = {
            "layers": 1,
            "width": 32,
            "heads": 2,
            "depth_layers": 1,
            "depth_width": 32,
            "depth_heads": 2,
            "feed_forward": 2,
            **sizes,
        }
        stages = {
            "semantic": Stage(StageSpec("semantic", 0, 25, 1, clusters, window=50, pattern=pattern, **size)),
            "coarse": Stage(StageSpec("coarse", 1, 50, 2, 32, 1, clusters, ahead, window=40, pattern=pattern, **size)),
            "fine": Stage(StageSpec("fine", 2, 50, 4, 32, 2, 32, window=20, pattern=pattern, **size)),
        }
        _liven(codec)
        _liven_tokenizer(tokenizer)
        return Parts(codec, tokenizer, stages, {name: Sampling(1.0) for name in stages}, "tiny")


def _liven(codec: SoundStream) -> None:
    """Spread the random codebooks over the random encoder's latents, so that different sounds have different codes.

    In float64: some processors round a long convolution by where it lies in memory, and weights must be the same twice.
    """
    with torch.no_grad():
        noise = torch.randn(4, 16000) * torch.linspace(0.01, 0.3, 4)[:, None]
        z = deepcopy(codec.encoder).double().latent(noise.double()).float()
        residual = z.reshape(-1, z.shape[-1])
        for level in range(codec.config.levels):
            pick = torch.randperm(len(residual))[: codec.config.cardinality]
            codec.rvq.codebooks[level] = residual[pick]
            index = codec.rvq.nearest(residual, level)
            residual = residual - codec.rvq.codebooks[level][index]


def _liven_tokenizer(tokenizer: SemanticTokenizer) -> None:
    """Take the centroids from embeddings of changing sounds, so that different sounds have different tokens."""
    with torch.no_grad():
        time = torch.arange(16000 * 4) / 16000
        tones = torch.stack([torch.sin(2 * torch.pi * f * time) for f in (150.0, 440.0, 1100.0, 2900.0)])
        loud = (torch.sin(2 * torch.pi * torch.tensor([0.7, 1.1, 1.9, 2.3])[:, None] * time) > 0) * 0.1
        audio = tones * loud + torch.randn_like(tones) * 0.02
        x = deepcopy(tokenizer).double().embed(audio.double()).flatten(0, 1)
        tokenizer.mean.copy_(x.mean(0))
        variance, directions = torch.linalg.eigh(torch.cov(x.T))
        largest = variance.argsort(descending=True)[: tokenizer.config.components]
        tokenizer.whitening.copy_(directions[:, largest] / variance[largest].clamp_min(1e-6).sqrt())
        pick = torch.randperm(len(x))[: tokenizer.config.clusters]
        tokenizer.centroids.copy_((x.float() - tokenizer.mean)[pick] @ tokenizer.whitening)
