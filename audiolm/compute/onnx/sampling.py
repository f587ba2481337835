"""The sampler of :mod:`audiolm.sampler` as operations of a graph: the same arithmetic on the same uniforms."""

import numpy as np

from audiolm.compute.onnx.graph import Graph

INT64 = 7  # as ONNX numbers its types


class Draw:
    """Draws the tokens of a row's levels, in one graph.

    Declares the inputs ``u`` and ``forced`` ``[B, levels]``, where a token below zero means "to be sampled",
    ``divisor``, ``greedy``, ``top_k`` and ``top_p`` ``[B, 1]``, ``truncated`` (whether any slot truncates), and with
    guidance also ``guidance`` ``[B, 1]``.
    """

    def __init__(self, g: Graph, levels: int, cardinality: int, *, guided: bool) -> None:
        self.g, self.levels, self.cardinality, self.guided = g, levels, cardinality, guided
        self.logits: list[str] = []  # of the levels that were drawn, [B, cardinality] each
        self.u = g.split(g.input("u", ("B", levels)), *[1] * levels)
        self.forced = g.split(g.input("forced", ("B", levels), np.int64), *[1] * levels)
        self.divisor = g.input("divisor", ("B", 1))
        self.greedy = g.input("greedy", ("B", 1), np.bool_)
        self.top_k, self.top_p = g.input("top_k", ("B", 1)), g.input("top_p", ("B", 1))
        self.truncated = g.input("truncated", (), np.bool_)
        self.guidance = g.input("guidance", ("B", 1)) if guided else ""

    def token(self, logits: str, level: int) -> str:
        """The token ``[B, 1]`` of a level: the forced one, else a draw from ``logits`` ``[R, cardinality]``."""
        g = self.g
        logits = self._guide(logits) if self.guided else logits
        self.logits.append(logits)
        scaled = g.op("Div", logits, self.divisor)
        scaled = g.choose(self.truncated, lambda: self._truncate(scaled), lambda: scaled)
        total = g.op("CumSum", g.op("Softmax", scaled, axis=-1), g.constant(1, np.int64))
        last = g.op("Slice", total, g.ints(-1), g.ints(self.cardinality), g.ints(1))
        below = g.op("Cast", g.op("Less", total, g.op("Mul", self.u[level], last)), to=INT64)
        drawn = g.op("Min", g.op("ReduceSum", below, g.ints(1), keepdims=1), g.ints(self.cardinality - 1))
        drawn = g.op("Where", self.greedy, g.op("ArgMax", logits, axis=-1, keepdims=1), drawn)
        forced = self.forced[level]
        return g.op("Where", g.op("Less", forced, g.ints(0)), drawn, forced)

    def rows(self, tokens: str) -> str:
        """Tokens ``[B, 1]`` as they enter the cache rows ``[R]``."""
        twice = self.g.op("Concat", tokens, tokens, axis=1) if self.guided else tokens
        return self.g.reshape(twice, -1)

    def _guide(self, logits: str) -> str:
        """Classifier-free guidance ``[R, V] -> [B, V]``; a scale of 1 must not round."""
        g, size = self.g, self.cardinality
        given, free = (g.reshape(part, -1, size) for part in g.split(g.reshape(logits, -1, 2, size), 1, 1, axis=1))
        mixed = g.op("Add", free, g.op("Mul", self.guidance, g.op("Sub", given, free)))
        return g.op("Where", g.op("Equal", self.guidance, g.constant([1.0])), given, mixed)

    def _truncate(self, scaled: str) -> str:
        """Top-k, then top-p of what is left."""
        g, size = self.g, self.cardinality
        low, high = g.constant([-np.inf]), g.constant([np.inf])
        ordered = g.many("TopK", scaled, g.ints(size), results=2, axis=-1)[0]
        keep = g.op("Less", g.constant(np.arange(size)[None]), self.top_k)
        mass = g.op("Softmax", g.op("Where", keep, ordered, low), axis=-1)
        before = g.op("CumSum", mass, g.constant(1, np.int64), exclusive=1)
        inside = g.op("Or", g.op("Less", before, self.top_p), g.op("GreaterOrEqual", self.top_p, g.constant([1.0])))
        kept = g.op("Where", g.op("And", keep, inside), ordered, high)
        lowest = g.op("ReduceMin", kept, g.ints(1), keepdims=1)
        return g.op("Where", g.op("Less", scaled, lowest), low, scaled)
