"""The registry: node types by name. Built-in nodes and plugins come in by the same door, `register(registry)`.

A type may be registered as a class, or as `"module:attr"` so that its module is imported when it is first used.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from pydantic import BaseModel

from streamer.errors import PluginError, unknown
from streamer.frame import KINDS
from streamer.node import End, Node, Sink, Source, named_inputs

NodeType = type[End]
ENTRY_POINT = "streamer.plugins"
_T = TypeVar("_T")


class Registry:
    """Node types by name.

    >>> registry = Registry.with_builtins()
    >>> registry.get("clock").type_name
    'clock'
    """

    def __init__(self) -> None:
        self._types: dict[str, NodeType | str] = {}
        self._files: set[Path] = set()
        self._called: set[Any] = set()

    @classmethod
    def with_builtins(cls) -> Registry:
        """A registry that holds the nodes of this package."""
        from streamer import nodes

        made = cls()
        nodes.register(made)
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._types))

    def __contains__(self, name: object) -> bool:
        return name in self._types

    def add(self, node: NodeType | str, name: str | None = None) -> None:
        """Add a class, or `"module:attr"` with its type name.

        Raises:
            PluginError: the name is taken or missing, or the class does not fit; it says what is missing.
        """
        if not isinstance(node, str):
            check_type(node)
        key = name or ("" if isinstance(node, str) else node.type_name)
        if not key:
            raise PluginError(f"{node!r} has no name: set `type_name` on the class or pass `name`")
        if key in self._types and self._types[key] != node:
            raise PluginError(f"node type {key!r} is registered twice: {self._types[key]!r} and {node!r}")
        self._types[key] = node

    def get(self, name: str) -> NodeType:
        """The class of a node type.

        Raises:
            PluginError: unknown name (with the nearest one), or a module that is missing or broken.
        """
        if name not in self._types:
            raise PluginError(unknown("node type", name, self._types))
        found = self._types[name]
        if isinstance(found, str):
            found = check_type(load_attribute(found))
            self._types[name] = found
        return found

    def load(self, plugin: str, base: str | Path = ".") -> None:
        """Load one plugin: `module`, `module:attr`, a Python file, or a folder of Python files.

        A file that was loaded before is passed over, so that a folder may be named twice.

        Raises:
            PluginError: it cannot be found or loaded, has no `register(registry)`, or registers a misfit.
        """
        path = (Path(base) / plugin).expanduser()
        if path.is_dir() or plugin.endswith(".py"):
            for file in _files(path, plugin):
                self._load_file(file)
        else:
            self.add_module(_run(plugin, load_attribute if ":" in plugin else _module, plugin))

    def _load_file(self, file: Path) -> None:
        if file in self._files:
            return
        module = _run(file.name, _module_from_file, file)
        _run(file.name, self.add_module, module)
        self._files.add(file)

    def load_entry_points(self) -> None:
        """Load every installed plugin that announces itself by the entry point `streamer.plugins`.

        Raises:
            PluginError: one cannot be loaded; it says which, and what is missing.
        """
        for entry in entry_points(group=ENTRY_POINT):
            what = f"{entry.name} ({entry.value}, installed)"
            _run(what, self.add_module, _run(what, entry.load))

    def add_module(self, module: object) -> None:
        """Call the module's `register(registry)`, or the function itself when one is given; once for each."""
        register = getattr(module, "register", module)
        name = getattr(module, "__name__", repr(module))
        if not callable(register):
            raise PluginError(f"plugin {name!r} has no `register(registry)`; a plugin is a module with that function")
        parameters = ", ".join(inspect.signature(register).parameters)
        if not parameters or "," in parameters:
            raise PluginError(f"plugin {name!r}: register({parameters}) must take one argument, the registry")
        if register not in self._called:
            register(self)
            self._called.add(register)


