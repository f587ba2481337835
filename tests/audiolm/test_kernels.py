"""One kernel for a frame, a step of attention and the noise: the arithmetic in torch, and Triton's kernels against it.

Without a GPU the kernels run in Triton's interpreter; without Triton those tests are skipped.
"""

import os
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from sounds import audio, digest, generate, listen, sound, tiny

from audiolm.attention import Ring
from audiolm.compute import ring
from audiolm.compute.depth_kernel import Frame, PackedDepth
from audiolm.compute.device import DeviceCompute
from audiolm.compute.fused import Kernels, find_kernels, triton_kernels
from audiolm.compute.noise import Noise
from audiolm.compute.placed import Types
from audiolm.depth import DepthTransformer
from audiolm.engine import Engine
from audiolm.lockstep import Lockstep
from audiolm.sampler import Sampling, SamplingTensors
from audiolm.session import Session
from audiolm.stage import picker

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")


@pytest.fixture(scope="module", autouse=True)
def interpreter():
    """Triton looks at this when the kernels are imported."""
    before = os.environ.get("TRITON_INTERPRET")
    if DEVICE.type == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"
    yield
    if before is None:
        os.environ.pop("TRITON_INTERPRET", None)


def frame(width=48, levels=3, cardinality=100, batch=18, heads=3):
    """A random depth Transformer and a frame to emit, some of it forced, one slot greedy."""
    torch.manual_seed(0)
    depth = DepthTransformer(32, levels, cardinality, layers=2, width=width, heads=heads).requires_grad_(
        requires_grad=False
    )
    depth, h = depth.to(DEVICE), torch.randn(batch, 32, device=DEVICE)
    forced = torch.randint(cardinality, (batch, levels), device=DEVICE)
    how = SamplingTensors([Sampling(0.0 if i == 1 else 0.5 + i / 20) for i in range(batch)], DEVICE)
    u, known = torch.rand(batch, levels, device=DEVICE), torch.rand(batch, levels, device=DEVICE) < 0.3
    return depth, h, Frame(depth.inputs(h), forced, known, u, how)


def test_the_arithmetic_in_torch_is_the_modules():
    depth, h, wanted = frame()
    pick = picker(wanted.forced, wanted.is_forced, wanted.u, wanted.settings, guided=False)
    assert torch.equal(PackedDepth(depth, torch.float32).emit(wanted), depth.emit(h, pick))


def test_a_model_may_emit_its_frames_so():
    """A whole session whose frames come from the packed weights, in half precision as a GPU's do."""
    parts, types = tiny(width=64, depth_width=64).parts, Types(torch.float16, torch.float32)

    def made(kernels):
        with Session(Engine(parts, 2, (), DeviceCompute(parts, "cpu", types=types, kernels=kernels)), seed=2) as one:
            return listen(one, sound(6)) + generate(one, 4)

    fused = made(Kernels(emit=PackedDepth.emit))
    assert np.isfinite(audio(fused)).all()
    same = np.mean([a.codes == b.codes for a, b in zip(fused, made(Kernels()), strict=True)])
    assert same > 0.7  # not all: a token that falls otherwise changes what follows


def test_a_neighbour_that_truncates_is_not_noticed():
    """The kernel knows no truncation; who wants it gets it, and the others get what the kernel gives them."""
    parts, types = tiny(width=64, depth_width=64).parts, Types(torch.float16, torch.float32)
    kernels = Kernels(emit=PackedDepth.emit)

    def made(how):
        engine = Engine(parts, 2, (), DeviceCompute(parts, "cpu", types=types, kernels=kernels))
        with Session(engine, seed=2) as mine, Session(engine, seed=3, sampling={"fine": how}) as other:
            mine.listen(sound(1)), other.listen(sound(1))
            ticks = [(mine.generate(), other.generate()) for _ in range(5)]
        return [np.concatenate([tick.codes for tick in each]) for each in zip(*ticks, strict=True)]

    plain, truncated = made(Sampling(1.0)), made(Sampling(1.0, top_k=1))
    assert np.array_equal(plain[0], truncated[0])
    assert not np.array_equal(plain[1], truncated[1])


