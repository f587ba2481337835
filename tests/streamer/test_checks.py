import pytest

from streamer import ConfigError, Graph
from streamer.config import parse


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("nodes: {}", 1, "there are no nodes"),
        ("nodes: {src: cuont, out: collect}\nedges: [src -> out]", 1, "did you mean 'count'"),
        ("nodes:\n  src: {type: count, tiks: 3}\n  out: collect", 2, "key 'tiks'; known: .*did you mean 'ticks'"),
        ("nodes:\n  src: {type: count, ticks: -3}\n  out: collect", 2, "greater than or equal to 0"),
        ("nodes: {src: count, out: collect}\nedges:\n  - src -> uot", 3, "unknown node 'uot'.*did you mean 'out'"),
        ("nodes: {src: count, out: collect}\nedges:\n  - src -> out.x", 3, "unknown input 'x'; known: audio"),
        ("nodes: {src: tokens, out: collect}\nedges:\n  - src -> out", 3, "gives acoustic, but out takes audio"),
        ("nodes: {src: count, out: collect}\nedges:\n  - src -> out\n  - src -> out", 4, "stands here twice"),
        ("nodes: {src: count, b: count, out: collect}\nedges:\n  - src -> out\n  - b -> out", 4, "already takes"),
        ("nodes: {src: count, m: mix, out: collect}\nedges:\n  - src -> m", 3, r"name one: src -> m\.a, src -> m\.b"),
        ("nodes: {src: count, m: mix, out: collect}\nedges: [src -> m.a, m -> out]", 1, "input 'b' is not connected"),
        ("nodes: {src: count, a: add, out: collect}\nedges: [src -> a, src -> out]", 1, "leads nowhere"),
        ("nodes: {src: count, a: add, out: collect}\nedges: [src -> out, a -> out]", 2, "already takes"),
        ("nodes: {src: count, a: add}\nedges: [src -> a]", 1, "at least one sink"),
        ("nodes: {a: add, out: collect}\nedges: [a -> out]", 1, "at least one source"),
        (
            "nodes: {s: count, m: mix, a: add, o: collect}\nedges:\n - s -> m.a\n - m -> a\n - a -> m.b\n - a -> o", 4,
            r"a cycle: .*mark the edge .*feedback",
        ),
        (
            "nodes: {src: count, a: add, out: collect}\nedges: [src -> a -> out]\nlanes:\n  x: [a]\n  y: [a]", 5,
            "already in lane 'x'",
        ),
        ("nodes: {s: count, a: add, o: collect}\nedges: [s -> a -> o]\nlanes:\n  x: [b]", 4, "unknown node 'b'"),
        ("nodes: {src: count, out: collect}\nedges: [src -> out]\nlanes: {x: [src]}", 3, "event loop"),
        ("nodes: {t: {type: tokens, levels: 4}, o: token_sink}\nedges:\n - t -> o", 3, "4 codebooks come, 12 are"),
        ("nodes: {src: count, out: collect}\nedges: [src -> out]\nhosts: {h: {nodes: [x]}}", 3, "unknown node 'x'"),
        ("nodes: {src: count, out: collect}\nedges: [src -> out]\nplugins: [no_such.py]", 3, "does not exist"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(registry, text, line, message):
    with pytest.raises(ConfigError, match=message) as error:
        Graph.load(parse(text), registry)
    assert error.value.line == line


DIAMOND = """
nodes: {{src: count, a: add, d: {{type: delay, ticks: {ticks}}}, m: mix, out: collect}}
edges:
  - src -> d -> m.b
  - src -> a
  - {{from: a, to: m.a, capacity: {capacity}}}
  - m -> out
"""


def test_least_capacity_comes_from_the_declared_delays(registry):
    with pytest.raises(ConfigError, match="need at least 41") as error:
        Graph.parse(DIAMOND.format(ticks=40, capacity=40), registry)
    assert error.value.line == 6
    graph = Graph.parse(DIAMOND.format(ticks=40, capacity=41), registry)
    assert graph.plan.least["a -> m.a (audio)"] == 41


def test_default_capacity_grows_with_the_delay(registry):
    text = (
        "nodes: {s: count, d: {type: delay, ticks: 40}, m: mix, o: collect}\nedges: [s -> d -> m.b, s -> m.a, m -> o]"
    )
    graph = Graph.parse(text, registry)
    assert {p.label: p.capacity for p in graph.plan.ports}["s -> m.a (audio)"] == 45


def test_nodes_without_a_lane_share_one(registry):
    text = "nodes: {s: count, a: add, b: add, o: collect}\nedges: [s -> a -> b -> o]\nlanes: {x: [b]}"
    graph = Graph.parse(text, registry)
    assert graph.plan.lanes == {"main": ("a",), "x": ("b",)}
    assert graph.lane_of("b") == "x"


def test_a_sink_gives_nothing(registry):
    with pytest.raises(ConfigError, match="o gives nothing"):
        Graph.parse("nodes: {s: count, a: add, o: collect}\nedges: [s -> a -> o, o -> a]", registry)
