"""Is what runs on the GPU right? Before anything is timed: against the CPU, captured or not, alone or among others."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from audiolm.compute.depth_kernel import Frame, PackedDepth
from audiolm.compute.device import DeviceCompute
from audiolm.compute.eager import TorchCompute
from audiolm.compute.fused import HALF, Kernels
from audiolm.compute.noise import Noise
from audiolm.compute.placed import Types
from audiolm.engine import Engine
from audiolm.lockstep import Lockstep
from audiolm.parts import Parts
from audiolm.sampler import SamplingTensors, uniforms

LOGITS = 1e-3  # what float32 may differ from the CPU's by
TICKS = 24


@dataclass(frozen=True)
class Check:
    """One comparison: what was found, and what it should be at most (differences) or at least (shares)."""

    name: str
    value: float
    most: float | None = None
    least: float | None = None

    @property
    def holds(self) -> bool:
        """Whether it is as it should be."""
        return (self.most is None or self.value <= self.most) and (self.least is None or self.value >= self.least)


Found = Check | list[Check]


def checks(
    parts: Parts, device: torch.device, kernels: Callable[[], Kernels], half: Types
) -> Iterator[tuple[str, Callable[[], Found]]]:
    """Names and comparisons; `parts` lie on the CPU, `kernels` gives those that have held so far."""
    plain = Kernels()
    yield "noise", lambda: noise(device, kernels())
    yield "logits_torch", lambda: logits(parts, device, plain, "torch")
    yield "half_torch", lambda: half_logits(parts, device, plain, half, "torch")
    yield "logits_kernels", lambda: logits(parts, device, kernels(), "kernels")
    yield "half_kernels", lambda: half_logits(parts, device, kernels(), half, "kernels")
    yield "frame", lambda: frame(parts, device, kernels(), half)
    yield "graphs", lambda: graphs(parts, device, kernels(), half)
    yield "neighbours", lambda: neighbours(parts, device, kernels(), half)
    yield "snapshot", lambda: snapshot(parts, device, kernels(), half)
    yield "cpu", lambda: against_cpu(parts, device)


def noise(device: torch.device, kernels: Kernels) -> Check:
    """The noise of 50 slots is the sampler's, to the bit."""
    seeds, positions = np.arange(50) * 10**15, np.arange(50)[:, None] * 10**6
    made = Noise([(2, 8)], device, kernels.uniforms)(
        torch.from_numpy(seeds).to(device), torch.from_numpy(positions).to(device)
    )[0]
    wanted = np.stack([uniforms(int(seed), 2, int(at), 8) for seed, at in zip(seeds, positions[:, 0], strict=True)])
    return Check("noise_differs", float(np.abs(made.cpu().numpy() - wanted).max()), most=0)


def _rows(parts: Parts, stage: str, length: int = 40) -> tuple[Any, Any]:
    spec, rng = parts.stages[stage].spec, np.random.default_rng(0)
    tokens = rng.integers(0, spec.cardinality, (length, spec.levels))
    return tokens, rng.integers(0, spec.cond_cardinality, (length, spec.cond_levels)) if spec.cond_levels else None


def logits(parts: Parts, device: torch.device, kernels: Kernels, label: str) -> list[Check]:
    """Teacher-forced logits in float32 against the CPU's."""
    here = DeviceCompute(parts, device, kernels=kernels)
    found = []
    for stage in parts.stages:
        rows = _rows(parts, stage)
        worst = np.abs(here.teach(stage, *rows) - TorchCompute(parts).teach(stage, *rows)).max()
        found.append(Check(f"logits_differ.{label}.{stage}", float(worst), most=LOGITS))
    return found


def half_logits(parts: Parts, device: torch.device, kernels: Kernels, half: Types, label: str) -> list[Check]:
    """The same in half precision: how far off, and how often the likeliest token is the same. Only reported."""
    here, found = DeviceCompute(parts, device, types=half, kernels=kernels), []
    for stage in parts.stages:
        rows = _rows(parts, stage)
        mine, wanted = here.teach(stage, *rows), TorchCompute(parts).teach(stage, *rows)
        found += [
            Check(f"half_logits_differ.{label}.{stage}", float(np.abs(mine - wanted).max())),
            Check(f"half_argmax_agrees.{label}.{stage}", float((mine.argmax(-1) == wanted.argmax(-1)).mean())),
        ]
    return found


