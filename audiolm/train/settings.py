"""Settings as YAML, read safely and checked strictly into dataclasses; needs nothing but PyYAML.

The checks follow the type hints of the dataclasses: whole numbers, numbers, text, flags, literals, lists, optional
values and sections within sections.
"""

import dataclasses
import difflib
import re
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from audiolm.errors import AudioLMError, ConfigError

LONGEST = 1 << 18
T = TypeVar("T")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping, read safely.

    Raises:
        ConfigError: it cannot be read, is no YAML, is too long, repeats a key or is no mapping.
    """
    try:
        if path.stat().st_size > LONGEST:
            raise ConfigError(f"{path} is longer than {LONGEST} bytes; it is no preset")
        text = path.read_text(encoding="utf8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); give a YAML file") from error
    values = parse_yaml(text, str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}; a preset is a mapping of sections")
    return values


def parse_yaml(text: str, where: str) -> Any:
    """What ``text`` says; keys may not repeat, and ``1e-3`` is a number.

    Raises:
        ConfigError: it is no YAML.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value]
            twice = sorted({key for key in keys if keys.count(key) > 1}, key=str)
            if twice:
                raise ConfigError(f"{where}, line {node.start_mark.line + 1}: {twice[0]} is given twice; keep one")
            return super().construct_mapping(node, deep)

    # YAML 1.1 wants a dot in every float; people write 1e-3.
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
    )
    try:
        return yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, AudioLMError):
            raise
        raise ConfigError(f"{where} is no YAML: {' '.join(str(error).split())}") from error


def put(values: dict[str, Any], item: str) -> None:
    """Put ``PATH=VALUE`` into nested ``values``; the value is YAML.

    Raises:
        ConfigError: it is no such setting.
    """
    path, equals, text = item.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {item!r} is not PATH=VALUE; expected such as codec.recipe.batch=8", item=item)
    for key in keys[:-1]:
        inner = values.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {item!r}: {key} is a value, not a section")
        values = inner
    values[keys[-1]] = parse_yaml(text, f"--set {path}")


def fill(kind: type[T], values: Any, where: str, base: T | None = None) -> T:
    """A dataclass from plain data, strictly; what is not given is as in ``base``, or the class's default.

    Raises:
        ConfigError: an unknown key, a value of another type, or values that the class refuses.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where or 'it'} is {_shown(values)}; expected a section of keys")
    fields = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"unknown key {_join(where, str(key))}; known: {', '.join(fields)}{hint}", key=str(key))
    hints, given = get_type_hints(kind), {}
    for name, item in fields.items():
        known = getattr(base, name) if base is not None else _default(item)
        if name in values:
            given[name] = _value(hints[name], values[name], _join(where, name), known)
        elif base is not None:
            given[name] = known
    try:
        return kind(**given)
    except AudioLMError as error:
        raise ConfigError(f"{where}: {error.message}" if where else error.message) from error
    except TypeError as error:
        raise ConfigError(f"{where} is incomplete: {error}") from error


def _default(item: "dataclasses.Field[Any]") -> Any:
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return None if item.default is dataclasses.MISSING else item.default


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _shown(value: Any) -> str:
    names = {"str": "text", "list": "a list", "dict": "a section", "bool": "a flag", "NoneType": "nothing"}
    kind = names.get(type(value).__name__, "a number")
    return f"{value!r} ({kind})" if value is not None else kind


def _value(hint: Any, value: Any, where: str, known: Any) -> Any:
    """``value`` as the type ``hint`` says."""
    if dataclasses.is_dataclass(hint):
        return fill(hint, value, where, known)  # type: ignore[arg-type]
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _one_of(inside, value, where, known)
    if origin is Literal:
        if value not in inside or isinstance(value, bool):
            raise ConfigError(f"{where} is {_shown(value)}; expected one of {', '.join(map(str, inside))}")
        return value
    if origin in (tuple, list):
        return origin(_items(inside if origin is tuple else (inside[0], ...), value, where))
    if origin is dict:
        return _section(inside[1], value, where)
    return _plain(hint, value, where)


def _one_of(kinds: tuple[Any, ...], value: Any, where: str, known: Any) -> Any:
    if value is None and type(None) in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    for kind in kinds[:-1]:
        try:
            return _value(kind, value, where, known)
        except ConfigError:
            continue
    return _value(kinds[-1], value, where, known)


def _items(inside: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{where} is {_shown(value)}; expected a list such as [1, 2]")
    kinds = [inside[0]] * len(value) if inside[-1] is Ellipsis else list(inside)
    if len(kinds) != len(value):
        raise ConfigError(f"{where} has {len(value)} values; expected {len(kinds)}")
    return tuple(
        _value(kind, item, f"{where}[{i}]", None) for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _section(kind: Any, value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} is {_shown(value)}; expected a section of keys")
    return {str(key): _value(kind, item, _join(where, str(key)), None) for key, item in value.items()}


def _plain(kind: Any, value: Any, where: str) -> Any:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind in names and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
        raise ConfigError(f"{where} is {_shown(value)}; expected {names[kind]}", value=value)
    return value
