"""The optimizer's step of every recipe, on the schedule of a run."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from audiolm.train.average import AverageWeights
from audiolm.train.run import Run


class Learner:
    """AdamW with clipped gradients on the schedule of a run: one optimizer step for every recipe.

    Args:
        run: whose schedule it follows.
        weights: what it changes; those that need no gradient are left out.
        rate: the highest learning rate.
        betas: of AdamW.
        weight_decay: of AdamW.
        average: kept up to date after each step.
        clip: the largest norm of the gradient.
    """

    def __init__(
        self,
        run: Run,
        weights: Iterable[Tensor],
        rate: float,
        *,
        betas: tuple[float, float],
        weight_decay: float = 0.01,
        average: AverageWeights | None = None,
        clip: float = 1.0,
    ) -> None:
        self.run, self.rate, self.average, self.clip = run, rate, average, clip
        self.weights = [weight for weight in weights if weight.requires_grad]
        for weight in self.weights:
            run.same(weight)
        self.optimizer = torch.optim.AdamW(self.weights, lr=rate, betas=betas, weight_decay=weight_decay, fused=True)

    def step(self, loss: Tensor, log: Mapping[str, float]) -> None:
        """Change the weights by the gradient of ``loss`` and count the step, with ``log`` for the log.

        In several processes the loss, the gradient and ``log`` are averaged over them.

        Raises:
            TrainingError: the loss, a logged value or the gradient is not finite; the weights are unchanged.
        """
        values = self.run.averages({"loss": float(loss.detach()), **{f"={k}": v for k, v in log.items()}})
        values = {name.removeprefix("="): value for name, value in values.items()}
        self.run.check(values)
        self.update(loss)
        self.run.tick({name: values[name] for name in log})

    def update(self, loss: Tensor) -> float:
        """Change the weights by the gradient of ``loss``; returns the gradient's norm before it was clipped.

        For a second learner in one step, such as a discriminator's.

        Raises:
            TrainingError: the gradient is not finite; the weights are unchanged.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = cosine(self.run.progress, self.rate)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.run.average_gradients(self.weights)
        norm = float(torch.nn.utils.clip_grad_norm_(self.weights, self.clip))
        self.run.check({"the gradient": norm})
        self.optimizer.step()
        if self.average is not None:
            self.average.update()
        return norm

    def save(self) -> dict[str, Any]:
        """The optimizer's moments, ``WEIGHT.MOMENT``."""
        state = self.optimizer.state_dict()["state"]
        return {f"{i}.{name}": value for i, values in state.items() for name, value in values.items()}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Take back what :meth:`save` gave.

        Raises:
            ValueError: it is of other weights.
        """
        state: dict[int, dict[str, Any]] = {}
        for key, value in saved.items():
            i, _, name = key.partition(".")
            state.setdefault(int(i), {})[name] = value
        for at, values in state.items():
            if at >= len(self.weights) or values["exp_avg"].shape != self.weights[at].shape:
                raise ValueError(f"the moments of weight {at} are of another model")
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})


def cosine(progress: float, top: float, floor: float = 0.02, warm: float = 0.03) -> float:
    """Learning rate at ``progress``: linear warm-up, then a half cosine down to ``floor * top``."""
    if progress < warm:
        return top * max(progress / warm, 0.01)
    return top * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (progress - warm) / (1 - warm))))
