"""SoundStream (arXiv 2107.03312): the causal codec between 16 kHz sound and 50 Hz acoustic tokens.

Frame ``f`` covers samples ``[320 f, 320 f + 320)``. The encoder has no look-ahead: a tick of 640 samples gives two
frames at once, and two frames give a tick back. Of the two kinds, ``seanet`` is the paper's net of convolutions on the
waveform, ``spectral`` the net of :mod:`audiolm.spectral` on short-time spectra, whose sound comes out
:attr:`CodecConfig.delay` samples late.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from audiolm.conv import CausalConv1d, CausalConvTranspose1d, CausalStack, ResidualUnit
from audiolm.errors import ConfigError
from audiolm.rvq import ResidualVQ
from audiolm.sizes import check_sizes
from audiolm.spectral import HOP, SpectralDecoder, SpectralEncoder
from audiolm.streaming import State, StreamingModule

DILATIONS = (1, 3, 9)
Kind = Literal["seanet", "spectral"]


@dataclass(frozen=True)
class CodecConfig:
    """Sizes of a codec.

    Attributes:
        kind: ``seanet`` or ``spectral``.
        strides: their product is the hop, in samples.
        channels, residual_units: of ``seanet``; units are per resolution, from the sound's rate downwards.
        window: of the short-time spectra of ``spectral``, in samples.
        width, encoder_blocks, decoder_blocks, kernel, expansion: of the ConvNeXt blocks of ``spectral``.

    Raises:
        ConfigError: a size that cannot be.
    """

    kind: Kind = "seanet"
    sample_rate: int = 16000
    channels: int = 16
    strides: tuple[int, ...] = (2, 4, 5, 8)
    residual_units: tuple[int, ...] = (1, 2, 3, 3)
    latent: int = 128
    levels: int = 12
    cardinality: int = 1024
    coarse_levels: int = 4
    window: int = 640
    width: int = 512
    encoder_blocks: int = 4
    decoder_blocks: int = 6
    kernel: int = 5
    expansion: int = 2

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConfigError(f"codec: kind is {self.kind!r}; expected one of {', '.join(get_args(Kind))}")
        check_sizes(
            "codec",
            self,
            sample_rate=(8000, 192000),
            channels=(1, 512),
            latent=(1, 4096),
            levels=(2, 64),
            cardinality=(2, 1 << 16),
            coarse_levels=(1, self.levels - 1),
            window=(2 * HOP, 4096),
            width=(1, 4096),
            encoder_blocks=(1, 64),
            decoder_blocks=(1, 64),
            kernel=(2, 64),
            expansion=(1, 16),
        )
        strides, units = tuple(self.strides), tuple(self.residual_units)
        fits = len(strides) == len(units) and 1 <= len(strides) <= 8
        if not fits or not all(1 <= s <= 16 for s in strides) or not all(0 <= n <= len(DILATIONS) for n in units):
            raise ConfigError(
                f"codec: strides {strides} and residual_units {units} do not fit; expected as many of each, "
                f"strides of 1 to 16 and at most {len(DILATIONS)} units",
            )
        if self.kind == "spectral" and (self.window % HOP or self.hop % HOP):
            raise ConfigError(
                f"codec: a window of {self.window} samples and a hop of {self.hop} do not fit spectra every {HOP} "
                f"samples; expected multiples of {HOP}"
            )

    @property
    def hop(self) -> int:
        """Samples per frame: the product of the strides."""
        hop = 1
        for stride in self.strides:
            hop *= stride
        return hop

    @property
    def frame_rate(self) -> float:
        """Acoustic frames a second."""
        return self.sample_rate / self.hop

    @property
    def delay(self) -> int:
        """Samples by which the decoder's sound lags behind what was encoded."""
        return self.window - HOP if self.kind == "spectral" else 0


class Encoder(CausalStack):
    """``[B, 1, T] -> [B, latent, T / hop]``."""

    def __init__(self, config: CodecConfig) -> None:
        width = config.channels
        layers: list[nn.Module] = [CausalConv1d(1, width, 7)]
        for stride, units in zip(config.strides, config.residual_units, strict=True):
            layers += [ResidualUnit(width, dilation) for dilation in DILATIONS[:units]]
            layers += [nn.ELU(), CausalConv1d(width, 2 * width, 2 * stride, stride=stride)]
            width *= 2
        super().__init__(*layers, nn.ELU(), CausalConv1d(width, config.latent, 3))


