"""The built wheel, installed outside the checkout, runs a shipped config."""

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from audiolm.bundle import shipped
from audiolm.io import MARK, read_metadata

ROOT = Path(__file__).parents[2]
SHIPS = ("audiolm", "streamer", "plugins", "configs", "pyproject.toml", "README.md", "LICENSE")
NOT = shutil.ignore_patterns("__pycache__", "*.pyc")


def command(*arguments, cwd, **environment):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, env=os.environ | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{arguments[:3]}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder that the wheel was installed into; built from a copy, so that the checkout stays as it is."""
    root = tmp_path_factory.mktemp("wheel")
    copy = root / "source"
    copy.mkdir()
    for name in SHIPS:
        place = ROOT / name
        shutil.copytree(place, copy / name, ignore=NOT) if place.is_dir() else shutil.copy(place, copy / name)
    have = int(importlib.metadata.version("setuptools").split(".")[0]) if importlib.util.find_spec("setuptools") else 0
    alone = ["--no-build-isolation"] if have >= 77 else []  # else pip fetches the builder, as on a fresh machine
    command("-m", "pip", "wheel", "-q", "--no-deps", *alone, "-w", root, copy, cwd=root)
    wheel = next(root.glob("*.whl"))
    command("-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", root / "site", wheel, cwd=root)
    return root / "site"


@pytest.mark.slow
def test_the_wheel_runs_a_shipped_config_by_name(site, bundle, tmp_path):
    python = {"PYTHONPATH": str(site)}
    where = command(
        "-c", "import audiolm, streamer; print(audiolm.__file__, streamer.__file__)", cwd=tmp_path, **python
    )
    assert all(path.startswith(str(site)) for path in where.split())
    given = ["--bundle", shipped()[0] if shipped() else bundle, "--seconds", "0.4", "--seed", "3", "--json", "--quiet"]
    prompt = ROOT / "assets" / "prompt_piano.flac"
    said = command(
        site / "bin" / "streamer", "run", "continue_file", "--input", prompt, "--prompt-seconds", "1",
        "--output", "out.wav", *given, cwd=tmp_path, **python,
    )  # fmt: skip
    report = json.loads(said.splitlines()[-1])
    assert Path(tmp_path / report["output"]).name == "out.wav"
    assert read_metadata(tmp_path / "out.wav").mark.startswith(MARK)
    configs = {path.name for path in (ROOT / "configs").glob("*.yaml")}
    assert configs == {path.name for path in (site / "streamer" / "configs").glob("*.yaml")}


@pytest.mark.slow
def test_the_presets_of_training_ship(site, tmp_path):
    script = "from audiolm.train.presets import load, shipped; print(load('tiny').name, *map(str, shipped().values()))"
    name, *paths = command("-c", script, cwd=tmp_path, PYTHONPATH=str(site)).split()
    assert name == "tiny"
    assert {Path(path).name for path in paths} == {path.name for path in (ROOT / "configs/models").glob("*.yaml")}
    assert all(path.startswith(str(site)) for path in paths)
