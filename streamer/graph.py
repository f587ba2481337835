"""A graph: the checked plan of a config, and its nodes once they are built. Sessions run through it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from streamer import checks, config, draw
from streamer.checks import Plan
from streamer.config import Loaded
from streamer.errors import ConfigError
from streamer.node import End, Node, Sink, Source
from streamer.registry import Registry


class Graph:
    """Nodes and edges, checked; weights are shared by every session that runs through it.

    >>> graph = Graph.load("reconstruct_file.yaml", overrides=["session.seed=3"])  # doctest: +SKIP

    Attributes:
        plan: the result of the static checks.
        nodes, sources, sinks: by name; empty until `build`.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.nodes: dict[str, Node] = {}
        self.sources: dict[str, Source] = {}
        self.sinks: dict[str, Sink] = {}

    @classmethod
    def load(
        cls,
        source: str | Path | Loaded,
        registry: Registry | None = None,
        *,
        overrides: Iterable[str] = (),
        slots: int = 1,
        shared: dict[str, Any] | None = None,
    ) -> Graph:
        """Read and check a config; nothing is built yet.

        Args:
            source: path or shipped name of a config, or one that is loaded.
            registry: node types; the built-in ones by default.
            overrides: `PATH=VALUE` texts.
            slots: how many sessions it should be ready for.
            shared: what its nodes share; graphs given the same dict load a model once, with these slots in all.

        Raises:
            ConfigError: what is wrong, where, and what was expected.
        """
        loaded = source if isinstance(source, Loaded) else config.load(source, overrides)
        known = Registry.with_builtins() if registry is None else registry
        return cls(checks.plan(loaded, known, slots=slots, shared=shared))

    @classmethod
    def parse(
        cls, text: str, registry: Registry | None = None, *, overrides: Iterable[str] = (), slots: int = 1
    ) -> Graph:
        """The same from YAML text."""
        return cls.load(config.parse(text, overrides), registry, slots=slots)

    def build(self) -> Graph:
        """Construct the nodes (this loads models); does nothing the second time. Returns itself.

        Raises:
            whatever a constructor raises; what was built before it is shut down.
        """
        if self.nodes or self.sources:
            return self
        made: dict[str, End] = {}
        try:
            for name in self.plan.order:
                made[name] = self.plan.types[name](self.plan.settings[name], self.plan.builds[name])
            for end in made.values():
                end.prepare()
        except BaseException:
            for end in made.values():
                end.shutdown()
            raise
        self.nodes = {name: end for name, end in made.items() if isinstance(end, Node)}
        self.sources = {name: end for name, end in made.items() if isinstance(end, Source)}
        self.sinks = {name: end for name, end in made.items() if isinstance(end, Sink)}
        return self

    def close(self) -> None:
        """Shut every node down; the graph can be built again."""
        for end in [*self.nodes.values(), *self.sources.values(), *self.sinks.values()]:
            end.shutdown()
        self.nodes, self.sources, self.sinks = {}, {}, {}

    def __enter__(self) -> Self:
        self.build()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def mermaid(self) -> str:
        """The graph as Mermaid text."""
        return draw.mermaid(self.plan)

    def svg(self) -> str:
        """The graph as one self-contained SVG."""
        return draw.svg(self.plan)

    def lane_of(self, node: str) -> str:
        """The lane a node is in.

        Raises:
            ConfigError: no such node in any lane.
        """
        for lane, members in self.plan.lanes.items():
            if node in members:
                return lane
        raise ConfigError(f"{node!r} is in no lane; lanes hold {', '.join(self.plan.order)}")
