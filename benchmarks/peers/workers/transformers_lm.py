"""The language models of transformers, `generate` as a user calls it: `llama` (a token a step) or `musicgen` (eight).

Of each generated token the CPU time is taken by a stopping criterion, so that neither the prompt nor the call is in it.
"""

import argparse
import statistics
import time
from typing import Any

import torch
import transformers
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from benchmarks.peers.talk import Prepared, serve
from benchmarks.peers.workers import yardstick as y

STEPS = 24


class Stopwatch(StoppingCriteria):  # type: ignore[misc]
    """Never stops; notes the CPU time after each step."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def __call__(self, input_ids: torch.Tensor, _scores: object, **_: object) -> torch.Tensor:
        """After a token: go on."""
        self.at.append(time.thread_time())
        return torch.zeros(len(input_ids), dtype=torch.bool)

    def median(self) -> float:
        """Seconds a step, without the first, which reads the prompt."""
        return statistics.median(b - a for a, b in zip(self.at, self.at[1:], strict=False))


def llama(*, tiny: bool) -> Any:
    """A Llama of the peers' sizes, feed-forward of as many weights as ours."""
    layers, width = (1, 64) if tiny else (y.LAYERS, y.WIDTH)
    config = transformers.LlamaConfig(
        vocab_size=y.VOCABULARY, hidden_size=width, intermediate_size=width * 8 // 3, num_hidden_layers=layers,
        num_attention_heads=width // 64, max_position_embeddings=4 * y.CONTEXT,
        bos_token_id=None, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def musicgen(*, tiny: bool) -> Any:
    """MusicGen's decoder alone: no text encoder, no guidance, eight codebooks in a delay pattern."""
    layers, width = (1, 64) if tiny else (y.LAYERS, y.WIDTH)
    config = transformers.MusicgenDecoderConfig(
        vocab_size=y.VOCABULARY, hidden_size=width, ffn_dim=4 * width, num_hidden_layers=layers,
        num_attention_heads=width // 64, num_codebooks=y.CODES, max_position_embeddings=4 * y.CONTEXT,
        bos_token_id=y.VOCABULARY, pad_token_id=y.VOCABULARY, eos_token_id=None,
    )  # fmt: skip
    return transformers.MusicgenForCausalLM(config)


def make(chosen: argparse.Namespace) -> Prepared:
    """The worker of one of the two."""
    y.prepare()
    tiny, context = chosen.tiny, 32 if chosen.tiny else y.CONTEXT
    model = (llama if chosen.what == "llama" else musicgen)(tiny=tiny).eval()
    prompt = torch.randint(1, y.VOCABULARY, (1 if chosen.what == "llama" else y.CODES, context - STEPS))
    reference = y.plain_step(tiny=tiny)
    how = GenerationConfig(
        max_new_tokens=STEPS, min_new_tokens=STEPS, do_sample=True, temperature=y.TEMPERATURE, top_k=0,
        guidance_scale=None, pad_token_id=model.config.pad_token_id, bos_token_id=model.config.bos_token_id,
        decoder_start_token_id=model.config.bos_token_id, num_return_sequences=1, num_beams=1, use_cache=True,
    )  # fmt: skip

    def measure() -> dict[str, float]:
        watch = Stopwatch()
        before = y.turns({"reference": reference}, tiny=tiny, bursts=3)["reference"]
        with torch.inference_mode():
            model.generate(prompt, generation_config=how, stopping_criteria=StoppingCriteriaList([watch]))
        after = y.turns({"reference": reference}, tiny=tiny, bursts=3)["reference"]
        return {"reference": (before + after) / 2, "step": watch.median()}

    parameters = sum(p.numel() for p in model.parameters())
    return Prepared(transformers.__version__, measure, {"model": chosen.what, "parameters": parameters})


def main() -> int:
    """Speak to the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("llama", "musicgen"))
    return serve(make, parser)


if __name__ == "__main__":
    raise SystemExit(main())
