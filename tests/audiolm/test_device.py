"""The accelerator's engine, run on the CPU: the same bits as eager torch, from the same operations that a GPU runs."""

import inspect
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sounds import audio, codes, digest, generate, listen, sound, state_digest, ticks_in, tiny

from audiolm.compute.choose import resolve
from audiolm.compute.depth_kernel import PackedDepth
from audiolm.compute.device import DeviceCompute, device_compute
from audiolm.compute.fused import Kernels
from audiolm.compute.graphs import WARM_UP, Captured, full_state
from audiolm.compute.noise import Noise, signed
from audiolm.compute.placed import Placed, RowInputs, Types
from audiolm.compute.tick import TickProgram
from audiolm.engine import Engine
from audiolm.errors import EngineError
from audiolm.sampler import Sampling, SamplingTensors, uniforms
from audiolm.session import Session


def engine(parts, slots=3, guided=(), **options):
    return Engine(parts, slots, guided, DeviceCompute(parts, "cpu", **options))


def story(engine, **settings):
    """Listen, go on, be interrupted, go on; what came out and the state."""
    with Session(engine, seed=5, **settings) as session:
        out = listen(session, sound(9)) + generate(session, 4) + listen(session, sound(7, 2)) + generate(session, 3)
        return digest(audio(out), codes(out)), state_digest(session.save())


@pytest.mark.parametrize("pattern", ["depth", "delay", "flat"])
def test_it_equals_eager_torch_to_the_bit(pattern):
    parts = tiny(pattern).parts
    assert story(engine(parts)) == story(Engine(parts, 3))


def test_truncation_greed_and_guidance_too():
    parts = tiny().parts
    how = {"coarse": Sampling(0.9, top_k=7, top_p=0.8, guidance=2.0), "fine": Sampling(0.0)}
    device, eager = engine(parts, guided=("coarse",)), Engine(parts, 3, ("coarse",))
    assert story(device, sampling=how) == story(eager, sampling=how)
    assert story(device) == story(eager)  # and settings that change on the way


def test_neighbours_are_not_noticed():
    parts = tiny().parts

    def mine(others):
        made = engine(parts, 4)
        session = Session(made, seed=3)
        beside = [Session(made, seed=seed) for seed in range(others)]
        out = []
        for i, tick in enumerate(ticks_in(sound(12))):
            out.append(session.listen(tick) if i < 8 else session.generate())
            for other in beside:
                other.listen(tick) if i % 3 else other.generate()
        return digest(audio(out), codes(out)), state_digest(session.save())

    assert mine(0) == mine(3)


def test_a_state_moves_between_engines():
    parts = tiny().parts
    here, there = Session(engine(parts), seed=1), Session(Engine(parts, 3), seed=1)
    listen(here, sound(6))
    there.load(here.save())
    assert digest(codes(generate(here, 5))) == digest(codes(generate(there, 5)))


def test_buckets_step_few_slots_and_leave_the_others():
    parts = tiny().parts
    small = engine(parts, 4, buckets=(1, 2))
    assert [small.open(), small.open(), small.open()] == [0, 1, 2]
    tick = sound(1)
    before = state_digest(small.save(2))
    small.encode({0: tick, 1: tick})
    small.encode({0: tick})
    assert state_digest(small.save(2)) == before
    assert story(engine(parts, 4, buckets=(3,)))[0] == story(Engine(parts, 3))[0]


def test_half_precision_stays_near_and_is_saved():
    parts = tiny().parts
    half = DeviceCompute(parts, "cpu", types=Types(torch.bfloat16, torch.bfloat16))
    tokens, cond = np.arange(24).reshape(12, 2) % 32, np.arange(12)[:, None] % 24
    exact = Engine(parts).compute.teach("coarse", tokens, cond)
    assert np.abs(DeviceCompute(parts, "cpu").teach("coarse", tokens, cond) - exact).max() < 1e-4
    assert np.abs(half.teach("coarse", tokens, cond) - exact).max() < 0.1
    made = Engine(parts, 2, (), half)
    session = Session(made, seed=2)
    listen(session, sound(6))
    saved = session.save()
    first = digest(codes(generate(session, 4)))
    assert saved["engine.coarse.k.0"].dtype == np.float32
    session.load(saved)
    assert digest(codes(generate(session, 4))) == first


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_what_is_needed():
    for ask in (lambda: device_compute(tiny().parts), lambda: resolve("cuda")):
        with pytest.raises(EngineError, match="needs an NVIDIA GPU"):
            ask()


