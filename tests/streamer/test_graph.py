import xml.etree.ElementTree as ET

import pytest

from streamer import ConfigError, Graph

TEXT = """
nodes: {src: count, a: add, d: delay, m: mix, out: collect}
edges: [src -> d -> m.b, src -> a -> m.a, m -> out]
lanes: {ear: [a, d]}
"""


def test_built_once_and_closed(registry):
    shut = []
    with Graph.parse(TEXT, registry) as graph:
        assert (set(graph.nodes), set(graph.sources), set(graph.sinks)) == ({"a", "d", "m"}, {"src"}, {"out"})
        assert graph.build().nodes["a"] is graph.nodes["a"]
        assert graph.nodes["a"].build.shared is graph.nodes["d"].build.shared
        graph.nodes["a"].shutdown = lambda: shut.append("a")
    assert shut == ["a"]
    assert not graph.nodes


def test_a_failing_constructor_shuts_the_others_down(registry):
    import fakes

    shut = []

    class Good(fakes.Pass):
        type_name = "good"

        def shutdown(self):
            shut.append(self.name)

    class Bad(fakes.Pass):
        type_name = "bad"

        def __init__(self, config, build):
            raise OSError("no weights")

    registry.add(Good)
    registry.add(Bad)
    with pytest.raises(OSError, match="no weights"):
        Graph.parse("nodes: {s: count, a: good, b: bad, o: collect}\nedges: [s -> a -> b -> o]", registry).build()
    assert shut == ["a"]


def test_lane_of_an_unknown_node(registry):
    with pytest.raises(ConfigError, match="is in no lane"):
        Graph.parse(TEXT, registry).lane_of("x")


def test_mermaid_shows_lanes_and_kinds(registry):
    made = Graph.parse(TEXT, registry).mermaid()
    assert made.startswith("flowchart LR\n")
    assert 'subgraph n_lane_ear["lane ear"]' in made
    assert "n_src -->|audio| n_d" in made


def test_svg_is_whole_and_refers_to_nothing_outside(registry):
    made = Graph.parse(TEXT, registry).svg()
    root = ET.fromstring(made)  # noqa: S314
    texts = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"src", "a", "d", "m", "out", "lane ear", "audio"} <= set(texts)
    assert "href" not in made
    assert made == Graph.parse(TEXT, registry).svg()
