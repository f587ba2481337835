"""Which layer of an encoder and how many clusters: the sweep of the recipe, for an encoder that is trained already.

    python scripts/layer_sweep.py ENCODER.safetensors TRAIN_CORPUS DEV_CORPUS OUT --layers 1,2,3 --clusters 512,1024 \
        --sizes layers=4 --manifest manifest.csv --where tier=A          # speech: ABX, phones by forced alignment
    python scripts/layer_sweep.py ENCODER.safetensors TRAIN_CORPUS DEV_CORPUS OUT --music --sizes layers=3,pitches=96

Writes OUT/sweep.json, OUT/sweep.md, OUT/sweep.png and, of the manifest's texts, OUT/phones.json, and prints the table.
"""

import argparse
import logging
from pathlib import Path

import torch

from audiolm.eval.clips import speaker_of
from audiolm.eval.phones import align_corpus, english_texts, load_phones, save_phones
from audiolm.tokenizer import SemanticTokenizer, TokenizerConfig
from audiolm.train.data import Corpus
from audiolm.train.loop import load_weights
from audiolm.train.sweep import Held, sweep


def numbers(text: str) -> tuple[int, ...]:
    """``1,2,3``."""
    return tuple(int(part) for part in text.split(","))


def pairs(text: str) -> dict[str, str]:
    """``name=value,name=value``."""
    return dict(part.split("=", 1) for part in text.split(",") if part)


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("encoder", "train", "dev", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--layers", type=numbers, default=())
    parser.add_argument("--clusters", type=numbers, default=(512,))
    parser.add_argument("--ticks", type=int, default=60000, help="embeddings that clusters are fitted to")
    parser.add_argument("--sizes", type=pairs, default={}, help="of the tokenizer, where not the default")
    parser.add_argument("--music", action="store_true", help="choose by chroma and onsets")
    parser.add_argument("--manifest", type=Path, help="CSV with file and text: choose by ABX")
    parser.add_argument("--where", type=pairs, default={}, help="columns of the manifest and their values")
    return parser.parse_args()


def held_of(dev: Corpus, given: argparse.Namespace) -> Held:
    """The held-out sound with its phones; alignments in OUT are used again."""
    speakers = {name: speaker_of(dev, i) for i, name in enumerate(dev.names)}
    if given.manifest is None:
        return Held.of(dev, speakers=speakers, music=given.music)
    path = given.out / "phones.json"
    if not path.is_file():
        save_phones(path, align_corpus(dev, english_texts(given.manifest, **given.where)))
    return Held.of(dev, phones=load_phones(path), speakers=speakers, music=given.music)


def main() -> None:
    """Sweep, write and print."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = arguments()
    given.out.mkdir(parents=True, exist_ok=True)
    sizes = {name: int(value) for name, value in given.sizes.items()}
    config = TokenizerConfig(**({"layer": 1} | sizes))
    tokenizer = SemanticTokenizer(config).eval()
    load_weights(given.encoder, tokenizer.encoder)
    layers = given.layers or tuple(range(config.layers + 1))
    held = held_of(Corpus.open(given.dev), given)
    found = sweep(tokenizer, Corpus.open(given.train), held, layers, given.clusters, ticks=given.ticks)
    found.save(given.out)
    found.plot(given.out / "sweep.png")
    print(found.markdown())


if __name__ == "__main__":
    main()
