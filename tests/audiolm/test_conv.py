"""Causal convolutions: steps equal the whole, nothing is looked ahead."""

import pytest
import torch
from contract import verify_contract
from torch import nn

from audiolm.conv import Causal, CausalConv1d, CausalConvTranspose1d, CausalStack, ResidualUnit
from audiolm.streaming import StreamingModule

CHANNELS = 4


class Probe(StreamingModule):
    """Holds a convolution `[B, C, T]` to the contract, which has time in the second dimension."""

    def __init__(self, net, frame_size=10, ratio=1.0):
        super().__init__()
        self.net, self.frame_size = net, frame_size
        self.rate_in, self.rate_out = 1.0, ratio

    def forward(self, x):
        return self.net(x.transpose(1, 2)).transpose(1, 2)

    def init_state(self, slots):
        return self.net.init_state(slots)

    def step(self, x, state, active=None):
        return self.net.step(x.transpose(1, 2), state, active).transpose(1, 2)


def make(name):
    torch.manual_seed(0)
    return {
        "plain": lambda: CausalConv1d(CHANNELS, 3, 7),
        "pointwise": lambda: CausalConv1d(CHANNELS, 3, 1),
        "strided": lambda: CausalConv1d(CHANNELS, 3, 10, stride=5),
        "dilated": lambda: CausalConv1d(CHANNELS, 3, 7, dilation=9),
        "grouped": lambda: CausalConv1d(CHANNELS, CHANNELS, 3, groups=CHANNELS),
        "up": lambda: CausalConvTranspose1d(CHANNELS, 3, 4),
        "unit": lambda: ResidualUnit(CHANNELS, 3),
        "stack": lambda: CausalStack(
            CausalConv1d(CHANNELS, 6, 4, stride=2),
            nn.ELU(),
            CausalConvTranspose1d(6, 3, 2),
            nn.ELU(),
            CausalConv1d(3, 2, 3),
        ),
    }[name]()


NAMES = ("plain", "pointwise", "strided", "dilated", "grouped", "up", "unit", "stack")


@pytest.mark.parametrize("name", NAMES)
def test_contract(name):
    torch.manual_seed(1)
    pieces = [torch.randn(3, 10, CHANNELS) for _ in range(12)]
    extremes = [torch.zeros(3, 10, CHANNELS), torch.ones(3, 10, CHANNELS), -torch.ones(3, 10, CHANNELS)]
    net = make(name)
    if name == "pointwise":  # no state: there is nothing to declare or to restore
        assert net.init_state(3) == {}
        x = torch.randn(1, CHANNELS, 10)
        assert torch.equal(net.step(x, {}), net(x))
        return
    verify_contract(Probe(net), pieces, extremes=extremes, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_future_is_not_heard(name):
    net, x = make(name), torch.randn(1, CHANNELS, 40)
    y, changed = net(x), x.clone()
    changed[..., 20:] += 1
    ratio = y.shape[-1] / 40
    assert torch.equal(net(changed)[..., : int(20 * ratio)], y[..., : int(20 * ratio)])
    assert not torch.equal(net(changed), y)


def test_a_kernel_shorter_than_its_stride_is_refused():
    with pytest.raises(ValueError, match="leaves out"):
        CausalConv1d(1, 1, 2, stride=4)


def test_a_layer_without_state_steps_as_itself():
    class Double(Causal):
        def forward(self, x):
            return 2 * x

    assert Double().init_state(2) == {}
    assert Double().step(torch.ones(1), {}).tolist() == [2]
