"""The layers of the project, checked on the parsed imports: who may know whom, and the shape that modules keep."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("audiolm", "streamer", "plugins")
CORE_LIBRARIES = {"torch", "numpy", "safetensors", "audiolm"}
FREE_IN_AUDIOLM = ("audiolm.train", "audiolm.eval", "audiolm.export", "audiolm.cli", "audiolm.commands")
# Imported only where Triton is: it reads a kernel's globals, so these cannot import it later.
FREE_IN_AUDIOLM += ("audiolm.compute.kernels",)
# Bottom to top. A module that is not named here stands as high as the highest it imports.
STREAMER_ORDER = [
    {"errors"},
    {"frame"},
    {"port", "node"},
    {"registry", "config"},
    {"lane", "graph"},
    {"session", "driver"},
    {"stream"},
    {"running"},
    {"runtime"},
    {"cli"},
]
MOST_LINES = 400
MOST_FUNCTION_LINES = 50


@dataclass(frozen=True)
class Import:
    """One imported module. `late`: inside a function; `names`: what `from ... import` takes."""

    module: str
    line: int
    late: bool
    names: tuple[str, ...] = ()

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file, for everything that ships."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(modules()[name].read_text(encoding="utf-8"))


@cache
def imports(name: str) -> list[Import]:
    return list(walk(tree(name), name, late=False))


def walk(node: ast.AST, name: str, *, late: bool) -> Iterator[Import]:
    """Every import that runs; those under `if TYPE_CHECKING` do not."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, late) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from from_import(child, name, late=late)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from walk(other, name, late=late)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from walk(child, name, late=late or inside)


def from_import(node: ast.ImportFrom, name: str, *, late: bool) -> Iterator[Import]:
    """`from a import b` imports a.b when that is a module of ours, and a when any other name is taken."""
    base = node.module or ""
    if node.level:
        is_package = modules()[name].name == "__init__.py"
        parent = name.split(".")[: None if is_package and node.level == 1 else -node.level + is_package]
        base = ".".join([*parent, base]).rstrip(".")
    names = tuple(alias.name for alias in node.names)
    inner = [f"{base}.{each}" for each in names if f"{base}.{each}" in modules()]
    yield from (Import(each, node.lineno, late) for each in inner)
    rest = tuple(each for each in names if f"{base}.{each}" not in modules())
    if rest:
        yield Import(base, node.lineno, late, rest)


def where(name: str, line: int) -> str:
    return f"{modules()[name].relative_to(ROOT)}:{line}"


def breaches(package: str, forbidden) -> list[str]:
    return [
        f"{where(name, item.line)} imports {item.module}"
        for name in modules()
        if name.partition(".")[0] == package
        for item in imports(name)
        if forbidden(name, item)
    ]


def test_there_is_something_to_check():
    assert {"audiolm.errors", "streamer.frame", "streamer.nodes.files"} <= set(modules())
    assert any(item.module == "soundfile" and item.late for item in imports("audiolm.sound_in"))
    assert any(item.module == "audiolm.io" for item in imports("streamer.nodes.files"))


def test_the_model_knows_no_graph_no_loop_no_wire():
    assert breaches("audiolm", lambda _, item: item.top in {"streamer", "asyncio", "msgpack", "streamer_plugins"}) == []


def test_the_core_of_the_model_imports_few_libraries_at_once():
    """Training machines have torch, numpy and safetensors; everything else is imported where it is used."""

    def forbidden(name, item):
        if item.late or name.startswith(FREE_IN_AUDIOLM):
            return False
        return item.top not in CORE_LIBRARIES | sys.stdlib_module_names | {"torchaudio"}

    assert breaches("audiolm", forbidden) == []


def test_torchaudio_stands_behind_one_module():
    users = {name for name in modules() if any(item.top == "torchaudio" for item in imports(name))}
    assert len(users) <= 1, users


def test_training_needs_no_library_for_files_or_servers():
    """The code that runs on a training machine imports only what is there."""
    absent = {"soundfile", "soxr", "pydantic", "structlog", "mido", "typer", "rich", "yaml"}

    def forbidden(name, item):
        return name.startswith("audiolm.train") and not item.late and item.top in absent

    assert breaches("audiolm", forbidden) == []


