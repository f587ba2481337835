"""The semantic tokenizer: steps equal the whole, the look-ahead is taken once, nothing is revised."""

import numpy as np
import pytest
import torch
from contract import verify_contract
from sounds import sound, tiny

from audiolm.errors import ConfigError
from audiolm.tokenizer import SemanticTokenizer, TokenizerConfig

SIZES = {
    "mels": 20,
    "layers": 2,
    "layer": 1,
    "width": 32,
    "heads": 2,
    "window": 10,
    "kernel": 5,
    "components": 8,
    "clusters": 24,
}


def make(lookahead=2, **sizes):
    torch.manual_seed(0)
    return (
        SemanticTokenizer(TokenizerConfig(lookahead=lookahead, **{**SIZES, **sizes}))
        .eval()
        .requires_grad_(requires_grad=False)
    )


def pieces(ticks=26, slots=3):
    return [
        torch.from_numpy(np.stack([sound(ticks, s)[i * 640 : i * 640 + 640] for s in range(slots)]))
        for i in range(ticks)
    ]


@pytest.mark.parametrize("lookahead", [0, 1, 2])
@pytest.mark.parametrize("layer", [1, 2])
def test_contract_over_more_than_twice_the_window(lookahead, layer):
    extremes = [torch.zeros(3, 640), torch.ones(3, 640), torch.full((3, 640), 1e-30)]
    tokenizer = make(lookahead, layer=layer)
    verify_contract(tokenizer, pieces(), extremes=extremes)
    assert tokenizer.delay == lookahead * 640


def test_contract_with_semitone_bands():
    tokenizer = make(pitches=30)
    verify_contract(tokenizer, pieces(), extremes=[torch.zeros(3, 640), torch.ones(3, 640)])
    assert tokenizer.encoder.stacked == 3 * (4 * 20 + 30)


@torch.inference_mode()
def test_embeddings_of_forward_and_steps_agree():
    tokenizer, parts, seen = make(), pieces(), []
    tokenizer.assign_clusters = lambda y: seen.append(y.clone()) or torch.zeros(len(y), dtype=torch.int64)
    state = tokenizer.init_state(3)
    for piece in parts:
        tokenizer.step(piece, state)
    steps = torch.stack(seen[2:], 1)
    torch.testing.assert_close(steps, tokenizer.embed(torch.cat(parts, 1)), atol=1e-4, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize("lookahead", [0, 2])
def test_tokens_come_after_the_lookahead_and_no_earlier(lookahead):
    tokenizer = make(lookahead)
    state = tokenizer.init_state(3)
    out = torch.stack([tokenizer.step(piece, state) for piece in pieces(8)], 1)
    assert (out[:, :lookahead] == -1).all()
    assert (out[:, lookahead:] >= 0).all()


@torch.inference_mode()
def test_a_token_hears_its_lookahead_and_nothing_beyond():
    tokenizer, x = make(), torch.cat(pieces(12), 1)
    base = tokenizer.embed(x)
    changed = x.clone()
    changed[:, 8 * 640 :] = 0
    difference = (tokenizer.embed(changed) - base).abs().amax(-1)
    assert (difference[:, :6] == 0).all()  # token 5 hears ticks 5, 6, 7
    assert (difference[:, 6] > 0).all()


@torch.inference_mode()
def test_clusters_are_the_nearest_in_the_whitened_space():
    tokenizer = make()
    tokenizer.mean.copy_(torch.randn(32))
    tokenizer.whitening.copy_(torch.randn(tokenizer.whitening.shape))
    x = torch.randn(50, 32)
    y = (x - tokenizer.mean) @ tokenizer.whitening
    assert torch.equal(tokenizer.assign_clusters(x), torch.cdist(y, tokenizer.centroids).argmin(-1))


@torch.inference_mode()
def test_layers_beyond_the_chosen_one_do_not_matter():
    a, b = make(), make()
    for weight in b.encoder.blocks[1].parameters():
        weight.add_(1)
    x = torch.cat(pieces(6), 1)
    assert torch.equal(a(x), b(x))
    assert len(a.encoder(a.stack(a.features(x)))) == 3


def test_tokens_tell_sounds_apart():
    tokens = tiny().parts.tokenizer(torch.from_numpy(sound(60))[None])
    assert tokens.shape == (1, 58)
    assert len(tokens.unique()) > 3


@pytest.mark.parametrize(
    "wrong", [{"layer": 3}, {"lookahead": -1}, {"width": 30}, {"clusters": 1}, {"window": 0}, {"kernel": 1}]
)
def test_sizes_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError, match="tokenizer"):
        TokenizerConfig(**{**SIZES, **wrong})