def frame(parts: Parts, device: torch.device, kernels: Kernels, half: Types) -> list[Check]:
    """Frames of the fused kernel against the same arithmetic in torch; one other token changes those behind it."""
    found = []
    for name, stage in parts.stages.items():
        if stage.depth is None or half.weights not in HALF or kernels.emit is None:
            continue
        batch, spec = 64, stage.spec
        packed = PackedDepth(stage.depth.to(device), half.weights)
        stage.depth.to("cpu")
        u, base = torch.rand(batch, spec.levels, device=device), torch.randn(batch, spec.depth_width, device=device)
        forced = torch.zeros(batch, spec.levels, dtype=torch.int64, device=device)
        how = SamplingTensors([parts.sampling[name]] * batch, device)
        one = Frame(base.to(half.weights), forced, forced != 0, u, how)
        same = (kernels.emit(packed, one) == packed.emit(one)).float().mean()
        found.append(Check(f"frame_agrees.{name}", float(same), least=0.9))
    return found


def _play(engine: Lockstep, others: bool, seed: int = 1) -> tuple[Any, Any]:
    """Slot 0 listens and goes on twice; the others, where there are any, do as they like. What slot 0 said."""
    rng, mine = np.random.default_rng(seed), np.random.default_rng(0)
    engine.open(7)
    while others and engine.free:
        engine.open(int(rng.integers(1 << 60)))
    codes, sound = [], []
    for i in range(TICKS):
        heard, made = (rng.random((2, engine.slots)) < 0.5) & others
        heard[0], made[0] = i % 12 < 8, i % 12 >= 8
        audio = (rng.standard_normal((engine.slots, engine.parts.tick)) * 0.1).astype(np.float32)
        audio[0] = mine.standard_normal(engine.parts.tick) * 0.1
        done = engine.tick(heard, made, audio)
        codes.append(done.codes[0])
        sound.append(done.sound[0])
    return np.stack(codes), np.stack(sound)


def _difference(name: str, one: tuple[Any, Any], other: tuple[Any, Any]) -> list[Check]:
    return [
        Check(f"{name}.tokens_differ", float((one[0] != other[0]).mean()), most=0),
        Check(f"{name}.sound_differs", float(np.abs(one[1] - other[1]).max()), most=0),
    ]


def graphs(parts: Parts, device: torch.device, kernels: Kernels, half: Types) -> list[Check]:
    """Captured in graphs or not: the same bits."""
    kind: dict[str, Any] = {"device": device, "types": half, "kernels": kernels, "burst": 2}
    runs = [_play(Lockstep(parts, 4, graphs=captured, **kind), others=True) for captured in (True, False)]
    return _difference("graphs", *runs)


def neighbours(parts: Parts, device: torch.device, kernels: Kernels, half: Types) -> list[Check]:
    """Alone or among 255: the same bits."""
    slots = 256 if device.type == "cuda" else 5
    kind: dict[str, Any] = {"device": device, "types": half, "kernels": kernels, "burst": min(16, slots)}
    runs = [_play(Lockstep(parts, slots, **kind), others=among) for among in (False, True)]
    return _difference("neighbours", *runs)


def snapshot(parts: Parts, device: torch.device, kernels: Kernels, half: Types) -> Check:
    """Saved, carried to another slot, and gone on with: the same tokens."""
    engine = Lockstep(parts, 2, device=device, types=half, kernels=kernels)
    codes, _ = _play(engine, others=False)
    engine.open(0)
    engine.load(1, engine.save(0))
    both = np.ones(2, np.bool_)
    made = np.stack([engine.tick(~both, both).codes for _ in range(6)])
    return Check("snapshot.tokens_differ", float((made[:, 0] != made[:, 1]).mean()), most=0 if len(codes) else None)


def against_cpu(parts: Parts, device: torch.device) -> list[Check]:
    """One session in float32 on either: heard tokens, and generated ones until one falls otherwise. Only reported."""
    runs = [_play(Lockstep(parts, 1, device=where, kernels=Kernels()), others=False)[0] for where in ("cpu", device)]
    same = [bool((one == other).all()) for one, other in zip(*runs, strict=True)]
    heard = [ok for i, ok in enumerate(same) if i % 12 < 8]
    engine = Engine(parts, 1, (), DeviceCompute(parts, device, kernels=Kernels()))
    return [
        Check("cpu.heard_ticks_agree", float(np.mean(heard))),
        Check("cpu.generated_ticks_agree", float(np.mean([ok for i, ok in enumerate(same) if i % 12 >= 8]))),
        Check("engine.slots_free", engine.free, least=1),
    ]
