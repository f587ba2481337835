"""Coverage-guided fuzzing of frame parsing, where atheris installs; Hypothesis does its part in test_frame.py."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamer import Frame

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
def test_no_input_escapes_as_anything_but_a_frame_error(tmp_path):
    seeds = {
        "audio": Frame.of("audio", [0.0, 0.5], position=640),
        "fine": Frame.of("fine", [[1, 2, 3]], position=0, flags=2),
        "control": Frame.control("set", temperature=0.7),
    }
    for name, frame in seeds.items():
        (tmp_path / name).write_bytes(frame.pack())
    limits = ["-runs=40000", "-max_total_time=20", "-rss_limit_mb=1024", "-max_len=4096", "-seed=1"]
    command = [sys.executable, str(ROOT / "scripts/fuzz_frames.py"), *limits, str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Done" in done.stderr
