"""A codec in the magnitude domain: SoundStream's place and tokens, short-time spectra in and out.

The encoder sees log magnitudes of short-time spectra, the decoder gives magnitudes back, and the phase is made up while
the sound is put together, frame by frame (RTISI: real-time iterative spectrogram inversion, Beauregard, Zhu and Wyse,
2005). So no bit is spent on phase, training needs no waveform, and tokens say what is heard rather than where in its
period a wave is. The price is a delay: a sample is complete when the last window over it is, ``window - hop`` later.

Both nets keep the interface of :class:`audiolm.codec.Encoder` and :class:`audiolm.codec.Decoder`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm.conv import Causal, CausalConv1d, CausalStack
from audiolm.streaming import State, assign, nested, scoped

HOP = 80  # 5 ms: four spectra a codec frame of 20 ms
FLOOR = 1e-2  # added to magnitudes (of sound times ten) before the logarithm; about -60 dB below the training level


def stft_magnitudes(padded: Tensor, window: Tensor) -> Tensor:
    """``[B, T + window - hop] -> [B, T / hop, bins]``: magnitudes; a frame's window ends with its hop."""
    frames = padded.unfold(-1, len(window), HOP)
    magnitudes: Tensor = torch.fft.rfft(frames * window).abs()
    return magnitudes


def compress(magnitudes: Tensor) -> Tensor:
    """Log magnitudes, ``log10(m + FLOOR)``."""
    return (magnitudes + FLOOR).log10()


def expand(features: Tensor) -> Tensor:
    """Magnitudes of log magnitudes, the inverse of :func:`compress`; never negative."""
    return (10**features - FLOOR).clamp_min(0)


