"""`streamer plugin`: what `new` writes works, `check` tells what breaks; and where plugins are found, and where not."""

import json
import os
import subprocess
import sys
import textwrap
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import soundfile

from streamer import PluginError, Registry
from streamer import registry as registries
from streamer.commands.load import registry_for
from streamer.commands.skeleton import FILES
from streamer.contract import RULES

GOOD = """
    from streamer import Node

    class NAME(Node):
        \"\"\"Hands its sound on.\"\"\"
        type_name = "NAME"
        accepts = emits = ("audio",)

        def step(self, frame, state, input):
            yield frame

    def register(registry):
        registry.add(NAME)
"""


def write(path, text=GOOD, name="hands_on"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text.replace("NAME", name)))
    return path


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    monkeypatch.delenv("STREAMER_PLUGINS", raising=False)


# -- new


@pytest.fixture
def made(streamer, tmp_path):
    result = streamer("plugin", "new", "my-swell", "--into", tmp_path)
    assert result.code == 0, result.err
    return tmp_path / "my_swell"


def test_new_writes_all_of_it_and_says_so(streamer, made, tmp_path):
    written = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()}
    assert written == {path.replace("$name", "my_swell") for path in FILES}
    assert not any("$" in path.read_text() for path in made.rglob("*.*") if path.is_file())
    result = streamer("plugin", "new", "other", "--into", tmp_path)
    for path in written:
        assert str(tmp_path / "other" / path.replace("my_swell", "other")) in result.out
    assert "next: streamer plugin check" in result.out
    assert not list(tmp_path.glob(".*"))


def test_its_own_test_passes(made):
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        command,
        cwd=made,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_its_packaging_announces_it(made):
    import tomllib

    project = tomllib.loads((made / "pyproject.toml").read_text())
    assert project["project"]["name"] == "streamer-my-swell"
    assert project["project"]["entry-points"]["streamer.plugins"] == {"my_swell": "my_swell"}
    assert project["tool"]["setuptools"]["py-modules"] == ["my_swell"]


def test_it_keeps_the_contract(streamer, made):
    for what in (made, made / "my_swell.py"):
        result = streamer("plugin", "check", what, "--set", "fade_ms=15")
        assert result.code == 0, result
        assert "my_swell (node): keeps the contract" in result.out
        assert all(rule in result.out for rule in RULES)


def test_it_runs_in_a_graph(streamer, made, prompt, tmp_path):
    config = tmp_path / "swell.yaml"
    config.write_text(
        "nodes:\n  input: file\n  s: {type: my_swell, gain_db: -20, fade_ms: 0}\n  output: file_out\n"
        "edges: [input -> s -> output]\nsession: {mode: reconstruct}\n"
    )
    output = tmp_path / "out.wav"
    result = streamer("run", config, "--input", prompt, "--output", output, "--plugins", made, "--quiet")
    assert result.code == 0, result
    before, after = soundfile.read(prompt)[0], soundfile.read(output)[0]
    np.testing.assert_allclose(after, before / 10, atol=1e-4)
    assert "my_swell (node): Makes sound louder" in streamer("nodes", "my_swell", "--plugins", made).out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Swell", "small letters"),
        ("1st", "small letters"),
        ("../up", "small letters"),
        ("class", "small letters"),
        ("json", "a Python module already"),
        ("numpy", "a Python module already"),
        ("speaker", "a node type already"),
        ("s" * 60, "small letters"),
    ],
)
def test_a_name_that_cannot_be_is_refused(streamer, tmp_path, name, message):
    result = streamer("plugin", "new", name, "--into", tmp_path)
    assert (result.code, message in result.err) == (2, True)
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_overwritten(streamer, made, tmp_path):
    (made / "my_swell.py").write_text("mine")
    result = streamer("plugin", "new", "my_swell", "--into", tmp_path)
    assert (result.code, "is there already" in result.err) == (2, True)
    assert (made / "my_swell.py").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_told(streamer, tmp_path):
    (tmp_path / "file").write_text("")
    result = streamer("plugin", "new", "swell", "--into", tmp_path / "file")
    assert (result.code, "cannot be written" in result.err) == (2, True)


