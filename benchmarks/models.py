"""Models to measure: the shipped default bundle where there is one, else random weights of its sizes.

Speed does not depend on the values of weights, only on their number; sampled tokens of a random model spread over all
codes, which no step is slower or faster for.
"""

import sys
from pathlib import Path

import torch

from audiolm.bundle import save_bundle, shipped
from audiolm.codec import CodecConfig, SoundStream
from audiolm.parts import PAPER_SAMPLING, Parts
from audiolm.stage import Stage
from audiolm.tiny import tiny_parts
from audiolm.tokenizer import SemanticTokenizer, TokenizerConfig
from audiolm.train.export import default_specs

DEFAULT = "piano"


def random_parts(semantic: Stage | None = None, seed: int = 0) -> Parts:
    """A random model of the default sizes; `semantic` takes the place of its semantic stage."""
    torch.manual_seed(seed)
    clusters = TokenizerConfig().clusters if semantic is None else semantic.spec.cardinality
    stages = {name: Stage(spec) for name, spec in default_specs(clusters).items()}
    if semantic is not None:
        stages["semantic"] = semantic
    codec, tokenizer = SoundStream(CodecConfig()), SemanticTokenizer(TokenizerConfig(clusters=clusters))
    return Parts(codec, tokenizer, stages, dict(PAPER_SAMPLING), "random")


def bundle(folder: Path, *, tiny: bool) -> str:
    """Name or path of the bundle to measure; one of random weights is written below `folder` where none ships."""
    if not tiny and DEFAULT in shipped():
        return DEFAULT
    parts = tiny_parts() if tiny else random_parts()
    return str(save_bundle(parts, folder / parts.name, card="Random weights, for measuring speed.\n"))


def main() -> int:
    """Write a bundle where one is needed, and print its name or path: `models.py FOLDER [--tiny]`."""
    sys.stdout.write(bundle(Path(sys.argv[1]), tiny="--tiny" in sys.argv[2:]) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
