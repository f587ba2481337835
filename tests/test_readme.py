"""What README.md shows is run here, block by block, in a folder where the tiny bundle stands for `piano`."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
# What the machine of a test has not, or what would set up an environment: stand-ins of one line. `make` only shows
# what it would do.
COMMANDS = {
    # Devices, and what runs until it is ended: options and config are real. The rest is tests/live's and tests/web's.
    "streamer": f'''
case "$1 $2" in
  "run mic_"*|"run installation"*) shift; set -- check "$@" ;;
  devices*|serve*|broker*) set -- "$1" --help ;;
esac
exec "{sys.executable}" -m streamer "$@"''',
    "make": f'exec {shutil.which("make") or "true"} --no-print-directory -n -C "{ROOT}" "$@"',
    # Options and sound are real; the steps after the first are tests/audiolm/train/test_all.py's.
    "audiolm": f'exec "{sys.executable}" -m audiolm.cli "$@" --preset tiny --until prepare',
    "arecord": "exec cat prompt.raw",
    "aplay": "exec cat >played.raw",
}
RESULTS = {"continued.wav", "codec.flac", "dream.wav", "louder.wav", "played.raw"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_bundle, prompt):
    """Where the blocks run, one after the other: a prompt, and a folder `piano`, found before the shipped bundle."""
    made = tmp_path_factory.mktemp("readme")
    shutil.copytree(tiny_bundle, made / "piano")
    shutil.copy(prompt, made / "prompt.wav")
    (made / "prompt.raw").write_bytes(soundfile.read(prompt, dtype="int16")[0].tobytes())
    (made / "sounds").mkdir()
    for seed in range(3):
        soundfile.write(made / f"sounds/{seed}.wav", np.random.default_rng(seed).normal(0, 0.1, 64_000), 16_000)
    (made / "bin").mkdir()
    for name, line in COMMANDS.items():
        (made / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
        (made / "bin" / name).chmod(0o755)
    return made


def execute(command, folder):
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    packages = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    env = os.environ | {"PATH": path, "PYTHONPATH": packages}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=100)


def test_every_block_says_what_it_is():
    assert {kind for kind, _ in BLOCKS} == {"bash", "python"}
    assert len(BLOCKS) >= 7


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", range(len(BLOCKS)), ids=[text.split("\n", 1)[0][:40] for _, text in BLOCKS])
def test_it_runs(folder, number):
    kind, text = BLOCKS[number]
    command = [sys.executable, "-c", text] if kind == "python" else ["bash", "-euo", "pipefail", "-c", text]
    done = execute(command, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_the_results_are_there(folder):
    """Needs the blocks above; run alone, it has nothing to look at."""
    found = {path.name for path in folder.iterdir()} & RESULTS
    if not found:
        pytest.skip("the blocks of the README were not run")
    assert found == RESULTS
    assert soundfile.info(folder / "louder.wav").frames == soundfile.info(folder / "prompt.wav").frames
    assert (folder / "played.raw").stat().st_size == 2 * 10 * 16_000


def test_it_names_every_config_and_every_command(streamer):
    for path in (ROOT / "configs").glob("*.yaml"):
        assert f"| `{path.stem}` |" in README
    commands = re.findall(r"^  (\w+) ", streamer("--help").out.split("Commands:")[1], re.MULTILINE)
    for command in (
        "run",
        "check",
        "graph",
        "nodes",
        "schema",
        "bench",
        "devices",
        "serve",
        "broker",
        "service",
        "plugin",
    ):
        assert command in commands
        assert f"| `streamer {command}` |" in README


def test_its_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []
