"""From what was asked for to a checked graph: which settings an option means, and in which node."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from streamer import config as configs
from streamer.config import Loaded
from streamer.errors import ConfigError, PluginError, StreamerError, unknown
from streamer.graph import Graph
from streamer.node import Sink, Source
from streamer.registry import Registry

FOLLOW_INPUT: Final = ("reconstruct", "resynthesize")  # modes whose output is as long as their input
LEAST_SECONDS: Final = 0.04  # one tick
LONGEST_RUN: Final = 366 * 86_400.0
ENDS: Final[dict[str, type[Source | Sink]]] = {"input": Source, "output": Sink}


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


def registry_for(plugins: str | None = None) -> Registry:
    """The built-in node types, those of installed plugins, and those of a folder, file or module.

    Raises:
        PluginError: one of them cannot be loaded.
    """
    registry = Registry.with_builtins()
    what = "an installed plugin"
    try:
        registry.load_entry_points()
        if plugins is not None:
            what = f"--plugins {plugins}"
            registry.load(plugins)
    except StreamerError:
        raise
    except Exception as error:
        raise PluginError(f"{what} cannot be loaded: {type(error).__name__}: {error}") from error
    return registry


def graph_for(request: Request) -> Graph:
    """The checked graph of a request; nothing is built yet.

    Raises:
        ConfigError: the config, an option or a node is wrong; with the nearest name where one is near.
    """
    registry = registry_for(request.plugins)
    loaded = configs.load(request.config, (*request.sets, *_overrides(request)))
    try:
        ends = list(_end_overrides(request, loaded, registry))
    except ConfigError:
        Graph.load(loaded, registry)  # what is wrong with the graph itself is said first
        raise
    if ends:
        loaded = configs.load(request.config, (*request.sets, *_overrides(request), *ends))
    _check_host(loaded, request.host)
    _check_seconds(loaded, request)
    _check_for(request.for_seconds)
    return Graph.load(loaded, registry)


def end_of(loaded: Loaded, registry: Registry, name: str) -> str:
    """The node that `--input` or `--output` means.

    It is the node of that name, else the only source (or sink) that has a `path`.

    Raises:
        ConfigError: there is none, or there are several.
    """
    found = nodes_with(loaded, registry, "path", ENDS[name])
    if name in found:
        return name
    if len(found) == 1:
        return found[0]
    what = "source" if name == "input" else "sink"
    if not found:
        raise ConfigError(f"--{name}: no {what} of this config has a `path`; leave --{name} out", file=loaded.file)
    several = f"--{name}: several {what}s have a `path`: {', '.join(found)}; name one of them {name!r}, "
    raise ConfigError(several + f"or use --set nodes.NAME.path=FILE instead of --{name}", file=loaded.file)


def nodes_with(loaded: Loaded, registry: Registry, field: str, base: type[Source | Sink]) -> list[str]:
    """The sources or sinks whose type has a setting of this name; unknown types are left to the checks."""
    known = {name: entry.type for name, entry in loaded.config.nodes.items() if entry.type in registry}
    types = {name: registry.get(kind) for name, kind in known.items()}
    return [name for name, kind in types.items() if issubclass(kind, base) and field in kind.Config.model_fields]


def _overrides(request: Request) -> Iterator[str]:
    """The options that stand for one value of the config each, as `PATH=VALUE`."""
    if request.bundle is not None:
        yield f"bundle={_text(request.bundle)}"
    for name in ("seconds", "prompt_seconds", "seed"):
        value = getattr(request, name)
        if value is not None:
            yield f"session.{name}={value!r}"


def _end_overrides(request: Request, loaded: Loaded, registry: Registry) -> Iterator[str]:
    """The options that are settings of some node, as `PATH=VALUE`."""
    if request.input not in (None, "-") and request.output is not None and _same(request.input, request.output):
        raise ConfigError(f"--output {request.output} is the file of --input; give another name, to keep the input")
    for name in ENDS:
        path = getattr(request, name)
        if path is not None:
            yield f"nodes.{end_of(loaded, registry, name)}.path={_text(_place(path, name))}"
    if request.chunk_ms is not None:
        for node in _paced(loaded, registry, "chunk_ms", "--chunk-ms"):
            yield f"nodes.{node}.chunk_ms={request.chunk_ms!r}"
    if request.realtime:
        for node in _paced(loaded, registry, "realtime", "--realtime"):
            yield f"nodes.{node}.realtime=true"


def _place(path: str, option: str) -> str:
    """The path as the shell means it, wherever the config lies; `-` stays what it is.

    Raises:
        ConfigError: it is empty.
    """
    if not path:
        raise ConfigError(f"--{option} is empty; give the name of a file")
    return path if path == "-" else str(Path(path).absolute())


def _same(one: str | None, other: str) -> bool:
    return one is not None and Path(one).resolve() == Path(other).resolve()


def _text(value: str) -> str:
    """Text as a YAML value."""
    return json.dumps(value, ensure_ascii=False)


def _paced(loaded: Loaded, registry: Registry, field: str, option: str) -> list[str]:
    found = nodes_with(loaded, registry, field, Source)
    if not found:
        raise ConfigError(f"{option}: no source of this config has a setting {field!r}; leave it out", file=loaded.file)
    return found


def _check_host(loaded: Loaded, host: str | None) -> None:
    hosts = loaded.config.hosts
    if host is None:
        return
    if not hosts:
        message = f"--host {host}: this config has no `hosts`; leave --host out, or say there which nodes run where"
        raise ConfigError(message, file=loaded.file)
    if host not in hosts:
        raise loaded.error(("hosts",), unknown("host", host, hosts))
    elsewhere = [name for name in loaded.config.nodes if name not in hosts[host].nodes]
    if elsewhere:
        message = f"{', '.join(elsewhere)} run elsewhere, and this version has no node that carries frames there; "
        raise loaded.error(("hosts", host), message + "leave --host out to run everything here")


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
