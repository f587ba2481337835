"""The commands that only look: `check`, `graph`, `nodes` and `schema`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from streamer import config as configs
from streamer.checks import Plan
from streamer.commands.load import Request, graph_for, registry_for
from streamer.errors import InputError, PluginError
from streamer.node import Node, Sink, Source, named_inputs
from streamer.registry import NodeType


def check(request: Request, *, as_json: bool = False) -> None:
    """Check a config without building anything, and say what it is."""
    plan = graph_for(request).plan
    found = description(plan)
    typer.echo(json.dumps(found) if as_json else "\n".join(_lines(found)))


def description(plan: Plan) -> dict[str, Any]:
    """A checked graph as plain data."""
    config = plan.loaded.config
    return {
        "config": plan.loaded.file,
        "bundle": config.bundle,
        "engine": config.engine,
        "session": config.session.model_dump(),
        "sources": {name: plan.types[name].type_name for name in plan.names(Source)},
        "nodes": {name: plan.types[name].type_name for name in plan.names(Node)},
        "sinks": {name: plan.types[name].type_name for name in plan.names(Sink)},
        "lanes": {name: list(members) for name, members in plan.lanes.items()},
        "delay_ms": {name: facts.delay / 16 for name, facts in plan.facts.items() if facts.delay},
        "ports": [
            {
                "edge": port.label,
                "capacity": port.capacity,
                "policy": port.policy,
                "least": plan.least.get(port.label, 1),
            }
            for port in plan.ports
        ],
    }


def _lines(found: dict[str, Any]) -> Iterator[str]:
    session = found["session"]
    yield f"{found['config']} is a sound graph of {len(found['nodes'])} nodes and {len(found['ports'])} edges"
    yield f"bundle   {found['bundle'] or 'none'} (engine {found['engine']})"
    yield "session  " + ", ".join(f"{key}={value}" for key, value in session.items() if value is not None)
    for what in ("sources", "sinks"):
        yield f"{what:<8} " + ", ".join(_named(found[what]))
    for lane, members in found["lanes"].items():
        yield f"lane     {lane}: {', '.join(_named({name: found['nodes'][name] for name in members}))}"
    for name, delay in found["delay_ms"].items():
        yield f"delay    {name}: {delay:g} ms"
    for port in found["ports"]:
        yield f"edge     {port['edge']}: {port['capacity']} frames, {port['policy']}"


def _named(types: dict[str, str]) -> list[str]:
    return [name if name == kind else f"{name} ({kind})" for name, kind in types.items()]


def graph(request: Request, svg: str | None = None) -> None:
    """Draw a config: Mermaid on standard output, or an SVG file.

    Raises:
        InputError: the file cannot be written.
    """
    drawn = graph_for(request)
    if svg is None:
        typer.echo(drawn.mermaid(), nl=False)
        return
    path = Path(svg)
    if path.suffix.lower() != ".svg":
        raise InputError(f"--svg {svg}: expected a file name that ends in .svg")
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(drawn.svg(), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InputError(
            f"--svg {svg} cannot be written: {error.strerror}; give a file in a folder that exists"
        ) from error
    typer.echo(f"drawn: {svg}")


def nodes(names: Iterable[str], plugins: str | None = None, *, as_json: bool = False) -> None:
    """Every node type, or the named ones, with its settings.

    Raises:
        PluginError: an unknown name, with the nearest one.
    """
    registry = registry_for(plugins)
    wanted = list(names)
    found: list[dict[str, Any]] = []
    for name in wanted or registry:
        try:
            found.append(node_type(name, registry.get(name)))
        except PluginError as error:
            if wanted:
                raise
            found.append({"type": name, "unusable": error.message})
    typer.echo(json.dumps(found) if as_json else "\n\n".join("\n".join(_node_lines(each)) for each in found))


def node_type(name: str, kind: NodeType) -> dict[str, Any]:
    """A node type as plain data: what it is, its inputs and outputs, its settings."""
    base = next(each.__name__.lower() for each in (Source, Sink, Node) if issubclass(kind, each))
    optional = set(kind.optional)
    return {
        "type": name,
        "is": base,
        "help": (kind.__doc__ or "").strip().partition("\n")[0],
        "inputs": {
            into: {"kinds": sorted(kinds), "optional": into in optional}
            for into, kinds in named_inputs(kind.accepts).items()
        },
        "emits": sorted(kind.emits),
        "delay": kind.delay if "facts" not in vars(kind) else "depends on the settings and the bundle",
        "settings": [_setting(key, kind.Config) for key in kind.Config.model_fields],
    }


def _setting(name: str, model: type[BaseModel]) -> dict[str, Any]:
    info = model.model_fields[name]
    limits = {key: value for item in info.metadata for key, value in _limits(item)}
    shown = info.annotation.__name__ if isinstance(info.annotation, type) else str(info.annotation)
    made = {"name": name, "kind": shown.replace("typing.", ""), "required": info.is_required(), "limits": limits}
    default = None if info.is_required() else to_jsonable_python(info.get_default(call_default_factory=True))
    return made | {"default": default, "help": info.description or ""}


def _limits(item: object) -> Iterator[tuple[str, Any]]:
    for short, text in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="), ("min_length", "length >=")):
        if getattr(item, short, None) is not None:
            yield text, getattr(item, short)


def _node_lines(found: dict[str, Any]) -> Iterator[str]:
    if "unusable" in found:
        yield f"{found['type']}: cannot be used here: {found['unusable']}"
        return
    yield f"{found['type']} ({found['is']}): {found['help']}"
    inputs = [
        f"{name}{' (optional)' if entry['optional'] else ''}"
        + (f" of {', '.join(entry['kinds'])}" if entry["kinds"] != [name] else "")
        for name, entry in found["inputs"].items()
    ]
    if inputs:
        yield f"  takes  {', '.join(inputs)}"
    if found["emits"]:
        yield f"  gives  {', '.join(found['emits'])}"
    if found["is"] == "node":
        yield f"  delay  {found['delay']}" + (" samples" if isinstance(found["delay"], int) else "")
    for setting in found["settings"]:
        yield f"  {setting['name']}: {_setting_text(setting)}"


def _setting_text(setting: dict[str, Any]) -> str:
    value = "required" if setting["required"] else f"default {json.dumps(setting['default'])}"
    limits = "".join(f", {sign} {limit:g}" for sign, limit in setting["limits"].items())
    return f"{setting['kind']}{limits}, {value}" + (f"; {setting['help']}" if setting["help"] else "")


def schema() -> None:
    """The JSON Schema of a config, for editors."""
    typer.echo(json.dumps(configs.schema(), indent=2))
