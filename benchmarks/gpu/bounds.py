"""What the chip allows: bytes that a tick must move over the bandwidth, and operations over the rate, both measured."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from audiolm.compute.placed import Types
from audiolm.parts import Parts
from audiolm.streaming import State

ROWS = {"semantic": 1, "coarse": 2, "fine": 2}  # of a tick


@dataclass(frozen=True)
class Chip:
    """Measured: bytes a second that a copy reads and writes, operations a second of a product of bfloat16 matrices."""

    bandwidth: float
    rate: float


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device, calls: int) -> float:
    """Of one call, after three to warm up."""
    for _ in range(3):
        work()
    wait(device)
    begun = time.perf_counter()
    for _ in range(calls):
        work()
    wait(device)
    return (time.perf_counter() - begun) / calls


def measure_chip(device: torch.device, *, tiny: bool) -> Chip:
    """Copy gigabytes and multiply large matrices; random ones, since zeros run faster."""
    length, side, calls = (1 << 16, 64, 2) if tiny else (1 << 30, 8192, 20)
    source = torch.randint(0, 255, (length,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = seconds(lambda: target.copy_(source), device, calls)
    a, b = (torch.randn(side, side, device=device).to(torch.bfloat16) for _ in range(2))
    product = seconds(lambda: a @ b, device, calls)
    return Chip(2 * length / copy, 2 * side**3 / product)


def parameters(module: nn.Module | None) -> int:
    """Of the matrices that a step multiplies by; tables are only looked into."""
    if module is None:
        return 0
    tables = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    return sum(value.numel() for value in module.parameters() if id(value) not in tables and value.dim() > 1)


def state_bytes(states: dict[str, State]) -> int:
    """What batched states take."""
    return sum(value.numel() * value.element_size() for state in states.values() for value in state.values())


def generation(parts: Parts, types: Types, slots: int) -> tuple[float, float]:
    """Bytes and operations of a tick in which all slots generate.

    Weights are read once a row (a depth Transformer's once a frame), caches once a row by each slot. Nothing is counted
    for what lies between layers.
    """
    weight, cache = (torch.empty(0, dtype=dtype).element_size() for dtype in (types.weights, types.caches))
    moved = worked = 0.0
    for name, stage in parts.stages.items():
        spec, rows = stage.spec, ROWS[name]
        entries, every = spec.window + spec.sinks, parameters(stage)
        levels = parameters(stage.depth.blocks) * (spec.levels - 1) if stage.depth is not None else 0
        held = 2 * spec.layers * entries * spec.width
        moved += rows * (every * weight + slots * held * cache)
        worked += rows * slots * 2 * (every + levels + held)
    decoder = parameters(parts.codec.decoder.net)
    per = parts.frames_per_tick if parts.codec.config.kind == "spectral" else 1
    return moved + decoder * 4, worked + slots * 2 * decoder * per


def floor(parts: Parts, types: Types, slots: int, chip: Chip) -> tuple[float, float]:
    """Milliseconds of a tick by bandwidth and by operations."""
    moved, worked = generation(parts, types, slots)
    return 1e3 * moved / chip.bandwidth, 1e3 * worked / chip.rate
