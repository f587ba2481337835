"""The log-likelihood of sounds under a bundle's semantic stage. It knows nothing of pairs or of tables."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from audiolm.eval.pairs import Score
from audiolm.parts import Parts

Array = np.ndarray[Any, Any]


def listened(parts: Parts, sounds: Sequence[Array]) -> list[Score]:
    """Scores of sounds, float32 ``[n]`` at 16 kHz, each of at least one tick: its own tokens, from the first."""
    return [Score(float(row.sum()), len(row)) for row in token_nats(parts, sounds)[1]]


@torch.inference_mode()
def token_nats(parts: Parts, sounds: Sequence[Array]) -> tuple[list[Array], list[Array]]:
    """The semantic tokens ``[ticks]`` of each sound, and the log-likelihood of each in nats given those before it.

    Every whole tick gets its token, the last ones with silence as what they look ahead to. Tokenizer and stage are
    causal, so silence behind the shorter sounds of a batch changes nothing. Repeated tokens stay, as the stage was
    trained on them.
    """
    tick, ticks = parts.tick, [len(sound) // parts.tick for sound in sounds]
    audio = torch.zeros(len(sounds), (max(ticks) + parts.lookahead) * tick)
    for row, sound, count in zip(audio, sounds, ticks, strict=True):
        row[: count * tick] = torch.from_numpy(sound[: count * tick])
    tokens = parts.tokenizer(audio)
    logits = parts.stages["semantic"](tokens[..., None])[:, :, 0].float()
    nats = -F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none").double()
    return (
        [row[:count].numpy() for row, count in zip(tokens, ticks, strict=True)],
        [row[:count].numpy() for row, count in zip(nats, ticks, strict=True)],
    )
