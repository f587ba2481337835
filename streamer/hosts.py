"""One machine's share of a graph that spans several: its own nodes, and topics in place of the edges between machines.

Pure: a loaded config and its checked plan go in, the loaded config of one host comes out. All hosts work out their
shares from the same config, so the ends of a topic agree without asking each other. It knows how the settings of
`mqtt_in` and `mqtt_out` are called, and nothing of what they do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from streamer.checks import Plan, placed
from streamer.config import Loaded, Path_
from streamer.errors import unknown
from streamer.frame import CONTROL
from streamer.node import Source
from streamer.port import Policy, PortSpec
from streamer.settings import Config, Edge, NodeSettings

READER: Final = "mqtt_in"
WRITER: Final = "mqtt_out"
WINDOW: Final = 32  # frames that a writer may be ahead of its readers, unless the plan needs more
NAME_LENGTH: Final = 64


@dataclass(frozen=True, slots=True)
class Crossing:
    """One stream that leaves its host, with the ports it feeds elsewhere.

    Attributes:
        producer, kind: whose stream of which kind.
        host: where it is made.
        ports: its ports on other hosts, as the whole graph has them.
        readers: the hosts of those.
        policy: `block`: nothing may be lost, the writer waits; `drop_oldest`: it goes on at the present.
    """

    producer: str
    kind: str
    host: str
    ports: tuple[PortSpec, ...]
    readers: tuple[str, ...]
    policy: Policy

    @property
    def awaited(self) -> tuple[str, ...]:
        """The readers that the writer waits for: none where commands go, which nothing stands still without."""
        return () if self.kind == CONTROL else self.readers

    @property
    def topic(self) -> str:
        """Its topic below the prefix, which stays a placeholder."""
        return f"{{prefix}}/{self.host}/stream/{self.producer}/{self.kind}"


def share(loaded: Loaded, plan: Plan, host: str) -> Loaded:
    """The config of one host.

    Args:
        loaded: the config of the whole graph.
        plan: what the checks made of it.
        host: whose share.

    Raises:
        ConfigError: no such host, a node without a host, or streams between hosts and no broker for them.
    """
    where = everywhere(loaded, host)
    cut = crossings(plan, where)
    config = loaded.config
    if cut:
        _check_broker(loaded, cut)
    draft = _Draft(loaded, plan, host, where)
    for name, entry in config.nodes.items():
        if where[name] == host:
            draft.nodes[name] = entry.model_copy(update={"host": host})
    for stream in cut:
        if host in stream.readers:
            draft.read(stream)
    draft.own_edges()
    for group in _groups(stream for stream in cut if stream.host == host):
        draft.write(group)
    return draft.loaded()


def everywhere(loaded: Loaded, host: str) -> dict[str, str]:
    """Node -> host, of all nodes.

    Raises:
        ConfigError: no node has a host, `host` is none of them, or a node has none.
    """
    where = placed(loaded)
    hosts = list(dict.fromkeys([*loaded.config.hosts, *where.values()]))
    if not hosts:
        message = f"--host {host}: no node of this config has a host; leave --host out, or say where each node runs "
        raise loaded.error(("nodes",), message + "with `host: NAME`")
    if host not in hosts:
        raise loaded.error(("hosts",) if loaded.config.hosts else ("nodes",), unknown("host", host, hosts))
    lost = [name for name in loaded.config.nodes if name not in where]
    if lost:
        message = (
            f"no host for {', '.join(lost)}; say where each runs with `host: NAME` ({', '.join(hosts)}), or leave "
        )
        raise loaded.error(("nodes", lost[0]), message + "--host out to run everything here")
    return where


def crossings(plan: Plan, where: Mapping[str, str]) -> list[Crossing]:
    """The streams that lead from host to host, in the order of the ports."""
    found: dict[tuple[str, str], list[PortSpec]] = {}
    for port in plan.ports:
        if where[port.producer] != where[port.consumer]:
            found.setdefault((port.producer, port.kind), []).append(port)
    return [_crossing(plan, where, producer, kind, ports) for (producer, kind), ports in found.items()]


def _crossing(plan: Plan, where: Mapping[str, str], producer: str, kind: str, ports: list[PortSpec]) -> Crossing:
    readers = dict.fromkeys(where[port.consumer] for port in ports)
    asked = {_edge(plan, port)[1].policy for port in ports}
    patient = "block" in asked or (not plan.live(Source) and any(port.policy != "drop_oldest" for port in ports))
    policy: Policy = "block" if patient else "drop_oldest"
    return Crossing(producer, kind, where[producer], tuple(ports), tuple(readers), policy)


def _edge(plan: Plan, port: PortSpec) -> tuple[int, Edge]:
    """The entry of `edges` that a port comes from, and its index."""
    ends = (port.producer, port.consumer)
    for i, edge in enumerate(plan.loaded.config.edges):
        if any((start, end) == ends and name in ("", port.input) for start, end, name in edge.links()):
            return i, edge
    raise LookupError(f"{port.label} comes from no edge")


def _groups(streams: Iterable[Crossing]) -> Iterator[list[Crossing]]:
    """Streams that one `mqtt_out` can take: of the same node, for the same readers, by the same policy."""
    found: dict[tuple[str, tuple[str, ...], Policy], list[Crossing]] = {}
    for stream in streams:
        found.setdefault((stream.producer, stream.awaited, stream.policy), []).append(stream)
    yield from found.values()


def _check_broker(loaded: Loaded, cut: list[Crossing]) -> None:
    mqtt = loaded.config.mqtt
    if mqtt is None:
        first = cut[0].ports[0]
        message = f"{first.label} leads from host to host, and no section `mqtt` says by which broker; add `mqtt: "
        message += "{host: ADDRESS}` (`mqtt: {}` is a broker on this machine), or pass --set mqtt.host=ADDRESS"
        raise loaded.error(("hosts",) if loaded.config.hosts else ("nodes",), message)
    if mqtt.instance is not None:
        message = f"{mqtt.instance!r}: with --host every host goes by its own name, so that the others find it; "
        raise loaded.error(("mqtt", "instance"), message + "leave `instance` out, and tell installations apart by "
                           "`prefix`")  # fmt: skip


class _Draft:
    """The config of one host in the making: its nodes, its edges, and the lines they come from."""

    def __init__(self, whole: Loaded, plan: Plan, host: str, where: Mapping[str, str]) -> None:
        self.whole, self.plan, self.host, self.where = whole, plan, host, where
        self.nodes: dict[str, NodeSettings] = {}
        self.edges: list[Edge] = []
        self.lines: dict[Path_, int] = {path: line for path, line in whole.lines.items() if path[:1] != ("edges",)}

    def read(self, stream: Crossing) -> None:
        """One `mqtt_in` for a stream that is made elsewhere, and the edges to whom it feeds here."""
        ports = [port for port in stream.ports if self.where[port.consumer] == self.host]
        facts = self.plan.facts[stream.producer]
        settings: dict[str, Any] = {
            "kind": stream.kind,
            "topic": stream.topic,
            "policy": "drop_oldest" if stream.kind == CONTROL else stream.policy,
            "live": bool(self.plan.live(Source)),
            "join": "present" if stream.kind == CONTROL else "start",
            "levels": facts.levels_out.get(stream.kind),
            "rate": facts.rates_out.get(stream.kind),
        }
        name = self._add(f"from-{stream.host}-{_named(stream)}", READER, settings, ports[0])
        for port in ports:
            self._join(name, port.consumer, port.input, port, port)

    def own_edges(self) -> None:
        """The edges that stay inside; one that carries several kinds into one input stays one."""
        inside = [p for p in self.plan.ports if {self.where[p.producer], self.where[p.consumer]} == {self.host}]
        once = {(port.producer, port.consumer, port.input): port for port in reversed(inside)}
        for port in reversed(once.values()):
            self._join(port.producer, port.consumer, port.input, port, port)

    def write(self, streams: list[Crossing]) -> None:
        """One `mqtt_out` for streams of one node that go to the same readers."""
        first = streams[0]
        ports = [port for stream in streams for port in stream.ports]
        window = max(self.plan.least.get(port.label, 1) for port in ports)
        settings: dict[str, Any] = {
            "topic": first.topic.removesuffix(first.kind) + "{kind}",
            "readers": list(first.awaited),
            "policy": first.policy,
            "window": window if window > WINDOW else None,
        }
        to = "-".join(dict.fromkeys(host for stream in streams for host in stream.readers))
        name = self._add(f"to-{to}-{first.producer}", WRITER, settings, ports[0])
        for stream in streams:
            widest = max(stream.ports, key=lambda port: port.capacity)
            self._join(first.producer, name, stream.kind, widest, None)

    def loaded(self) -> Loaded:
        """What was drafted, as a loaded config."""
        whole = self.whole.config
        lanes = {lane: [name for name in members if name in self.nodes] for lane, members in whole.lanes.items()}
        made: dict[str, Any] = {
            "nodes": self.nodes,
            "edges": self.edges,
            "lanes": {lane: members for lane, members in lanes.items() if members},
            "hosts": {},
            "mqtt": whole.mqtt and whole.mqtt.model_copy(update={"instance": self.host}),
        }
        config: Config = whole.model_copy(update=made)
        return Loaded(config, self.whole.file, self.whole.base, self.lines)

    def _add(self, name: str, kind: str, settings: Mapping[str, Any], port: PortSpec) -> str:
        """Add an end of topics under a name that is free; what is wrong with it is said at the line of its edge."""
        taken = {*self.whole.config.nodes, *self.nodes}
        free = name[:NAME_LENGTH]
        number = 2
        while free in taken:
            free, number = f"{name[: NAME_LENGTH - 4]}-{number}", number + 1
        own = {key: value for key, value in settings.items() if value is not None}
        self.nodes[free] = NodeSettings(type=kind, host=self.host, **own)
        self.lines["nodes", free] = self._line(port)
        return free

    def _join(self, start: str, end: str, into: str, port: PortSpec, like: PortSpec | None) -> None:
        """Add an edge, with the capacity that the whole graph gives its port, and the rest as `like`."""
        self.lines["edges", len(self.edges)] = self._line(port)
        how: dict[str, Any] = {} if like is None else {"policy": like.policy, "feedback": like.feedback}
        self.edges.append(Edge.model_validate({"from": f"{start} -> {end}.{into}", "capacity": port.capacity, **how}))

    def _line(self, port: PortSpec) -> int:
        return self.whole.line(("edges", _edge(self.plan, port)[0])) or 0


def _named(stream: Crossing) -> str:
    """What tells the streams of a host apart: the node, and the kind where the name does not say it already."""
    return stream.producer if stream.kind in stream.producer else f"{stream.producer}-{stream.kind}"
