"""The codec's encoder and decoder as graphs: one tick a run.

Constants are folded where that saves an operation: window and Fourier matrix, normalization and the layer behind it,
a block's gain and its last layer.
"""

import numpy as np
import torch
from torch import Tensor, nn

from audiolm.codec import CodecDecoder, CodecEncoder
from audiolm.compute.onnx import layers
from audiolm.compute.onnx.graph import Graph, Precision, array
from audiolm.conv import CausalStack
from audiolm.rvq import ResidualVQ
from audiolm.spectral import FLOOR, HOP, Block, PhaseMaker, SpectralDecoder, SpectralEncoder

# -- sound to codes --


def encoder_graph(encoder: CodecEncoder, precision: Precision) -> bytes:
    """``x [B, tick]`` and the encoder's states -> ``y [B, frames, levels]`` int64 and ``new.NAME`` of each state.

    Everything stays in float32: codes are decisions, and int8 turns too many of them (docs/decisions.md).
    """
    del precision
    g, frames, rvq = Graph("fp32"), encoder.frame_size // encoder.config.hop, encoder.rvq
    x = g.op("Mul", g.input("x", ("B", encoder.frame_size)), g.constant(encoder.INPUT_GAIN))
    if isinstance(encoder.net, SpectralEncoder):
        z = _analyse(g, encoder.net, x, frames)
    else:
        z = layers.stack(g, encoder.net, g.reshape(x, -1, 1, encoder.frame_size), encoder.frame_size)
        z = g.reshape(g.op("Transpose", z, perm=[0, 2, 1]), -1, rvq.dim)
    codes = _quantize(g, rvq, z)
    g.output("y", g.reshape(codes, -1, frames, rvq.levels), ("B", frames, rvq.levels), np.int64)
    return g.model()


def _quantize(g: Graph, rvq: ResidualVQ, residual: str) -> str:
    """``[N, dim] -> [N, levels]``: level by level the nearest code, and what it leaves over."""
    codes = []
    for level, book in enumerate(rvq.codebooks):
        distance = g.linear(residual, -2 * book, book.square().sum(-1), exact=True)
        codes.append(g.op("ArgMin", distance, axis=-1, keepdims=1))
        if level < rvq.levels - 1:
            chosen = g.reshape(g.gather(book, codes[-1]), -1, rvq.dim)
            residual = g.op("Sub", residual, chosen)
    return g.op("Concat", *codes, axis=-1)


def _analyse(g: Graph, net: SpectralEncoder, x: str, frames: int) -> str:
    """``[B, tick] -> [B * frames, latent]``."""
    joined = layers.advance(g, "past", x, (net.past,))
    sound = layers.windows(g, joined, frames * net.per_frame, len(net.window), HOP)
    spectrum = g.reshape(g.linear(sound, layers.transform(net.window), exact=True), -1, 2, net.bins)
    magnitudes = g.op("ReduceL2", spectrum, g.ints(1), keepdims=0)
    logs = g.op("Log", g.op("Add", magnitudes, g.constant(FLOOR)))
    weight = net.inward.weight.double() / net.scale.double()
    bias = net.inward.bias.double() - weight @ net.mean.double()
    y = g.linear(g.reshape(logs, -1, net.per_frame * net.bins), weight * layers.LOG10, bias)
    return g.of(net.outward, _trunk(g, net.blocks, y, frames))


# -- codes to sound --


def decoder_graph(decoder: CodecDecoder, precision: Precision) -> bytes:
    """``x [B, frames, levels]`` int64 and the decoder's states -> ``y [B, tick]`` and ``new.NAME`` of each state.

    A level that is not there has the code ``cardinality``, one behind the last, and adds nothing.
    """
    g, config, rvq = Graph(precision), decoder.config, decoder.rvq
    frames, tick = decoder.frame_size, decoder.frame_size * config.hop
    z = _look_up(g, rvq, g.input("x", ("B", frames, rvq.levels), np.int64))
    if isinstance(decoder.net, SpectralDecoder):
        y = _synthesize(g, decoder.net, z, frames)
    else:
        z = g.op("Transpose", g.reshape(z, -1, frames, rvq.dim), perm=[0, 2, 1])
        y = g.reshape(layers.stack(g, decoder.net, z, frames), -1, tick)
    g.output("y", g.op("Mul", y, g.constant(decoder.OUTPUT_GAIN)), ("B", tick))
    return g.model()


