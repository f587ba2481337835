"""Moshi's LMGen: a temporal step and eight steps of its depth Transformer, as its server takes them every 80 ms.

Its text stream is there (with a small vocabulary), since LMGen has none without it; its one small `torch.compile` per
function is left as the library has it.
"""

import argparse
import importlib.metadata

import torch
from moshi.models import LMGen, LMModel

from benchmarks.peers.talk import Prepared, serve
from benchmarks.peers.workers import yardstick as y


def model(*, tiny: bool) -> LMModel:
    """Moshi of the peers' sizes; the depth Transformer has that of our stages."""
    layers, width, context = (1, 64, 32) if tiny else (y.LAYERS, y.WIDTH, y.CONTEXT)
    return LMModel(
        delays=[0] * (y.CODES + 1), n_q=y.CODES, dep_q=y.CODES, card=y.VOCABULARY, text_card=y.VOCABULARY,
        dim=width, num_heads=width // 64, num_layers=layers, hidden_scale=4, context=context, max_period=10000,
        gating="silu", norm="rms_norm_f32", positional_embedding="rope", depformer_dim=y.DEPTH_WIDTH,
        depformer_dim_feedforward=4 * y.DEPTH_WIDTH, depformer_num_heads=y.DEPTH_HEADS,
        depformer_num_layers=y.DEPTH_LAYERS, depformer_multi_linear=True, depformer_context=y.CODES,
        depformer_gating="silu", depformer_pos_emb="none", depformer_weights_per_step=True, dtype=torch.float32,
    ).eval()  # fmt: skip


def make(chosen: argparse.Namespace) -> Prepared:
    """A stream; its ring is of a fixed size, and each step reads all of it from the first on."""
    y.prepare()
    made = model(tiny=chosen.tiny)
    generator = LMGen(made, temp=y.TEMPERATURE, top_k=y.VOCABULARY)
    generator.streaming_forever(1)
    nothing = torch.zeros(1, 0, 1, dtype=torch.int64)
    works = {"reference": y.plain_step(tiny=chosen.tiny), "step": lambda: generator.step(nothing)}
    parameters = sum(p.numel() for p in made.parameters())
    about = {"parameters": parameters, "depth": [y.DEPTH_LAYERS, y.DEPTH_WIDTH]}
    return Prepared(importlib.metadata.version("moshi"), lambda: y.turns(works, tiny=chosen.tiny), about)


def main() -> int:
    """Speak to the command."""
    return serve(make)


if __name__ == "__main__":
    raise SystemExit(main())
