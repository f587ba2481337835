"""The stages of a bundle go on training by one script; nothing else of the bundle changes."""

import json
import os
import subprocess
import sys
from pathlib import Path

from audiolm.bundle import load_bundle

ROOT = Path(__file__).parents[3]


def longer(*arguments):
    environment = os.environ | {"AUDIOLM": str(Path(sys.executable).with_name("audiolm")), "PYTHON": sys.executable}
    return subprocess.run(
        [str(ROOT / "scripts" / "train_longer.sh"), *map(str, arguments)],
        env=environment | {"PRESET": "tiny"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_two_stages_go_on_and_the_rest_stays(tiny_bundle, sounds_folder, tmp_path):
    done = longer(tiny_bundle, sounds_folder, tmp_path, 0.1)
    assert done.returncode == 0, done.stderr
    assert "semantic, coarse trained longer" in done.stdout
    load_bundle(tmp_path / "bundle")
    changed = {
        path.name
        for path in Path(tiny_bundle).iterdir()
        if path.read_bytes() != (tmp_path / "bundle" / path.name).read_bytes()
    }
    assert {"config.json"} < changed <= {"config.json", "semantic.safetensors", "coarse.safetensors"}
    old, new = (json.loads((Path(folder) / "config.json").read_text()) for folder in (tiny_bundle, tmp_path / "bundle"))
    assert {name: old[name] for name in old if name != "checksums"} == {
        name: new[name] for name in new if name != "checksums"
    }
    look = [json.loads(line) for line in (tmp_path / "run" / "semantic.jsonl").read_text().splitlines()]
    assert look[0]["step"] == 0
    assert look[-1]["step"] > 0
    tokens, was = tmp_path / "train.safetensors", (tmp_path / "train.safetensors").stat().st_mtime_ns
    again = longer(tiny_bundle, sounds_folder, tmp_path, 0.1)
    assert again.returncode == 0, again.stderr
    assert tokens.stat().st_mtime_ns == was  # not made twice
