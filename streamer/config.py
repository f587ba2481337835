"""Reading a config: YAML with line numbers, `--set` overrides, validation with helpful errors, and the JSON Schema."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, get_args

import yaml
from pydantic import BaseModel, ValidationError

from streamer.errors import ConfigError, nearest, unknown
from streamer.settings import Config, NodeSettings

Path_ = tuple[str | int, ...]
MAX_BYTES: Final = 1 << 20
MAX_VALUES: Final = 50_000


@dataclass(frozen=True, slots=True)
class Loaded:
    """A validated config and where it came from.

    Attributes:
        config: the config.
        file: its name in messages.
        base: folder that relative paths in it start from.
        lines: path -> line of the file, from 1.
    """

    config: Config
    file: str = ""
    base: str = "."
    lines: Mapping[Path_, int] = field(default_factory=dict)

    def line(self, path: Path_) -> int | None:
        """The line of a path, or of the nearest thing round it that the file holds."""
        return _line(self.lines, path)

    def error(self, path: Path_, message: str) -> ConfigError:
        """A ConfigError that names the file, the line and the path."""
        return ConfigError(message, line=self.line(path), path=_dotted(path), file=self.file)


def load(source: str | Path, overrides: Iterable[str] = ()) -> Loaded:
    """Read a config file, or one that ships with the package, by name.

    Args:
        source: a path, or a name such as `continue_file.yaml` or `continue_file`.
        overrides: `PATH=VALUE` texts, the values in YAML, applied in order.

    Raises:
        ConfigError: no such file, not YAML, or not a valid config; with the line at fault when it is known.
    """
    path = find(source)
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ConfigError(f"{size} bytes; a config has at most {MAX_BYTES}", file=path.name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read as UTF-8 text: {error}", file=path.name) from error
    return parse(text, overrides, file=path.name, base=str(path.parent))


def find(source: str | Path) -> Path:
    """The file that a path or a shipped name means."""
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise ConfigError(f"{source} is a folder; expected a YAML file")
    shipped = {found.name: found for folder in _shipped_folders() for found in sorted(folder.glob("*.yaml"))}
    for name in (str(source), f"{source}.yaml"):
        if name in shipped:
            return shipped[name]
    hint = nearest(path.name, shipped)
    raise ConfigError(f"no config {str(source)!r}; shipped ones: {', '.join(sorted(shipped)) or 'none'}{hint}")


def _shipped_folders() -> list[Path]:
    spec = importlib.util.find_spec("streamer.configs")
    folders = [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
    return [*folders, Path(__file__).parent.parent / "configs"]


def parse(text: str, overrides: Iterable[str] = (), *, file: str = "", base: str = ".") -> Loaded:
    """A config from YAML text; arguments and errors as for `load`."""
    lines: dict[Path_, int] = {}
    raw = read_yaml(text, lines, file)
    if raw is None:
        raw = {}
    if not isinstance(raw, dict):
        raise ConfigError(f"a config is a mapping of keys, not a {type(raw).__name__}", line=1, file=file)
    for override in overrides:
        _override(raw, lines, override)
    return Loaded(validate(Config, raw, lines=lines, file=file), file, base, lines)


def validate(
    model: type[BaseModel], raw: object, *, lines: Mapping[Path_, int] | None = None, file: str = "", at: Path_ = ()
) -> Any:
    """`raw` as a model, or a ConfigError with the path, its line, what was expected and the nearest name.

    Args:
        model: what it should be.
        raw: plain data.
        lines: path -> line.
        file: name for messages.
        at: path of `raw` from the root of the config.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = (*at, *first["loc"])
        message = _explain(model, first)
        raise ConfigError(message, line=_line(lines or {}, path), path=_dotted(path), file=file) from error


def _explain(model: type[BaseModel], first: Mapping[str, Any]) -> str:
    loc = first["loc"]
    if first["type"] == "extra_forbidden":
        inner = _model_at(model, loc[:-1])
        return unknown("key", str(loc[-1]), _known(inner) if inner else ())
    message = str(first["msg"]).removeprefix("Value error, ")
    given = first.get("input")
    if first["type"] == "missing" or isinstance(given, (dict, list)):
        return message
    hint = ""
    options = str(first.get("ctx", {}).get("expected", ""))
    if options and isinstance(given, str):
        hint = nearest(given, [option.strip(" '") for option in options.replace(" or ", ", ").split(",")])
    return f"{message}, not {given!r}{hint}"


def _known(model: type[BaseModel]) -> list[str]:
    names: list[str] = []
    for name, info in model.model_fields.items():
        alias = info.validation_alias
        choices = getattr(alias, "choices", None)
        names.append(str(choices[0]) if choices else name)
    return names


