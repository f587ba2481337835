"""Features of the semantic tokenizer: log-mel frames, and semitone bands for music. Streaming and causal."""

import math
from typing import ClassVar

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


def semitone_filters(n_fft: int, centres: Tensor, rate: int) -> Tensor:
    """Triangular filters of peak one, a semitone to either side, ``[n_fft / 2 + 1, bands]``, around ``centres`` in Hz.

    Where bins are wider than that a filter spans one bin to either side.
    """
    freqs = torch.linspace(0, rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    half = (centres * (2 ** (1 / 12) - 1)).clamp_min(rate / n_fft)
    return (1 - (freqs[:, None] - centres).abs() / half).clamp_min(0).float()


class LogPitch(StreamingModule):
    """Log energies of semitone bands from C1 up, a frame a tick: ``[B, tick] -> [B, 1, bands]``.

    The 25 ms of a log-mel frame cannot tell low notes apart. So each band takes the shortest window that can: one of
    256 ms below 350 Hz, of 128 ms below 700 Hz, else of 64 ms. All end with the tick: nothing is looked ahead here.
    """

    LOWEST, FLOOR = 32.703, 1e-5
    LENGTHS: ClassVar = {4096: 0.0, 2048: 350.0, 1024: 700.0}  # samples of the window, and Hz from which on it is used

    def __init__(self, bands: int = 96, *, rate: int = 16000, tick: int = 640) -> None:
        super().__init__()
        self.bands, self.frame_size, self.rate_in, self.rate_out = bands, tick, rate, rate / tick
        centres = self.LOWEST * 2 ** (torch.arange(bands, dtype=torch.float64) / 12)
        ends = [*list(self.LENGTHS.values())[1:], math.inf]
        for (length, low), high in zip(self.LENGTHS.items(), ends, strict=True):
            mine = centres[(centres >= low) & (centres < high)]
            self.register_buffer(f"window{length}", torch.hann_window(length) / length, persistent=False)
            self.register_buffer(f"filters{length}", semitone_filters(length, mine, rate), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the windows live; there are no parameters."""
        return self.get_buffer("window4096").device

    def _bands(self, frames: Tensor) -> Tensor:
        """Bands ``[..., bands]`` of the last samples ``[..., 4096]``."""
        parts = [
            torch.fft.rfft(frames[..., -length:] * self.get_buffer(f"window{length}")).abs().square()
            @ self.get_buffer(f"filters{length}")
            for length in self.LENGTHS
        ]
        return ((torch.cat(parts, -1) + self.FLOOR**2).log10() + 5.0) / 4.0

    def forward(self, audio: Tensor) -> Tensor:
        """Whole crop at once: ``[B, T] -> [B, T / tick, bands]``."""
        padded = nn.functional.pad(audio, (max(self.LENGTHS) - self.frame_size, 0))
        return self._bands(padded.unfold(-1, max(self.LENGTHS), self.frame_size))

    def init_state(self, slots: int) -> State:
        """Fresh streams: silence lies before them."""
        return {"past": self.get_buffer("window4096").new_zeros(slots, max(self.LENGTHS) - self.frame_size)}

    def step(self, x: Tensor, state: State, active: Tensor | None = None) -> Tensor:
        """One tick: ``[B, tick] -> [B, 1, bands]``."""
        joined = torch.cat((state["past"], x), -1)
        out = self._bands(joined[:, None])
        assign(state, "past", joined[:, self.frame_size :], active)
        return out