def test_without_a_gpu_or_when_told_torch_does_it(monkeypatch):
    assert find_kernels(torch.device("cpu")) == Kernels()
    monkeypatch.setenv("AUDIOLM_KERNELS", "torch")
    assert find_kernels(torch.device("cuda")) == Kernels()


@needs_triton
@pytest.mark.parametrize(("width", "heads", "levels", "cardinality"), [(32, 2, 4, 32), (96, 3, 3, 100)])
def test_a_frame_in_one_kernel(width, heads, levels, cardinality):
    depth, _, wanted = frame(width, levels, cardinality, heads=heads)
    for dtype in (torch.float16, torch.float32)[: 2 if DEVICE.type == "cpu" else 1]:
        packed = PackedDepth(depth, dtype)
        assert (triton_kernels().emit(packed, wanted) == packed.emit(wanted)).float().mean() > 0.99


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("few", [False, True])
def test_a_step_of_attention_in_one_kernel(dtype, few):
    layout, slots = Ring(70, 4, 2, 32), 5
    rows = torch.tensor([4, 1, 2], device=DEVICE) if few else None
    batch = slots if rows is None else len(rows)
    held, shape = layout.init_positions(slots).to(DEVICE), (slots, 2, layout.entries, 32)
    keys, values = (torch.randn(shape, device=DEVICE).to(dtype) for _ in range(2))
    active = torch.arange(batch, device=DEVICE) != 1
    for step in range(3):
        at = ring.begin(
            layout,
            held,
            torch.arange(batch, device=DEVICE) * 7 + step + 100,
            active,
            rows=rows,
            radians=ring.radians(layout, DEVICE),
            dtype=dtype,
        )
        qkv, mine = torch.randn(batch, 3, 2, 32, device=DEVICE).to(dtype), (keys.clone(), values.clone())
        seen, wanted = triton_kernels().attend(qkv, *mine, at), ring.attend(qkv, keys, values, at)
        close = {"rtol": 0, "atol": 1e-5 if dtype == torch.float32 else 0.03}
        torch.testing.assert_close(seen[active], wanted[active].float(), **close)
        for written, cache in zip(mine, (keys, values), strict=True):
            torch.testing.assert_close(written, cache, **close)


@needs_triton
def test_the_noise_in_one_kernel():
    draws, rng = [(0, 1), (1, 4), (70, 13)], np.random.default_rng(0)
    seeds = torch.from_numpy(rng.integers(-(2**63), 2**63, 300)).to(DEVICE)
    positions = torch.from_numpy(rng.integers(0, 2**40, (300, 3))).to(DEVICE)
    for mine, wanted in zip(
        Noise(draws, DEVICE, triton_kernels().uniforms)(seeds, positions),
        Noise(draws, DEVICE)(seeds, positions),
        strict=True,
    ):
        assert torch.equal(mine, wanted)


@needs_triton
def test_a_tick_on_all_kernels():
    """Lock-step with every kernel in place against lock-step in torch, in a precision that the kernels take."""
    parts = tiny(width=64, depth_width=32, depth_layers=2).parts
    outs = []
    for kernels in (Kernels(), triton_kernels()):
        lockstep = Lockstep(parts, 3, DEVICE.type, types=Types(torch.float16, torch.float16), kernels=kernels, burst=2)
        rng, out = np.random.default_rng(0), []
        for seed in range(3):
            lockstep.open(seed)
        for i in range(9):
            heard = np.array([i < 6, i < 7, False])
            out.append(lockstep.tick(heard, ~heard, rng.standard_normal((3, 640)).astype(np.float32) * 0.1).codes)
        outs.append(np.stack(out))
    assert (outs[0] == outs[1]).mean() > 0.8
    assert digest(outs[0][:6, 0]) == digest(outs[1][:6, 0])  # what was heard
