"""The static checks of a graph: everything that can be known to be wrong before anything is built or started.

`plan` turns a loaded config into a `Plan`, or raises a ConfigError that says what came, what was expected and where.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Final

from streamer.config import Loaded, node_settings
from streamer.errors import PluginError, unknown
from streamer.frame import CONTROL, RATES
from streamer.node import Build, Facts, Node, SessionInfo, Sink, Source
from streamer.port import DEFAULT_CAPACITY, MAX_CAPACITY, PortSpec
from streamer.registry import NodeType, Registry
from streamer.topics import as_segment

MAIN_LANE: Final = "main"
SLACK: Final = 4  # frames above the least capacity, so that a port at its least does not make lanes take turns


@dataclass(frozen=True, slots=True)
class Plan:
    """A graph that passed every check.

    Attributes:
        loaded: the config.
        types, settings, facts, builds: of each node by name.
        ports: every stream into every input.
        order: nodes in the order of the edges (feedback left out).
        lanes: lane name -> its nodes in that order.
        least: port label -> least capacity that cannot deadlock.
    """

    loaded: Loaded
    types: Mapping[str, NodeType]
    settings: Mapping[str, Any]
    facts: Mapping[str, Facts]
    builds: Mapping[str, Build]
    ports: tuple[PortSpec, ...]
    order: tuple[str, ...]
    lanes: Mapping[str, tuple[str, ...]]
    least: Mapping[str, int] = field(default_factory=dict)

    def names(self, base: type[Source | Node | Sink]) -> tuple[str, ...]:
        """The nodes of one sort, in order."""
        return tuple(name for name in self.order if issubclass(self.types[name], base))

    def live(self, base: type[Source | Sink]) -> tuple[str, ...]:
        """The sources or sinks that go by the wall clock."""
        return tuple(name for name in self.names(base) if self.types[name].is_live(self.settings[name]))

    def connected(self, name: str) -> frozenset[str]:
        """The connected inputs of a node."""
        return frozenset(port.input for port in self.ports if port.consumer == name)


def plan(loaded: Loaded, registry: Registry, *, slots: int = 1, shared: dict[str, Any] | None = None) -> Plan:
    """Check a config against the node types.

    Args:
        loaded: the config.
        registry: node types; plugins that the config names are added.
        slots: how many sessions the graph should be ready for.
        shared: what its nodes share; that of another graph lets them use the models it has loaded.

    Raises:
        ConfigError: with line, path, what came, what was expected.
    """
    for i, plugin in enumerate(loaded.config.plugins):
        try:
            registry.load(plugin, loaded.base)
        except PluginError as error:
            raise loaded.error(("plugins", i), error.message) from error
    if not loaded.config.nodes:
        raise loaded.error(("nodes",), "a graph needs at least a source and a sink; there are no nodes")
    types = {name: _type(loaded, registry, name) for name in loaded.config.nodes}
    settings = {name: node_settings(loaded, name, kind.Config) for name, kind in types.items()}
    builds = _builds(loaded, slots, {} if shared is None else shared, types, settings)
    facts = {name: kind.facts(settings[name], builds[name]) for name, kind in types.items()}
    draft, where = _ports(loaded, types, facts)
    _check_ends(loaded, types)
    _check_connected(loaded, types, facts, draft)
    _check_guards(loaded, types, facts, draft)
    order = _order(loaded, types, draft, where)
    for spec in draft:
        _check_fit(loaded, facts, spec, where[spec.label])
    lanes = _lanes(loaded, types, order)
    placed(loaded)
    least = least_capacities(facts, draft, order)
    ports = tuple(_sized(loaded, spec, least.get(spec.label, 1), where[spec.label]) for spec in draft)
    return Plan(loaded, types, settings, facts, builds, ports, order, lanes, least)


def _type(loaded: Loaded, registry: Registry, name: str) -> NodeType:
    try:
        return registry.get(loaded.config.nodes[name].type)
    except PluginError as error:
        raise loaded.error(("nodes", name, "type"), error.message) from error


def _builds(
    loaded: Loaded, slots: int, shared: dict[str, Any], types: Mapping[str, NodeType], settings: Mapping[str, Any]
) -> dict[str, Build]:
    config = loaded.config
    session = SessionInfo(**config.session.model_dump())
    live = any(kind.is_live(settings[name]) for name, kind in types.items() if issubclass(kind, Source))
    own = config.mqtt.instance if config.mqtt is not None else None
    instance = own or as_segment(PurePath(loaded.file).stem)
    return {
        name: Build(
            name, config.bundle, config.engine, session, slots, loaded.base, shared, live, config.mqtt, instance
        )
        for name in config.nodes
    }


def _ports(
    loaded: Loaded, types: Mapping[str, NodeType], facts: Mapping[str, Facts]
) -> tuple[list[PortSpec], dict[str, int]]:
    """The ports that the edges mean, and the index of the edge of each, by label. A capacity of 0: not given."""
    found: list[PortSpec] = []
    where: dict[str, int] = {}
    for i, edge in enumerate(loaded.config.edges):
        try:
            links = edge.links()
        except ValueError as error:
            raise loaded.error(("edges", i), str(error)) from error
        for start, end, name in links:
            for node in (start, end):
                if node not in types:
                    raise loaded.error(("edges", i), unknown("node", node, types))
            policy = edge.policy or ("drop_oldest" if edge.feedback else "block")
            for kind, into in _streams(loaded, facts, (start, end, name), i):
                spec = PortSpec(start, kind, end, into, edge.capacity or 0, policy, edge.feedback)
                _check_single(loaded, found, spec, i)
                found.append(spec)
                where[spec.label] = i
    return found, where


def _streams(
    loaded: Loaded, facts: Mapping[str, Facts], link: tuple[str, str, str], i: int
) -> Iterator[tuple[str, str]]:
    """`(kind, input)` for each stream that one link carries."""
    start, end, name = link
    inputs, emits = facts[end].inputs, facts[start].emits
    if name and name not in inputs:
        raise loaded.error(("edges", i), f"{end}: {unknown('input', name, inputs)}")
    count = 0
    for kind in sorted(emits):
        into = [known for known, kinds in inputs.items() if kind in kinds and name in ("", known)]
        into = [known for known in into if known == kind] or into
        if len(into) > 1:
            options = ", ".join(f"{start} -> {end}.{known}" for known in into)
            raise loaded.error(("edges", i), f"{end} takes {kind} by several inputs; name one: {options}")
        if into:
            count += 1
            yield kind, into[0]
    if not count:
        taken = sorted(inputs[name] if name else {kind for kinds in inputs.values() for kind in kinds})
        message = f"{start} gives {_list(emits)}, but {end}{'.' + name if name else ''} takes {_list(taken)}"
        raise loaded.error(("edges", i), message)


def _list(kinds: Any) -> str:
    return ", ".join(sorted(kinds)) or "nothing"


def _check_single(loaded: Loaded, found: list[PortSpec], spec: PortSpec, i: int) -> None:
    """One stream per input: two would have to be told apart by arrival. Control may come from anywhere."""
    for other in found:
        if (other.consumer, other.input) != (spec.consumer, spec.input):
            continue
        if (other.producer, other.kind) == (spec.producer, spec.kind):
            raise loaded.error(("edges", i), f"the edge {spec.label} stands here twice")
        if not other.side and not spec.side:
            message = f"{spec.consumer}.{spec.input} already takes {other.label}; mix the streams in a node before it"
            raise loaded.error(("edges", i), message)


def _check_ends(loaded: Loaded, types: Mapping[str, NodeType]) -> None:
    for base, what in ((Source, "source"), (Sink, "sink")):
        if not any(issubclass(found, base) for found in types.values()):
            raise loaded.error(("nodes",), f"a graph needs at least one {what}; the nodes are {', '.join(types)}")


def _check_connected(
    loaded: Loaded, types: Mapping[str, NodeType], facts: Mapping[str, Facts], ports: list[PortSpec]
) -> None:
    for name, fact in facts.items():
        fed = {port.input for port in ports if port.consumer == name and not port.side}
        needed = [n for n, kinds in fact.inputs.items() if n not in fact.optional and kinds != {CONTROL}]
        for missing in [n for n in needed if n not in fed]:
            kinds = _list(fact.inputs[missing])
            givers = ", ".join(n for n, f in facts.items() if f.emits & fact.inputs[missing] and n != name) or "none"
            message = f"input {missing!r} is not connected; it takes {kinds}; nodes that give it: {givers}"
            raise loaded.error(("nodes", name), message)
        steered = issubclass(types[name], Sink) and any(p.consumer == name and p.kind == CONTROL for p in ports)
        if not issubclass(types[name], Source) and not fed and not steered:
            raise loaded.error(("nodes", name), f"no input is connected; it has {_list(fact.inputs)}")
        if not issubclass(types[name], Sink) and not any(port.producer == name for port in ports):
            raise loaded.error(("nodes", name), f"its output ({_list(fact.emits)}) leads nowhere; connect or remove it")


def _check_guards(
    loaded: Loaded, types: Mapping[str, NodeType], facts: Mapping[str, Facts], ports: list[PortSpec]
) -> None:
    """What is said of a node's failures must be about a node, and one that is taken out must have what goes on."""
    for name, kind in types.items():
        entry = loaded.config.nodes[name]
        for key in ("on_error", "step_seconds", "most_frames"):
            if key in entry.model_fields_set and not issubclass(kind, Node):
                message = f"{name} is a source or a sink and has no steps; leave {key} out"
                raise loaded.error(("nodes", name, key), message)
        if entry.on_error != "fail":
            for spec in ports:
                if spec.producer == name and spec.kind != CONTROL:
                    _check_passage(loaded, facts, ports, spec)


