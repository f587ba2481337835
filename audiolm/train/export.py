"""From trained parts to a bundle; the plain figures of its card come from :mod:`audiolm.eval`."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from audiolm.bundle import load_bundle, save_bundle
from audiolm.codec import SoundStream
from audiolm.errors import InputError
from audiolm.eval.likelihood import likelihoods, unigram
from audiolm.eval.reconstruction import figures as reconstruction
from audiolm.parts import PAPER_SAMPLING, STAGES, Parts
from audiolm.sampler import Sampling
from audiolm.stage import Stage, StageSpec
from audiolm.tokenizer import SemanticTokenizer
from audiolm.train.loop import load_weights

__all__ = [
    "DTYPES",
    "assemble",
    "check_out",
    "default_specs",
    "ears_bundle",
    "likelihoods",
    "publish",
    "reconstruction",
    "unigram",
]

# int8 where the matrices are large and errors average out; the codec's convolutions stay fp16 in any case.
DTYPES = {"codec": "fp16", "tokenizer": "int8", "semantic": "int8", "coarse": "int8", "fine": "int8"}


def default_specs(clusters: int) -> dict[str, StageSpec]:
    """The stages of the preset ``default``, which run live on two CPU cores, behind a tokenizer of ``clusters``."""
    from audiolm.train.presets import load

    preset = load("default")
    return {name: preset.spec(name, clusters) for name in STAGES}


def ears_bundle(
    codec: SoundStream,
    tokenizer: SemanticTokenizer,
    folder: str | Path,
    specs: Mapping[str, StageSpec] | None = None,
    *,
    dtypes: Mapping[str, str] = DTYPES,
) -> Parts:
    """Write codec and tokenizer with untrained stages and read them back.

    So tokens for training are made by the weights that ship. ``specs`` of the stages default to :func:`default_specs`;
    ``dtypes`` say how each part is stored.
    """
    specs = specs or default_specs(tokenizer.config.clusters)
    stages = {name: Stage(spec) for name, spec in specs.items()}
    save_bundle(Parts(codec, tokenizer, stages, name="ears"), folder, card="Untrained stages.\n", dtypes=dtypes)
    return load_bundle(folder)


def assemble(
    ears: Parts,
    weights: Mapping[str, Path],
    name: str,
    folder: str | Path,
    *,
    card: str,
    sampling: Mapping[str, Sampling] = PAPER_SAMPLING,
    dtypes: Mapping[str, str] = DTYPES,
) -> Parts:
    """Put trained stages behind the ears and write the bundle ``folder``; ``sampling`` and ``dtypes`` are by part.

    Raises:
        InputError: the weights of a stage are not there, or of other sizes.
    """
    stages = {}
    for stage_name in STAGES:
        stages[stage_name] = Stage(ears.stages[stage_name].spec)
        load_weights(weights[stage_name], stages[stage_name])
    parts = Parts(ears.codec, ears.tokenizer, stages, dict(sampling), name)
    save_bundle(parts, folder, card=card, dtypes=dtypes)
    return load_bundle(folder)


def check_out(out: Path) -> None:
    """Refuse a folder that holds something else than a bundle.

    Raises:
        InputError: it does, or it is a file.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / "config.json").is_file()):
        raise InputError(f"{out} is there and is no bundle; give another --out", out=str(out))


def publish(draft: Path, out: Path) -> None:
    """Put a copy of the folder ``draft`` in the place of ``out``, which is whole at any moment but one.

    Raises:
        InputError: there is something else than a bundle.
        OSError: there is no room; what was there is intact.
    """
    check_out(out)
    part, old = (out.with_name(f".{out.name}.{end}") for end in ("part", "old"))
    for folder in (part, old):
        shutil.rmtree(folder, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copytree(draft, part)
        if out.exists():
            out.replace(old)
        part.replace(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
