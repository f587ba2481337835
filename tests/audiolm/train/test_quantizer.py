"""Codebooks that learn: seeding, straight-through gradients, moving averages, restarts, several processes."""

import pytest
import torch

from audiolm.errors import InputError
from audiolm.train.quantizer import TrainableRVQ


def test_each_level_helps_a_trained_quantizer():
    torch.manual_seed(0)
    z = torch.randn(2000, 4)
    rvq = TrainableRVQ(4, 16, 4)
    rvq.seed(z)
    codes = rvq.encode(z)
    errors = [float((rvq.decode(codes[:, :n]) - z).square().mean()) for n in range(1, 5)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1


def test_the_seed_needs_enough_vectors():
    with pytest.raises(InputError, match="16 clusters cannot be made of 10"):
        TrainableRVQ(1, 16, 4).seed(torch.randn(10, 4))


def test_training_passes_gradients_straight_through_and_drops_levels():
    torch.manual_seed(0)
    rvq = TrainableRVQ(3, 8, 4).eval()
    z = torch.randn(2, 5, 4, requires_grad=True)
    out, codes, commitment = rvq(z, keep=torch.tensor([1, 3]))
    torch.testing.assert_close(out[0], rvq.decode(codes[0, :, :1]), atol=1e-6, rtol=0)
    torch.testing.assert_close(out[1], rvq.decode(codes[1]), atol=1e-6, rtol=0)
    (gradient,) = torch.autograd.grad(out.sum(), z)
    assert torch.equal(gradient, torch.ones_like(z))
    assert float(commitment.detach()) > 0


def test_training_moves_codes_to_the_data_and_revives_dead_ones():
    torch.manual_seed(0)
    rvq = TrainableRVQ(1, 4, 2, decay=0.5).train()
    with torch.no_grad():
        rvq.codebooks[0] = torch.tensor([[0.0, 0.0], [100.0, 100.0], [200.0, 200.0], [300.0, 300.0]])
        rvq.total.copy_(rvq.codebooks)
    data = torch.randn(1, 256, 2) + 5
    before = rvq(data)[2]
    for _ in range(20):
        after = rvq(data)[2]
    assert after < before / 2
    assert len(rvq.encode(data[0]).unique()) == 4


def test_dead_codes_start_again_at_the_data():
    torch.manual_seed(0)
    rvq = TrainableRVQ(2, 8, 4).train()
    z = torch.randn(4, 64, 4)
    rvq.seed(z.reshape(-1, 4))
    with torch.no_grad():
        rvq.codebooks[0, :4] = 1e3
        rvq.total[0, :4] = 1e3
        rvq.use[0, :4] = 1.0
    for _ in range(3 * int(1 / (1 - rvq.decay))):
        rvq(z)
    used = rvq.encode(z)[..., 0].unique()
    assert len(used) == 8
    assert float(rvq.codebooks[0].abs().max()) < 10


def test_perplexity_counts_the_codes_in_use():
    rvq = TrainableRVQ(2, 8, 4)
    torch.testing.assert_close(rvq.perplexity(), torch.full((2,), 8.0))
    rvq.use[1] = torch.tensor([1.0, 1.0, 0, 0, 0, 0, 0, 0])
    torch.testing.assert_close(rvq.perplexity()[1], torch.tensor(2.0), atol=1e-4, rtol=0)


class Pair:
    """Stands for a second process that holds `other`."""

    def __init__(self, other):
        self.other = other

    def sum_over_processes(self, tensor):
        return tensor * 2

    def gather(self, tensor):
        return torch.cat((tensor, self.other))

    def same(self, tensor):
        return tensor


def test_a_group_seeds_from_all_latents_and_sums_its_counts():
    torch.manual_seed(0)
    z = torch.randn(400, 4)
    alone, grouped = TrainableRVQ(2, 16, 4), TrainableRVQ(2, 16, 4)
    grouped.group = Pair(z[200:])
    alone.seed(z)
    grouped.seed(z[:200])
    assert torch.equal(alone.codebooks, grouped.codebooks)
    alone.train()(z[None, :200].repeat(2, 1, 1))  # twice the same is what the pair's sums say
    grouped.train()(z[None, :200])
    torch.testing.assert_close(alone.use, grouped.use)
