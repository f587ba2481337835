"""Engines by name, and graphs kept from one start to the next."""

import numpy as np
import pytest
from sounds import tiny

from audiolm.compute import choose
from audiolm.compute.choose import make_compute, resolve
from audiolm.compute.eager import TorchCompute
from audiolm.compute.int8 import Int8Compute, Int8Linear
from audiolm.compute.onnx import running
from audiolm.compute.onnx.compute import OnnxCompute
from audiolm.compute.onnx.stages import temporal_graph
from audiolm.compute.onnx.store import KEPT, Store, cache_folder
from audiolm.engine import Engine
from audiolm.errors import ConfigError


def test_auto_is_the_fastest_that_is_installed(monkeypatch):
    monkeypatch.delenv("AUDIOLM_ENGINE")
    assert resolve("auto") == "onnx-int8"
    monkeypatch.setattr(choose, "find_spec", lambda name: None if name == "onnx" else object())
    assert resolve("auto") == "torch"


def test_the_environment_says_what_auto_is(monkeypatch):
    monkeypatch.setenv("AUDIOLM_ENGINE", "onnx")
    assert resolve("auto") == "onnx"
    assert resolve("torch") == "torch"


def test_an_unknown_engine_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match=r"unknown engine 'onyx'; expected one of auto, torch, .*onnx-int8"):
        resolve("onyx")


def test_a_missing_runtime_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"pip install 'audiolm-streamer\[onnx\]', or take engine: torch"):
        running.runtime()


@pytest.mark.parametrize(
    ("name", "kind"), [("torch", TorchCompute), ("torch-int8", Int8Compute), ("onnx", OnnxCompute)]
)
def test_names_mean_engines(name, kind):
    made = make_compute(name, tiny().parts)
    assert isinstance(made, kind)
    assert made.name == name


def test_int8_in_torch_multiplies_row_by_row_and_is_near():
    import torch

    torch.manual_seed(0)
    layer, x = torch.nn.Linear(64, 48), torch.randn(5, 64)
    x[0] *= 100
    ours = Int8Linear(layer)
    assert torch.equal(ours(x)[2], ours(x[2:3])[0])
    assert (ours(x[1:]) - layer(x[1:])).abs().max() < 0.1


def test_int8_in_torch_steps_the_reference_s_states():
    parts = tiny().parts
    engine, reference = Engine(parts, compute=Int8Compute(parts)), Engine(parts)
    for each in (engine, reference):
        each.open()
    assert {key: value.shape for key, value in engine.save(0).items()} == {
        key: value.shape for key, value in reference.save(0).items()
    }
    tokens = np.zeros((10, 4), np.int64)
    cond = np.zeros((10, 2), np.int64)
    wanted, got = (each.compute.teach("fine", tokens, cond) for each in (reference, engine))
    assert 0 < np.abs(wanted - got).max() < 0.3


# -- kept graphs --


def starts(tmp_path, fingerprint="abc"):
    """What a start of a program does: load a real graph from the store. And how often it had to be written."""
    calls = []

    def make():
        calls.append(1)
        return temporal_graph(tiny().parts.stages["semantic"], "fp32")

    def start():
        store = Store("a b/c", fingerprint, tmp_path)
        assert store.load("semantic", make) is store.load("semantic", make)
        return store

    return start, calls


def test_a_graph_is_written_once_and_found_again(tmp_path):
    start, calls = starts(tmp_path)
    start(), start()
    assert len(calls) == 1
    [path] = (tmp_path / "onnx").iterdir()
    assert path.name.startswith("a_b_c-semantic-")


def test_weights_without_a_name_are_kept_nowhere(tmp_path):
    start, calls = starts(tmp_path, "")
    start(), start()
    assert len(calls) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", [b"", b"no graph", None])
def test_a_damaged_file_is_made_again(tmp_path, damage):
    start, calls = starts(tmp_path)
    path = start().path("semantic")
    path.write_bytes(path.read_bytes()[:2000] if damage is None else damage)
    start(), start()
    assert len(calls) == 2


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "onnx").write_text("a file where the folder should be")
    start, calls = starts(tmp_path)
    start(), start()
    assert len(calls) == 2


def test_only_the_newest_of_one_part_are_kept(tmp_path):
    stores = [starts(tmp_path, f"weights {i}")[0]() for i in range(KEPT + 3)]
    kept = list((tmp_path / "onnx").iterdir())
    assert len(kept) == KEPT
    assert stores[-1].path("semantic") in kept


def test_the_cache_lies_where_the_user_wants_it(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("AUDIOLM_CACHE", raising=False)
    assert cache_folder() == tmp_path / "audiolm-streamer"
    monkeypatch.setenv("AUDIOLM_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