def _look_up(g: Graph, rvq: ResidualVQ, codes: str) -> str:
    """``[B, frames, levels] -> [B * frames, dim]``: the sum of one row a level."""
    none = rvq.codebooks.new_zeros(rvq.levels, 1, rvq.dim)
    table = torch.cat((rvq.codebooks, none), 1).flatten(0, 1)
    rows = g.op("Add", codes, g.constant(np.arange(rvq.levels) * (rvq.cardinality + 1), np.int64))
    return g.reshape(g.op("ReduceSum", g.gather(table, rows), g.ints(2), keepdims=0), -1, rvq.dim)


def _synthesize(g: Graph, net: SpectralDecoder, z: str, frames: int) -> str:
    """``[B * frames, latent] -> [B, tick]``."""
    y = _trunk(g, net.blocks, g.of(net.inward, z), frames)
    weight, bias = net.outward.weight.double() * net.scale, net.outward.bias.double() * net.scale + net.mean
    logs = g.linear(y, weight / layers.LOG10, bias / layers.LOG10)
    magnitudes = g.op("Relu", g.op("Sub", g.op("Exp", logs), g.constant(FLOOR)))
    return _sound(g, net.phase, magnitudes, frames * net.per_frame, net.bins)


def _sound(g: Graph, phase: PhaseMaker, magnitudes: str, count: int, bins: int) -> str:
    """Spectra ``[B * frames, per_frame * bins]`` to sound ``[B, tick]``, one after the other."""
    size = len(phase.window)
    each = g.split(g.reshape(magnitudes, -1, count, bins), *[1] * count, axis=1)
    total = g.input("phase.sum", ("B", size))
    pieces = []
    for m in each:
        spectrum = _phased(g, phase, m, g.op("Mul", total, g.weight(phase.before)), bins)
        frame = g.linear(spectrum, layers.inverse(phase.window), exact=True)
        both = g.op("Mul", g.op("Add", total, frame), g.weight(phase.within))
        spectrum = _phased(g, phase, m, both, bins)
        total = g.op("Add", total, g.linear(spectrum, layers.inverse(phase.window), exact=True))
        done, rest = g.split(total, HOP, size - HOP)
        pieces.append(done)
        total = g.op("Pad", rest, g.ints(0, 0, 0, HOP))
    layers.renew(g, "phase.sum", total, (size,))
    return g.op("Div", g.op("Concat", *pieces, axis=-1), g.constant(phase.total))


def _phased(g: Graph, phase: PhaseMaker, magnitudes: str, sound: str, bins: int) -> str:
    """Magnitudes ``[B, 1, bins]`` with the phases of ``sound``: ``[B, 2 * bins]``, real parts and then imaginary."""
    spectrum = g.reshape(g.linear(sound, layers.transform(torch.ones_like(phase.window)), exact=True), -1, 2, bins)
    size = g.op("ReduceL2", spectrum, g.ints(1), keepdims=1)
    scale = g.op("Div", magnitudes, g.op("Max", size, g.constant(phase.TINY)))
    start = np.stack((array(phase.start), np.zeros(bins)))[None]
    fresh = g.op("Mul", magnitudes, g.constant(start))
    known = g.op("Greater", size, g.constant(phase.TINY))
    return g.reshape(g.op("Where", known, g.op("Mul", spectrum, scale), fresh), -1, 2 * bins)


# -- the blocks of both --


def _trunk(g: Graph, blocks: CausalStack, x: str, frames: int) -> str:
    """Blocks and the norm behind them: ``[B * frames, width] -> [B * frames, width]``."""
    for i, layer in enumerate(blocks):
        if isinstance(layer, Block):
            x = _block(g, layer, x, f"blocks.{i}", frames)
        elif isinstance(layer, nn.LayerNorm):
            x = g.norm(layer, x)
    return x


def _block(g: Graph, block: Block, x: str, name: str, frames: int) -> str:
    y = g.norm(block.norm, layers.depthwise(g, block.depthwise, x, name, frames))
    y = g.op("Gelu", g.of(block.wide, y))
    return g.op("Add", x, g.linear(y, *_gained(block)))


def _gained(block: Block) -> tuple[Tensor, Tensor]:
    """Weight and bias of a block's last layer with its gain."""
    return block.gain[:, None] * block.narrow.weight, block.gain * block.narrow.bias
