"""Shares of a graph: who runs where, what becomes a topic, and that the shares together are the whole."""

import asyncio
from collections import defaultdict

import fakes
import pytest

from streamer import ConfigError, Frame, Graph, Registry, Session, Settings, Sink, Source, run
from streamer.config import parse
from streamer.frame import KINDS
from streamer.hosts import share


class InSettings(Settings):
    kind: str
    topic: str
    policy: str
    live: bool
    join: str
    levels: int | None = None
    rate: int | None = None


class TopicIn(Source):
    """What comes by a topic: a queue in memory."""

    type_name = "mqtt_in"
    emits = tuple(KINDS)
    Config = InSettings

    @classmethod
    def facts(cls, config, build):
        base = super().facts(config, build)
        levels = {} if config.levels is None else {config.kind: config.levels}
        return type(base)(base.inputs, frozenset([config.kind]), levels_out=levels)

    @classmethod
    def is_live(cls, config):
        return config.live

    async def frames(self, ctx):
        queue = ctx.extra["topics"][self.config.topic]
        while True:
            frame = Frame.unpack(await queue.get())
            yield frame.replace(session=ctx.id)
            if frame.last:
                return


class OutSettings(Settings):
    topic: str
    readers: list[str]
    policy: str
    window: int = 32


class TopicOut(Sink):
    type_name = "mqtt_out"
    accepts = tuple(KINDS)
    optional = accepts
    merge = "arrival"
    Config = OutSettings

    async def write(self, frame, ctx, into):
        await ctx.extra["topics"][self.config.topic.replace("{kind}", frame.kind)].put(frame.pack())


class Buttons(Source):
    """Gives one command, and then nothing."""

    type_name = "buttons"
    emits = ("control",)

    async def frames(self, ctx):
        yield Frame.control("set", add=100.0)


class Endless(fakes.Endless):
    type_name = "mic"
    live = True


@pytest.fixture
def registry():
    made = Registry()
    for node in (*fakes.ALL, TopicIn, TopicOut, Buttons, Endless):
        made.add(node)
    return made


TEXT = """
mqtt: {prefix: test}
nodes:
  src: {type: count, ticks: 60, host: ears}
  a: {type: add, host: ears}
  d: {type: delay, ticks: 40, host: brain}
  m: {type: mix, host: mouth}
  out: {type: collect, host: mouth}
edges:
  - src -> d -> m.b
  - src -> a
  - {from: a, to: m.a, capacity: 50}
  - m -> out
lanes: {one: [a, d], two: [m]}
"""


def shares(text, registry, *hosts):
    loaded = parse(text)
    plan = Graph.load(loaded, registry).plan
    return [share(loaded, plan, host) for host in hosts]


def nodes_of(loaded):
    return {name: (entry.type, entry.own) for name, entry in loaded.config.nodes.items()}


def edges_of(loaded):
    return [edge.text for edge in loaded.config.edges]


async def play(graphs):
    """Run graphs side by side, with topics in memory; what was collected."""
    topics, got = defaultdict(lambda: asyncio.Queue(maxsize=32)), []
    extra = {"topics": topics, "got": got}
    built = [graph.build() for graph in graphs]
    try:
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            for graph in built:
                group.create_task(run(graph, Session(graph, extra=extra)))
    finally:
        for graph in built:
            graph.close()
    return got


def test_each_host_has_its_nodes_and_the_ends_of_topics(registry):
    ears, brain, mouth = shares(TEXT, registry, "ears", "brain", "mouth")
    assert list(nodes_of(ears)) == ["src", "a", "to-brain-src", "to-mouth-a"]
    assert list(nodes_of(brain)) == ["d", "from-ears-src-audio", "to-mouth-d"]
    assert list(nodes_of(mouth)) == ["m", "out", "from-brain-d-audio", "from-ears-a-audio"]
    kind, own = nodes_of(brain)["from-ears-src-audio"]
    assert (kind, own["topic"]) == ("mqtt_in", "{prefix}/ears/stream/src/audio")
    assert (own["kind"], own["policy"], own["live"], own["join"]) == ("audio", "block", False, "start")
    kind, own = nodes_of(ears)["to-brain-src"]
    assert kind == "mqtt_out"
    assert own == {"topic": "{prefix}/ears/stream/src/{kind}", "readers": ["brain"], "policy": "block"}
    assert edges_of(brain) == ["from-ears-src-audio -> d.audio", "d -> to-mouth-d.audio"]
    assert {loaded.config.mqtt.instance for loaded in (ears, brain, mouth)} == {"ears", "brain", "mouth"}
    assert brain.config.mqtt.prefix == "test"


