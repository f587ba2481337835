"""Graphs on the accelerator's engine: run here on the CPU, whose bits are eager torch's."""

import graphs
import pytest
import torch
from graphs import CONTINUE

from audiolm.compute import choose, device
from audiolm.compute.device import DeviceCompute
from streamer.errors import ConfigError


@pytest.fixture
def cuda_here(monkeypatch):
    """The engine `cuda` without a GPU: the same operations, on the CPU and in float32."""
    monkeypatch.setattr(device, "find_device", lambda name: torch.device("cpu"))
    monkeypatch.setitem(choose.ENGINES, "cuda", lambda parts: DeviceCompute(parts, "cpu"))


def test_a_graph_runs_on_it_several_sessions_at_once(play, prompt, cuda_here):
    given = (f"nodes.input.path={prompt}", "session.seconds=0.4")
    many = [{"id": f"s{seed}", "seed": seed} for seed in (5, 6, 7)]
    reference = play(CONTINUE, *given, "engine=torch", slots=3, sessions=many)
    ours = play(CONTINUE, *given, "engine=cuda", slots=3, sessions=many)
    assert [one.int16.tolist() for one in ours] == [
        one.int16.tolist() for one in reference
    ]  # metadata names the engine
    assert len({one.sha256 for one in ours}) == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_the_config_is_refused(play, prompt):
    with pytest.raises(ConfigError, match="engine: engine 'cuda' needs an NVIDIA GPU"):
        play(graphs.text_of(CONTINUE), f"nodes.input.path={prompt}", "engine=cuda")
