"""The tiny model: the same every time, small, lively, with the real clock."""

import numpy as np
import pytest
import torch
from sounds import codes, listen, sound, tiny

from audiolm.tiny import tiny_parts


def weights(parts):
    return [
        value for part in (parts.codec, parts.tokenizer, *parts.stages.values()) for value in part.state_dict().values()
    ]


def test_the_same_seed_gives_the_same_model_and_leaves_the_callers_noise_alone():
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    a, b, c = tiny_parts(), tiny_parts(), tiny_parts(1)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))
    assert not all(torch.equal(x, y) for x, y in zip(weights(a), weights(c), strict=True))


def test_it_is_tiny_and_keeps_the_clock():
    parts = tiny_parts()
    assert sum(value.numel() for value in weights(parts)) < 300_000
    assert (parts.tick, parts.frames_per_tick) == (640, 2)
    assert parts.codec.config.hop == 320


@pytest.mark.parametrize("pattern", ["depth", "delay", "flat"])
def test_patterns_and_sizes_are_passed_on(pattern):
    parts = tiny_parts(pattern=pattern, lookahead=1, ahead=3, layers=2)
    assert {stage.spec.pattern for stage in parts.stages.values()} == {pattern}
    assert (parts.lookahead, parts.stages["coarse"].spec.ahead) == (1, 3)
    assert len(parts.stages["fine"].temporal.blocks) == 2


def test_different_sounds_have_different_tokens():
    heard = codes(listen(tiny().session(), sound(30)))
    assert len(np.unique(heard[:, 0])) > 4
    assert len(np.unique(heard[:, 5])) > 4
    tokens = tiny().parts.tokenizer(torch.from_numpy(sound(60))[None])
    assert len(tokens.unique()) > 4


def test_guidance_has_something_to_guide():
    stage = tiny().parts.stages["coarse"]
    cond = torch.zeros(1, 5, 1, dtype=torch.int64)
    tokens = torch.zeros(1, 5, 2, dtype=torch.int64)
    assert not torch.allclose(stage(tokens, cond), stage(tokens, cond + 1))
