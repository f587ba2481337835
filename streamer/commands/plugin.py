"""The commands `plugin new` and `plugin check`: a plugin that works to begin with, and what a plugin breaks."""

from __future__ import annotations

import json
import keyword
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import typer

from streamer import config as configs
from streamer.commands.skeleton import files
from streamer.contract import RULES, Finding, check_node, rules_of
from streamer.errors import ConfigError, InputError, PluginError, unknown
from streamer.node import Node, Sink, Source
from streamer.registry import NodeType, Registry

NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,47}")
BROKEN: Final = 2  # exit code when a rule is broken


def new(name: str, into: str = ".") -> None:
    """Write a plugin into a folder of its name.

    Raises:
        InputError: the name cannot be that of a module, is taken, or the folder is there or cannot be written.
    """
    module = name.replace("-", "_")
    _check_name(name, module)
    folder = Path(into).expanduser() / module
    if folder.exists():
        raise InputError(f"{folder} is there already; give another name, or another folder with --into")
    part = folder.with_name(f".{module}.part")
    made = files(module)
    try:
        for path, text in made.items():
            (part / path).parent.mkdir(parents=True, exist_ok=True)
            (part / path).write_text(text, encoding="utf-8")
        part.rename(folder)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise InputError(f"{folder} cannot be written: {error.strerror}; give a folder with --into") from error
    for path in made:
        typer.echo(f"{folder / path}")
    typer.echo(f"next: streamer plugin check {folder / module}.py; then change its `step`")


def _check_name(name: str, module: str) -> None:
    """The name becomes a module, a node type and a part of a package's name."""
    if not NAME.fullmatch(module) or keyword.iskeyword(module):
        raise InputError(f"{name!r} cannot be a plugin's name: use small letters, digits, - and _, a letter first")
    if module in Registry.with_builtins():
        raise InputError(f"{name!r} is a node type already; give another name")
    if module in sys.stdlib_module_names or find_spec(module) is not None:
        raise InputError(f"{name!r} is a Python module already, which the plugin would hide; give another name")


def check(plugin: str, name: str | None = None, sets: Iterable[str] = (), *, as_json: bool = False) -> None:
    """Hold the node types of a plugin to the contract, and say what they break; then the exit code is 2.

    Raises:
        PluginError: it cannot be loaded, or has no such type. ConfigError: a setting that none of its types has.
    """
    registry = Registry()
    registry.load(plugin)
    names = list(registry) if name is None else [name]
    if not names:
        raise PluginError(f"plugin {plugin!r} registers no node type; call registry.add(YourNode) in its register()")
    types = {each: registry.get(each) for each in names}
    given = _settings(sets, types)
    found = {each: check_node(kind, given[each]) for each, kind in types.items()}
    if as_json:
        typer.echo(json.dumps(_plain(plugin, types, found)))
    else:
        for each, kind in types.items():
            typer.echo("\n".join(_lines(each, kind, found[each])))
    if any(found.values()):
        raise typer.Exit(BROKEN)


def _settings(sets: Iterable[str], types: dict[str, NodeType]) -> dict[str, dict[str, Any]]:
    """Type -> its settings from `KEY=VALUE`; of several types, those that have the key get it."""
    made: dict[str, dict[str, Any]] = {name: {} for name in types}
    for text in sets:
        key, equals, value = text.partition("=")
        first, *rest = key.strip().split(".")
        if not equals or not all([first, *rest]):
            raise ConfigError(f"--set {text!r} is not of the form KEY=VALUE, for instance gain_db=-12")
        takers = [name for name, kind in types.items() if first in kind.Config.model_fields]
        if not takers:
            known = {key for kind in types.values() for key in kind.Config.model_fields}
            raise ConfigError(f"--set {text!r}: {unknown('setting', first, known)}")
        for name in takers:
            here = made[name]
            for part in (first, *rest)[:-1]:
                here = here.setdefault(part, {})
            here[(first, *rest)[-1]] = configs.read_yaml(value, {}, "--set")
    return made


def _plain(plugin: str, types: dict[str, NodeType], found: dict[str, list[Finding]]) -> dict[str, Any]:
    made = [
        {
            "type": name,
            "is": _sort(kind),
            "rules": list(rules_of(kind)),
            "findings": [{"rule": each.rule, "message": each.message} for each in found[name]],
        }
        for name, kind in types.items()
    ]
    return {"plugin": plugin, "ok": not any(found.values()), "types": made}


def _sort(kind: NodeType) -> str:
    return next(base.__name__.lower() for base in (Source, Sink, Node) if issubclass(kind, base))


def _lines(name: str, kind: NodeType, found: list[Finding]) -> Iterator[str]:
    rules = list(rules_of(kind))
    if not found:
        good = "keeps the contract" if issubclass(kind, Node) else "class and settings are right; no more is looked at"
        yield f"{name} ({_sort(kind)}): {good}"
        yield f"  held to  {', '.join(rules)}"
    else:
        yield f"{name} ({_sort(kind)}): breaks {len(found)} of {len(rules)} rules"
    for each in found:
        yield f"  {each.rule}: {each.message}"
        yield f"    the rule: {RULES[each.rule]}"
    if any(each.rule == "settings" for each in found):
        yield "    settings are given with --set KEY=VALUE"
    if issubclass(kind, Node) and not kind.restorable:
        yield "  note: it says that its state is not carried over a restore (`restorable = False`)"