def test_lanes_keep_those_of_their_members_who_are_here(registry):
    ears, brain, mouth = shares(TEXT, registry, "ears", "brain", "mouth")
    assert [loaded.config.lanes for loaded in (ears, brain, mouth)] == [{"one": ["a"]}, {"one": ["d"]}, {"two": ["m"]}]


def test_ports_and_windows_hold_what_the_whole_graph_needs(registry):
    whole = Graph.parse(TEXT, registry).plan
    assert whole.least == {"a -> m.a (audio)": 41, "d -> m.b (audio)": 1}
    ears, _, mouth = shares(TEXT, registry, "ears", "brain", "mouth")
    found = {port.label: port.capacity for port in Graph.load(mouth, registry).plan.ports}
    assert found["from-ears-a-audio -> m.a (audio)"] == 50
    assert nodes_of(ears)["to-mouth-a"][1]["window"] == 41


async def test_shares_give_what_the_whole_gives(registry):
    whole = await play([Graph.parse(TEXT, registry)])
    parts = [Graph.load(loaded, registry) for loaded in shares(TEXT, registry, "mouth", "ears", "brain")]
    assert await play(parts) == whole
    assert len(whole) == 61


FAN = """
mqtt: {}
nodes:
  t: {type: tokens, levels: 4, host: a}
  x: {type: token_sink, levels: 4, host: b}
  y: {type: token_sink, levels: 4, host: b}
  z: {type: token_sink, levels: 4, host: c}
  own: {type: token_sink, levels: 4, host: a}
edges: ["t -> x, y, z, own"]
"""


async def test_a_stream_is_sent_once_for_all_its_readers(registry):
    a, b, c = shares(FAN, registry, "a", "b", "c")
    assert list(nodes_of(a)) == ["t", "own", "to-b-c-t"]
    assert nodes_of(a)["to-b-c-t"][1]["readers"] == ["b", "c"]
    assert edges_of(a) == ["t -> own.acoustic", "t -> to-b-c-t.acoustic"]
    assert edges_of(b) == ["from-a-t-acoustic -> x.acoustic", "from-a-t-acoustic -> y.acoustic"]
    for loaded in (b, c):
        plan = Graph.load(loaded, registry).plan
        assert plan.facts["from-a-t-acoustic"].levels_out == {"acoustic": 4}


def test_a_live_graph_goes_on_at_the_present_unless_an_edge_says_block(registry):
    text = "mqtt: {}\nnodes: {s: {type: mic, host: a}, p: {type: pass, host: b}, o: {type: collect, host: c}}\n"
    a, b, _ = shares(text + "edges: [s -> p, {from: p, to: o, policy: block}]", registry, "a", "b", "c")
    assert nodes_of(a)["to-b-s"][1]["policy"] == "drop_oldest"
    source = nodes_of(b)["from-a-s-audio"][1]
    assert (source["policy"], source["live"]) == ("drop_oldest", True)
    assert nodes_of(b)["to-c-p"][1]["policy"] == "block"
    assert Graph.load(b, registry).plan.live(Source) == ("from-a-s-audio",)


BACK = """
mqtt: {}
nodes:
  src: {type: count, ticks: 5, host: a}
  e: {type: echo, host: a}
  p: {type: pass, host: b}
  out: {type: collect, host: b}
edges:
  - src -> e -> p -> out
  - {from: p, to: e.back, feedback: true}
"""


async def test_what_runs_backwards_runs_backwards_between_hosts_too(registry):
    a, b = shares(BACK, registry, "a", "b")
    assert [(edge.text, edge.feedback, edge.policy) for edge in a.config.edges][:2] == [
        ("from-b-p-audio -> e.back", True, "drop_oldest"),
        ("src -> e.audio", False, "block"),
    ]
    assert nodes_of(b)["to-a-p"][1]["policy"] == "drop_oldest"
    assert len(await play([Graph.load(each, registry) for each in (a, b)])) == 6


