"""Adversarial training of a codec: critics that look at spectra, feature matching, and losses in balance.

The critics are the multi-scale STFT discriminators of EnCodec (arXiv 2210.13438, section 3.4): stacks of convolutions
over time and frequency, on complex short-time spectra of waveforms at several window lengths, or on the log magnitudes
that a spectral codec makes, at several time scales.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

DILATIONS = (1, 2, 4)
WINDOWS = (2048, 1024, 512, 256, 128)


class Critic(nn.Module):
    """One critic: an image ``[B, channels, frames, bins]`` to scores ``[B, 1, frames, bins / 8]`` and its features."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        layers = [weight_norm(nn.Conv2d(channels, width, (3, 9), padding=(1, 4)))]
        for dilation in DILATIONS:
            convolution = nn.Conv2d(width, width, (3, 9), stride=(1, 2), dilation=(dilation, 1), padding=(dilation, 4))
            layers.append(weight_norm(convolution))
        layers.append(weight_norm(nn.Conv2d(width, width, 3, padding=1)))
        self.layers = nn.ModuleList(layers)
        self.score = weight_norm(nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Scores and the features of every layer."""
        features = []
        for layer in self.layers:
            image = F.leaky_relu(layer(image), 0.2)
            features.append(image)
        return self.score(image), features


def complex_spectra(audio: Tensor) -> list[Tensor]:
    """``[B, T]`` to images ``[B, 2, frames, bins]``, real and imaginary part at each of the window lengths."""
    images = []
    for size in WINDOWS:
        window = torch.hann_window(size, device=audio.device)
        spectrum = torch.stft(audio, size, size // 4, window=window, normalized=True, return_complex=True)
        images.append(torch.view_as_real(spectrum).permute(0, 3, 2, 1))
    return images


def log_spectra(features: Tensor) -> list[Tensor]:
    """Log magnitudes ``[B, spectra, bins]`` to images ``[B, 1, frames, bins]``: as they are, and means over 2 and 4."""
    image = features[:, None]
    return [image if scale == 1 else F.avg_pool2d(image, (scale, 1)) for scale in (1, 2, 4)]


class Critics(nn.Module):
    """A critic for each image."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.critics = nn.ModuleList([Critic(count, width) for count in channels])

    def forward(self, images: Sequence[Tensor]) -> list[tuple[Tensor, list[Tensor]]]:
        """Scores and features by image."""
        return [critic(image) for critic, image in zip(self.critics, images, strict=True)]


def critic_loss(critics: Critics, real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Hinge loss of the critics, mean over images."""
    rows = [
        F.relu(1 - good).mean() + F.relu(1 + bad).mean()
        for (good, _), (bad, _) in zip(critics(real), critics([image.detach() for image in fake]), strict=True)
    ]
    return torch.stack(rows).mean()


def generator_losses(critics: Critics, real: Sequence[Tensor], fake: Sequence[Tensor]) -> dict[str, Tensor]:
    """What the codec is to make small.

    ``adversarial``, the hinge loss of its images' scores, and ``feature``, the mean absolute difference of the
    critics' features relative to those of the real images.
    """
    with torch.no_grad():
        wanted = critics(real)
    made = critics(fake)
    scores = [F.relu(1 - score).mean() for score, _ in made]
    distances = [
        (a - b).abs().mean() / a.abs().mean().clamp_min(1e-6)
        for (_, real_features), (_, fake_features) in zip(wanted, made, strict=True)
        for a, b in zip(real_features, fake_features, strict=True)
    ]
    return {"adversarial": torch.stack(scores).mean(), "feature": torch.stack(distances).mean()}


class Balancer:
    """Losses weighted by their gradients (EnCodec, arXiv 2210.13438, section 3.4).

    The gradient of each loss at the codec's output is divided by a moving average of its norm, so that a weight is the
    share of the whole gradient that its loss has, whatever the loss's scale.

    Args:
        weights: by loss.
        decay: of the moving averages.
    """

    def __init__(self, weights: Mapping[str, float], decay: float = 0.99) -> None:
        self.weights, self.decay = dict(weights), decay
        self.norms: dict[str, float] = {}

    def __call__(self, losses: Mapping[str, Tensor], output: Tensor) -> Tensor:
        """A scalar whose gradient at ``output`` is the balanced one; the value itself has no meaning."""
        total = torch.zeros_like(output)
        whole = sum(self.weights[name] for name in losses)
        for name, loss in losses.items():
            (gradient,) = torch.autograd.grad(loss, output, retain_graph=True)
            norm = float(gradient.norm())
            before = self.norms.get(name, norm)
            self.norms[name] = self.decay * before + (1 - self.decay) * norm
            total += self.weights[name] / whole * gradient / max(self.norms[name], 1e-12)
        return (output * total).sum()

    def save(self) -> dict[str, float]:
        """The moving averages."""
        return dict(self.norms)

    def load(self, saved: Mapping[str, float]) -> None:
        """Take back what :meth:`save` gave."""
        self.norms = {name: float(value) for name, value in saved.items()}
