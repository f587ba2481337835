import pytest

from streamer import Frame, Node, PluginError, Registry
from streamer.registry import load_attribute


class Fine(Node):
    type_name = "fine_one"
    accepts = ("audio",)
    emits = ("audio",)

    def step(self, frame, state, into):
        yield Frame.of("audio", frame.array, position=0)


def test_every_built_in_can_be_loaded():
    registry = Registry.with_builtins()
    assert {"clock", "record", "replay"} <= set(registry)
    for name in ("clock", "record", "replay"):
        assert registry.get(name).type_name == name


def test_unknown_type_names_the_nearest():
    with pytest.raises(PluginError, match="did you mean 'clock'"):
        Registry.with_builtins().get("clok")


def misfits():
    yield type("NoName", (Fine,), {"type_name": ""}), "type_name"
    yield type("BadKind", (Fine,), {"emits": ("sound",)}), "unknown kind 'sound'"
    yield type("BadConfig", (Fine,), {"Config": dict}), "streamer.Settings"
    yield type("BadStep", (Fine,), {"step": lambda self, frame: ()}), r"step\(self, frame\) does not fit; expected step"
    yield type("NoStep", (Node,), {"type_name": "x"}), r"lacks step\(\)"
    yield object, "not a subclass"


@pytest.mark.parametrize(("node", "message"), [*misfits()])
def test_a_misfit_is_refused_at_registration(node, message):
    with pytest.raises(PluginError, match=message):
        Registry().add(node)


async def step(self, frame, state, into):
    return ()


def test_asynchronous_step_is_refused():
    with pytest.raises(PluginError, match="synchronous"):
        Registry().add(type("Async", (Fine,), {"step": step}))


def test_twice_is_refused():
    registry = Registry()
    registry.add(Fine)
    with pytest.raises(PluginError, match="twice"):
        registry.add(type("Other", (Fine,), {}))


@pytest.mark.parametrize(
    ("path", "message"),
    [("json", "module:attr"), ("no_such_module:x", "no module named"), ("json:no_such", "has no 'no_such'")],
)
def test_load_attribute_tells_what_is_wrong(path, message):
    with pytest.raises(PluginError, match=message):
        load_attribute(path)


PLUGIN = """
from streamer import Node
class Extra(Node):
    type_name = "extra"
    accepts = emits = ("audio",)
    def step(self, frame, state, input):
        yield frame
def register(registry):
    registry.add(Extra)
"""


def test_plugins_from_file_and_folder(tmp_path):
    (tmp_path / "one.py").write_text(PLUGIN)
    registry = Registry()
    registry.load("one.py", tmp_path)
    assert "extra" in registry
    other = Registry()
    other.load(str(tmp_path))
    assert "extra" in other


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", r"no `register\(registry\)`"),
        ("def register(): pass", "must take one argument"),
        ("import no_such_thing_here", "no_such_thing_here"),
    ],
)
def test_bad_plugins(tmp_path, text, message):
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises((PluginError, ModuleNotFoundError), match=message):
        Registry().load("bad.py", tmp_path)


def test_a_module_may_be_named_twice_also_when_its_types_were_used():
    registry = Registry()
    registry.load("streamer_plugins")
    kind = registry.get("mixer")
    registry.load("streamer_plugins")
    assert registry.get("mixer") is kind


def test_missing_plugins(tmp_path):
    with pytest.raises(PluginError, match="does not exist"):
        Registry().load("none.py", tmp_path)
    with pytest.raises(PluginError, match="no Python file"):
        Registry().load(str(tmp_path))
