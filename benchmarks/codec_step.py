"""One tick of encoder, tokenizer and decoder by the graphs of ONNX Runtime, beside the reference in torch.

How long a tick takes, in turns with torch; how many codes and tokens are the reference's over the sounds; how far the
decoder's sound is from the reference's, from the same state each tick (made-up phases drift apart from a rounding error
on), and in log-mel from beginning to end, beside the codec's own distance from what it was given.
"""

from collections.abc import Iterator
from itertools import cycle

import numpy as np
import numpy.typing as npt
import torch

from audiolm.bundle import load_bundle
from audiolm.compute.onnx.codec import decoder_graph, encoder_graph
from audiolm.compute.onnx.graph import PRECISIONS, Precision
from audiolm.compute.onnx.modules import ModuleSteps
from audiolm.compute.onnx.running import session
from audiolm.compute.onnx.tokenizer import tokenizer_graph
from audiolm.features import mel_filters
from audiolm.parts import Parts
from audiolm.streaming import State, StreamingModule
from audiolm.tiny import tiny_parts
from benchmarks.common import Result, Work, interleave, ratio
from benchmarks.sounds import Sounds, run_with, ticks

PARTS = ("encoder", "tokenizer", "decoder")
GOALS = {"encoder": 3.0, "tokenizer": 2.0, "decoder": 4.0}  # CPU milliseconds a tick
FFT, STEP, LEAST = 1024, 256, 1e-4  # of the log-mel distance; the floor keeps silence out of it
Array = npt.NDArray[np.generic]


def results(tiny: bool, sounds: Sounds) -> Iterator[Result]:
    """Times of each part and precision, then how near each is."""
    for name, given in {"speech": sounds.speech, "piano": sounds.piano}.items():
        parts = tiny_parts() if tiny else load_bundle(name)
        heard = np.concatenate([ticks(sound) for sound in given])[:, None]
        heard = heard[:4] if tiny else heard
        codes = reference(parts.module("encoder"), heard)
        for part in PARTS:
            inputs = codes if part == "decoder" else heard
            yield from _times(parts, part, inputs, f"codec_step.{name}.{part}", (2, 2) if tiny else (40, 5))
        for part in ("encoder", "tokenizer"):
            wanted = codes if part == "encoder" else reference(parts.module(part), heard)
            for precision in PRECISIONS:
                steps = graph(parts, part, precision, parts.module(part).init_state(1))
                yield _turned(steps, heard, wanted, f"codec_step.{name}.{part}.{precision}.other_codes")
        for precision in PRECISIONS:
            yield _tick_error(parts, codes, f"codec_step.{name}.decoder.{precision}.tick_error", precision)
            yield _mel_distance(parts, heard, codes, f"codec_step.{name}.decoder.{precision}.mel", precision)


def graph(parts: Parts, part: str, precision: Precision, state: State) -> ModuleSteps:
    """The graph of a part, bound to a state."""
    if part == "encoder":
        made = encoder_graph(parts.codec.encoder, precision)
    elif part == "decoder":
        made = decoder_graph(parts.codec.decoder, precision)
    else:
        made = tokenizer_graph(parts.tokenizer, precision)
    return ModuleSteps(part, parts.module(part), state, session(made))


def reference(module: StreamingModule, inputs: Array) -> Array:
    """What torch makes of all ticks, ``[ticks, 1, ...]``."""
    state = module.init_state(1)
    with torch.inference_mode():
        return np.stack([module.step(torch.from_numpy(x), state).numpy() for x in inputs])


def _times(parts: Parts, part: str, inputs: Array, name: str, size: tuple[int, int]) -> Iterator[Result]:
    bursts, calls = size
    module = parts.module(part)
    state, given = module.init_state(1), cycle(torch.from_numpy(inputs))
    works: dict[str, Work] = {"torch": lambda: module.step(next(given), state)}
    for precision in PRECISIONS:
        works[precision] = _work(graph(parts, part, precision, module.init_state(1)), inputs)
    with torch.inference_mode():
        times = interleave(works, bursts=bursts, calls=calls)
    for precision in PRECISIONS:
        ours, theirs = times[precision], times["torch"]
        yield Result(
            f"{name}.{precision}", 1e3 * ours.cpu_s, "ms", 1e3 * theirs.cpu_s, "torch", ratio(ours.cpu, theirs.cpu),
            n=bursts, more={"wall_ms": 1e3 * ours.wall_s, "wanted_ms": GOALS[part]},
        )  # fmt: skip


def _work(steps: ModuleSteps, inputs: Array) -> Work:
    given = cycle(inputs)
    return lambda: steps.step(next(given), None)


def _turned(steps: ModuleSteps, heard: Array, wanted: Array, name: str) -> Result:
    """The share of codes that are others than the reference's."""
    got = np.stack([steps.step(x, None) for x in heard])
    goal = 0.001 if ".fp32." in name else None
    more = {"seconds": len(heard) * 0.04, "others": int((got != wanted).sum())}
    return Result(name, float((got != wanted).mean()), "of codes", goal=goal, n=got.size, more=more)


def _tick_error(parts: Parts, codes: Array, name: str, precision: Precision) -> Result:
    """The largest difference of a sample, each tick from the reference's state."""
    module, errors = parts.module("decoder"), []
    theirs, ours = module.init_state(1), module.init_state(1)
    steps = graph(parts, "decoder", precision, ours)
    for x in codes:
        for key, value in theirs.items():
            ours[key].copy_(value)
        with torch.inference_mode():
            wanted = module.step(torch.from_numpy(x), theirs).numpy()
        errors.append(float(np.abs(steps.step(x, None) - wanted).max()))
    return Result(name, max(errors), "of full scale", n=len(errors), more={"median": float(np.median(errors))})


def _mel_distance(parts: Parts, heard: Array, codes: Array, name: str, precision: Precision) -> Result:
    """How far the decoded sound is from what was heard, beside the reference's distance from it."""
    module = parts.module("decoder")
    steps = graph(parts, "decoder", precision, module.init_state(1))
    ours = np.concatenate([steps.step(x, None)[0] for x in codes])
    theirs, delay = reference(module, codes).ravel(), parts.codec.config.delay
    original = heard.ravel()[: len(ours) - delay]
    distance, peer = log_mel_distance(ours[delay:], original), log_mel_distance(theirs[delay:], original)
    more = {"from_torch": log_mel_distance(ours, theirs)}
    return Result(name, distance, "dB", peer, "torch", distance / peer, n=len(codes), more=more)


def log_mel_distance(a: Array, b: Array) -> float:
    """The mean distance of 80 mel bands in dB."""
    filters, window = mel_filters(FFT, 80, 16000), torch.hann_window(FFT)

    def bands(sound: Array) -> torch.Tensor:
        frames = torch.from_numpy(np.ascontiguousarray(sound)).float().unfold(0, FFT, STEP)
        made: torch.Tensor = 10 * (torch.fft.rfft(frames * window).abs().square() @ filters + LEAST).log10()
        return made

    return float((bands(a) - bands(b)).abs().mean())


def main() -> int:
    """Print the figures."""
    return run_with(results)


if __name__ == "__main__":
    raise SystemExit(main())