def test_without_a_host_the_keys_change_nothing(registry):
    plain = "\n".join(line.replace(", host:", "} #") for line in TEXT.splitlines() if "mqtt" not in line)
    assert Graph.parse(TEXT, registry).plan.ports == Graph.parse(plain, registry).plan.ports


def test_hosts_can_be_said_in_a_list(registry):
    text = TEXT
    for host in ("ears", "brain", "mouth"):
        text = text.replace(f", host: {host}", "")
    lists = "hosts: {ears: {nodes: [src, a]}, brain: {nodes: [d]}, mouth: {nodes: [m, out]}}\n"
    for one, other in zip(
        *(shares(each, registry, "ears", "brain", "mouth") for each in (TEXT, text + lists)), strict=True
    ):
        assert one.config == other.config


def test_a_name_that_is_taken_or_too_long_is_another(registry):
    long = "n" * 64
    text = f"mqtt: {{}}\nnodes: {{{long}: {{type: count, host: a}}, from-a-{'n' * 57}: {{type: collect, host: b}}}}\n"
    a, b = shares(text + f"edges: [{long} -> from-a-{'n' * 57}]", registry, "a", "b")
    assert [len(name) <= 64 for name in (*nodes_of(a), *nodes_of(b))] == [True] * 4
    Graph.load(b, registry)


NOWHERE = [
    ("", "", "barin", 3, "unknown host 'barin'; known: brain, ears, mouth; did you mean 'brain'"),
    (", host: brain", "", "ears", 6, "no host for d; say where each runs.*ears, mouth"),
    ("mqtt: {prefix: test}", "", "ears", 3, r"src -> d.audio leads from host to host.*mqtt: \{host: ADDRESS\}"),
    ("prefix: test", "instance: x", "ears", 2, "'x': with --host every host goes by its own name"),
    ("lanes:", "hosts: {ears: {nodes: [d]}}\nlanes:", "ears", 14, "d already runs on host 'brain'"),
    ("lanes:", "hosts: {ears: {nodes: [e]}}\nlanes:", "ears", 14, "unknown node 'e'"),
]


@pytest.mark.parametrize("case", NOWHERE)
def test_what_cannot_be_shared_is_said_with_its_line(registry, case):
    old, new, host, line, message = case
    with pytest.raises(ConfigError, match=message) as error:
        shares(TEXT.replace(old, new) if old else TEXT, registry, host)
    assert error.value.line == line


def test_no_hosts_at_all(registry):
    with pytest.raises(ConfigError, match="no node of this config has a host; leave --host out"):
        shares("nodes: {s: count, o: collect}\nedges: [s -> o]", registry, "ears")


def test_what_is_wrong_in_a_share_is_said_at_the_edge_it_comes_from(registry):
    loaded = shares(TEXT, registry, "brain")[0]
    assert loaded.line(("nodes", "from-ears-src-audio", "topic")) == 10
    assert loaded.line(("edges", 1)) == 10


COMMANDS = """
mqtt: {}
nodes:
  b: {type: buttons, host: desk}
  src: {type: count, ticks: 5, host: stage}
  a: {type: add, host: stage}
  out: {type: collect, host: stage}
edges: [src -> a -> out, b -> a]
"""


async def test_commands_cross_without_being_waited_for_and_a_share_of_nothing_else_ends(registry):
    desk, stage = shares(COMMANDS, registry, "desk", "stage")
    kind, own = nodes_of(desk)["to-stage-b"]
    assert (kind, own["readers"], own["policy"]) == ("mqtt_out", [], "block")
    assert nodes_of(stage)["from-desk-b-control"][1].items() >= {"join": "present", "policy": "drop_oldest"}.items()
    topics = defaultdict(asyncio.Queue)
    graph = Graph.load(desk, registry)
    with graph:
        session = Session(graph, extra={"topics": topics})
        await run(graph, session)
    assert session.status == "ended"
    sent = Frame.unpack(topics["{prefix}/desk/stream/b/control"].get_nowait())
    assert (sent.kind, sent.meta["command"]) == ("control", "set")
    assert len(await play([Graph.load(each, registry) for each in (desk, stage)])) == 6