# -- check


BAD = GOOD.replace("yield frame", "yield frame.replace(position=0)")
SETTINGS = """
    from streamer import Node, Settings, Sink

    class Want(Settings):
        path: str
        deep: dict = {}

    class One(Sink):
        type_name = "one"
        accepts = ("audio",)
        Config = Want

        async def write(self, frame, ctx, input):
            pass

    class Two(Node):
        type_name = "two"
        accepts = emits = ("audio",)
        restorable = False

        def step(self, frame, state, input):
            yield frame

    def register(registry):
        registry.add(One)
        registry.add(Two)
"""


def test_what_it_breaks_is_told_with_its_rule(streamer, tmp_path):
    result = streamer("plugin", "check", write(tmp_path / "bad.py", BAD, "backwards"))
    assert result.code == 2
    assert "backwards (node): breaks 1 of 16 rules" in result.out
    assert "order: gave audio from position 0 on, but the frame before reached to 640" in result.out
    assert f"the rule: {RULES['order']}" in result.out


def test_as_json_it_is_one_object(streamer, tmp_path):
    bad = write(tmp_path / "bad.py", BAD, "backwards")
    result = streamer("plugin", "check", bad, "--json")
    found = json.loads(result.out)
    assert (result.code, found["ok"], found["plugin"]) == (2, False, str(bad))
    [entry] = found["types"]
    assert (entry["type"], entry["is"], entry["rules"]) == ("backwards", "node", list(RULES))
    assert [each["rule"] for each in entry["findings"]] == ["order"]
    good = streamer("plugin", "check", write(tmp_path / "good.py"), "--json")
    assert (good.code, json.loads(good.out)["ok"]) == (0, True)


def test_settings_go_to_the_type_that_has_them(streamer, tmp_path):
    plugin = write(tmp_path / "several.py", SETTINGS)
    result = streamer("plugin", "check", plugin)
    assert result.code == 2
    assert "settings: path: Field required" in result.out
    assert "--set KEY=VALUE" in result.out
    result = streamer("plugin", "check", plugin, "--set", "path=x", "--set", "deep.er=3")
    assert result.code == 0
    assert "one (sink): class and settings are right" in result.out
    assert "two (node): keeps the contract" in result.out
    assert "restorable = False" in result.out
    assert streamer("plugin", "check", plugin, "--type", "two").code == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--type", "tow"], "did you mean 'two'"),
        (["--set", "pth=x"], "unknown setting 'pth'; known: deep, path; did you mean 'path'"),
        (["--set", "path"], "not of the form KEY=VALUE"),
        (["--type", "one", "--set", "pth=x"], "unknown setting 'pth'"),
    ],
)
def test_what_is_asked_wrongly_is_told(streamer, tmp_path, more, message):
    result = streamer("plugin", "check", write(tmp_path / "several.py", SETTINGS), *more)
    assert result.code == 2
    assert message in result.out + result.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_thing", "bad.py needs 'no_such_thing', which is not installed"),
        ("def register(", "bad.py is not valid Python: '(' was never closed (line 1)"),
        ("1 / 0", "bad.py cannot be loaded: ZeroDivisionError"),
        ("x = 1", "has no `register(registry)`"),
        ("def register(registry):\n    pass", "registers no node type"),
        ("def register(registry):\n    raise KeyError('x')", "bad.py cannot be loaded: KeyError"),
        (GOOD.replace("def step", "def stop"), "lacks step()"),
    ],
)
def test_what_cannot_be_loaded_says_what_is_missing(streamer, tmp_path, text, message):
    result = streamer("plugin", "check", write(tmp_path / "bad.py", text))
    assert (result.code, result.out) == (2, "")
    assert message in result.err


def test_a_module_is_checked_by_its_name(streamer):
    result = streamer("plugin", "check", "streamer_plugins", "--type", "gate")
    assert (result.code, "gate (node): keeps the contract" in result.out) == (0, True)
    assert "no module named 'no_such_plugin'" in streamer("plugin", "check", "no_such_plugin").err