def test_the_core_of_the_graph_knows_no_model():
    def forbidden(name, item):
        return not name.startswith("streamer.nodes") and item.top in {"torch", "torchaudio", "audiolm"}

    assert breaches("streamer", forbidden) == []


def test_the_core_of_the_graph_knows_its_nodes_only_by_name():
    def forbidden(name, item):
        return not name.startswith("streamer.nodes") and item.module.startswith("streamer.nodes.")

    assert breaches("streamer", forbidden) == []


def test_plugins_see_only_the_public_names():
    public = {name for item in imports("streamer") for name in item.names} | set(exported("streamer"))

    def forbidden(_, item):
        if item.top in {"audiolm", "plugins", "streamer_plugins"}:
            return item.top == "audiolm"
        return item.top == "streamer" and (item.module != "streamer" or not set(item.names) <= public)

    assert breaches("plugins", forbidden) == []


def exported(name: str) -> list[str]:
    """What `__all__` holds."""
    for node in tree(name).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def graph(*, late: bool) -> dict[str, set[str]]:
    """Module -> modules of ours that it imports; the names that a package re-exports count for that package alone."""
    return {
        name: {item.module for item in imports(name) if item.module in modules() and (late or not item.late)} - {name}
        for name in modules()
    }


def reach(start: str, edges: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    left = [start]
    while left:
        for following in edges[left.pop()] - seen:
            seen.add(following)
            left.append(following)
    return seen


def test_no_module_imports_itself_in_a_circle():
    edges = graph(late=False)
    circles = {name for name in modules() if name in reach(name, edges)}
    assert circles == set()


def rank(name: str) -> int | None:
    short = name.removeprefix("streamer.")
    return next((level for level, names in enumerate(STREAMER_ORDER) if short in names), None)


def test_the_graph_is_built_in_layers():
    edges = graph(late=True)
    wrong = [
        f"{name} (layer {rank(name)}) reaches {other} (layer {rank(other)})"
        for name in modules()
        if name.startswith("streamer.") and rank(name) is not None
        for other in reach(name, edges)
        if rank(other) is not None and rank(other) > rank(name)
    ]
    assert wrong == []


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_keeps_its_shape(name):
    text = modules()[name].read_text(encoding="utf-8")
    assert ast.get_docstring(tree(name)), f"{name} does not say what it is for"
    assert text.count("\n") <= MOST_LINES, f"{name} has more than {MOST_LINES} lines"
    functions = [node for node in ast.walk(tree(name)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = [f"{where(name, node.lineno)} {node.name}" for node in functions if length(node) > MOST_FUNCTION_LINES]
    assert long == []
    assert swallowed(name) == []
    assert unfinished(text) == []


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of code, the docstring not counted."""
    has_doc = ast.get_docstring(node) is not None
    start = node.body[0].end_lineno if has_doc else node.lineno
    return node.end_lineno - start + 1


def swallowed(name: str) -> list[str]:
    """Handlers of everything that neither raise nor hand the error on."""
    return [
        where(name, node.lineno)
        for node in ast.walk(tree(name))
        if isinstance(node, ast.ExceptHandler) and is_broad(node) and not passes_on(node)
    ]


def is_broad(node: ast.ExceptHandler) -> bool:
    kinds = {"bare"} if node.type is None else set(ast.unparse(node.type).strip("()").split(", "))
    return bool(kinds & {"bare", "Exception", "BaseException"})


def passes_on(node: ast.ExceptHandler) -> bool:
    """It raises, or keeps the error itself: in a future or a list, to be raised when the others are done."""
    inside = list(ast.walk(node))
    if any(isinstance(each, ast.Raise) for each in inside):
        return True
    calls = [each for each in inside if isinstance(each, ast.Call) and isinstance(each.func, ast.Attribute)]
    kept = [each for each in calls if each.func.attr in {"set_exception", "append"}]
    return any(isinstance(part, ast.Name) and part.id == node.name for each in kept for part in ast.walk(each))


def unfinished(text: str) -> list[str]:
    marks = ("TO" + "DO", "FIX" + "ME", "NotImplemented" + "Error", "/" + "work/", "/" + "root/")
    return [mark for mark in marks if mark in text]
