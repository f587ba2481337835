"""Training of the semantic encoder: masks, targets, clusters; the loss goes down and runs go on where they ended."""

import json

import pytest
import torch

from audiolm.errors import ConfigError, InputError
from audiolm.tokenizer import SemanticTokenizer, TokenizerConfig
from audiolm.train.data import crops
from audiolm.train.kmeans import lloyd, nearest, principal
from audiolm.train.semantic import (
    HEADS,
    MaskedPrediction,
    RandomQuantizer,
    SemanticRecipe,
    embeddings,
    fit_clusters,
    span_mask,
    train_semantic,
)

TINY = TokenizerConfig(mels=20, layers=2, layer=1, width=32, heads=2, window=25, kernel=5, components=16, clusters=24)
RECIPE = SemanticRecipe(
    minutes=1000, batch=4, seconds=1.6, rate=5e-3, books=2, codes=32, components=20, fit_batches=4, steps=60
)


def test_spans_are_whole_and_as_frequent_as_asked():
    mask = span_mask((200, 500), 0.05, 4, torch.Generator().manual_seed(0))
    assert abs(float(mask.float().mean()) - (1 - 0.95**4)) < 0.01
    inner = mask[:, 4:-4].int()
    edges = torch.nonzero(torch.diff(torch.nn.functional.pad(inner, (1, 1))))
    lengths = edges[1::2, 1] - edges[::2, 1]
    inside = (edges[::2, 1] > 0) & (edges[1::2, 1] < inner.shape[1])
    assert int(lengths[inside].min()) == 4


def test_a_mask_is_never_empty():
    mask = span_mask((2, 6), 0.0, 3, torch.Generator())
    assert mask.tolist() == [[True] * 3 + [False] * 3, [False] * 6]


def test_whitened_components_have_unit_variance_and_no_correlation():
    x = torch.randn(5000, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([10.0, 5, 2, 1, 0.5, 0.1]) + 3
    mean, whitening = principal(x, 4)
    torch.testing.assert_close(torch.cov(((x - mean) @ whitening).T), torch.eye(4), atol=0.01, rtol=0)


def test_targets_are_fixed_by_the_seed_and_use_many_codes():
    x = torch.randn(2, 400, 80, generator=torch.Generator().manual_seed(1))
    first, second = (RandomQuantizer(80, RECIPE) for _ in range(2))
    for each in (first, second):
        each.fit(x.reshape(-1, 80))
    codes = first(x)
    assert codes.shape == (2, 400, 2)
    assert torch.equal(codes, second(x))
    assert len(codes[..., 0].unique()) > 16
    with pytest.raises(ConfigError, match="20 components cannot be made of 10 features"):
        RandomQuantizer(10, RECIPE)


def test_k_means_finds_separate_clusters_and_revives_empty_ones():
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0], [10, 0], [0, 10], [10, 10]])
    copies = torch.cat([centres.repeat(50, 1), torch.zeros(400, 2)])  # as digital silence would be: many equal points
    found = lloyd(copies + 0, 4, 40, generator)
    assert {tuple(row) for row in found.round().tolist()} == {(0, 0), (10, 0), (0, 10), (10, 10)}
    assert nearest(copies, found, chunk=7).shape == (600,)
    with pytest.raises(InputError, match="5 clusters cannot be made of 3 points"):
        lloyd(torch.zeros(3, 2), 5, 1, generator)


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("semantic")
    return out, train_semantic([(corpus, 1.0)], out, TINY, RECIPE)


def masked(path):
    return [json.loads(line)["masked"] for line in path.read_text().splitlines()]


def loss_of(tokenizer, folder, corpus):
    """The loss on a fixed batch, with the heads in `folder`."""
    from audiolm.train.semantic import _resume

    task = MaskedPrediction(tokenizer, RECIPE)
    assert _resume(task, folder / "encoder.safetensors")
    torch.manual_seed(3)
    return float(task(next(crops([(corpus, 1.0)], 25600, 8, 7)))[0].detach())


def test_the_loss_goes_down(corpus, trained, tmp_path):
    one = SemanticRecipe(
        minutes=1000, batch=8, seconds=1.6, books=2, codes=32, components=20, fit_batches=4, steps=1, rate=1e-9
    )
    train_semantic([(corpus, 1.0)], tmp_path, TINY, one)
    start = masked(tmp_path / "encoder.jsonl")[-1]
    assert 3.2 < start < 4.2  # about ln 32
    assert loss_of(SemanticTokenizer(TINY), trained[0], corpus) < start - 0.3


def test_a_run_from_weights_starts_near_the_old_loss(corpus, trained, tmp_path):
    recipe = SemanticRecipe(minutes=1000, batch=8, seconds=1.6, books=2, codes=32, components=20, steps=1, rate=1e-9)
    path = trained[0] / "encoder.safetensors"
    train_semantic([(corpus, 1.0)], tmp_path, TINY, recipe, weights_from=path)
    old = loss_of(SemanticTokenizer(TINY), trained[0], corpus)
    assert abs(masked(tmp_path / "encoder.jsonl")[0] - old) < 0.3
    (tmp_path / "alone").mkdir()
    alone = tmp_path / "alone" / "encoder.safetensors"
    alone.write_bytes(path.read_bytes())
    train_semantic([(corpus, 1.0)], tmp_path / "fresh", TINY, recipe, weights_from=alone)  # new targets and heads
    assert masked(tmp_path / "fresh" / "encoder.jsonl")[0] > old
    assert (tmp_path / "fresh" / HEADS).is_file()


def test_clusters_explain_variance_and_are_all_used(corpus, trained):
    tokenizer = trained[1]
    x = embeddings(tokenizer, [(corpus, 1.0)], 1, 1200)
    assert x.shape[1] == 32
    assert len(x) >= 1200
    explained = fit_clusters(tokenizer, x, rounds=10)
    assert 0.2 < explained < 1
    assert len(tokenizer.assign_clusters(x).unique()) == 24
    again = SemanticTokenizer(TINY)
    again.encoder.load_state_dict(tokenizer.encoder.state_dict())
    assert fit_clusters(again.eval(), x, rounds=10) == explained
    with pytest.raises(InputError, match="24 clusters cannot be made of 10 points"):
        fit_clusters(tokenizer, x[:10])
