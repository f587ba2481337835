"""What travels to a lent GPU and back: pieces below a size, kept between calls, joined again; weights as they were."""

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