class Block(Causal):
    """A causal ConvNeXt block (arXiv 2201.03545): depthwise convolution, LayerNorm, two pointwise layers, a skip.

    Shapes: ``[B, T, width] -> [B, T, width]``.
    """

    def __init__(self, width: int, kernel: int, expansion: int) -> None:
        super().__init__()
        self.depthwise = CausalConv1d(width, width, kernel, groups=width)
        self.norm = nn.LayerNorm(width)
        self.wide = nn.Linear(width, expansion * width)
        self.narrow = nn.Linear(expansion * width, width)
        self.gain = nn.Parameter(torch.full((width,), 0.3))

    def _mix(self, x: Tensor, y: Tensor) -> Tensor:
        out: Tensor = x + self.gain * self.narrow(F.gelu(self.wide(self.norm(y.transpose(1, 2)))))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Whole crop at once."""
        return self._mix(x, self.depthwise(x.transpose(1, 2)))

    def init_state(self, slots: int) -> State:
        """Fresh streams."""
        return self.depthwise.init_state(slots)

    def step(self, x: Tensor, state: State, active: Tensor | None = None) -> Tensor:
        """The same on the next piece of the streams."""
        return self._mix(x, self.depthwise.step(x.transpose(1, 2), state, active))


def trunk(width: int, blocks: int, kernel: int, expansion: int) -> CausalStack:
    """Blocks and a norm behind them: ``[B, T, width] -> [B, T, width]``."""
    return CausalStack(*[Block(width, kernel, expansion) for _ in range(blocks)], nn.LayerNorm(width))


class SpectralEncoder(Causal):
    """``[B, 1, T] -> [B, latent, T / hop]``.

    Attributes:
        mean, scale: of the log magnitudes of the spectra in a codec frame; training measures them.
    """

    window: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(
        self, blocks: int, *, hop: int, window: int, width: int, kernel: int, expansion: int, latent: int
    ) -> None:
        super().__init__()
        self.per_frame, self.bins = hop // HOP, window // 2 + 1
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        self.register_buffer("mean", torch.zeros(self.per_frame * self.bins))
        self.register_buffer("scale", torch.ones(1))
        self.inward = nn.Linear(self.per_frame * self.bins, width)
        self.blocks = trunk(width, blocks, kernel, expansion)
        self.outward = nn.Linear(width, latent)

    @property
    def past(self) -> int:
        """Samples before a hop that its window covers."""
        return len(self.window) - HOP

    def magnitudes(self, x: Tensor) -> Tensor:
        """``[B, 1, T] -> [B, T / 80, bins]``."""
        return stft_magnitudes(F.pad(x[:, 0], (self.past, 0)), self.window)

    def normalize(self, magnitudes: Tensor) -> Tensor:
        """Spectra ``[B, n * per_frame, bins]`` as features of codec frames ``[B, n, per_frame * bins]``."""
        return (compress(magnitudes).reshape(len(magnitudes), -1, len(self.mean)) - self.mean) / self.scale

    def latent(self, magnitudes: Tensor) -> Tensor:
        """Spectra to latents ``[B, n, latent]`` (parallel)."""
        return self.outward(self.blocks(self.inward(self.normalize(magnitudes))))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """Whole crop at once."""
        return self.latent(self.magnitudes(x)).transpose(1, 2)

    def init_state(self, slots: int) -> State:
        """Fresh streams: silence lies before them."""
        return {"past": self.mean.new_zeros(slots, self.past), **nested({"blocks": self.blocks.init_state(slots)})}

    def step(self, x: Tensor, state: State, active: Tensor | None = None) -> Tensor:
        """The next piece of the streams, whole codec frames."""
        joined = torch.cat((state["past"], x[:, 0]), -1)
        features = self.normalize(stft_magnitudes(joined, self.window))
        assign(state, "past", joined[:, -self.past :], active)
        y = self.blocks.step(self.inward(features), scoped(state, "blocks"), active)
        return self.outward(y).transpose(1, 2)  # type: ignore[no-any-return]


class PhaseMaker(Causal):
    """Sound of magnitudes, a spectrum after the other: ``[B, n, bins] -> [B, n * hop]``.

    The sum of the windows so far gives the first phase of a new spectrum, one round with the spectrum itself added
    improves it, and nothing is revised later. The state is the sum that later windows are still to be added to. Sound
    comes out ``window - hop`` samples late.
    """

    window: Tensor
    before: Tensor
    within: Tensor
    start: Tensor
    TINY = 1e-7

    def __init__(self, window: int) -> None:
        super().__init__()
        hann = torch.hann_window(window)
        shifted = torch.stack([F.pad(hann[k * HOP :].square(), (0, k * HOP)) for k in range(window // HOP)])
        self.total = float(shifted[:, :HOP].sum(0).mean())  # what the squares of all windows over a sample add up to
        least = 0.01 * self.total
        self.register_buffer("window", hann, persistent=False)
        # The sum of earlier windows has less weight the newer the sample: these divide it out, before and with the
        # newest window.
        self.register_buffer("before", hann / shifted[1:].sum(0).clamp_min(least), persistent=False)
        self.register_buffer("within", hann / shifted.sum(0).clamp_min(least), persistent=False)
        # Out of silence there is no phase to go on from; this one puts an impulse into the middle of the window.
        self.register_buffer("start", (-1.0) ** torch.arange(window // 2 + 1), persistent=False)

    def init_state(self, slots: int) -> State:
        """Fresh streams: silence lies before them."""
        return {"sum": self.window.new_zeros(slots, len(self.window))}

    def _phase(self, sound: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(sound)
        size = spectrum.abs()
        return torch.where(size > self.TINY, spectrum / size.clamp_min(self.TINY), self.start)

    def step(self, x: Tensor, state: State, active: Tensor | None = None) -> Tensor:
        """The next spectra of the streams."""
        size = len(self.window)
        total, pieces = state["sum"], []
        for magnitudes in x.unbind(1):
            frame = torch.fft.irfft(magnitudes * self._phase(total * self.before), size) * self.window
            phase = self._phase((total + frame) * self.within)
            total = total + torch.fft.irfft(magnitudes * phase, size) * self.window
            pieces.append(total[:, :HOP] / self.total)
            total = F.pad(total[:, HOP:], (0, HOP))
        assign(state, "sum", total, active)
        return torch.cat(pieces, -1)


class SpectralDecoder(Causal):
    """``[B, latent, T] -> [B, 1, T * hop]``, :attr:`delay` samples late.

    ``mean`` and ``scale`` are the encoder's.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, blocks: int, *, hop: int, window: int, width: int, kernel: int, expansion: int, latent: int
    ) -> None:
        super().__init__()
        self.per_frame, self.bins, self.delay = hop // HOP, window // 2 + 1, window - HOP
        self.register_buffer("mean", torch.zeros(self.per_frame * self.bins))
        self.register_buffer("scale", torch.ones(1))
        self.inward = nn.Linear(latent, width)
        self.blocks = trunk(width, blocks, kernel, expansion)
        self.outward = nn.Linear(width, self.per_frame * self.bins)
        self.phase = PhaseMaker(window)

    def _features(self, y: Tensor) -> Tensor:
        out = self.outward(y) * self.scale + self.mean
        return out.reshape(len(y), -1, self.bins)  # type: ignore[no-any-return]

    def features(self, z: Tensor) -> Tensor:
        """Latents ``[B, n, latent]`` to log magnitudes ``[B, n * per_frame, bins]`` (parallel): what training sees."""
        return self._features(self.blocks(self.inward(z)))

    def init_state(self, slots: int) -> State:
        """Fresh streams."""
        return nested({"blocks": self.blocks.init_state(slots), "phase": self.phase.init_state(slots)})

    def step(self, x: Tensor, state: State, active: Tensor | None = None) -> Tensor:
        """The next piece of the streams."""
        y = self.blocks.step(self.inward(x.transpose(1, 2)), scoped(state, "blocks"), active)
        return self.phase.step(expand(self._features(y)), scoped(state, "phase"), active)[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """Whole crop at once. The phase goes spectrum by spectrum in any case."""
        magnitudes = expand(self.features(x.transpose(1, 2)))
        return self.phase.step(magnitudes, self.phase.init_state(len(x)))[:, None]
