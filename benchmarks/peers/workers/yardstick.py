"""What every worker with torch is measured against in its own process: one step of the plain static-cache loop.

Sizes are those of MEASURED's table of peers: 6 layers, width 512, 8 heads, a cache of 1000, 1024 tokens.
"""

import time
from collections.abc import Mapping

import torch

from benchmarks.common import Work, interleave, one_thread, quiet
from benchmarks.plain import PlainDecoder

LAYERS, WIDTH, HEADS, CODES, VOCABULARY, CONTEXT = 6, 512, 8, 8, 1024, 1000
DEPTH_LAYERS, DEPTH_WIDTH, DEPTH_HEADS = 2, 256, 4
TEMPERATURE = 0.8


def plain_step(*, tiny: bool = False) -> Work:
    """One token at the last position of the cache: in, logits, drawn."""
    layers, width, context = (1, 64, 32) if tiny else (LAYERS, WIDTH, CONTEXT)
    model = PlainDecoder(layers, width, context, VOCABULARY).eval().requires_grad_(requires_grad=False)
    token, at = torch.tensor([[3]]), torch.tensor([context - 1])

    def step() -> object:
        with torch.inference_mode():
            return torch.multinomial(torch.softmax(model(token, at)[0] / TEMPERATURE, -1), 1)

    return step


def prepare() -> None:
    """One thread, no denormals, the same weights every time."""
    one_thread()
    torch.manual_seed(0)


def turns(works: Mapping[str, Work], *, tiny: bool, bursts: int = 5, calls: int = 5) -> dict[str, float]:
    """CPU seconds a call of each, the median of a few bursts that take turns; wall seconds under `wall.NAME`."""
    times = interleave(works, bursts=1 if tiny else bursts, calls=1 if tiny else calls)
    return {name: one.cpu_s for name, one in times.items()} | {
        f"wall.{name}": one.wall_s for name, one in times.items()
    }


def once(works: Mapping[str, Work]) -> dict[str, float]:
    """CPU seconds of one call of each, for works that are seconds long; the yardstick is a few short bursts before."""
    made = turns({"reference": works["reference"]}, tiny=False, bursts=3)
    with quiet():
        for name, work in works.items():
            if name != "reference":
                begin = time.thread_time()
                work()
                made[name] = time.thread_time() - begin
    return made


def per_second(times: Mapping[str, float], seconds: float) -> dict[str, float]:
    """Of a codec's works over so many seconds of sound: CPU seconds a second, and streaming over all at once."""
    made = {name: value / seconds for name, value in times.items() if name.endswith((".stream", ".batch"))}
    over = {f"{what}.over": made[f"{what}.stream"] / made[f"{what}.batch"] for what in ("encode", "decode")}
    return {"reference": times["reference"]} | made | over