def _check_passage(loaded: Loaded, facts: Mapping[str, Facts], ports: list[PortSpec], spec: PortSpec) -> None:
    """Without its node, the stream of a port comes from the node's first input of the same kind."""
    name, kind = spec.producer, spec.kind
    taken = [port for port in ports if port.consumer == name and not port.side]
    before = next((facts[port.producer] for port in taken if port.kind == kind), None)
    policy = loaded.config.nodes[name].on_error
    message = f"{policy} means that it may be taken out, and what it takes goes on without it; "
    if before is None:
        got = _list({port.kind for port in taken})
        message += f"but it gives {kind} and gets only {got}; leave on_error out: a failure then ends the session"
        raise loaded.error(("nodes", name, "on_error"), message)
    levels = before.levels_out.get(kind), facts[name].levels_out.get(kind)
    rates = [each.rates_out.get(kind, RATES[kind]) for each in (before, facts[name])]
    if (None not in levels and levels[0] != levels[1]) or rates[0] != rates[1]:
        message += f"but its {kind} has other codebooks or another rate than what it takes; leave on_error out"
        raise loaded.error(("nodes", name, "on_error"), message)


def _order(
    loaded: Loaded, types: Mapping[str, NodeType], ports: list[PortSpec], where: Mapping[str, int]
) -> tuple[str, ...]:
    """The nodes sorted along the edges, as the config lists them where that leaves a choice."""
    before = {name: {p.producer for p in ports if p.consumer == name and not p.feedback} for name in types}
    done: list[str] = []
    while len(done) < len(types):
        ready = next((n for n in types if n not in done and before[n] <= set(done)), None)
        if ready is None:
            cycle = _cycle({name: before[name] - set(done) for name in types if name not in done})
            edge = next(where[p.label] for p in ports if p.producer == cycle[0] and p.consumer == cycle[1])
            message = f"a cycle: {' -> '.join(cycle)}; mark the edge that runs backwards with `feedback: true`"
            raise loaded.error(("edges", edge), message)
        done.append(ready)
    return tuple(done)


