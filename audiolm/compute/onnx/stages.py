"""A stage as two graphs: one temporal step, and a row's tokens from its result.

The caches are read-only inputs; the new keys and values come out and the host writes them into the rings, so nothing is
copied. ``R`` is slots times cache rows (two with guidance), ``B`` slots.
"""

import numpy as np

from audiolm.attention import Block, RingAttention
from audiolm.compute.onnx.graph import CONTRIB, Graph, Precision
from audiolm.compute.onnx.sampling import Draw
from audiolm.depth import DepthBlock, DepthTransformer
from audiolm.stage import Stage, TokenEmbedding


def supported(stage: Stage) -> bool:
    """Whether a stage can be written as graphs: the flat pattern, a temporal step a token, cannot."""
    return stage.spec.pattern != "flat"


# -- a temporal step --


def temporal_graph(stage: Stage, precision: Precision) -> bytes:
    """``last``, ``cond``, ``cos``, ``sin``, ``bias``, ``k.i``, ``v.i`` -> ``h [R, width]``, ``new_k.i``, ``new_v.i``.

    ``bias`` ``[R, 1, 1, entries]`` hides what may not be seen, and the entry that the new position will take.
    """
    g, spec, temporal = Graph(precision), stage.spec, stage.temporal
    ring = temporal.ring
    x = _embed(g, stage.tokens, g.input("last", ("R", spec.levels), np.int64))
    if stage.conditioning is not None:
        x = g.op("Add", x, _embed(g, stage.conditioning, g.input("cond", ("R", spec.cond_levels), np.int64)))
    turn = [g.input(name, ("R", 1, ring.head_width // 4)) for name in ("cos", "sin")]
    bias = g.input("bias", ("R", 1, 1, ring.entries))
    for i, block in enumerate(temporal.blocks):
        assert isinstance(block, Block)  # noqa: S101 - for the type checker: a ModuleList forgets what it holds
        attended = attend(g, block.attention, g.norm(block.norm1, x), i, [*turn, bias])
        x = _feed(g, block, g.op("Add", x, attended))
    g.output("h", g.norm(temporal.norm, x), ("R", spec.width))
    return g.model()


def _embed(g: Graph, table: TokenEmbedding, tokens: str) -> str:
    """The sum of one row a level."""
    offsets = g.constant(table.offsets.numpy(), np.int64)
    rows = g.gather(table.table.weight, g.op("Add", tokens, offsets))
    return g.op("ReduceSum", rows, g.ints(1), keepdims=0)


def _feed(g: Graph, block: Block | DepthBlock, x: str) -> str:
    y = g.op("Gelu", g.of(block.up, g.norm(block.norm2, x)), approximate="tanh")
    return g.op("Add", x, g.of(block.down, y))


def attend(g: Graph, layer: RingAttention, x: str, i: int, at: list[str]) -> str:
    """Attention of layer ``i`` over its ring and the new position beside it; ``at`` is ``cos``, ``sin``, ``bias``.

    Declares the inputs ``k.i`` and ``v.i`` and the outputs ``new_k.i`` and ``new_v.i``.
    """
    heads, width, entries = layer.heads, layer.head_width, layer.ring.entries
    cache = [g.input(f"{name}.{i}", ("R", heads, entries, width)) for name in ("k", "v")]
    qk, v = g.split(g.reshape(g.of(layer.qkv, x), 0, 3, heads, width), 2, 1, axis=1)
    q, k = g.split(_rotated(g, qk, at[:2], width), 1, 1, axis=1)
    q = g.reshape(g.op("Mul", q, g.constant(width**-0.5)), 0, heads, width, 1)
    k, v = g.reshape(k, 0, heads, 1, width), g.reshape(v, 0, heads, 1, width)
    old = g.op("Add", g.reshape(g.op("MatMul", cache[0], q), 0, heads, 1, entries), at[2])
    share = g.op("Softmax", g.op("Concat", old, g.op("MatMul", k, q), axis=-1), axis=-1)
    before, now = g.split(share, entries, 1)
    seen = g.op("Add", g.op("MatMul", before, cache[1]), g.op("Mul", now, v))
    g.output(f"new_k.{i}", k, ("R", heads, 1, width))
    g.output(f"new_v.{i}", v, ("R", heads, 1, width))
    return g.of(layer.out, g.reshape(seen, 0, heads * width))


def _rotated(g: Graph, x: str, turn: list[str], width: int) -> str:
    """The rotary embedding of ``[R, 2, heads, width]`` in the first half of each head."""
    cos, sin = (g.reshape(part, 0, 1, 1, width // 4) for part in turn)
    a, b, rest = g.split(x, width // 4, width // 4, width // 2)
    first = g.op("Sub", g.op("Mul", a, cos), g.op("Mul", b, sin))
    second = g.op("Add", g.op("Mul", a, sin), g.op("Mul", b, cos))
    return g.op("Concat", first, second, rest, axis=-1)


# -- a row's tokens --


def row_graph(stage: Stage, precision: Precision, levels: int, *, guided: bool, teacher: bool = False) -> bytes:
    """``h`` ``[R, width]`` and what a draw needs (:mod:`sampling`) -> ``tokens`` ``[B, levels]``.

    A ``teacher`` also gives ``logits`` ``[B, levels, cardinality]``.
    """
    g, spec = Graph(precision), stage.spec
    h = g.input("h", ("R", spec.width))
    draw = Draw(g, levels, spec.cardinality, guided=guided)
    if stage.depth is None:
        chosen = [draw.token(g.of(stage.heads[q], h), q) for q in range(levels)]  # type: ignore[arg-type]
    else:
        chosen = _frame(g, stage.depth, h, draw, levels)
    tokens = chosen[0] if levels == 1 else g.op("Concat", *chosen, axis=1)
    g.output("tokens", tokens, ("B", levels), np.int64)
    if teacher:
        each = [g.reshape(logits, -1, 1, spec.cardinality) for logits in draw.logits]
        g.output("logits", g.op("Concat", *each, axis=1), ("B", levels, spec.cardinality))
    return g.model()


def _frame(g: Graph, depth: DepthTransformer, h: str, draw: Draw, levels: int) -> list[str]:
    """The levels of a frame, one after the other: tokens ``[B, 1]`` each."""
    base, chosen = g.of(depth.inputs, h), list[str]()
    past: list[list[str]] = [[] for _ in depth.blocks]
    for q in range(levels):
        x = g.op("Add", base, g.weight(depth.place[q]))
        if q:
            before = g.gather(depth.tokens[q - 1].weight, draw.rows(chosen[-1]))  # type: ignore[arg-type]
            x = g.op("Add", x, g.reshape(before, -1, depth.width))
        for block, cache in zip(depth.blocks, past, strict=True):
            assert isinstance(block, DepthBlock)  # noqa: S101 - as above
            x = _feed(g, block, g.op("Add", x, _look(g, block, g.norm(block.norm1, x), cache)))
        chosen.append(draw.token(g.of(depth.heads[q], g.norm(depth.norm, x)), q))  # type: ignore[arg-type]
    return chosen


def _look(g: Graph, block: DepthBlock, x: str, cache: list[str]) -> str:
    """Attention of a level over itself and those before; ``cache`` holds keys and values so far and is written."""
    heads, width = block.heads, block.head_width
    q, k, v = g.split(g.of(block.qkv, x), *[heads * width] * 3)
    k, v = g.reshape(k, 0, heads, 1, width), g.reshape(v, 0, heads, 1, width)
    if not cache:
        cache += [k, v]
        return g.of(block.out, g.reshape(v, 0, heads * width))
    cache[0], cache[1] = g.op("Concat", cache[0], k, axis=2), g.op("Concat", cache[1], v, axis=2)
    q = g.reshape(g.op("Mul", q, g.constant(width**-0.5)), 0, heads, width, 1)
    share = g.op("Softmax", g.op("MatMul", cache[0], q), axis=2)
    seen = g.op("FusedMatMul", share, cache[1], domain=CONTRIB, transA=1)
    return g.of(block.out, g.reshape(seen, 0, heads * width))
