"""Opus through libsndfile, as the codec that everybody has: the same clips at about the same bit rate."""

from io import BytesIO

import numpy as np

from audiolm.errors import InputError
from audiolm.train.data import RATE
from audiolm.train.shards import Array

LOWEST, HIGHEST = 6000, 256000
HEADER = 27


def opus(sound: Array, bit_rate: int) -> tuple[Array, float]:
    """A 16 kHz sound through Opus at a nominal ``bit_rate``; what comes back, and the bits a second it really took.

    libsndfile maps its compression level 1..0 to 6..256 kbit/s a channel and lets the encoder vary around that, so
    the real rate is counted from the packets, container left out.

    Raises:
        InputError: Opus has no such rate, or this libsndfile has no Opus.
    """
    import soundfile

    if not LOWEST <= bit_rate <= HIGHEST:
        raise InputError(f"Opus at {bit_rate} bit/s; expected {LOWEST} to {HIGHEST}", bit_rate=bit_rate)
    file = BytesIO()
    try:
        soundfile.write(file, sound, RATE, format="OGG", subtype="OPUS", compression_level=level_of(bit_rate))
    except (soundfile.LibsndfileError, ValueError, TypeError) as error:
        raise InputError(f"soundfile cannot write Opus at a chosen rate ({error}); it takes soundfile 0.13") from error
    file.seek(0)
    made = soundfile.read(file, dtype="float32")[0]
    rate = 8 * packet_bytes(file.getvalue()) / (len(sound) / RATE)
    return np.asarray(made, np.float32), rate


def level_of(bit_rate: int) -> float:
    """The compression level of libsndfile for a nominal rate of a channel in bit/s."""
    return 1 - (bit_rate - LOWEST) / (HIGHEST - LOWEST)


def packet_bytes(data: bytes) -> int:
    """Bytes of the sound packets in an Ogg stream (RFC 3533); the first two packets are Opus' headers."""
    sizes, size, at = list[int](), 0, 0
    while data[at : at + 4] == b"OggS":
        count = data[at + 26]
        for lace in data[at + HEADER : at + HEADER + count]:
            size += lace
            if lace < 255:  # a packet ends here
                sizes.append(size)
                size = 0
        at += HEADER + count + sum(data[at + HEADER : at + HEADER + count])
    return sum(sizes[2:])