def _model_at(model: type[BaseModel], loc: Path_) -> type[BaseModel] | None:
    """The model that stands at a path: follows fields, list items and mapping values."""
    current: Any = model
    for part in loc:
        if isinstance(current, type) and issubclass(current, BaseModel):
            info = current.model_fields.get(str(part))
            current = info.annotation if info else None
        else:
            current = get_args(current)[-1] if get_args(current) else None
        models = [a for a in get_args(current) if isinstance(a, type) and issubclass(a, BaseModel)]
        if models and type(None) in get_args(current):
            current = models[0]
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def _line(lines: Mapping[Path_, int], path: Path_) -> int | None:
    for end in range(len(path), 0, -1):
        if path[:end] in lines:
            return lines[path[:end]] or None
    return None


def _dotted(path: Path_) -> str:
    return ".".join(str(part) for part in path)


def _override(raw: dict[str, Any], lines: dict[Path_, int], text: str) -> None:
    """Apply one `PATH=VALUE` to the plain data; what is misspelt below is found by validation."""
    dotted, equals, value_text = text.partition("=")
    parts = dotted.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {text!r} is not of the form PATH=VALUE, for instance session.seed=7")
    value = _value(value_text)
    if parts[0] not in Config.model_fields:
        raise ConfigError(f"--set: {unknown('key', parts[0], Config.model_fields)}", path=dotted)
    if parts[0] == "nodes" and len(parts) > 1 and parts[1] not in (raw.get("nodes") or {}):
        raise ConfigError(f"--set: {unknown('node', parts[1], raw.get('nodes') or {})}", path=dotted)
    here: Any = raw
    for depth, part in enumerate(parts[:-1]):
        here = _descend(here, part, parts[: depth + 1])
    _assign(here, parts[-1], value, dotted)
    lines[tuple(int(p) if p.isdigit() else p for p in parts)] = 0  # 0: not from the file


def _value(text: str) -> Any:
    """A value as YAML, but one line is never a block mapping and holds no comment: names of devices look like both."""
    plain = text.strip()
    if plain[:1] not in ("{", "[", '"', "'") and (": " in plain or " #" in plain or plain.endswith(":")):
        return plain
    return read_yaml(text, {}, "--set")


def _descend(here: Any, part: str, done: list[str]) -> Any:
    if isinstance(here, list):
        return here[_index(here, part, done)]
    if not isinstance(here, dict):
        raise ConfigError(f"--set: {'.'.join(done[:-1])} is a single value and has no {part!r}", path=".".join(done))
    if here.get(part) is None:
        here[part] = {}
    if done[0] == "nodes" and len(done) == 2 and isinstance(here[part], str):
        here[part] = {"type": here[part]}
    return here[part]


def _assign(here: Any, part: str, value: Any, dotted: str) -> None:
    if isinstance(here, list):
        here[_index(here, part, dotted.split("."))] = value
    elif isinstance(here, dict):
        here[part] = value
    else:
        raise ConfigError(f"--set: there is a single value above {part!r}; it takes no keys", path=dotted)


def _index(here: list[Any], part: str, done: list[str]) -> int:
    if not part.isdigit() or int(part) >= len(here):
        raise ConfigError(f"--set: {part!r} is no index; expected 0 to {len(here) - 1}", path=".".join(done))
    return int(part)


def read_yaml(text: str, lines: dict[Path_, int], file: str = "") -> Any:
    """Plain data from one YAML document, read safely; `lines` is filled with path -> line.

    Raises:
        ConfigError: not YAML, a key twice, or too many values.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        return None if node is None else _construct(loader, node, (), lines, file)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        raise ConfigError(f"not valid YAML: {error.problem or error.context}", line=line, file=file) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"not valid YAML: {error}", file=file) from error
    finally:
        loader.dispose()


def _construct(loader: yaml.SafeLoader, node: yaml.Node, path: Path_, lines: dict[Path_, int], file: str) -> Any:
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if len(lines) > MAX_VALUES:
        raise ConfigError(f"more than {MAX_VALUES} values", line=line, file=file)
    if isinstance(node, yaml.SequenceNode):
        return [_construct(loader, item, (*path, i), lines, file) for i, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node, deep=True)
    made: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        key_line = key_node.start_mark.line + 1
        if not isinstance(key, (str, int)) or isinstance(key, bool):
            raise ConfigError(f"the key {key!r} must be text; put it in quotes", line=key_line, file=file)
        if key in made:
            raise ConfigError(
                f"the key {key!r} stands here twice", line=key_line, path=_dotted((*path, key)), file=file
            )
        lines[*path, key] = key_line
        made[key] = _construct(loader, value_node, (*path, key), lines, file)
    return made


def schema() -> dict[str, Any]:
    """The JSON Schema of a config, for editors."""
    made = Config.model_json_schema(by_alias=True)
    made["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    short = [{"type": "string"}]
    for name in ("NodeSettings", "Edge"):
        made["$defs"][name] = {"anyOf": [*short, made["$defs"][name]]}
    return made


def node_settings(loaded: Loaded, name: str, model: type[BaseModel]) -> Any:
    """The settings of one node, validated by the `Config` of its type."""
    entry: NodeSettings = loaded.config.nodes[name]
    return validate(model, entry.own, lines=loaded.lines, file=loaded.file, at=("nodes", name))
