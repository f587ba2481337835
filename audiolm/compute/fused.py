"""Which kernels a device's steps use: Triton's where they are, torch's operations else. Both do the same arithmetic."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

from audiolm.compute.depth_kernel import Frame, PackedDepth
from audiolm.compute.noise import Uniforms
from audiolm.compute.ring import Attend, attend
from audiolm.stage import StageSpec

Emit = Callable[[PackedDepth, Frame], Tensor]
HALF = (torch.bfloat16, torch.float16)
WIDEST = 512  # of a depth Transformer: a block of slots must fit into registers


@dataclass(frozen=True)
class Kernels:
    """What may be replaced.

    Attributes:
        attend: a step of ring attention.
        emit: all levels of a frame; None: level by level, as :class:`audiolm.depth.DepthTransformer` does.
        uniforms: the words of the noise; None: in tensor arithmetic.
    """

    attend: Attend = attend
    emit: Emit | None = None
    uniforms: Uniforms | None = None

    def attend_for(self, width: int) -> Attend:
        """The attention for heads of ``width``."""
        return self.attend if _fits(width) else attend

    def emit_for(self, spec: StageSpec, dtype: torch.dtype) -> Emit | None:
        """The kernel for a stage's frames: in float32 its matrices would not fit into a processor's shared memory."""
        width = spec.depth_width
        fits = _fits(width // spec.depth_heads) and width <= WIDEST and dtype in HALF
        return self.emit if spec.pattern == "depth" and spec.levels > 1 and fits else None


def _fits(width: int) -> bool:
    """Whether heads of ``width`` are what matrix units and blocks take: a power of two, at least 16."""
    return width >= 16 and not width & (width - 1)


def find_kernels(device: torch.device) -> Kernels:
    """Triton's on a GPU where it is installed, else torch's; ``$AUDIOLM_KERNELS=torch`` does without Triton."""
    if device.type != "cuda" or find_spec("triton") is None or os.environ.get("AUDIOLM_KERNELS") == "torch":
        return Kernels()
    return triton_kernels()


def triton_kernels() -> Kernels:
    """Triton's kernels.

    Raises:
        ImportError: it is not installed.
    """
    from audiolm.compute.kernels import depth, noise, ring

    return Kernels(ring.attend, depth.emit, noise.uniforms)
