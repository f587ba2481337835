"""The ears of a bundle: layer and clusters chosen by measurement, then codec and tokenizer as they will ship."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from audiolm.codec import SoundStream
from audiolm.errors import InputError
from audiolm.eval.phones import Phone, align_corpus, english_texts, load_phones, save_phones
from audiolm.parts import STAGES
from audiolm.tokenizer import SemanticTokenizer
from audiolm.train.card import SWEEP
from audiolm.train.data import Corpus
from audiolm.train.export import ears_bundle
from audiolm.train.loop import load_weights
from audiolm.train.presets import Preset
from audiolm.train.sources import MANIFEST
from audiolm.train.sweep import Held, Sweep, fit, sweep

Phones = Mapping[str, Sequence[Phone]]
logger = logging.getLogger("audiolm.train")


def trained_tokenizer(preset: Preset, work: Path) -> SemanticTokenizer:
    """The tokenizer of ``preset`` with the encoder in ``work``; its clusters are still to be fitted.

    Raises:
        InputError: the weights are not there or of other sizes.
    """
    tokenizer = SemanticTokenizer(preset.semantic.model).eval()
    load_weights(work / "encoder.safetensors", tokenizer.encoder)
    return tokenizer


def choose(preset: Preset, tokenizer: SemanticTokenizer, train: Corpus, held: Held) -> Sweep:
    """Sweep over the layers and numbers of clusters of ``preset``; the best pair is left in ``tokenizer``."""
    plan = preset.semantic.sweep
    return sweep(tokenizer, train, held, plan.layers, plan.clusters, ticks=plan.ticks)


def make_ears(preset: Preset, work: Path, train: Corpus, dev: Corpus, phones: Phones | None = None) -> dict[str, Any]:
    """Choose layer and clusters, if the preset has more than one of them, and write ``work/ears``.

    Args:
        preset: its ``semantic.sweep`` says what is tried.
        work: holds the weights of encoder and codec.
        train: what clusters are fitted to.
        dev: what they are measured on.
        phones: of clips of ``dev``, for ABX errors.

    Returns:
        Figures for the card: the chosen ``layer`` and ``clusters``, and the rows of the ``sweep``.

    Raises:
        InputError: weights are not there, or there is too little sound.
    """
    tokenizer, codec = trained_tokenizer(preset, work), SoundStream(preset.codec.model)
    load_weights(work / "codec.safetensors", codec)
    (work / SWEEP).unlink(missing_ok=True)
    plan, rows = preset.semantic.sweep, list[dict[str, Any]]()
    if plan.layers or plan.clusters:
        made = choose(preset, tokenizer, train, Held.of(dev, phones=phones, music=plan.music))
        made.save(work)
        _draw(made, work / SWEEP)
        rows = [asdict(row) for row in made.rows]
    else:
        fit(tokenizer, train, (tokenizer.config.layer, tokenizer.config.clusters), plan.ticks)
    found = {"layer": tokenizer.config.layer, "clusters": tokenizer.config.clusters}
    specs = {name: preset.spec(name, found["clusters"]) for name in STAGES}
    ears_bundle(codec, tokenizer, work / "ears", specs, dtypes=asdict(preset.export.dtypes))
    return found | {"sweep": rows}


def _draw(made: Sweep, path: Path) -> None:
    try:
        made.plot(path)
    except ImportError:
        logger.info("no matplotlib here: the sweep has a table and no picture")


def find_phones(file: Path | None, data: Path, dev: Corpus, work: Path, *, align: bool) -> Phones | None:
    """Phones of held-out clips: of ``file``, or with ``align`` those of the English texts in the data's manifest.

    Alignments are kept in ``work/phones.json``.

    Raises:
        InputError: the file is of no use, or there is no manifest with texts, or no pocketsphinx.
    """
    if file is not None:
        return load_phones(file)
    if not align:
        return None
    manifest = data if data.is_file() else data / MANIFEST
    texts = english_texts(manifest)
    known = {name: texts[name] for name in dev.names if texts.get(name)}
    if not known:
        raise InputError(f"{manifest} has no texts of held-out clips, so no phones; set semantic.sweep.align to false")
    logger.info("ears: aligning the phones of %d held-out clips", len(known))
    phones = align_corpus(dev, known)
    save_phones(work / "phones.json", phones)
    return phones
