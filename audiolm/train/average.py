"""An exponential moving average of weights: what a recipe may ship in place of the weights of the last step."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class AverageWeights:
    """The average of a module's parameters over its steps.

    The decay warms up, ``min(decay, (1 + n) / (10 + n))`` after ``n`` updates (as in TensorFlow's
    ExponentialMovingAverage), so that the first steps do not stay in it for long.

    Args:
        module: its parameters are averaged; buffers are taken as they are.
        decay: how much of the average stays at a step, 0 to 1; a thousandth new at 0.999.
    """

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        self.module, self.decay, self.updates = module, decay, 0
        self.values = {name: value.detach().clone() for name, value in module.named_parameters()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        now = dict(self.module.named_parameters())
        kept = [self.values[name] for name in now]
        torch._foreach_lerp_(kept, [value.detach() for value in now.values()], 1 - decay)

    def weights(self) -> dict[str, Tensor]:
        """The state dict of the module with the averages in place of its parameters."""
        return {**self.module.state_dict(), **self.values}

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module computes with the averages inside, and with its own weights again outside."""
        own = {name: value.detach().clone() for name, value in self.module.named_parameters()}
        self._put(self.values)
        try:
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, value in self.module.named_parameters():
            value.copy_(values[name])

    def save(self) -> dict[str, Any]:
        """The averages and the number of updates."""
        return {**self.values, "updates": self.updates}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Take back what :meth:`save` gave.

        Raises:
            KeyError: a weight is missing.
        """
        self.updates = int(saved["updates"])
        for name, value in self.values.items():
            value.copy_(saved[name])
