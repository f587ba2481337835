"""From trained parts to a bundle, and the figures of its card."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiolm.bundle import load_bundle, save_bundle
from audiolm.codec import SoundStream
from audiolm.parts import PAPER_SAMPLING, STAGES, Parts
from audiolm.stage import Stage, StageSpec
from audiolm.tokenizer import SemanticTokenizer
from audiolm.train.data import RATE, Corpus
from audiolm.train.loop import load_weights
from audiolm.train.losses import mel_distance
from audiolm.train.stages import StageData, evaluate
from audiolm.train.tokens import Tokens

# int8 where the matrices are large and errors average out; the codec's convolutions stay fp16 in any case.
DTYPES = {"codec": "fp16", "tokenizer": "int8", "semantic": "int8", "coarse": "int8", "fine": "int8"}


def default_specs(clusters: int, ahead: int = 2) -> dict[str, StageSpec]:
    """The sizes that run live in plain torch on one core: about half of real time together."""
    return {
        "semantic": StageSpec("semantic", 0, 25, 1, clusters, window=750, layers=4, width=256, heads=4),
        "coarse": StageSpec("coarse", 1, 50, 4, 1024, 1, clusters, ahead, window=500, depth_width=192, depth_heads=3),
        "fine": StageSpec("fine", 2, 50, 8, 1024, 4, 1024, window=150, layers=3, depth_width=128, depth_heads=2),
    }


def ears_bundle(
    codec: SoundStream,
    tokenizer: SemanticTokenizer,
    folder: str | Path,
    specs: Mapping[str, StageSpec] | None = None,
) -> Parts:
    """Write codec and tokenizer with untrained stages and read them back.

    So tokens for training are made by the weights that ship. ``specs`` of the stages default to :func:`default_specs`.
    """
    specs = specs or default_specs(tokenizer.config.clusters)
    stages = {name: Stage(spec) for name, spec in specs.items()}
    save_bundle(Parts(codec, tokenizer, stages, name="ears"), folder, card="Untrained stages.\n", dtypes=DTYPES)
    return load_bundle(folder)


def assemble(ears: Parts, weights: Mapping[str, Path], name: str, folder: str | Path, *, card: str) -> Parts:
    """Put trained stages behind the ears and write the bundle ``folder``.

    Raises:
        InputError: the weights of a stage are not there, or of other sizes.
    """
    stages = {}
    for stage_name in STAGES:
        stages[stage_name] = Stage(ears.stages[stage_name].spec)
        load_weights(weights[stage_name], stages[stage_name])
    parts = Parts(ears.codec, ears.tokenizer, stages, dict(PAPER_SAMPLING), name)
    save_bundle(parts, folder, card=card, dtypes=DTYPES)
    return load_bundle(folder)


def unigram(tokens: Tensor, held: Tensor, cardinality: int) -> Tensor:
    """Held-out cross-entropy in nats of the add-one unigram of each level: ``[N, levels] -> [levels]``."""
    rows = []
    for q in range(tokens.shape[1]):
        counts = torch.bincount(tokens[:, q].long(), minlength=cardinality).float() + 1
        rows.append(-(counts / counts.sum()).log()[held[:, q].long()].mean())
    return torch.stack(rows)


def _side(tokens: Tokens, name: str, split: int) -> Tensor:
    """The tokens ``[N, levels]`` that a stage predicts."""
    if name == "semantic":
        return tokens.semantic[:, None]
    return tokens.acoustic[:, :split] if name == "coarse" else tokens.acoustic[:, split:]


@torch.no_grad()
def likelihoods(parts: Parts, train: Tokens, dev: Tokens, crops: Mapping[str, float]) -> dict[str, Any]:
    """For each stage: held-out nats a token, the same without conditioning, and the unigram's.

    ``crops`` are in seconds, by stage.
    """
    split, out = parts.codec.config.coarse_levels, {}
    for name in STAGES:
        spec = parts.stages[name].spec
        data = StageData(dev, spec, split, crops[name], 1)
        row = {
            "nll": evaluate(parts.stages[name], data),
            "unigram": unigram(_side(train, name, split), _side(dev, name, split), spec.cardinality),
        }
        if spec.cond_levels:
            row["unconditioned"] = evaluate(parts.stages[name], data, drop=True)
        out[name] = {key: round(float(value.mean()), 4) for key, value in row.items()}
    return out


@torch.inference_mode()
def reconstruction(
    codec: SoundStream, corpus: Corpus, levels: Sequence[int] = (4, 8, 12), clips: int = 20
) -> dict[str, Any]:
    """Log-mel distance of reconstructions of dev clips by number of levels, and the perplexity of each codebook."""
    distance: dict[int, list[float]] = {n: [] for n in levels}
    counts = torch.zeros(codec.config.levels, codec.config.cardinality)
    for i in range(0, len(corpus.names), max(1, len(corpus.names) // clips)):
        clip = corpus.clip(i)[: 8 * RATE]
        audio = torch.from_numpy(clip[: len(clip) // 640 * 640])[None]
        codes = codec.encoder(audio)
        for n in levels:
            distance[n].append(float(mel_distance(audio, codec.decoder(codes[..., :n]))))
        for q in range(codec.config.levels):
            counts[q] += torch.bincount(codes[0, :, q], minlength=codec.config.cardinality)
    p = counts / counts.sum(-1, keepdim=True)
    perplexity = (-(p * p.clamp_min(1e-12).log()).sum(-1)).exp()
    return {
        "log_mel_distance": {n: round(sum(v) / len(v), 4) for n, v in distance.items()},
        "perplexity": [round(float(v)) for v in perplexity],
        "nats_possible": round(math.log(codec.config.cardinality), 2),
    }
