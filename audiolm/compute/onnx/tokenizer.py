"""The semantic tokenizer as a graph: one tick a run, a token out of it.

Positions are the host's: it gives mask and angles, and says -1 while the look-ahead fills.
"""

import numpy as np
from torch import Tensor, nn

from audiolm.compute.onnx import layers
from audiolm.compute.onnx.fourier import Fourier
from audiolm.compute.onnx.graph import CONTRIB, Graph, Precision, array
from audiolm.compute.onnx.stages import attend
from audiolm.features import LogMel, LogPitch
from audiolm.tokenizer import ConformerBlock, ConvModule, SemanticTokenizer


def tokenizer_graph(tokenizer: SemanticTokenizer, precision: Precision) -> bytes:
    """``x [B, tick]``, ``cos``, ``sin``, ``bias`` and the states -> ``y [B]`` int64 and the new states.

    These are ``new.NAME``, and of a ring only the new entry, ``new_k.i`` and ``new_v.i``.

    The distances to centroids are in float32 in any precision.
    """
    g, config, ring = Graph(precision), tokenizer.config, tokenizer.ring
    at = [g.input(name, ("R", 1, ring.head_width // 4)) for name in ("cos", "sin")]
    at.append(g.input("bias", ("R", 1, 1, ring.entries)))
    y = g.of(tokenizer.encoder.project, _features(g, tokenizer, g.input("x", ("B", tokenizer.frame_size))))
    for i, block in enumerate(tokenizer.encoder.blocks[: config.layer]):
        assert isinstance(block, ConformerBlock)  # noqa: S101 - for the type checker: a ModuleList forgets what it holds
        y = _conformer(g, block, y, i, at)
    g.output("y", _nearest(g, tokenizer, y), ("B",), np.int64)
    return g.model()


def _nearest(g: Graph, tokenizer: SemanticTokenizer, y: str) -> str:
    """The nearest centroid ``[B]`` of ``[B, width]``."""
    space = tokenizer.whitening.T.double()
    whitened = g.linear(y, space, -(space @ tokenizer.mean.double()), exact=True)
    centroids = tokenizer.centroids
    distance = g.linear(whitened, -2 * centroids, centroids.square().sum(-1), exact=True)
    return g.op("ArgMin", distance, axis=-1, keepdims=0)


# -- features --


def _features(g: Graph, tokenizer: SemanticTokenizer, x: str) -> str:
    """The features of this tick and of those in the look-ahead, ``[B, stacked]``."""
    config, size = tokenizer.config, tokenizer.per_tick
    features = _mel(g, tokenizer.mel, x)
    if tokenizer.pitch is not None:
        features = g.op("Concat", features, _pitch(g, tokenizer.pitch, x), axis=-1)
    if not config.lookahead:
        return features
    shape = (config.lookahead, size)
    stacked = layers.advance(g, "features", g.reshape(features, -1, 1, size), shape, axis=1)
    return g.reshape(stacked, -1, (config.lookahead + 1) * size)


def _mel(g: Graph, mel: LogMel, x: str) -> str:
    """``[B, tick] -> [B, tick / hop * mels]``."""
    past, count = mel.n_fft - mel.hop, mel.frame_size // mel.hop
    sound = layers.windows(g, layers.advance(g, "mel", x, (past,)), count, mel.n_fft, mel.hop)
    energies = g.op("Max", _energies(g, sound, mel.window, mel.filters), g.constant(mel.FLOOR))
    return g.reshape(_log(g, energies, 2.0), -1, count * mel.mels)


def _pitch(g: Graph, pitch: LogPitch, x: str) -> str:
    """``[B, tick] -> [B, bands]``."""
    longest = max(pitch.LENGTHS)
    past = longest - pitch.frame_size
    joined = layers.advance(g, "pitch", x, (past,))
    parts = []
    for length in pitch.LENGTHS:
        window, filters = pitch.get_buffer(f"window{length}"), pitch.get_buffer(f"filters{length}")
        if filters.shape[1]:
            sound = joined if length == longest else layers.last(g, joined, length)
            parts.append(_energies(g, sound, window, filters))
    bands = parts[0] if len(parts) == 1 else g.op("Concat", *parts, axis=-1)
    return _log(g, g.op("Add", bands, g.constant(pitch.FLOOR**2)), 5.0)


def _energies(g: Graph, sound: str, window: Tensor, filters: Tensor) -> str:
    """Energies ``[N, bands]`` of windows ``[N, size]`` through ``filters`` ``[bins, bands]``."""
    fourier = Fourier(len(window), filters.any(1).nonzero()[:, 0].numpy())
    sound = g.op("Mul", g.reshape(sound, -1, fourier.rows, fourier.columns), fourier.shaped(g, window))
    spectrum = g.reshape(fourier.forward(g, sound), -1, 2 * fourier.bins.size)
    shares = fourier.shared(filters.T).repeat(1, 1, 2).flatten(1)
    return g.linear(g.op("Mul", spectrum, spectrum), shares, exact=True)


def _log(g: Graph, energies: str, lift: float) -> str:
    """``(log10(energies) + lift) / 4``."""
    logs = g.op("Mul", g.op("Log", energies), g.constant(layers.LOG10 / 4))
    return g.op("Add", logs, g.constant(lift / 4))


# -- blocks --


def _conformer(g: Graph, block: ConformerBlock, x: str, i: int, at: list[str]) -> str:
    x = g.op("Add", x, _half(g, block.first, x))
    x = g.op("Add", x, attend(g, block.attention, g.norm(block.norm, x), i, at))
    x = g.op("Add", x, _convolve(g, block.conv, x, i))
    return g.norm(block.final, g.op("Add", x, _half(g, block.second, x)))


def _half(g: Graph, layer: nn.Sequential, x: str) -> str:
    """Half of a feed-forward layer's result."""
    norm, up, _, down = layer
    y = _silu(g, g.of(up, g.norm(norm, x)))  # type: ignore[arg-type]
    return g.linear(y, 0.5 * down.weight, 0.5 * down.bias)  # type: ignore[arg-type,operator]


def _silu(g: Graph, x: str) -> str:
    return g.op("QuickGelu", x, domain=CONTRIB, alpha=1.0)


def _convolve(g: Graph, conv: ConvModule, x: str, i: int) -> str:
    """The convolution of one tick; the state is ``past.i``."""
    layer, width = conv.depthwise, conv.depthwise.inputs
    value, gate = g.split(g.of(conv.expand, g.norm(conv.norm, x)), width, width)
    glu = g.reshape(g.op("Mul", value, g.op("Sigmoid", gate)), -1, width, 1)
    joined = layers.advance(g, f"past.{i}", glu, (width, layer.context))
    weighted = g.op("Mul", joined, g.constant(array(layer.conv.weight)[:, 0]))
    y = g.op("ReduceSum", weighted, g.ints(2), keepdims=0)
    if layer.conv.bias is not None:
        y = g.op("Add", y, g.weight(layer.conv.bias))
    return g.of(conv.project, _silu(g, g.norm(conv.inner_norm, y)))
