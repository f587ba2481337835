"""The log-likelihood of sounds: batches change nothing, and it is what the stage says step by step."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from audiolm.eval.listened import listened, token_nats


def noise(ticks, seed=0, more=0):
    return 0.1 * np.random.default_rng(seed).standard_normal(640 * ticks + more).astype(np.float32)


def test_a_batch_says_what_each_sound_alone_says(model):
    heard = [noise(5, 1), noise(12, 2), noise(1, 3)]
    together = listened(model.parts, heard)
    assert [score.tokens for score in together] == [5, 12, 1]
    for sound, score in zip(heard, together, strict=True):
        assert listened(model.parts, [sound])[0].total == pytest.approx(score.total, rel=1e-4)


def test_every_token_counts_from_the_first(model):
    sound = noise(8)
    parts = model.parts
    padded = torch.from_numpy(np.concatenate([sound, np.zeros(640 * parts.lookahead, np.float32)]))[None]
    with torch.inference_mode():
        tokens = parts.tokenizer(padded)
        logits = parts.stages["semantic"](tokens[..., None])[0, :, 0]
    wanted = -float(F.cross_entropy(logits, tokens[0], reduction="sum"))
    found = listened(parts, [sound])[0]
    assert found.total == pytest.approx(wanted, rel=1e-5)
    assert found.mean == pytest.approx(wanted / 8, rel=1e-5)


def test_a_part_of_a_tick_at_the_end_is_left_out(model):
    assert listened(model.parts, [noise(4, more=300)])[0].tokens == 4


def test_nothing_is_free(model):
    """A model with random weights gives about the logarithm of its choices, never more than nothing."""
    score = listened(model.parts, [noise(20)])[0]
    assert score.total < 0
    assert score.mean == pytest.approx(-np.log(model.parts.tokenizer.config.clusters), rel=0.5)


def test_tokens_and_their_nats_add_up_to_the_score(model):
    sounds = [noise(20), noise(7, 5)]
    tokens, nats = token_nats(model.parts, sounds)
    assert [len(row) for row in tokens] == [len(row) for row in nats] == [20, 7]
    assert [float(row.sum()) for row in nats] == [score.total for score in listened(model.parts, sounds)]
    assert tokens[0].max() < model.parts.tokenizer.config.clusters
