"""Models of random weights, made where they are to run: speed does not depend on the values of weights."""

from typing import Any

import torch

from audiolm.codec import CodecConfig, SoundStream
from audiolm.parts import PAPER_SAMPLING, STAGES, Parts
from audiolm.stage import Stage, StageSpec
from audiolm.tiny import tiny_parts
from audiolm.tokenizer import SemanticTokenizer, TokenizerConfig

CLUSTERS, CODES, COARSE, FINE = 512, 1024, 4, 8
# What the shipped bundles have (configs/models/default.yaml), and the paper's three stages of 12 layers, by frames.
Size = dict[str, dict[str, Any]]
DEFAULT: Size = {
    "semantic": {"layers": 4, "width": 256, "heads": 4},
    "coarse": {"layers": 4, "width": 256, "heads": 4, "depth_width": 192, "depth_heads": 3},
    "fine": {"layers": 3, "width": 256, "heads": 4, "depth_width": 128, "depth_heads": 2},
}
PAPER: Size = {
    name: {"layers": 12, "width": 1024, "heads": 16, "depth_layers": 2, "depth_width": 512, "depth_heads": 8}
    for name in STAGES
}
SIZES = {"default": DEFAULT, "paper": PAPER}


def make_parts(name: str, device: torch.device, seed: int = 0) -> Parts:
    """A model of the sizes `default`, `paper` or `tiny`; codec and tokenizer are the default's but for `tiny`."""
    torch.manual_seed(seed)
    if name == "tiny":
        return tiny_parts(seed, width=64, heads=4, depth_width=32)
    codec = SoundStream(CodecConfig(kind="spectral", window=480, latent=64))
    ears = SemanticTokenizer(TokenizerConfig(layers=3, layer=3, clusters=CLUSTERS))
    with torch.device(device):
        stages = {spec.name: Stage(spec) for spec in specs(name)}
    return Parts(codec, ears, stages, dict(PAPER_SAMPLING), name)


def specs(name: str) -> list[StageSpec]:
    """The three stages of a size: windows of 30, 10 and 3 s."""
    size = SIZES[name]
    return [
        StageSpec("semantic", 0, 25, 1, CLUSTERS, window=750, **size["semantic"]),
        StageSpec("coarse", 1, 50, COARSE, CODES, 1, CLUSTERS, 2, window=500, **size["coarse"]),
        StageSpec("fine", 2, 50, FINE, CODES, COARSE, CODES, window=150, **size["fine"]),
    ]
