"""Training of the semantic encoder: masks, targets, clusters; the loss goes down and runs go on where they ended."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from audiolm.errors import ConfigError, InputError
from audiolm.tokenizer import SemanticTokenizer, TokenizerConfig
from audiolm.train.data import crops
from audiolm.train.kmeans import lloyd, nearest, principal
from audiolm.train.semantic import (
    HEADS,
    Contrast,
    SemanticRecipe,
    Targets,
    _start_from,
    embeddings,
    fit_clusters,
    span_mask,
    train_semantic,
)

TINY = TokenizerConfig(mels=20, layers=2, layer=1, width=32, heads=2, window=25, kernel=5, components=16, clusters=24)
RECIPE = SemanticRecipe(
    minutes=1000, batch=4, seconds=1.6, rate=5e-3, target_width=16, components=20, fit_batches=4, steps=60, average=0.9
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


def test_half_whitened_components_keep_half_of_their_spread_in_decibels():
    x = torch.randn(5000, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([10.0, 5, 2, 1, 0.5, 0.1])
    mean, matrix = principal(x, 3, 0.5)
    torch.testing.assert_close(((x - mean) @ matrix).std(0), torch.tensor([10.0, 5, 2]).sqrt(), rtol=0.05, atol=0)


def features(config, seed=1, ticks=40):
    size = 4 * config.mels + config.pitches
    return torch.randn(2, ticks, size, generator=torch.Generator().manual_seed(seed))


def test_targets_do_not_know_the_microphone_nor_the_level():
    x, targets = features(TINY), Targets(TINY, 80, RECIPE)
    targets.fit([x])
    made = targets(x)
    assert made.shape == (2, 40, 20)
    assert abs(float(made.square().mean()) - 1) < 0.1
    elsewhere = x + torch.linspace(-0.5, 0.5, 20).repeat(4) + 0.3
    torch.testing.assert_close(targets(elsewhere), made, atol=1e-4, rtol=0)


def test_targets_of_music_hold_notes_and_their_onsets():
    config = dataclasses.replace(TINY, pitches=24)
    recipe = dataclasses.replace(RECIPE, views=("pitch", "change"), context=0, components=8)
    targets = Targets(config, 104, recipe)
    ticks = torch.zeros(1, 10, 104)
    ticks[0, 5:, 80 + 7] = 1  # a note begins at tick 5 and stays
    pitch, change = targets.views(ticks)
    assert pitch[0, 5:].argmax(-1).tolist() == [7] * 5
    assert change[0].sum(-1).tolist() == [0] * 5 + [1] + [0] * 4
    targets.fit([features(config)])
    assert targets(features(config)).shape == (2, 40, 16)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"views": ("pitch",)}, r"expected some of \['mel'\]"),
        ({"views": ()}, "views"),
        ({"components": 250}, "250 components cannot be made of 240 features"),
    ],
)
def test_targets_that_cannot_be_are_refused(wrong, said):
    with pytest.raises(ConfigError, match=said):
        Targets(TINY, 80, dataclasses.replace(RECIPE, **wrong))


def test_neighbours_are_not_held_against_a_tick():
    torch.manual_seed(0)
    audio = torch.randn(2, 16000) * 0.1
    losses = []
    for near in (0, 2, 100):
        torch.manual_seed(0)
        task = Contrast(SemanticTokenizer(TINY), dataclasses.replace(RECIPE, near=near))
        task.targets.fit([task.tokenizer.features(audio)])
        losses.append(float(task(audio, task.draw((2, 25), torch.Generator().manual_seed(0)))[0].detach()))
    assert losses[0] > losses[1] > losses[2]
    assert abs(losses[2]) < 1e-5  # nothing is left to confuse it with


def test_masked_ticks_are_not_heard():
    task = Contrast(SemanticTokenizer(TINY), RECIPE)
    disguise = task.draw((2, 40), torch.Generator().manual_seed(0))
    x = features(TINY)
    heard, other = (task.disguised(each, disguise) for each in (x, torch.where(disguise.mask[..., None], 9.0, x)))
    torch.testing.assert_close(heard, other)
    assert not torch.allclose(heard[~disguise.mask], x[~disguise.mask])  # the others are disguised


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
    task = Contrast(tokenizer, RECIPE)
    assert _start_from(task, folder / "encoder.safetensors")
    disguise = task.draw((8, 40), torch.Generator().manual_seed(0))
    return float(task(next(crops([(corpus, 1.0)], 25600, 8, 7)), disguise)[1]["masked"].detach())


def test_the_loss_goes_down(corpus, trained, tmp_path):
    one = dataclasses.replace(RECIPE, batch=8, steps=1, rate=1e-9)
    train_semantic([(corpus, 1.0)], tmp_path, TINY, one)
    start = masked(tmp_path / "encoder.jsonl")[-1]
    assert 3.0 < start < 6.0  # ln 38 is chance; a cosine over the temperature can be more wrong than that
    assert loss_of(SemanticTokenizer(TINY), trained[0], corpus) < start - 0.3


def test_a_run_from_weights_starts_near_the_old_loss(corpus, trained, tmp_path):
    recipe = dataclasses.replace(RECIPE, batch=8, steps=1, rate=1e-9)
    path = trained[0] / "encoder.safetensors"
    train_semantic([(corpus, 1.0)], tmp_path, TINY, recipe, weights_from=path)
    old = loss_of(SemanticTokenizer(TINY), trained[0], corpus)
    assert abs(masked(tmp_path / "encoder.jsonl")[0] - old) < 0.4
    (tmp_path / "alone").mkdir()
    alone = tmp_path / "alone" / "encoder.safetensors"
    alone.write_bytes(path.read_bytes())
    train_semantic([(corpus, 1.0)], tmp_path / "fresh", TINY, recipe, weights_from=alone)  # new targets and heads
    assert masked(tmp_path / "fresh" / "encoder.jsonl")[0] > old
    assert (tmp_path / "fresh" / HEADS).is_file()


def test_a_finished_run_is_not_run_again_and_a_longer_one_goes_on(corpus, tmp_path):
    short = dataclasses.replace(RECIPE, steps=2)
    train_semantic([(corpus, 1.0)], tmp_path, TINY, short)
    before = (tmp_path / "encoder.safetensors").read_bytes()
    again = train_semantic([(corpus, 1.0)], tmp_path, TINY, short)
    assert (tmp_path / "encoder.safetensors").read_bytes() == before
    x = torch.from_numpy(np.stack([corpus.clip(0)[:6400]]))
    fresh = train_semantic([(corpus, 1.0)], tmp_path / "other", TINY, short)
    with torch.no_grad():
        torch.testing.assert_close(again.embed(x), fresh.embed(x))
    train_semantic([(corpus, 1.0)], tmp_path, TINY, dataclasses.replace(RECIPE, steps=3))
    assert (tmp_path / "encoder.safetensors").read_bytes() != before


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
