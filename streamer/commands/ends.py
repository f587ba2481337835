"""What `--input` and `--output` mean: a file for the source or sink that takes one, or a file in place of a device."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from streamer.checks import placed
from streamer.config import Loaded, Path_
from streamer.errors import ConfigError
from streamer.node import Sink, Source, named_inputs
from streamer.registry import Registry
from streamer.settings import Edge


@dataclass(frozen=True, slots=True)
class EndOption:
    """One of the two options: what it looks for, and which node of files takes the place of which device."""

    name: str
    base: type[Source | Sink]
    what: str
    device: str
    file: str


INPUT: Final = EndOption("input", Source, "source", "microphone", "file")
OUTPUT: Final = EndOption("output", Sink, "sink", "speaker", "file_out")
OPTIONS: Final = {option.name: option for option in (INPUT, OUTPUT)}


def end_of(loaded: Loaded, registry: Registry, name: str) -> str:
    """The node that `--input` or `--output` means.

    It is the node of that name, else the only source (or sink) that has a `path`, else the only microphone (speaker).

    Raises:
        ConfigError: there is none, or there are several.
    """
    option = OPTIONS[name]
    found = nodes_with(loaded, registry, "path", option.base)
    if name in found:
        return name
    devices = [each for each, entry in loaded.config.nodes.items() if entry.type == option.device]
    known, what = (found, f"{option.what}s have a `path`") if found else (devices, f"nodes are a {option.device}")
    if len(known) == 1:
        return known[0]
    if not known:
        message = f"--{name}: no {option.what} of this config has a `path` or is a {option.device}; "
        raise ConfigError(message + f"leave --{name} out", file=loaded.file)
    several = f"--{name}: several {what}: {', '.join(known)}; name one of them {name!r}, "
    path = "path=FILE" if found else f"type={option.file} and nodes.NAME.path=FILE"
    raise ConfigError(several + f"or use --set nodes.NAME.{path} instead of --{name}", file=loaded.file)


def nodes_with(loaded: Loaded, registry: Registry, field: str, base: type[Source | Sink]) -> list[str]:
    """The sources or sinks whose type has a setting of this name; unknown types are left to the checks."""
    known = {name: entry.type for name, entry in loaded.config.nodes.items() if entry.type in registry}
    types = {name: registry.get(kind) for name, kind in known.items()}
    return [name for name, kind in types.items() if issubclass(kind, base) and field in kind.Config.model_fields]


def overrides(
    loaded: Loaded, registry: Registry, paths: Mapping[str, str | None], host: str | None = None
) -> Iterator[str]:
    """`PATH=VALUE` of the options that are given.

    Args:
        loaded: the config.
        registry: node types.
        paths: option -> file, or None.
        host: whose share is run; the end must be part of it.

    Raises:
        ConfigError: no such end, one that runs elsewhere, or an output that is the input.
    """
    given, wanted = paths.get("input"), paths.get("output")
    if given not in (None, "-") and wanted is not None and Path(given).resolve() == Path(wanted).resolve():
        raise ConfigError(f"--output {wanted} is the file of --input; give another name, to keep the input")
    for name, path in paths.items():
        if path is None:
            continue
        place, node = text(_place(path, name)), end_of(loaded, registry, name)
        _check_here(loaded, name, node, host)
        entry, option = loaded.config.nodes[node], OPTIONS[name]
        if entry.type == option.device:
            at = "" if entry.host is None else f", host: {entry.host}"
            yield f"nodes.{node}={{type: {option.file}, path: {place}{at}}}"
        else:
            yield f"nodes.{node}.path={place}"


def _place(path: str, option: str) -> str:
    """The path as the shell means it, wherever the config lies; `-` stays what it is.

    Raises:
        ConfigError: it is empty.
    """
    if not path:
        raise ConfigError(f"--{option} is empty; give the name of a file")
    return path if path == "-" else str(Path(path).absolute())


def _check_here(loaded: Loaded, name: str, node: str, host: str | None) -> None:
    """With `--host`, an end is given where it runs; elsewhere it is enough to know of what type it is."""
    there = placed(loaded).get(node)
    if host is None or there is None or there == host:
        return
    option = OPTIONS[name]
    message = f"--{name}: node {node!r} runs on host {there!r}, not on {host!r}; give --{name} there"
    if loaded.config.nodes[node].type == option.device:
        message += f", and here --set 'nodes.{node}={{type: {option.file}, host: {there}}}', "
        message += "so that all hosts know that it is a file"
    raise ConfigError(message, file=loaded.file)


def text(value: str) -> str:
    """Text as a YAML value."""
    return json.dumps(value, ensure_ascii=False)


def speakers(loaded: Loaded) -> frozenset[str]:
    """The nodes that play to a device."""
    return frozenset(name for name, entry in loaded.config.nodes.items() if entry.type == OUTPUT.device)


def without_unfit_links(loaded: Loaded, registry: Registry, speakers: frozenset[str]) -> Loaded:
    """The config without the links into a file that only a speaker can take: its commands.

    Args:
        loaded: the config, in which a file may have taken the place of a speaker.
        registry: node types.
        speakers: the speakers that it had before.
    """
    gone = frozenset(name for name in speakers if loaded.config.nodes[name].type == OUTPUT.file)
    if not gone:
        return loaded
    edges: list[Edge] = []
    lines: dict[Path_, int] = {path: line for path, line in loaded.lines.items() if path[:1] != ("edges",)}
    for i, edge in enumerate(loaded.config.edges):
        for kept in _kept(loaded, registry, edge, gone):
            lines["edges", len(edges)] = loaded.line(("edges", i)) or 0
            edges.append(kept)
    return replace(loaded, config=loaded.config.model_copy(update={"edges": edges}), lines=lines)


def _kept(loaded: Loaded, registry: Registry, edge: Edge, gone: frozenset[str]) -> list[Edge]:
    """The edge itself, or what is left of it."""
    try:
        links = edge.links()
    except ValueError:  # the checks say it, with its line
        return [edge]
    fit = [link for link in links if link[1] not in gone or _fits(loaded, registry, link)]
    if len(fit) == len(links):
        return [edge]
    how: dict[str, Any] = {"policy": edge.policy, "capacity": edge.capacity, "feedback": edge.feedback}
    return [Edge.model_validate({"from": f"{start} -> {_dotted(end, into)}", **how}) for start, end, into in fit]


def _dotted(end: str, into: str) -> str:
    return f"{end}.{into}" if into else end


def _fits(loaded: Loaded, registry: Registry, link: tuple[str, str, str]) -> bool:
    """False for a link that brings a file nothing it takes, and that a speaker could take."""
    start, _, into = link
    entry = loaded.config.nodes.get(start)
    if entry is None or entry.type not in registry:
        return True
    inputs, had = (named_inputs(registry.get(kind).accepts) for kind in (OUTPUT.file, OUTPUT.device))
    if into:
        return into in inputs or into not in had
    return bool(frozenset().union(*inputs.values()) & set(registry.get(entry.type).emits))
