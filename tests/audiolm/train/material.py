"""What the tests of training share: melodies, token files that name their places, specs in other patterns."""

from dataclasses import asdict

import numpy as np
import torch

from audiolm.stage import StageSpec
from audiolm.train.tokens import Tokens

RATE = 16_000


def melody(seconds, seed):
    """Notes of a scale over a little noise, float32 [n]."""
    rng = np.random.default_rng(seed)
    notes = 220 * 2 ** (rng.choice([0, 2, 4, 7, 9], round(seconds * 4)) / 12)
    time = np.arange(RATE // 4) / RATE
    sound = np.concatenate([np.sin(2 * np.pi * note * time) * np.exp(-6 * time) for note in notes])
    return (0.3 * sound + 0.005 * rng.standard_normal(len(sound))).astype(np.float32)


def made_tokens(clips, ticks, seed=0, spread=32):
    """Token file contents that name their own places: semantic `t % 24`, acoustic `(frame + 7 * level) % spread`."""
    at = [np.arange(ticks) + 100 * (seed + clip) for clip in range(clips)]
    semantic = torch.from_numpy(np.concatenate(at) % 24).to(torch.int16)
    frames = np.concatenate([np.arange(2 * ticks) + 200 * (seed + clip) for clip in range(clips)])
    acoustic = torch.from_numpy((frames[:, None] + 7 * np.arange(6)) % spread).to(torch.int16)
    index = torch.tensor([[clip * ticks, ticks] for clip in range(clips)])
    return Tokens(acoustic, semantic, index)


def in_pattern(spec, pattern):
    """The spec in another pattern."""
    return StageSpec(**(asdict(spec) | {"pattern": pattern}))