def _cycle(before: Mapping[str, set[str]]) -> list[str]:
    """One cycle, in the direction of the edges, its first node repeated at the end."""
    path = [next(iter(before))]
    while True:
        step = min(before[path[-1]])
        if step in path:
            return [step, *reversed(path[path.index(step) :])]
        path.append(step)


def _check_fit(loaded: Loaded, facts: Mapping[str, Facts], spec: PortSpec, edge: int) -> None:
    """Codebook counts and rates of one stream."""
    start, end = facts[spec.producer], facts[spec.consumer]
    given, wanted = start.levels_out.get(spec.kind), end.levels_in.get(spec.input)
    if given is not None and wanted is not None:
        least, most = wanted if isinstance(wanted, tuple) else (wanted, wanted)
        if not least <= given <= most:
            range_ = f"{least}" if least == most else f"{least} to {most}"
            message = f"{spec.label}: {given} codebooks come, {range_} are expected"
            raise loaded.error(("edges", edge), message + "; check the levels of both and the bundle")
    rate = start.rates_out.get(spec.kind, RATES[spec.kind])
    taken = end.rates_in.get(spec.input, RATES[spec.kind])
    if taken not in (0, rate) and spec.kind != CONTROL:
        raise loaded.error(("edges", edge), f"{spec.label}: {rate} a second come, {taken} a second are expected")


