"""Mimi of transformers at its published sizes, random weights: 80 ms at a time, and ten seconds at once.

Encoding streams. Decoding keeps the Transformer's cache but loses the state of the convolutions from call to call, so
it is the cost of a decoding stream that is measured, not a sound.
"""

import argparse
from collections.abc import Callable

import torch
import transformers
from transformers import DynamicCache

from benchmarks.common import Work
from benchmarks.peers.talk import Prepared, serve
from benchmarks.peers.workers import yardstick as y

FRAME, RATE = 1920, 24000
FRAMES_A_SECOND = 12.5
FRAMES = 125  # ten seconds


def make(chosen: argparse.Namespace) -> Prepared:
    """Streams of one frame a call, and all frames in one call."""
    y.prepare()
    frames = 6 if chosen.tiny else FRAMES
    model = transformers.MimiModel(transformers.MimiConfig(use_cache=True, num_quantizers=y.CODES)).eval()
    sound = torch.randn(1, 1, FRAME * frames) * 0.1
    with torch.inference_mode():
        codes = model.encode(sound).audio_codes
    works: dict[str, Work] = {
        "reference": y.plain_step(tiny=chosen.tiny),
        "encode.stream": guarded(lambda: encode_stream(model, sound)),
        "encode.batch": guarded(lambda: model.encode(sound)),
        "decode.stream": guarded(lambda: decode_stream(model, codes)),
        "decode.batch": guarded(lambda: model.decode(codes)),
    }

    seconds, about = frames / FRAMES_A_SECOND, {"codebooks": y.CODES, "frames": frames}
    return Prepared(transformers.__version__, lambda: y.per_second(y.once(works), seconds), about)


def guarded(call: Callable[[], object]) -> Work:
    """Without gradients."""

    def work() -> None:
        with torch.inference_mode():
            call()

    return work


def encode_stream(model: transformers.MimiModel, sound: torch.Tensor) -> None:
    """Frame by frame, with the caches that it hands back."""
    past, padding = None, None
    for piece in torch.split(sound, FRAME, -1):
        out = model.encode(piece, use_streaming=True, encoder_past_key_values=past, padding_cache=padding)
        past, padding = out.encoder_past_key_values, out.padding_cache


def decode_stream(model: transformers.MimiModel, codes: torch.Tensor) -> None:
    """Frame by frame, with the Transformer's cache."""
    past = DynamicCache()
    for piece in torch.split(codes, 1, -1):
        past = model.decode(piece, decoder_past_key_values=past).decoder_past_key_values


def main() -> int:
    """Speak to the command."""
    return serve(make)


if __name__ == "__main__":
    raise SystemExit(main())