# -- where plugins are found


def test_the_variable_names_folders_files_and_modules(streamer, tmp_path, monkeypatch):
    write(tmp_path / "a" / "one.py", name="first_one")
    write(tmp_path / "b.py", name="second_one")
    monkeypatch.setenv(
        "STREAMER_PLUGINS", os.pathsep.join([str(tmp_path / "a"), "", str(tmp_path / "b.py"), "streamer_plugins"])
    )
    assert {"first_one", "second_one", "mixer"} <= set(registry_for())
    assert "first_one (node): Hands its sound on." in streamer("nodes", "first_one").out


def test_a_folder_may_be_named_twice(tmp_path, monkeypatch):
    write(tmp_path / "one.py", name="first_one")
    monkeypatch.setenv("STREAMER_PLUGINS", os.pathsep.join([str(tmp_path), str(tmp_path)]))
    registry = registry_for(str(tmp_path / "one.py"))
    registry.load("one.py", tmp_path)
    assert "first_one" in registry


def test_a_folder_with_a_broken_file_names_the_file_and_what_is_missing(streamer, tmp_path, monkeypatch):
    write(tmp_path / "one.py", name="first_one")
    write(tmp_path / "two.py", "import no_such_thing")
    for given in (["--plugins", str(tmp_path)], []):
        if not given:
            monkeypatch.setenv("STREAMER_PLUGINS", str(tmp_path))
        result = streamer("nodes", *given)
        assert (result.code, result.out) == (2, "")
        assert f"{'--plugins' if given else '$STREAMER_PLUGINS'} {tmp_path}" in result.err
        assert "two.py needs 'no_such_thing', which is not installed" in result.err
    assert "streamer_plugin_two" not in sys.modules


def test_what_a_config_names_and_is_broken_is_told_with_its_line(streamer, tmp_path):
    write(tmp_path / "two.py", "import no_such_thing")
    (tmp_path / "x.yaml").write_text("nodes: {a: clock}\nplugins:\n  - two.py\n")
    result = streamer("check", tmp_path / "x.yaml")
    assert result.code == 2
    assert "line 3: plugins.0: plugin two.py needs 'no_such_thing'" in result.err


def test_a_folder_of_that_name_is_never_loaded_unasked(streamer, tmp_path, monkeypatch):
    write(tmp_path / "plugins" / "one.py", "raise AssertionError('loaded')")
    write(tmp_path / "streamer_plugins" / "__init__.py", "raise AssertionError('loaded')")
    monkeypatch.chdir(tmp_path)
    result = streamer("nodes", "clock")
    assert result.code == 0, result.err


def test_an_installed_plugin_that_is_broken_is_named(monkeypatch):
    entry = EntryPoint("lost", "no_such_thing", registries.ENTRY_POINT)
    monkeypatch.setattr(registries, "entry_points", lambda group: [entry])
    with pytest.raises(PluginError, match=r"plugin lost \(no_such_thing, installed\) needs 'no_such_thing'"):
        Registry().load_entry_points()


def test_the_shipped_ones_are_announced_and_each_has_its_line(streamer, monkeypatch):
    import tomllib
    from pathlib import Path

    root = Path(__file__).parent.parent.parent
    points = tomllib.loads((root / "pyproject.toml").read_text())["project"]["entry-points"][registries.ENTRY_POINT]
    assert points == {"shipped": "streamer_plugins"}
    entry = EntryPoint("shipped", points["shipped"], registries.ENTRY_POINT)
    monkeypatch.setattr(registries, "entry_points", lambda group: [entry])
    shipped = Registry()
    shipped.load_entry_points()
    assert {
        "mixer",
        "gate",
        "effects",
        "spatial",
        "scheduler",
        "sensor",
        "osc_in",
        "osc_out",
        "midi_in",
        "recorder",
    } <= set(shipped)
    found = json.loads(streamer("nodes", *shipped, "--json").out)
    assert {entry["type"] for entry in found} == set(shipped)
    assert all(entry["help"].strip() and "unusable" not in entry for entry in found)