def _lanes(loaded: Loaded, types: Mapping[str, NodeType], order: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The lanes, each in the order of the edges; nodes that no lane names share the lane `main`."""
    lane_of: dict[str, str] = {}
    for lane, members in loaded.config.lanes.items():
        for i, name in enumerate(members):
            if name not in types:
                raise loaded.error(("lanes", lane, i), unknown("node", name, types))
            if not issubclass(types[name], Node):
                raise loaded.error(("lanes", lane, i), f"{name} is a source or a sink; those run on the event loop")
            if name in lane_of:
                raise loaded.error(("lanes", lane, i), f"{name} is already in lane {lane_of[name]!r}")
            lane_of[name] = lane
    nodes = [name for name in order if issubclass(types[name], Node)]
    made: dict[str, list[str]] = {}
    for name in nodes:
        made.setdefault(lane_of.get(name, MAIN_LANE), []).append(name)
    return {lane: tuple(members) for lane, members in made.items()}


def placed(loaded: Loaded) -> dict[str, str]:
    """Node -> host, of the nodes that have one: by their own `host`, or by a list under `hosts`.

    Raises:
        ConfigError: a list names a node that there is not, or a node is given two hosts.
    """
    found = {name: entry.host for name, entry in loaded.config.nodes.items() if entry.host is not None}
    for host, entry in loaded.config.hosts.items():
        for i, name in enumerate(entry.nodes):
            at = ("hosts", host, "nodes", i)
            if name not in loaded.config.nodes:
                raise loaded.error(at, unknown("node", name, loaded.config.nodes))
            if found.setdefault(name, host) != host:
                raise loaded.error(at, f"{name} already runs on host {found[name]!r}; say it once, or the same")
    return found


def least_capacities(facts: Mapping[str, Facts], ports: list[PortSpec], order: tuple[str, ...]) -> dict[str, int]:
    """Port label -> least capacity at which branches that meet again cannot block each other.

    A branch that is ahead must hold what the slowest branch lags behind: with lags from the declared delays and leads,
    that is ceil((slowest - own) / tick) + 1 frames.
    """
    lag: dict[str, int] = {}
    roots: dict[str, frozenset[str]] = {}
    least: dict[str, int] = {}
    for name in order:
        main = [port for port in ports if port.consumer == name and not port.side]
        lead = facts[name].lead
        due = max((lag[p.producer] + lead.get(p.input, 0) for p in main), default=0)
        lag[name] = due + facts[name].delay
        roots[name] = frozenset().union(*(roots[p.producer] for p in main)) if main else frozenset([name])
        for port in main:
            others = [roots[p.producer] for p in main if p is not port]
            if any(roots[port.producer] & other for other in others):
                ahead = due - lag[port.producer]
                least[port.label] = -(-ahead // facts[port.producer].tick) + 1
    return least


def _sized(loaded: Loaded, spec: PortSpec, least: int, edge: int) -> PortSpec:
    """The port with its capacity: as given, if that is enough, else the default or what it needs."""
    if least > MAX_CAPACITY:
        message = f"{spec.label} would need {least} frames; at most {MAX_CAPACITY} are allowed, check the delays"
        raise loaded.error(("edges", edge), message)
    if spec.capacity and spec.capacity < least and spec.policy == "block":
        message = (
            f"{spec.label}: a capacity of {spec.capacity} frames would deadlock where the branches meet; "
            f"the declared delays need at least {least}"
        )
        raise loaded.error(("edges", edge, "capacity"), message)
    capacity = spec.capacity or max(DEFAULT_CAPACITY, least + SLACK)
    return PortSpec(spec.producer, spec.kind, spec.consumer, spec.input, capacity, spec.policy, spec.feedback)
