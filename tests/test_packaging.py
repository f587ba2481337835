"""What pyproject.toml says is what the checkout holds."""

import re
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def packages_on_disk():
    for top in ("audiolm", "streamer"):
        yield from (str(p.parent.relative_to(ROOT)).replace("/", ".") for p in (ROOT / top).rglob("__init__.py"))


def test_every_package_ships():
    shipped = set(PROJECT["tool"]["setuptools"]["packages"])
    assert set(packages_on_disk()) | {"audiolm.presets", "streamer.configs", "streamer_plugins"} == shipped


def test_every_folder_that_ships_exists():
    for folder in PROJECT["tool"]["setuptools"]["package-dir"].values():
        assert (ROOT / folder).is_dir()


def test_torch_is_capped():
    """An open range pulls gigabytes of CUDA."""
    assert "torch>=2.9,<2.14" in PROJECT["project"]["dependencies"]
    assert "torchaudio>=2.9,<2.12" in PROJECT["project"]["dependencies"]


@pytest.mark.parametrize("target", ["run", "test", "check", "bench"])
def test_make_targets_call_scripts_that_can_run(target):
    recipe = re.search(rf"^{target}:.*\n\t@(\S+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    script = ROOT / recipe[1]
    assert script.stat().st_mode & 0o111
    assert "set -euo pipefail" in script.read_text()


@pytest.mark.parametrize("command", sorted(PROJECT["project"]["scripts"]))
def test_commands_lead_somewhere(command):
    module, _, name = PROJECT["project"]["scripts"][command].partition(":")
    spec = find_spec(module)
    assert spec is not None
    assert f"def {name}(" in Path(spec.origin).read_text()