def check_type(found: object) -> NodeType:
    """The node type itself, or a refusal that says what is missing."""
    if not (isinstance(found, type) and issubclass(found, (Node, Source, Sink))):
        raise PluginError(f"{found!r} is not a subclass of Node, Source or Sink")
    label = f"{found.__module__}.{found.__qualname__}"
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        raise PluginError(f"{label} lacks {', '.join(f'{name}()' for name in missing)}")
    if not found.type_name:
        raise PluginError(f"{label} lacks `type_name`")
    if not (isinstance(found.Config, type) and issubclass(found.Config, BaseModel)):
        raise PluginError(f"{label}.Config must be a subclass of streamer.Settings, not {found.Config!r}")
    if found.Config.model_config.get("extra") != "forbid":
        raise PluginError(f'{label}.Config must forbid unknown keys: derive it from streamer.Settings (extra="forbid")')
    _check_kinds(label, found)
    _check_signatures(label, found)
    return found


def _check_kinds(label: str, found: NodeType) -> None:
    kinds = {kind for group in named_inputs(found.accepts).values() for kind in group} | set(found.emits)
    for kind in sorted(kinds - KINDS):
        raise PluginError(f"{label}: {unknown('kind', kind, KINDS)}")
    if issubclass(found, Node) and inspect.iscoroutinefunction(found.step):
        raise PluginError(f"{label}.step must be synchronous; what waits belongs into a Source or a Sink")


def _check_signatures(label: str, found: NodeType) -> None:
    """The methods that the runtime calls must take what it passes; both signatures are shown when not."""
    base: NodeType = Node if issubclass(found, Node) else (Source if issubclass(found, Source) else Sink)
    for name in ("step", "step_many", "init_state", "wants", "save", "load", "frames", "write", "finish"):
        wanted, given = getattr(base, name, None), getattr(found, name, None)
        if wanted is None or given is None or wanted is given:
            continue
        count = len(inspect.signature(wanted).parameters)
        try:
            inspect.signature(given).bind(*range(count))
        except TypeError as error:
            expected = f"{name}{inspect.signature(wanted)}"
            raise PluginError(f"{label}.{name}{inspect.signature(given)} does not fit; expected {expected}") from error


def load_attribute(path: str) -> object:
    """The object behind `"module:attr"`.

    Raises:
        PluginError: wrong form, no such module, or no such attribute. What a module raises while it is imported
            goes through, except a missing dependency, which is named.
    """
    name, colon, attr = path.partition(":")
    if not colon or not name or not attr:
        raise PluginError(f"{path!r} is not of the form 'module:attr'")
    module = _import(name, path)
    found: object = module
    for part in attr.split("."):
        if not hasattr(found, part):
            raise PluginError(f"{path!r}: module {name!r} has no {attr!r}")
        found = getattr(found, part)
    return found


def _import(name: str, path: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise PluginError(f"{path!r}: no module named {error.name!r}") from error
        raise PluginError(f"{path!r} needs {error.name!r}, which is not installed") from error


def _files(path: Path, plugin: str) -> list[Path]:
    """The Python files of a folder, or the one that is named."""
    if not path.is_dir():
        if not path.is_file():
            raise PluginError(f"plugin file {plugin!r} does not exist")
        return [path.resolve()]
    files = sorted(each.resolve() for each in path.glob("*.py") if not each.name.startswith("_"))
    if not files:
        raise PluginError(f"plugin folder {plugin!r} holds no Python file")
    return files


def _run(what: str, work: Callable[..., _T], *args: Any) -> _T:
    """Run what a plugin brings; whatever it raises is said of that plugin.

    Raises:
        PluginError: what is missing, or what it raised and in which line.
    """
    try:
        return work(*args)
    except PluginError:
        raise
    except ModuleNotFoundError as error:
        raise PluginError(f"plugin {what} needs {error.name!r}, which is not installed") from error
    except SyntaxError as error:
        raise PluginError(f"plugin {what} is not valid Python: {error.msg} (line {error.lineno})") from error
    except Exception as error:
        raise PluginError(f"plugin {what} cannot be loaded: {type(error).__name__}: {error}") from error


def _module(name: str) -> ModuleType:
    return _import(name, name)


def _module_from_file(path: Path) -> ModuleType:
    name = f"streamer_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"plugin file {path.name!r} cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
