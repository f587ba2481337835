"""What docs/plugins.md says is so: its first plugin runs, its tables are those of the code."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from streamer import Graph, Registry, check_node
from streamer.commands.load import VARIABLE
from streamer.contract import RULES
from streamer.isolate import RESTARTS, WITHIN, Guard
from streamer.registry import ENTRY_POINT
from streamer.settings import NodeSettings
from streamer.watchdog import MOST_LEFT

PAGE = (Path(__file__).parent.parent / "docs" / "plugins.md").read_text(encoding="utf8")
BLOCKS = re.findall(r"^```(\w+)(?: (\S+))?\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
NAMED = {name: text for _, name, text in BLOCKS if name}
COMMANDS = [line for kind, _, text in BLOCKS if kind == "bash" for line in text.splitlines()]


def rows(first):
    """The cells of the table whose first heading is this."""
    table = re.search(rf"^\| {re.escape(first)} \|.*?\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)[1]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


@pytest.fixture(scope="module")
def shipped():
    registry = Registry()
    registry.load("streamer_plugins")
    return registry


@pytest.fixture
def folder(tmp_path, prompt, monkeypatch):
    """Where the page's files are, and a prompt."""
    for name in ("louder.py", "louder.yaml"):
        (tmp_path / name).write_text(NAMED[name])
    (tmp_path / "prompt.wav").write_bytes(Path(prompt).read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path


def test_the_first_plugin_has_fifteen_lines():
    lines = [line for line in NAMED["louder.py"].splitlines() if line.strip()]
    assert len(lines) == 15


def test_every_command_of_the_page_runs(folder, streamer):
    assert len(COMMANDS) == 5
    for command in COMMANDS:
        program, *arguments = command.split()
        result = streamer(*arguments)
        assert (program, result.code) == ("streamer", 0), (command, result)
    before, after = (soundfile.read(folder / name)[0] for name in ("prompt.wav", "louder.wav"))
    np.testing.assert_allclose(after, np.clip(1.5 * before, -1, 1), atol=1e-4)


def test_the_first_plugin_keeps_the_contract(folder):
    registry = Registry()
    registry.load("louder.py", folder)
    assert check_node(registry.get("louder")) == []


def test_the_table_of_rules_is_the_code():
    assert {row[0]: row[1] for row in rows("rule")} == RULES


def test_the_settings_of_a_failure_are_the_code():
    guard = Guard()
    table = {row[0].strip("`"): row[1].strip("`") for row in rows("setting")}
    wanted = {
        "on_error": guard.on_error,
        "step_seconds": f"{guard.step_seconds:g}",
        "most_frames": str(guard.most_frames),
    }
    assert table == wanted
    assert set(table) <= set(NodeSettings.model_fields)
    assert {row[0].strip("`") for row in rows("`on_error`")} == {"fail", "bypass", "restart"}
    assert f"after {RESTARTS} times within {WITHIN:g} s" in PAGE
    assert f"more than {MOST_LEFT} such threads" in PAGE


def test_the_example_of_a_policy_is_a_config():
    found = yaml.safe_load(NAMED["policies"])["nodes"]["reverb"]
    ends = {"a": {"type": "file", "path": "a.wav"}, "b": {"type": "file_out", "path": "b.wav"}}
    registry = Registry.with_builtins()
    registry.load("streamer_plugins")
    text = yaml.safe_dump({"nodes": ends | {"reverb": found}, "edges": ["a -> reverb -> b"]})
    graph = Graph.parse(text, registry)
    assert graph.plan.loaded.config.nodes["reverb"].guard == Guard("restart", 2.0)


def test_the_ways_to_be_found_are_those_of_the_code():
    found = " ".join(" ".join(row) for row in rows("from"))
    for word in (ENTRY_POINT, VARIABLE, "--plugins", "plugins:"):
        assert word in found


def test_every_plugin_that_ships_is_told_with_its_settings(shipped):
    table = {row[0].strip("`"): row for row in rows("type")}
    assert set(table) == set(shipped)
    for name, row in table.items():
        kind = shipped.get(name)
        assert row[1] in [base.__name__.lower() for base in kind.__mro__]
        assert re.findall(r"`(\w+)`", row[4]) == list(kind.Config.model_fields), name
