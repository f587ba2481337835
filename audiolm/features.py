"""Log-mel features of the semantic tokenizer, streaming and causal but for a declared look-ahead."""

import math

import torch
from torch import Tensor, nn

from audiolm.streaming import State, StreamingModule, assign


def mel_filters(n_fft: int, mels: int, rate: int, low: float = 0.0) -> Tensor:
    """Triangular filters of peak one, ``[n_fft / 2 + 1, mels]``, on the HTK mel scale ``2595 log10(1 + f / 700)``."""

    def mel(f: float) -> float:
        return 2595.0 * math.log10(1.0 + f / 700.0)

    points = torch.linspace(mel(low), mel(rate / 2), mels + 2, dtype=torch.float64)
    edges = 700.0 * (10.0 ** (points / 2595.0) - 1.0)
    freqs = torch.linspace(0, rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    up = (freqs[:, None] - edges[None, :-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[None, 2:] - freqs[:, None]) / (edges[2:] - edges[1:-1])
    return torch.minimum(up, down).clamp_min(0).float()


class LogMel(StreamingModule):
    """Log-mel frames, a tick a step: ``[B, tick] -> [B, tick / hop, mels]``.

    A frame's window of ``n_fft`` samples ends with its hop, so nothing is looked ahead here. Values are ``log10`` of
    the mel energies, scaled to about unit range; silence gives the floor, never minus infinity.
    """

    window: Tensor
    filters: Tensor
    FLOOR = 1e-6

    def __init__(self, *, rate: int = 16000, n_fft: int = 400, hop: int = 160, mels: int = 80, tick: int = 640) -> None:
        super().__init__()
        self.n_fft, self.hop, self.mels, self.frame_size = n_fft, hop, mels, tick
        self.rate_in, self.rate_out = rate, rate / hop
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.register_buffer("filters", mel_filters(n_fft, mels, rate), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the window lives; there are no parameters."""
        return self.window.device

    def _frames(self, padded: Tensor) -> Tensor:
        frames = padded.unfold(-1, self.n_fft, self.hop) * self.window
        power = torch.fft.rfft(frames).abs().square()
        mel: Tensor = ((power @ self.filters).clamp_min(self.FLOOR).log10() + 2.0) / 4.0
        return mel

    def forward(self, audio: Tensor) -> Tensor:
        """Whole crop at once: ``[B, T] -> [B, T / hop, mels]``."""
        return self._frames(nn.functional.pad(audio, (self.n_fft - self.hop, 0)))

    def init_state(self, slots: int) -> State:
        """Fresh streams: silence lies before them."""
        return {"past": self.window.new_zeros(slots, self.n_fft - self.hop)}

    def step(self, x: Tensor, state: State, active: Tensor | None = None) -> Tensor:
        """One tick: ``[B, tick] -> [B, tick / hop, mels]``."""
        joined = torch.cat((state["past"], x), -1)
        out = self._frames(joined)
        assign(state, "past", joined[:, -(self.n_fft - self.hop) :], active)
        return out
