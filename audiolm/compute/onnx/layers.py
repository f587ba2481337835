"""Layers that the codec and the tokenizer share, as operations of a graph: windows, convolutions with a state.

A state enters as an input under its own name and leaves as ``new.NAME``; the host decides which slots keep the new
one. It knows nothing of whole models.
"""

from math import gcd

import numpy as np
from torch import nn

from audiolm.compute.onnx.graph import Graph, array
from audiolm.conv import CausalConv1d, CausalConvTranspose1d, CausalStack, ResidualUnit

LAST = 1 << 62  # a slice's end, whatever the length
LOG10 = float(1 / np.log(10.0))


# -- states --


def advance(g: Graph, name: str, x: str, shape: tuple[int, ...], axis: int = -1) -> str:
    """The state ``name`` and ``x`` behind it, joined along ``axis``; what comes last is the new state.

    ``shape`` is the state's, without the slots; ``axis`` is 1 or -1.
    """
    joined = g.op("Concat", g.input(name, ("B", *shape)), x, axis=axis)
    renew(g, name, last(g, joined, shape[0 if axis == 1 else -1], axis), shape)
    return joined


def renew(g: Graph, name: str, value: str, shape: tuple[int, ...]) -> None:
    """Give ``value`` out as the new state ``name``."""
    g.output(f"new.{name}", value, ("B", *shape))


def last(g: Graph, x: str, count: int, axis: int = -1) -> str:
    """The last ``count`` entries of an axis."""
    return g.op("Slice", x, g.ints(-count), g.ints(LAST), g.ints(axis))


def first(g: Graph, x: str, count: int, axis: int = -1) -> str:
    """The first ``count`` entries of an axis; all but the last ``-count`` where it is negative."""
    return g.op("Slice", x, g.ints(0), g.ints(count), g.ints(axis))


# -- windows --


def windows(g: Graph, x: str, count: int, size: int, hop: int) -> str:
    """``count`` windows of ``size`` samples every ``hop``: ``[B, size + (count - 1) hop] -> [B * count, size]``."""
    piece = gcd(size, hop)
    index = np.arange(count)[:, None] * (hop // piece) + np.arange(size // piece)
    pieces = g.reshape(x, -1, (size + (count - 1) * hop) // piece, piece)
    return g.reshape(g.op("Gather", pieces, g.constant(index, np.int64), axis=1), -1, size)


# -- convolutions on [B, channels, T] --


def convolution(g: Graph, layer: CausalConv1d, x: str, name: str) -> str:
    """A causal convolution; ``name`` is that of the layer, whose state is ``name.past``."""
    if layer.context:
        x = advance(g, f"{name}.past", x, (layer.inputs, layer.context))
    return plain_convolution(g, layer.conv, x)


def plain_convolution(g: Graph, conv: nn.Conv1d, x: str) -> str:
    """A convolution of what is there."""
    weights = [g.weight(conv.weight), g.weight(conv.bias)] if conv.bias is not None else [g.weight(conv.weight)]
    return g.op(
        "Conv", x, *weights,
        kernel_shape=list(conv.kernel_size), strides=list(conv.stride), dilations=list(conv.dilation),
        group=conv.groups,
    )  # fmt: skip


def upsampling(g: Graph, layer: CausalConvTranspose1d, x: str, name: str, frames: int) -> str:
    """A transposed convolution of ``frames`` inputs, added to the tail of the step before."""
    stride, shape = layer.stride, (layer.outputs, layer.stride)
    y = g.op("ConvTranspose", x, g.weight(layer.conv.weight), strides=[stride], kernel_shape=[2 * stride])
    head, rest = g.split(y, stride, frames * stride)
    y = g.op("Concat", g.op("Add", head, g.input(f"{name}.tail", ("B", *shape))), rest, axis=-1)
    out, tail = g.split(y, frames * stride, stride)
    renew(g, f"{name}.tail", tail, shape)
    return g.op("Add", out, g.weight(layer.bias[:, None]))


def stack(g: Graph, layers: CausalStack, x: str, frames: int) -> str:
    """A stack of SEANet's layers on ``[B, channels, frames]``."""
    for i, layer in enumerate(layers):
        if isinstance(layer, CausalConv1d):
            x = convolution(g, layer, x, str(i))
            frames //= layer.conv.stride[0]
        elif isinstance(layer, CausalConvTranspose1d):
            x = upsampling(g, layer, x, str(i), frames)
            frames *= layer.stride
        elif isinstance(layer, ResidualUnit):
            y = g.op("Elu", convolution(g, layer.wide, g.op("Elu", x), str(i)))
            scaled = g.op("Mul", plain_convolution(g, layer.narrow, y), g.constant(layer.GAIN))
            x = g.op("Add", x, scaled)
        elif isinstance(layer, nn.ELU):
            x = g.op("Elu", x)
        else:
            raise TypeError(f"a stack with a {type(layer).__name__} cannot be written as a graph yet")
    return x


# -- convolutions of every channel by itself, on [B, T, channels] --


def depthwise(g: Graph, layer: CausalConv1d, x: str, name: str, frames: int) -> str:
    """``[B * frames, width] -> [B * frames, width]``; the state ``name.past`` is ``[B, width, kernel - 1]``.

    Multiplied and added up: a convolution of groups of one takes longer for so few frames.
    """
    width, context = layer.inputs, layer.context
    past = g.op("Transpose", g.input(f"{name}.past", ("B", width, context)), perm=[0, 2, 1])
    joined = g.op("Concat", past, g.reshape(x, -1, frames, width), axis=1)
    renew(g, f"{name}.past", g.op("Transpose", last(g, joined, context, 1), perm=[0, 2, 1]), (width, context))
    index = np.arange(frames)[:, None] + np.arange(context + 1)
    seen = g.op("Gather", joined, g.constant(index, np.int64), axis=1)
    weighted = g.op("Mul", seen, g.constant(array(layer.conv.weight)[:, 0].T))
    total = g.constant(np.repeat(np.eye(frames), context + 1, axis=1))
    y = g.reshape(g.op("MatMul", total, g.reshape(weighted, -1, frames * (context + 1), width)), -1, width)
    return y if layer.conv.bias is None else g.op("Add", y, g.weight(layer.conv.bias))
