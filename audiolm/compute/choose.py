"""Engines by name: what a config's ``engine`` and ``AudioLM(engine=...)`` mean."""

import os
from collections.abc import Callable
from importlib.util import find_spec

from audiolm.compute.base import Compute
from audiolm.compute.eager import TorchCompute
from audiolm.errors import ConfigError
from audiolm.parts import Parts

AUTO = "auto"
Maker = Callable[[Parts], Compute]


def _onnx(parts: Parts) -> Compute:
    from audiolm.compute.onnx.compute import OnnxCompute

    return OnnxCompute(parts, "fp32")


def _onnx_int8(parts: Parts) -> Compute:
    from audiolm.compute.onnx.compute import OnnxCompute

    return OnnxCompute(parts, "int8")


def _torch_int8(parts: Parts) -> Compute:
    from audiolm.compute.int8 import Int8Compute

    return Int8Compute(parts)


def _cuda(parts: Parts) -> Compute:
    from audiolm.compute.device import device_compute

    return device_compute(parts)


ENGINES: dict[str, Maker] = {
    "torch": TorchCompute,
    "torch-int8": _torch_int8,
    "onnx": _onnx,
    "onnx-int8": _onnx_int8,
    "cuda": _cuda,
}


def resolve(name: str) -> str:
    """The engine that ``auto`` means here: ``$AUDIOLM_ENGINE``, else the fastest that is installed.

    Raises:
        ConfigError: there is no such engine.
        EngineError: it is ``cuda``, and there is no GPU.
    """
    if name == AUTO:
        name = os.environ.get("AUDIOLM_ENGINE") or _fastest()
    if name not in ENGINES:
        raise ConfigError(f"unknown engine {name!r}; expected one of {', '.join((AUTO, *ENGINES))}", engine=name)
    if name == "cuda":  # now, and not when the first session comes
        from audiolm.compute.device import find_device

        find_device(name)
    return name


def _fastest() -> str:
    return "onnx-int8" if find_spec("onnxruntime") and find_spec("onnx") else "torch"


def make_compute(name: str, parts: Parts) -> Compute:
    """What steps ``parts`` under the engine ``name``.

    Raises:
        ConfigError: there is no such engine, or what it needs is not installed.
    """
    return ENGINES[resolve(name)](parts)