class Decoder(CausalStack):
    """``[B, latent, T] -> [B, 1, T * hop]``."""

    def __init__(self, config: CodecConfig) -> None:
        width = config.channels * 2 ** len(config.strides)
        layers: list[nn.Module] = [CausalConv1d(config.latent, width, 7)]
        for stride, units in zip(reversed(config.strides), reversed(config.residual_units), strict=True):
            layers += [nn.ELU(), CausalConvTranspose1d(width, width // 2, stride)]
            width //= 2
            layers += [ResidualUnit(width, dilation) for dilation in DILATIONS[:units]]
        super().__init__(*layers, nn.ELU(), CausalConv1d(width, 1, 7))


def encoder_net(config: CodecConfig) -> Encoder | SpectralEncoder:
    """The encoder of a codec, ``[B, 1, T] -> [B, latent, T / hop]``."""
    if config.kind == "seanet":
        return Encoder(config)
    return SpectralEncoder(config.encoder_blocks, **_spectral_sizes(config))


def decoder_net(config: CodecConfig) -> Decoder | SpectralDecoder:
    """The decoder of a codec, ``[B, latent, T] -> [B, 1, T * hop]``."""
    if config.kind == "seanet":
        return Decoder(config)
    return SpectralDecoder(config.decoder_blocks, **_spectral_sizes(config))


def _spectral_sizes(config: CodecConfig) -> dict[str, int]:
    return {name: getattr(config, name) for name in ("hop", "window", "width", "kernel", "expansion", "latent")}


class CodecEncoder(StreamingModule):
    """Sound to acoustic tokens, a tick a step: ``[B, tick] float32 -> [B, frames, levels] int64``."""

    # Sound at -23 dBFS has an RMS of 0.07; scaled by ten the first layers see unit variance and the latent does not
    # collapse.
    INPUT_GAIN = 10.0

    def __init__(self, config: CodecConfig, rvq: ResidualVQ, tick: int = 640) -> None:
        super().__init__()
        self.config, self.rvq, self.frame_size = config, rvq, tick
        self.rate_in, self.rate_out = config.sample_rate, config.frame_rate
        self.net = encoder_net(config)

    def latent(self, audio: Tensor) -> Tensor:
        """``[B, T] -> [B, T / hop, latent]`` before quantization (parallel)."""
        return self.net(audio[:, None] * self.INPUT_GAIN).transpose(1, 2)  # type: ignore[no-any-return]

    def forward(self, audio: Tensor) -> Tensor:
        """Whole crop at once: ``[B, T] -> [B, T / hop, levels]``; ``T`` is a multiple of the hop."""
        return self.rvq.encode(self.latent(audio))

    def init_state(self, slots: int) -> State:
        """Fresh streams."""
        return self.net.init_state(slots)

    def step(self, x: Tensor, state: State, active: Tensor | None = None) -> Tensor:
        """One tick: ``[B, tick] float32 -> [B, frames, levels]`` int64."""
        z = self.net.step(x[:, None] * self.INPUT_GAIN, state, active)
        return self.rvq.encode(z.transpose(1, 2))


class CodecDecoder(StreamingModule):
    """Acoustic tokens to sound, a tick a step: ``[B, frames, n]`` int64 ``-> [B, tick]`` float32, ``n <= levels``."""

    OUTPUT_GAIN = 0.1

    def __init__(self, config: CodecConfig, rvq: ResidualVQ, tick: int = 640) -> None:
        super().__init__()
        self.config, self.rvq = config, rvq
        self.frame_size = tick // config.hop
        self.sound_delay = config.delay
        self.rate_in, self.rate_out = config.frame_rate, config.sample_rate
        self.net = decoder_net(config)

    def synthesize(self, z: Tensor) -> Tensor:
        """``[B, frames, latent] -> [B, frames * hop]`` (parallel)."""
        return self.net(z.transpose(1, 2))[:, 0] * self.OUTPUT_GAIN  # type: ignore[no-any-return]

    def forward(self, codes: Tensor) -> Tensor:
        """Whole crop at once: ``[B, frames, n] -> [B, frames * hop]``.

        The ``spectral`` kind steps through it: its phase is made up from sample to sample, so a rounding error would
        grow.
        """
        if self.config.kind == "seanet":
            return self.synthesize(self.rvq.decode(codes))
        state = self.init_state(len(codes))
        return torch.cat([self.step(piece, state) for piece in torch.split(codes, self.frame_size, 1)], -1)

    def init_state(self, slots: int) -> State:
        """Fresh streams."""
        return self.net.init_state(slots)

    def step(self, x: Tensor, state: State, active: Tensor | None = None) -> Tensor:
        """One tick: ``[B, frames, n]`` int64 ``-> [B, tick]`` float32."""
        z = self.rvq.decode(x).transpose(1, 2)
        return self.net.step(z, state, active)[:, 0] * self.OUTPUT_GAIN


class SoundStream(nn.Module):
    """Encoder, quantizer and decoder that share one set of codebooks."""

    def __init__(self, config: CodecConfig | None = None, rvq: ResidualVQ | None = None) -> None:
        super().__init__()
        self.config = config or CodecConfig()
        self.rvq = rvq or ResidualVQ(self.config.levels, self.config.cardinality, self.config.latent)
        self.encoder = CodecEncoder(self.config, self.rvq)
        self.decoder = CodecDecoder(self.config, self.rvq)

    def forward(self, audio: Tensor, levels: int | None = None) -> Tensor:
        """Reconstruct ``[B, T]`` (``T`` a multiple of the hop) from its first ``levels`` levels."""
        return self.decoder(self.encoder(audio)[..., :levels])  # type: ignore[no-any-return]


def stream_reconstruct(codec: SoundStream, audio: Tensor, levels: int | None = None) -> Tensor:
    """Reconstruct ``[B, T]`` (``T`` a multiple of the tick) by the streaming steps; equal to any live use of them."""
    enc, dec = codec.encoder, codec.decoder
    heard, spoken = enc.init_state(len(audio)), dec.init_state(len(audio))
    ticks = torch.split(audio, enc.frame_size, -1)
    return torch.cat([dec.step(enc.step(tick, heard)[..., :levels], spoken) for tick in ticks], -1)
