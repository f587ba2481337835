"""audiolm-pytorch: 3 s of prompt, then semantic, coarse and fine tokens for `--seconds` and their sound, as by default.

Its HuBERT needs a checkpoint and fairseq, which no longer builds; so the semantic tokens of the prompt are given, and
ours, which hears its prompt itself, has the harder task. Nothing sounds before everything is made, so the time to the
first sound is the time of all of it.
"""

import argparse
import importlib.machinery
import importlib.metadata
import sys
import time
from types import ModuleType
from typing import Any

import torch

from benchmarks.peers.talk import Prepared, serve
from benchmarks.peers.workers import yardstick as y

RATE, PROMPT_SECONDS = 16000, 3
SEMANTIC_RATE, FRAME_RATE, COARSE = 25, 50, 4
MISSING = ("fairseq", "wandb", "torchaudio._extension")  # the last is linked against a CUDA build of torch


class Absent(ModuleType):
    """Stands for a module that is imported and never used here; what it is asked for is not available."""

    _IS_TORCHAUDIO_EXT_AVAILABLE = _IS_RIR_AVAILABLE = _IS_ALIGN_AVAILABLE = False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda function, *_, **__: function  # as a decorator it does nothing


def library() -> Any:
    """The package, behind stand-ins for what is not installed."""
    for name in MISSING:
        absent = Absent(name)
        absent.__spec__ = importlib.machinery.ModuleSpec(name, None)
        sys.modules[name] = absent
    import audiolm_pytorch
    from audiolm_pytorch import t5

    t5.T5_CONFIGS[t5.DEFAULT_T5_NAME] = {"config": t5.T5Config()}  # it would ask a model hub for a size it never uses
    return audiolm_pytorch


class Peer:
    """Its codec and its three stages with their own generators, random weights."""

    def __init__(self, *, tiny: bool, flash: bool) -> None:
        lib = library()
        layers, width = (1, 64) if tiny else (y.LAYERS, y.WIDTH)
        size: dict[str, Any] = {"dim": width, "depth": layers, "heads": width // 64, "flash_attn": flash}
        codes: dict[str, Any] = {"codebook_size": y.VOCABULARY, "num_coarse_quantizers": COARSE}
        self.codec = lib.SoundStream(codebook_size=y.VOCABULARY, rq_num_quantizers=y.CODES)
        self.semantic = lib.SemanticTransformerWrapper(
            transformer=lib.SemanticTransformer(num_semantic_tokens=y.VOCABULARY, **size), unique_consecutive=False
        )
        self.coarse = lib.CoarseTransformerWrapper(
            transformer=lib.CoarseTransformer(num_semantic_tokens=y.VOCABULARY, **codes, **size),
            codec=self.codec, unique_consecutive=False,
        )  # fmt: skip
        self.fine = lib.FineTransformerWrapper(
            transformer=lib.FineTransformer(num_fine_quantizers=y.CODES - COARSE, **codes, **size), codec=self.codec
        )
        for part in (self.codec, self.semantic, self.coarse, self.fine):
            part.eval()
            no_end(part)

    def go_on(self, sound: torch.Tensor, semantic: torch.Tensor, seconds: float) -> float:
        """CPU seconds of a continuation, from the prompt's end to its sound."""
        prompt = semantic.shape[-1]
        begin = time.thread_time()
        with torch.inference_mode():
            _, codes, _ = self.codec(sound, return_encoded=True)
            ids = self.semantic.generate(prime_ids=semantic, max_length=prompt + round(SEMANTIC_RATE * seconds))
            coarse = self.coarse.generate(
                semantic_token_ids=ids, prime_coarse_token_ids=codes[..., :COARSE].flatten(1),
                max_time_steps=round(FRAME_RATE * seconds),
            )  # fmt: skip
            self.fine.generate(
                coarse_token_ids=coarse, prime_fine_token_ids=codes[..., COARSE:].flatten(1), reconstruct_wave=True
            )
        return time.thread_time() - begin


def no_end(part: torch.nn.Module) -> None:
    """Random weights would draw the end of the sequence by chance; here it is never among the likeliest tenth."""
    for name, parameter in part.named_parameters():
        if name.endswith("to_logits.bias"):
            parameter.data[-1] = -1e4
        elif name.endswith("coarse_logit_weights") and parameter.shape[1] == y.VOCABULARY + 1:
            parameter.data[:, -1] = 0


def make(chosen: argparse.Namespace) -> Prepared:
    """A continuation of each length a round; with two, a second costs their difference, without the prompt."""
    y.prepare()
    peer, reference = Peer(tiny=chosen.tiny, flash=chosen.flash), y.plain_step(tiny=chosen.tiny)
    prompt_seconds, lengths = (0.2, [0.04]) if chosen.tiny else (PROMPT_SECONDS, chosen.seconds)
    sound = torch.randn(1, round(RATE * prompt_seconds)) * 0.05
    semantic = torch.randint(0, y.VOCABULARY, (1, round(SEMANTIC_RATE * prompt_seconds)))

    def measure() -> dict[str, float]:
        made: dict[str, float] = {}
        before = y.turns({"reference": reference}, tiny=chosen.tiny)["reference"]
        for seconds in lengths:
            made[f"spent.{seconds:g}"] = peer.go_on(sound, semantic, seconds)
        after = y.turns({"reference": reference}, tiny=chosen.tiny)["reference"]
        spent = list(made.values())
        rate = (spent[-1] - spent[0]) / (lengths[-1] - lengths[0]) if len(lengths) > 1 else spent[0] / lengths[0]
        return {"reference": (before + after) / 2, "per_second": rate, "first": spent[-1], **made}

    about = {"seconds": lengths, "prompt_seconds": prompt_seconds, "flash_attn": chosen.flash}
    return Prepared(importlib.metadata.version("audiolm-pytorch"), measure, about)


def main() -> int:
    """Speak to the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, nargs="+", default=[7.0], help="of continuation; several are all run")
    parser.add_argument("--flash", action="store_true", help="flash_attn=True: fast, and its cached decoding is wrong")
    return serve(make, parser)


if __name__ == "__main__":
    raise SystemExit(main())
