"""What the losses of a codec compare, by its kind: waveforms, or short-time magnitudes."""

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor

from audiolm.codec import SoundStream
from audiolm.features import mel_filters
from audiolm.spectral import SpectralDecoder, SpectralEncoder, compress, expand
from audiolm.train.adversary import WINDOWS, complex_spectra, log_spectra
from audiolm.train.losses import (
    bin_weights,
    mel_distance,
    mel_spectrum_distance,
    spectrum_distance,
    waveform_distance,
)

MELS = 80


class Compared(ABC):
    """A codec's way from sound to a loss: ``wanted`` and ``made`` are what is compared.

    Attributes:
        image_channels: of each image that a critic sees.
    """

    image_channels: tuple[int, ...]

    def __init__(self, codec: SoundStream) -> None:
        self.codec = codec

    @abstractmethod
    def calibrate(self, batches: Iterable[Tensor]) -> None:
        """Measure what the nets are scaled by on batches ``[B, T]``, before the first step."""

    @abstractmethod
    def latent(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """``wanted`` and the latent ``[B, frames, latent]`` of a batch ``[B, T]``."""

    @abstractmethod
    def make(self, z: Tensor) -> Tensor:
        """What the decoder makes of a latent ``[B, frames, latent]``."""

    @abstractmethod
    def distances(self, wanted: Tensor, made: Tensor) -> dict[str, Tensor]:
        """How far one is from the other; names are those of the recipe's weights."""

    @abstractmethod
    def images(self, sound: Tensor) -> list[Tensor]:
        """What the critics see of ``made`` or of the same of real sound."""

    def real(self, wanted: Tensor) -> Tensor:
        """``wanted`` as a ``made`` that is perfect."""
        return wanted


class ComparedWaveforms(Compared):
    """Waveforms ``[B, T]``, for ``seanet``."""

    image_channels = (2,) * len(WINDOWS)

    def calibrate(self, batches: Iterable[Tensor]) -> None:
        """These nets learn their scale."""

    def latent(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """The waveform and its latent."""
        return audio, self.codec.encoder.latent(audio)

    def make(self, z: Tensor) -> Tensor:
        """A waveform."""
        return self.codec.decoder.synthesize(z)

    def distances(self, wanted: Tensor, made: Tensor) -> dict[str, Tensor]:
        """Of log-mel spectra at several resolutions, and of the waveforms."""
        return {"mel": mel_distance(wanted, made), "waveform": waveform_distance(wanted, made)}

    def images(self, sound: Tensor) -> list[Tensor]:
        """Complex spectra at several window lengths."""
        return complex_spectra(sound)


class ComparedSpectra(Compared):
    """Short-time magnitudes ``[B, spectra, bins]`` and the log magnitudes that the decoder makes, for ``spectral``.

    No phase is made up in training.
    """

    image_channels = (1, 1, 1)

    def __init__(self, codec: SoundStream, encoder: SpectralEncoder, decoder: SpectralDecoder) -> None:
        super().__init__(codec)
        self.encoder, self.decoder = encoder, decoder
        rate, device = codec.config.sample_rate, codec.encoder.device
        self.weights = bin_weights(encoder.bins, rate).to(device)
        self.filters = mel_filters(codec.config.window, MELS, rate).to(device)

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Tensor]) -> None:
        """Measure mean and scale of the log magnitudes of batches ``[B, T]``."""
        rows = [compress(self._magnitudes(audio)).reshape(-1, len(self.encoder.mean)) for audio in batches]
        features = torch.cat(rows)
        for net in (self.encoder, self.decoder):
            net.mean.copy_(features.mean(0))
            net.scale.copy_(features.std(0).mean())

    def _magnitudes(self, audio: Tensor) -> Tensor:
        return self.encoder.magnitudes(audio[:, None] * self.codec.encoder.INPUT_GAIN)

    def latent(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Magnitudes and their latent."""
        magnitudes = self._magnitudes(audio)
        return magnitudes, self.encoder.latent(magnitudes)

    def make(self, z: Tensor) -> Tensor:
        """Log magnitudes."""
        return self.decoder.features(z).float()

    def distances(self, wanted: Tensor, made: Tensor) -> dict[str, Tensor]:
        """Of spectra, bin by bin, and of the levels of mel bands."""
        magnitudes = expand(made)
        return {
            "spectrum": spectrum_distance(compress(wanted), made, wanted, magnitudes, self.weights),
            "mel": mel_spectrum_distance(wanted, magnitudes, self.filters),
        }

    def images(self, sound: Tensor) -> list[Tensor]:
        """Log magnitudes at several time scales."""
        return log_spectra(sound)

    def real(self, wanted: Tensor) -> Tensor:
        """Log magnitudes of real sound."""
        return compress(wanted)


def compared(codec: SoundStream) -> Compared:
    """What the losses of ``codec`` compare."""
    encoder, decoder = codec.encoder.net, codec.decoder.net
    if isinstance(encoder, SpectralEncoder) and isinstance(decoder, SpectralDecoder):
        return ComparedSpectra(codec, encoder, decoder)
    return ComparedWaveforms(codec)
