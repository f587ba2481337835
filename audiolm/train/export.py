"""From trained parts to a bundle; the plain figures of its card come from :mod:`audiolm.eval`."""

from collections.abc import Mapping
from pathlib import Path

from audiolm.bundle import load_bundle, save_bundle
from audiolm.codec import SoundStream
from audiolm.eval.likelihood import likelihoods, unigram
from audiolm.eval.reconstruction import figures as reconstruction
from audiolm.parts import PAPER_SAMPLING, STAGES, Parts
from audiolm.stage import Stage, StageSpec
from audiolm.tokenizer import SemanticTokenizer
from audiolm.train.loop import load_weights

__all__ = ["DTYPES", "assemble", "default_specs", "ears_bundle", "likelihoods", "reconstruction", "unigram"]

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