def test_noise_of_many_is_the_samplers_noise():
    rng = np.random.default_rng(0)
    seeds = [0, 1, 2**64 - 1, *(int(seed) for seed in rng.integers(0, 2**63, 30))]
    positions = rng.integers(0, 2**40, (len(seeds), 3))
    draws = [(0, 1), (1, 4), (70, 13)]
    made = Noise(draws, torch.device("cpu"))(torch.tensor([signed(s) for s in seeds]), torch.from_numpy(positions))
    for each, (stage, levels) in enumerate(draws):
        wanted = [uniforms(seed, stage, int(at[each]), levels) for seed, at in zip(seeds, positions, strict=True)]
        assert np.array_equal(made[each].numpy(), np.stack(wanted))


@pytest.mark.parametrize("pattern", ["depth", "delay", "flat"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_tensor_of_a_row_is_on_the_device(pattern, dtype):
    """On torch's `meta` device a tensor that was left on the host is an error, and so is a look at a value."""
    meta, parts = torch.device("meta"), tiny(pattern).parts
    placed = Placed(parts, meta, Types(dtype, dtype), Kernels())
    for name, stage in placed.stages.items():
        spec = stage.spec
        for guided in (False, True):
            numbers, on = torch.zeros(3, device=meta).long(), torch.zeros(3, device=meta).bool()
            tokens = torch.zeros(3, spec.levels, device=meta)
            cond = torch.zeros(3, spec.cond_levels, device=meta).long() if spec.cond_levels else None
            row = RowInputs(numbers, on, tokens.long(), tokens.bool(), tokens, cond)
            how = SamplingTensors([Sampling(top_k=3, top_p=0.5, guidance=2.0 if guided else 1.0)] * 3, meta)
            assert stage.step(row, how, full_state(stage.init_state(guided), 3)).device == meta, name


@pytest.mark.parametrize("burst", [None, 2])
@pytest.mark.parametrize("kernels", [Kernels(), Kernels(emit=PackedDepth.emit)])
def test_every_tensor_of_a_tick_is_on_the_device(burst, kernels):
    types = Types(torch.bfloat16, torch.bfloat16)
    placed = Placed(tiny().parts, torch.device("meta"), types, kernels)
    with torch.inference_mode():
        tick = TickProgram(placed, 4, burst=burst, truncates=False, graphs=False)
        for piece in (tick.hear, tick.take_heard, tick.catch_up, tick.go_on, tick.speak):
            piece()
        tick.reset(1)


class Recorder:
    """Stands in for the parts of `torch.cuda` that a capture touches, and writes down what is asked of them."""

    def __init__(self, monkeypatch):
        self.said = []
        for name in ("synchronize", "current_stream", "Stream"):
            monkeypatch.setattr(torch.cuda, name, self.called(name))
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
        monkeypatch.setattr(torch.cuda, "CUDAGraph", self.called("CUDAGraph"))
        signature = inspect.signature(torch.cuda.graph.__init__)

        def graph(*args, **named):
            signature.bind(None, *args, **named)
            return nullcontext()

        monkeypatch.setattr(torch.cuda, "graph", graph)

    def called(self, name):
        def call(*_):
            self.said.append(name)
            return SimpleNamespace(wait_stream=lambda _: None, replay=lambda: self.said.append("replay"))

        return call


def test_a_capture_warms_up_and_is_replayed(monkeypatch):
    recorder, calls = Recorder(monkeypatch), []
    run = Captured(lambda: calls.append(1), torch.device("cuda", 0))
    assert len(calls) == WARM_UP + 1
    run()
    run()
    assert len(calls) == WARM_UP + 1
    assert recorder.said[-2:] == ["replay", "replay"]
