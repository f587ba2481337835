"""audiocraft's StreamingTransformer, one step at a cache of 1000: the Transformer alone, without embedding and heads.

The package's top imports its training code and much that does not install any more. So only `audiocraft.modules` is
imported, behind an empty stand-in for the top and for xformers, whose kernels need a GPU.
"""

import argparse
import importlib.metadata
import importlib.util
import sys
from types import ModuleType
from typing import Any

import torch

from benchmarks.peers.talk import Prepared, serve
from benchmarks.peers.workers import yardstick as y

STEPS = 24


def transformer_class() -> Any:
    """`StreamingTransformer`, with its way of streaming that uses torch's own attention."""
    found = importlib.util.find_spec("audiocraft")
    if found is None or found.submodule_search_locations is None:
        raise ModuleNotFoundError("audiocraft is not installed")
    top, kernels, none = ModuleType("audiocraft"), ModuleType("xformers"), ModuleType("xformers.ops")
    top.__path__ = list(found.submodule_search_locations)
    vars(none)["unbind"] = torch.unbind  # the one function of xformers that this way still calls
    vars(kernels)["ops"] = none
    sys.modules.update({"audiocraft": top, "xformers": kernels, "xformers.ops": none})
    from audiocraft.modules.transformer import StreamingTransformer

    return StreamingTransformer


def make(chosen: argparse.Namespace) -> Prepared:
    """A stream that has seen as many steps as the others' caches hold."""
    y.prepare()
    layers, width, context = (1, 64, 32) if chosen.tiny else (y.LAYERS, y.WIDTH, y.CONTEXT)
    made = transformer_class()(
        width, width // 64, layers, dim_feedforward=4 * width, dropout=0.0, causal=True, custom=True,
        bias_ff=False, bias_attn=False, norm_first=True, activation="gelu", positional_embedding="sin",
    ).eval()  # fmt: skip
    reference, x = y.plain_step(tiny=chosen.tiny), torch.randn(1, 1, width)

    def measure() -> dict[str, float]:
        """The cache grows with every step, so each round begins again a few steps short of the context."""
        with torch.inference_mode(), made.streaming():
            made(torch.randn(1, context - STEPS, width))
            return y.turns({"reference": reference, "step": lambda: made(x)}, tiny=chosen.tiny, bursts=4, calls=4)

    return Prepared(importlib.metadata.version("audiocraft"), measure, {"layers": layers, "width": width})


def main() -> int:
    """Speak to the command."""
    return serve(make)


if __name__ == "__main__":
    raise SystemExit(main())
