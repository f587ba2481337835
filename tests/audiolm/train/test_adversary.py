"""Critics and the balance of losses."""

import torch

from audiolm.train.adversary import Balancer, Critics, complex_spectra, critic_loss, generator_losses, log_spectra


def test_images_of_waveforms_and_spectra():
    audio = torch.randn(2, 4096)
    assert [tuple(image.shape) for image in complex_spectra(audio)][:2] == [(2, 2, 9, 1025), (2, 2, 17, 513)]
    assert [tuple(image.shape) for image in log_spectra(torch.randn(2, 12, 161))] == [
        (2, 1, 12, 161),
        (2, 1, 6, 161),
        (2, 1, 3, 161),
    ]


def test_critics_learn_to_tell_real_from_made():
    torch.manual_seed(0)
    critics = Critics((1, 1, 1), 2)
    optimizer = torch.optim.Adam(critics.parameters(), lr=1e-2)

    def pair():
        rough = torch.randn(2, 8, 33)
        return log_spectra(rough), log_spectra(torch.nn.functional.avg_pool1d(rough, 3, 1, 1))

    first = float(critic_loss(critics, *pair()).detach())
    for _ in range(30):
        optimizer.zero_grad()
        critic_loss(critics, *pair()).backward()
        optimizer.step()
    assert float(critic_loss(critics, *pair()).detach()) < 0.7 * first
    real, fake = pair()
    assert generator_losses(critics, real, fake)["adversarial"] > generator_losses(critics, fake, real)["adversarial"]
    assert float(generator_losses(critics, real, real)["feature"].detach()) == 0


def test_the_balance_is_of_gradients_whatever_the_scale():
    output = torch.zeros(2, requires_grad=True)
    losses = {"a": 1000 * output[0], "b": 1e-3 * output[1]}
    balance = Balancer({"a": 3.0, "b": 1.0})
    (gradient,) = torch.autograd.grad(balance(losses, output), output)
    torch.testing.assert_close(gradient, torch.tensor([0.75, 0.25]))
    other = Balancer({"a": 3.0, "b": 1.0})
    other.load(balance.save())
    assert other.norms == balance.norms
