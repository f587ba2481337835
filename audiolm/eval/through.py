"""What happens to sound on its way to a listener: Opus, MP3, another sample rate. At 16 kHz in and out, same length."""

from collections.abc import Callable
from io import BytesIO

import numpy as np

from audiolm.errors import InputError
from audiolm.eval.opus import opus
from audiolm.resample import Resampler
from audiolm.train.data import RATE
from audiolm.train.shards import Array

Way = Callable[[Array], Array]
MP3_RATES = (8, 160)  # kbit/s of MPEG-2 layer III, what 16 kHz is


def mp3(sound: Array, kbits: float) -> Array:
    """Through MP3 at about a constant rate in kbit/s.

    Raises:
        InputError: this libsndfile has no MP3.
    """
    import soundfile

    file, low = BytesIO(), MP3_RATES[0]
    level = float(np.clip(1 - (kbits - low) / (MP3_RATES[1] - low), 0, 0.99))
    try:
        soundfile.write(
            file, sound, RATE, format="MP3", subtype="MPEG_LAYER_III", compression_level=level, bitrate_mode="CONSTANT"
        )
    except (soundfile.LibsndfileError, ValueError, TypeError) as error:
        raise InputError(f"soundfile cannot write MP3 ({error}); it takes soundfile 0.13") from error
    file.seek(0)
    return fitted(np.asarray(soundfile.read(file, dtype="float32")[0]), len(sound))


def ogg_opus(sound: Array, bit_rate: int) -> Array:
    """Through Opus at a nominal rate in bit/s."""
    return fitted(opus(sound, bit_rate)[0], len(sound))


def resampled(sound: Array, rate: int) -> Array:
    """To another sample rate and back."""
    there, back = Resampler(RATE, rate), Resampler(rate, RATE)
    pieces = [piece for block in (*there.push(sound), *there.finish()) for piece in back.push(block)]
    return fitted(np.concatenate([*pieces, *back.finish()]), len(sound))


def fitted(sound: Array, length: int) -> Array:
    """Cut, or filled with silence, to ``length``."""
    out = np.zeros(length, np.float32)
    out[: len(sound)] = sound[:length]
    return out


WAYS: dict[str, Way] = {
    "as it is": lambda sound: sound,
    "MP3 64 kbit/s": lambda sound: mp3(sound, 64),
    "MP3 24 kbit/s": lambda sound: mp3(sound, 24),
    "Opus 24 kbit/s": lambda sound: ogg_opus(sound, 24000),
    "Opus 12 kbit/s": lambda sound: ogg_opus(sound, 12000),
    "11.025 kHz": lambda sound: resampled(sound, 11025),
}
