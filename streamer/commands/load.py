"""From what was asked for to a checked graph: which settings an option means, and in which node."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from streamer import config as configs
from streamer.commands import ends
from streamer.commands.ends import nodes_with
from streamer.config import Loaded
from streamer.errors import ConfigError, PluginError
from streamer.graph import Graph
from streamer.hosts import everywhere, share
from streamer.node import Source
from streamer.registry import Registry

FOLLOW_INPUT: Final = ("reconstruct", "resynthesize")  # modes whose output is as long as their input
VARIABLE: Final = "STREAMER_PLUGINS"  # folders, files or modules, separated as in PATH
LEAST_SECONDS: Final = 0.04  # one tick
LONGEST_RUN: Final = 366 * 86_400.0


@dataclass(frozen=True, slots=True)
class Request:
    """What the caller asked for; None: as the config has it. Times in seconds, `chunk_ms` in milliseconds."""

    config: str
    sets: tuple[str, ...] = ()
    bundle: str | None = None
    plugins: str | None = None
    host: str | None = None
    input: str | None = None
    output: str | None = None
    seconds: float | None = None
    prompt_seconds: float | None = None
    seed: int | None = None
    chunk_ms: float | None = None
    realtime: bool = False
    for_seconds: float | None = None
    snapshot_seconds: float | None = None
    state: str | None = None
    forever: bool = False
    log: str | None = None


def registry_for(plugins: str | None = None) -> Registry:
    """The built-in node types, and those of installed plugins, of $STREAMER_PLUGINS, and of a folder, file or module.

    Nothing else is looked for: a folder `plugins` where the program is started is none of these.

    Raises:
        PluginError: one of them cannot be loaded; it says which, and what is missing.
    """
    registry = Registry.with_builtins()
    registry.load_entry_points()
    for what, plugin in _named(plugins):
        try:
            registry.load(plugin)
        except PluginError as error:
            raise PluginError(f"{what} {plugin}: {error.message}") from error
    return registry


def _named(plugins: str | None) -> Iterator[tuple[str, str]]:
    """What was asked for by name, and where."""
    for each in os.environ.get(VARIABLE, "").split(os.pathsep):
        if each.strip():
            yield f"${VARIABLE}", each.strip()
    if plugins is not None:
        yield "--plugins", plugins


def graph_for(request: Request) -> Graph:
    """The checked graph of a request, with `--host` the share of that host; nothing is built yet.

    Raises:
        ConfigError: the config, an option or a node is wrong; with the nearest name where one is near.
    """
    registry = registry_for(request.plugins)
    loaded = _loaded(request, registry)
    _check_seconds(loaded, request)
    _check_for(request.for_seconds)
    graph = Graph.load(loaded, registry)
    return graph if request.host is None else Graph.load(share(loaded, graph.plan, request.host), registry)


def _loaded(request: Request, registry: Registry) -> Loaded:
    """The config with every option that is a setting of it."""
    sets = [*request.sets, *_overrides(request)]
    loaded = configs.load(request.config, sets)
    if request.host is not None:
        everywhere(loaded, request.host)
    speakers = ends.speakers(loaded)
    for options in (_end_overrides, _pace_overrides):  # the second sees what the first has put in its place
        try:
            more = list(options(request, loaded, registry))
        except ConfigError:
            Graph.load(loaded, registry)  # what is wrong with the graph itself is said first
            raise
        if more:
            sets += more
            loaded = configs.load(request.config, sets)
    return ends.without_unfit_links(loaded, registry, speakers)


def _overrides(request: Request) -> Iterator[str]:
    """The options that stand for one value of the config each, as `PATH=VALUE`."""
    if request.bundle is not None:
        yield f"bundle={ends.text(request.bundle)}"
    for name in ("seconds", "prompt_seconds", "seed"):
        value = getattr(request, name)
        if value is not None:
            yield f"session.{name}={value!r}"


def _end_overrides(request: Request, loaded: Loaded, registry: Registry) -> Iterator[str]:
    """The options that name files, as `PATH=VALUE`."""
    yield from ends.overrides(loaded, registry, {"input": request.input, "output": request.output}, request.host)


def _pace_overrides(request: Request, loaded: Loaded, registry: Registry) -> Iterator[str]:
    """The options that are settings of every source that has them, as `PATH=VALUE`."""
    if request.chunk_ms is not None:
        for node in _paced(loaded, registry, "chunk_ms", "--chunk-ms"):
            yield f"nodes.{node}.chunk_ms={request.chunk_ms!r}"
    if request.realtime:
        for node in _paced(loaded, registry, "realtime", "--realtime"):
            yield f"nodes.{node}.realtime=true"


def _paced(loaded: Loaded, registry: Registry, field: str, option: str) -> list[str]:
    found = nodes_with(loaded, registry, field, Source)
    if not found:
        raise ConfigError(f"{option}: no source of this config has a setting {field!r}; leave it out", file=loaded.file)
    return found


def _check_for(seconds: float | None) -> None:
    if seconds is not None and not 0 < seconds <= LONGEST_RUN:
        raise ConfigError(f"--for {seconds:g}: expected seconds of wall time, above 0 and at most {LONGEST_RUN:g}")


def _check_seconds(loaded: Loaded, request: Request) -> None:
    """`seconds` must mean something, and be at least a tick where it does."""
    session = loaded.config.session
    if session.mode in FOLLOW_INPUT:
        if request.seconds is not None:
            message = f"--seconds: the output of mode {session.mode!r} is as long as its input; leave it out, "
            raise ConfigError(message + "or shorten the input with --prompt-seconds", file=loaded.file)
    elif session.seconds is not None and session.seconds < LEAST_SECONDS:
        message = f"{session.seconds:g} is less than a tick; expected at least {LEAST_SECONDS}"
        raise loaded.error(("session", "seconds"), message)
