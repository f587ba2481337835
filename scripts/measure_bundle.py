"""The figures of a bundle's card, on held-out sound and tokens.

    pip install pesq pystoi
    python scripts/measure_bundle.py BUNDLE DEV_CORPUS [TRAIN_TOKENS DEV_TOKENS]

Prints one JSON object: reconstruction (log-mel distance, PESQ-WB and STOI by levels, codebook perplexity), and, where
token files are given, each stage's held-out nats a token beside the unigram's and beside itself without conditioning.
"""

import json
import sys

import numpy as np
import torch
from pesq import NoUtterancesError, pesq
from pystoi import stoi

from audiolm.bundle import load_bundle
from audiolm.codec import SoundStream
from audiolm.train.data import Corpus
from audiolm.train.export import likelihoods, reconstruction
from audiolm.train.tokens import Tokens

LEVELS, CLIPS = (4, 8, 12), 16
CROPS = {"semantic": 60.0, "coarse": 20.0, "fine": 6.0}


@torch.inference_mode()
def perceived(codec: SoundStream, corpus: Corpus) -> dict[str, object]:
    """Mean PESQ-WB and STOI of the first 6 s of some clips, by levels.

    Clips in which PESQ finds no utterance are left out.
    """
    rows: dict[int, list[tuple[float, float]]] = {levels: [] for levels in LEVELS}
    for i in range(0, len(corpus.names), max(1, len(corpus.names) // CLIPS)):
        clip = corpus.clip(i)[: 6 * 16000]
        clip = clip[: len(clip) // 640 * 640]
        if len(clip) < 16000:
            continue
        codes = codec.encoder(torch.from_numpy(clip.copy())[None])
        for levels, found in rows.items():
            made = codec.decoder(codes[..., :levels])[0].numpy()
            try:
                found.append((pesq(16000, clip, made, "wb"), stoi(clip, made, 16000)))
            except NoUtterancesError:
                continue
    means = {levels: [round(float(v), 3) for v in np.mean(found, 0)] for levels, found in rows.items()}
    return {"pesq_wb_stoi": means, "clips": len(rows[LEVELS[-1]])}


def main(bundle: str, dev: str, *tokens: str) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    parts, corpus = load_bundle(bundle), Corpus.open(dev)
    found = {**reconstruction(parts.codec, corpus, clips=CLIPS), **perceived(parts.codec, corpus)}
    if tokens:
        found["stages"] = likelihoods(parts, Tokens.open(tokens[0]), Tokens.open(tokens[1]), CROPS)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
