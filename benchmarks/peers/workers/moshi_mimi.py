"""Mimi of the moshi package at its published sizes, random weights: 80 ms at a time, and ten seconds at once."""

import argparse
import importlib.metadata

import torch
from moshi.models import MimiModel
from moshi.models.loaders import get_mimi

from benchmarks.common import Work
from benchmarks.peers.talk import Prepared, serve
from benchmarks.peers.workers import yardstick as y

FRAME, FRAMES_A_SECOND = 1920, 12.5
FRAMES = 125  # ten seconds


def make(chosen: argparse.Namespace) -> Prepared:
    """Two models of the same weights' sizes: one that streams for ever, and one that takes everything at once."""
    y.prepare()
    frames = 6 if chosen.tiny else FRAMES
    streaming, whole = get_mimi(None, num_codebooks=y.CODES), get_mimi(None, num_codebooks=y.CODES)
    streaming.streaming_forever(1)
    sound = torch.randn(1, 1, FRAME * frames) * 0.1
    with torch.inference_mode():
        codes = whole.encode(sound)
    works: dict[str, Work] = {
        "reference": y.plain_step(tiny=chosen.tiny),
        "encode.stream": lambda: encode(streaming, *torch.split(sound, FRAME, -1)),
        "encode.batch": lambda: encode(whole, sound),
        "decode.stream": lambda: decode(streaming, *torch.split(codes, 1, -1)),
        "decode.batch": lambda: decode(whole, codes),
    }

    seconds, about = frames / FRAMES_A_SECOND, {"codebooks": y.CODES, "frames": frames}
    return Prepared(importlib.metadata.version("moshi"), lambda: y.per_second(y.once(works), seconds), about)


def encode(model: MimiModel, *pieces: torch.Tensor) -> None:
    """One call a piece."""
    with torch.inference_mode():
        for piece in pieces:
            model.encode(piece)


def decode(model: MimiModel, *pieces: torch.Tensor) -> None:
    """One call a piece."""
    with torch.inference_mode():
        for piece in pieces:
            model.decode(piece)


def main() -> int:
    """Speak to the command."""
    return serve(make)


if __name__ == "__main__":
    raise SystemExit(main())
