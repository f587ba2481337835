"""The codec's encoder and decoder as graphs: one tick a run.

Constants are folded where that saves an operation: window and Fourier matrix, normalization and the layer behind it,
a block's gain and its last layer.
"""

import numpy as np
import torch
from torch import Tensor, nn

from audiolm.codec import CodecDecoder, CodecEncoder
from audiolm.compute.onnx import layers
from audiolm.compute.onnx.fourier import Fourier
from audiolm.compute.onnx.graph import Graph, Precision, array
from audiolm.conv import CausalStack
from audiolm.rvq import ResidualVQ
from audiolm.spectral import FLOOR, HOP, Block, PhaseMaker, SpectralDecoder, SpectralEncoder

# -- sound to codes --


def encoder_graph(encoder: CodecEncoder, precision: Precision) -> bytes:
    """``x [B, tick]`` and the encoder's states -> ``y [B, frames, levels]`` int64 and ``new.NAME`` of each state.

    The distances to codes are in float32 in any precision.
    """
    g, frames, rvq = Graph(precision), encoder.frame_size // encoder.config.hop, encoder.rvq
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
    fourier = Fourier(len(net.window))
    sound = g.op("Mul", g.reshape(sound, -1, fourier.rows, fourier.columns), fourier.shaped(g, net.window))
    turns = fourier.bins.shape[1]
    spectrum = g.reshape(fourier.forward(g, sound), -1, len(fourier.places), 2, turns)
    magnitudes = g.op("ReduceL2", spectrum, g.ints(2), keepdims=0)
    logs = g.op("Log", g.op("Add", magnitudes, g.constant(FLOOR)))
    weight = net.inward.weight.double() / net.scale.double()
    bias = net.inward.bias.double() - weight @ net.mean.double()
    weight = fourier.shared(weight.view(-1, net.per_frame, net.bins) * layers.LOG10)
    y = g.linear(g.reshape(logs, -1, net.per_frame * fourier.bins.size), weight.flatten(1), bias)
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
    fourier = Fourier(len(net.phase.window), within=HOP)
    y = _trunk(g, net.blocks, g.of(net.inward, z), frames)
    weight, bias = net.outward.weight.double() * net.scale, net.outward.bias.double() * net.scale + net.mean
    both = torch.cat((weight, bias[:, None]), 1).T.reshape(-1, net.per_frame, net.bins) / layers.LOG10
    both = fourier.spread(both).flatten(1).T
    logs = g.linear(y, both[:, :-1], both[:, -1])
    magnitudes = g.op("Relu", g.op("Sub", g.op("Exp", logs), g.constant(FLOOR)))
    return _sound(g, net.phase, fourier, magnitudes, frames * net.per_frame)


def _sound(g: Graph, phase: PhaseMaker, fourier: Fourier, magnitudes: str, count: int) -> str:
    """Spectra ``[B * frames, per_frame * entries]`` to sound ``[B, tick]``, one after the other."""
    places, turns = fourier.bins.shape
    new, old = HOP // fourier.columns, (fourier.size - HOP) // fourier.columns
    total = g.reshape(g.input("phase.sum", ("B", fourier.size)), -1, fourier.rows, fourier.columns)
    silence = layers.last(g, total, new, 1)  # no window has reached the last hop of the sum yet
    sizes = g.reshape(magnitudes, -1, count * places, 1, turns)
    sizes = g.op("Concat", sizes, sizes, axis=-1)
    signs = np.concatenate((array(fourier.spread(phase.start)), np.zeros((places, turns))), 1)
    fresh = g.op("Mul", sizes, g.constant(np.tile(signs, (count, 1))[:, None]))
    maker = _Phases(g, phase, fourier)
    pieces = []
    each = (g.split(whole, *[places] * count, axis=1) for whole in (sizes, fresh))
    for size, start in zip(*each, strict=True):
        frame = maker.sound(size, start, g.op("Mul", total, maker.before))
        frame = maker.sound(size, start, g.op("Mul", g.op("Add", total, frame), maker.within))
        done, rest = g.split(g.op("Add", total, frame), new, old, axis=1)
        pieces.append(done)
        total = g.op("Concat", rest, silence, axis=1)
    layers.renew(g, "phase.sum", g.reshape(total, -1, fourier.size), (fourier.size,))
    return g.op("Div", g.reshape(g.op("Concat", *pieces, axis=1), -1, count * HOP), g.constant(phase.total))


class _Phases:
    """Gives magnitudes the phases of a sound. All that is constant in it is made once."""

    def __init__(self, g: Graph, phase: PhaseMaker, fourier: Fourier) -> None:
        self.g, self.fourier, turns = g, fourier, fourier.bins.shape[1]
        self.window, self.before, self.within = (
            fourier.shaped(g, window) for window in (phase.window, phase.before, phase.within)
        )
        self.pair = g.constant(np.tile(np.eye(turns), (2, 2)))
        self.tiny = g.constant(phase.TINY**2)

    def sound(self, sizes: str, fresh: str, like: str) -> str:
        """Windowed sound ``[B, rows, columns]`` of spectra of ``sizes``, in phase with ``like``.

        Where ``like`` is silent ``fresh`` is the spectrum.
        """
        g = self.g
        spectrum = self.fourier.forward(g, like)
        power = g.op("MatMul", g.op("Mul", spectrum, spectrum), self.pair)
        scale = g.op("Div", sizes, g.op("Sqrt", g.op("Max", power, self.tiny)))
        known = g.op("Greater", power, self.tiny)
        spectrum = g.op("Where", known, g.op("Mul", spectrum, scale), fresh)
        return g.op("Mul", self.fourier.inverse(g, spectrum), self.window)


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
