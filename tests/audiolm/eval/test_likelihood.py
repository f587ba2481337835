"""Likelihoods of models whose likelihood is known."""

import math

import numpy as np
import pytest
import torch

from audiolm.errors import InputError
from audiolm.eval.likelihood import crop_seconds, held_tokens, likelihood, likelihoods, repeat_nats, stage_rows, unigram
from audiolm.tiny import tiny_parts
from audiolm.train.data import write_corpus
from audiolm.train.tokens import Tokens


def tokens(clips=3, ticks=120, seed=0):
    generator = torch.Generator().manual_seed(seed)
    acoustic = torch.randint(32, (2 * clips * ticks, 6), generator=generator)
    semantic = torch.randint(24, (clips * ticks,), generator=generator)
    return Tokens(acoustic, semantic, torch.tensor([[i * ticks, ticks] for i in range(clips)]))


def know_nothing(parts):
    """Every token equally likely: the last layers give zero."""
    for stage in parts.stages.values():
        for parameter in stage.parameters():
            parameter.zero_()
    return parts


def test_the_unigram_is_the_entropy_of_what_is_frequent():
    found = unigram(torch.tensor([[0], [0], [0], [1]]), torch.tensor([[0], [1]]), 2)
    torch.testing.assert_close(found, -torch.tensor([4 / 6, 2 / 6]).log().mean()[None])


def test_repetition_alone_explains_a_stream_that_repeats():
    held = torch.arange(24).repeat_interleave(50)
    assert repeat_nats(held, held, 24) < 0.2
    mixed = torch.randint(24, (4000,), generator=torch.Generator().manual_seed(0))
    assert repeat_nats(mixed, mixed, 24) == pytest.approx(math.log(24), abs=0.05)


def test_a_model_that_knows_nothing_takes_the_log_of_the_vocabulary():
    parts = know_nothing(tiny_parts())
    for name, size in (("semantic", 24), ("coarse", 32), ("fine", 32)):
        rows = stage_rows(parts, name, tokens(), None, crops=3)
        levels = parts.stages[name].spec.levels
        torch.testing.assert_close(rows["nll"], torch.full((3, levels), math.log(size)))
        assert ("unconditioned" in rows) == (name != "semantic")
    section = likelihood(parts, [("x", tokens())], crops=3)
    gains = section.figures["x"]["coarse"]["gain"]["unconditioned"]
    assert (gains.low, gains.high) == pytest.approx((0, 0), abs=1e-6)
    assert not any(goal.met for goal in section.goals if "conditioning" in goal.what)
    assert any("own" in note or "themselves" in note for note in section.notes)


def test_crops_are_of_twice_the_window_or_what_there_is(model):
    spec = model.parts.stages["semantic"].spec
    assert crop_seconds(spec, tokens(ticks=500)) == 2 * spec.window / 25
    assert crop_seconds(spec, tokens(ticks=60)) == 60 / 25
    coarse = model.parts.stages["coarse"].spec
    assert crop_seconds(coarse, tokens(ticks=30)) == (30 - coarse.ahead) / 25
    assert crop_seconds(coarse, tokens(ticks=500), 1.6) == 1.6


def test_likelihoods_are_plain_numbers_by_stage(model):
    found = likelihoods(model.parts, tokens(), tokens(seed=1), dict.fromkeys(model.parts.stages, 1.6))
    assert set(found["semantic"]) == {"nll", "unigram"}
    assert set(found["coarse"]) == set(found["fine"]) == {"nll", "unigram", "unconditioned"}
    assert found["coarse"]["unigram"] == pytest.approx(math.log(32), abs=0.3)


def test_held_out_sound_becomes_tokens_of_its_length(model, voices_held):
    found = held_tokens(model.parts, voices_held.corpus, 1.0)
    assert len(found.acoustic) == 2 * found.ticks
    assert found.acoustic.shape[1] == model.parts.codec.config.levels
    assert 3 * 7.5 * 25 < found.ticks < 3 * 9 * 25
    assert int(found.index[:, 1].sum()) == found.ticks


def test_a_corpus_of_snippets_has_no_likelihood(model, tmp_path):
    corpus = write_corpus(tmp_path / "c", [("a.wav", np.ones(8000, np.float32) * 0.1)])
    with pytest.raises(InputError, match="need longer sound"):
        held_tokens(model.parts, corpus, 1.0)
