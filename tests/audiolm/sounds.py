"""What the model tests share: sounds, tiny models, chunkings, and a digest of what comes out."""

import functools
import hashlib

import numpy as np
from hypothesis import strategies as st

from audiolm import AudioLM
from audiolm.tiny import tiny_parts

TICK = 640


def sound(ticks, seed=0, level=0.07):
    """Tones that come and go over noise, float32 `[ticks * 640]`."""
    rng = np.random.default_rng(seed)
    time = np.arange(ticks * TICK) / 16000
    tones = sum(np.sin(2 * np.pi * f * time) * (np.sin(2 * np.pi * r * time) > 0) for f, r in ((220, 1.3), (700, 3.1)))
    return (level * (tones + rng.standard_normal(len(time)))).astype(np.float32)


def ticks_in(samples):
    """The ticks of a sound."""
    return list(samples.reshape(-1, TICK))


@functools.cache
def tiny(pattern="depth", seed=0, **sizes):
    """A tiny model, made once."""
    return AudioLM(tiny_parts(seed, pattern=pattern, **sizes))


def cut(samples, sizes):
    """The sound in pieces of the given sizes, over and over."""
    pieces, at, i = [], 0, 0
    while at < len(samples):
        pieces.append(samples[at : at + sizes[i % len(sizes)]])
        at, i = at + len(pieces[-1]), i + 1
    return pieces


chunkings = st.lists(st.integers(1, 3000), min_size=1, max_size=6)


def digest(*arrays):
    """SHA-256 of types, shapes and bits."""
    total = hashlib.sha256()
    for array in arrays:
        data = np.ascontiguousarray(array)
        total.update(f"{data.dtype}{data.shape}".encode())
        total.update(data.tobytes())
    return total.hexdigest()


def state_digest(saved):
    """Digest of a snapshot, or of an engine's state."""
    return digest(*(np.asarray(saved[key]) for key in sorted(saved)), np.array(sorted(saved)))


def listen(session, samples):
    """Hear a sound; the ticks that come back."""
    return [session.listen(tick) for tick in ticks_in(samples)]


def generate(session, ticks):
    """Make ticks."""
    return [session.generate() for _ in range(ticks)]


def audio(ticks):
    """The sound of ticks."""
    return np.concatenate([tick.audio for tick in ticks])


def codes(ticks):
    """The tokens of ticks."""
    return np.concatenate([tick.codes for tick in ticks])
