"""The reference: the parts' own torch modules, operation by operation."""

import torch

from audiolm.compute.base import Array, Compute, Mask
from audiolm.rows import RowBatch
from audiolm.sampler import SamplingTensors
from audiolm.streaming import State


class TorchCompute(Compute):
    """Eager torch on the CPU in float32."""

    name = "torch"

    def step(self, part: str, x: Array, state: State, active: Mask | None) -> Array:
        """One step of the encoder, tokenizer or decoder."""
        mask = None if active is None else torch.from_numpy(active)
        out: Array = self.parts.module(part).step(torch.from_numpy(x), state, mask).numpy()
        return out

    def row(self, stage: str, batch: RowBatch, state: State, settings: SamplingTensors, active: Mask | None) -> Array:
        """One row of a stage."""
        module = self.parts.stages[stage]
        out: Array = module.step(
            torch.from_numpy(batch.cond) if module.spec.cond_levels else None,
            torch.from_numpy(batch.forced),
            torch.from_numpy(batch.is_forced),
            torch.from_numpy(batch.u),
            settings=settings,
            state=state,
            positions=batch.positions,
            active=active,
            levels=batch.levels,
        ).numpy()
        return out

    @torch.inference_mode()
    def teach(self, stage: str, tokens: Array, cond: Array | None) -> Array:
        """Teacher-forced logits, by the parallel twin of the steps."""
        given = None if cond is None else torch.from_numpy(cond)[None]
        logits: Array = self.parts.stages[stage](torch.from_numpy(tokens)[None], given)[0].numpy()
        return logits
