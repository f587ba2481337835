"""What travels to a lent GPU and back: pieces below a size, kept between calls, joined again; weights as they were.

And what is measured there, rehearsed here: on the CPU, tiny, with torch and numpy alone.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

sys.path.append(str(Path(__file__).parents[1] / "scripts"))

import gpu_pieces


@pytest.fixture
def pieces(tmp_path):
    """A folder of 3 MiB that does not compress, as pieces of at most 1 MiB."""
    folder = tmp_path / "load" / "deep"
    folder.mkdir(parents=True)
    noise = torch.randint(256, (3 << 20,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    (folder / "noise").write_bytes(noise.numpy().tobytes())
    return gpu_pieces.pack(tmp_path / "load", tmp_path / "carried", "sound", 1, preset=0)


def test_a_folder_travels_in_pieces(tmp_path, pieces):
    assert [path.name for path in pieces] == [f"sound.{i}of4" for i in range(1, 5)]
    assert all(path.stat().st_size <= 1 << 20 for path in pieces)
    gpu_pieces.keep(tmp_path / "carried", tmp_path / "kept")
    joined = gpu_pieces.join(tmp_path / "kept", "sound", tmp_path / "there")
    assert (joined / "deep" / "noise").read_bytes() == (tmp_path / "load" / "deep" / "noise").read_bytes()


def test_a_lost_piece_is_named(tmp_path, pieces):
    pieces[1].unlink()
    with pytest.raises(SystemExit, match=r"sound\.2of4 is not here"):
        gpu_pieces.join(tmp_path / "carried", "sound", tmp_path / "there")


def test_weights_come_back(tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    run.mkdir()
    weights = {"some.weight": torch.randn(8, 64), "some.bias": torch.randn(8)}
    save_file(weights, run / "coarse.safetensors")
    save_file(weights, run / "coarse.state.safetensors")  # too large to travel
    (run / "coarse.jsonl").write_text("{}\n")
    gpu_pieces.send(run, out, "stages")
    gpu_pieces.back(out, tmp_path / "back")
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == ["coarse.jsonl", "coarse.safetensors"]
    for name, value in load_file(tmp_path / "back" / "coarse.safetensors").items():
        torch.testing.assert_close(value, weights[name], rtol=1e-3, atol=1e-3)


ABSENT = ("soundfile", "soxr", "pydantic", "mido", "yaml", "msgpack", "structlog", "scipy", "rich")


def test_the_bench_of_a_gpu_runs_small_on_a_cpu_with_torch_and_numpy_alone(tmp_path):
    root, out = Path(__file__).parents[1], tmp_path / "out"
    script = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({ABSENT}));"
        f"sys.argv = ['gpu_bench.py', {str(out)!r}, '--tiny', '--device', 'cpu'];"
        f"runpy.run_path({str(root / 'scripts' / 'gpu_bench.py')!r}, run_name='__main__')"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    figures = [json.loads(line) for line in (out / "gpu.jsonl").read_text(encoding="utf8").splitlines()]
    names = {figure["name"] for figure in figures}
    assert {"gpu.bandwidth", "gpu.tiny.first_sound", "gpu.tiny.3.turns.p99", "gpu.tiny.3.part.fine_row"} <= names
    checked = [figure for figure in figures if figure["name"].startswith("gpu.check.")]
    assert len(checked) > 10
    assert all(figure["more"]["holds"] for figure in checked)
    table = (out / "gpu.md").read_text(encoding="utf8")
    assert "Failed: nothing" in table
    assert all(f"| {name} |" in table for name in names)


def test_the_bench_stops_in_time_and_names_what_it_left_out(tmp_path):
    from benchmarks.gpu.__main__ import Bench, table

    bench = Bench(torch.device("cpu"), tiny=True, minutes=0)
    found = list(bench.results())
    assert {one.name for one in found} == {"gpu.bandwidth", "gpu.rate"}
    assert "tiny.3.variants" in table(found, bench)


def test_the_host_s_share_and_the_launches_are_counted_without_a_gpu():
    from benchmarks.gpu.host import results

    found = {one.name: one.value for one in results(tiny=True)}
    assert found["gpu.host.4"] > 0
    assert 0 < found["gpu.launches.kernels.go_on"] < found["gpu.launches.torch.go_on"]
