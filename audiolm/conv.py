"""Causal convolutions with explicit state. They know nothing of codecs.

Step and ``forward`` see the same numbers: a fresh state is zeros, which is what ``forward`` pads with on the left.
"""

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm.streaming import State, assign, nested


class Causal(nn.Module):
    """A layer with a state: ``init_state(slots)`` and ``step(x, state, active)``; ``forward`` is its parallel twin."""

    def init_state(self, slots: int) -> State:
        """Fresh streams; this base has no state."""
        del slots
        return {}

    def step(self, x: Tensor, state: State, active: Tensor | None = None) -> Tensor:
        """Without a state a step is the layer itself."""
        del state, active
        out: Tensor = self(x)
        return out


class CausalConv1d(Causal):
    """Convolution that sees the past only.

    Output ``t`` covers inputs up to ``stride * (t + 1) - 1``: with ``kernel >= stride`` nothing is looked ahead.
    Shapes: ``[B, in, T] -> [B, out, T / stride]``; the state is the last ``(kernel - 1) * dilation - (stride - 1)``
    inputs.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride=stride, dilation=dilation, groups=groups)
        self.context = (kernel - 1) * dilation - (stride - 1)
        if self.context < 0:
            raise ValueError(
                f"a kernel of {kernel} leaves out samples at stride {stride}; the kernel must be the longer"
            )
        self.inputs = inputs

    def forward(self, x: Tensor) -> Tensor:
        """Whole crop at once: ``[B, in, T] -> [B, out, T / stride]``."""
        return self.conv(F.pad(x, (self.context, 0)))  # type: ignore[no-any-return]

    def init_state(self, slots: int) -> State:
        """Fresh streams: silence lies before them."""
        return {"past": self.conv.weight.new_zeros(slots, self.inputs, self.context)} if self.context else {}

    def step(self, x: Tensor, state: State, active: Tensor | None = None) -> Tensor:
        """The same on the next piece of the streams; ``T`` is a multiple of the stride."""
        if not self.context:
            return self.conv(x)  # type: ignore[no-any-return]
        joined = torch.cat((state["past"], x), -1)
        out = self.conv(joined)
        assign(state, "past", joined[..., -self.context :], active)
        return out  # type: ignore[no-any-return]


class CausalConvTranspose1d(Causal):
    """Upsampling by ``stride`` with a kernel of ``2 * stride``: overlap-add with the tail of the step before.

    Shapes: ``[B, in, T] -> [B, out, T * stride]``; the state is the tail that the next input frame is added to.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(inputs, outputs, 2 * stride, stride=stride)
        self.stride, self.outputs = stride, outputs

    def forward(self, x: Tensor) -> Tensor:
        """Whole crop at once: ``[B, in, T] -> [B, out, T * stride]``."""
        return self.conv(x)[..., : -self.stride]  # type: ignore[no-any-return]

    def init_state(self, slots: int) -> State:
        """Fresh streams: no tail yet."""
        return {"tail": self.conv.weight.new_zeros(slots, self.outputs, self.stride)}

    @property
    def bias(self) -> Tensor:
        """``[out]``, added once and not where two steps overlap."""
        return cast(Tensor, self.conv.bias)

    def step(self, x: Tensor, state: State, active: Tensor | None = None) -> Tensor:
        """The same on the next piece of the streams."""
        y = F.conv_transpose1d(x, self.conv.weight, None, stride=self.stride)
        y[..., : self.stride] += state["tail"]
        assign(state, "tail", y[..., -self.stride :], active)
        out: Tensor = y[..., : -self.stride] + self.bias[:, None]
        return out


class ResidualUnit(Causal):
    """Dilated residual unit of SEANet (arXiv 2009.02095): ELU, kernel 7, ELU, kernel 1, and a skip."""

    GAIN = 0.3  # keeps the sum's variance near one through a dozen units; measured in MEASURED.md

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.wide = CausalConv1d(channels, channels, 7, dilation=dilation)
        self.narrow = nn.Conv1d(channels, channels, 1)

    def _mix(self, x: Tensor, y: Tensor) -> Tensor:
        out: Tensor = x + self.GAIN * self.narrow(F.elu(y))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Whole crop at once: ``[B, C, T] -> [B, C, T]``."""
        return self._mix(x, self.wide(F.elu(x)))

    def init_state(self, slots: int) -> State:
        """Fresh streams."""
        return self.wide.init_state(slots)

    def step(self, x: Tensor, state: State, active: Tensor | None = None) -> Tensor:
        """The same on the next piece of the streams."""
        return self._mix(x, self.wide.step(F.elu(x), state, active))


class CausalStack(nn.Sequential):
    """Layers in a row; those with state are stepped, the others are called."""

    def _stateful(self) -> Iterator[tuple[int, Causal]]:
        return ((i, layer) for i, layer in enumerate(self) if isinstance(layer, Causal))

    def init_state(self, slots: int) -> State:
        """Fresh streams; keys are ``layer.name``."""
        return nested({str(i): layer.init_state(slots) for i, layer in self._stateful()})

    def step(self, x: Tensor, state: State, active: Tensor | None = None) -> Tensor:
        """The next piece of the streams, through all layers."""
        for i, layer in enumerate(self):
            if isinstance(layer, Causal):
                x = layer.step(x, {k: state[f"{i}.{k}"] for k in ("past", "tail") if f"{i}.{k}" in state}, active)
            else:
                x = layer(x)
        return x
