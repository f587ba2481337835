"""What the tests of evaluation hear: notes of a chord, buzzing voices."""

import numpy as np

RATE = 16_000
CHORDS = [(60, 64, 67), (61, 65, 68), (66, 70, 73), (69, 72, 76)]


def notes(chord, seconds, per_second=4, seed=0):
    """Decaying notes of the chord, float32."""
    rng = np.random.default_rng(seed)
    time = np.arange(RATE // per_second) / RATE
    picks = rng.choice(chord, int(seconds * per_second))
    tones = [sum(np.sin(2 * np.pi * k * 440 * 2 ** ((p - 69) / 12) * time) / k for k in (1, 2, 3)) for p in picks]
    sound = np.concatenate([0.2 * np.exp(-5 * time) * tone for tone in tones])
    return (sound + 1e-4 * rng.standard_normal(len(sound))).astype(np.float32)


def speech(seconds, who, seed=0):
    """Syllables of a buzz at the speaker's pitch through two moving formants, with short pauses, float32."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    pitch = 95 + 55 * who
    out = np.zeros(len(time))
    first = 500 + 200 * np.sin(2 * np.pi * 1.7 * time + rng.random())
    second = 1500 + 500 * np.sin(2 * np.pi * 1.1 * time + rng.random())
    for k in range(1, 4000 // pitch):
        near = np.exp(-(((k * pitch - first) / 200) ** 2)) + 0.6 * np.exp(-(((k * pitch - second) / 300) ** 2))
        out += near * np.sin(2 * np.pi * k * pitch * time)
    syllables = np.clip(np.sin(2 * np.pi * 3.1 * time) + 0.6, 0, 1)
    return (0.12 * out * syllables + 1e-3 * rng.standard_normal(len(time))).astype(np.float32)
