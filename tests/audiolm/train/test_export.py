"""Every step of training at a tiny size, called as functions, and what export makes of the results."""

import json

import numpy as np
import pytest
import torch
from material import melody

from audiolm import AudioLM
from audiolm.codec import CodecConfig
from audiolm.errors import InputError
from audiolm.parts import PAPER_SAMPLING
from audiolm.tokenizer import TokenizerConfig
from audiolm.train.codec import CodecRecipe, train_codec
from audiolm.train.data import Corpus
from audiolm.train.export import (
    assemble,
    check_out,
    default_specs,
    ears_bundle,
    likelihoods,
    publish,
    reconstruction,
)
from audiolm.train.prepare import prepare
from audiolm.train.semantic import SemanticRecipe, embeddings, fit_clusters, train_semantic
from audiolm.train.stages import StageRecipe, train_stage
from audiolm.train.tokens import streams, tokenize

CODEC = CodecConfig(channels=2, residual_units=(1, 1, 1, 1), latent=16, levels=6, cardinality=32, coarse_levels=2)
EARS = TokenizerConfig(mels=20, layers=2, layer=1, width=32, heads=2, window=25, kernel=5, components=16, clusters=24)


@pytest.fixture(scope="module")
def made(sounds_folder, specs, tmp_path_factory):
    """Every step of the recipe: the model's parts, the tokens, and the folder."""
    out = tmp_path_factory.mktemp("recipe")
    corpus = [(prepare(sounds_folder, out / "corpus"), 1.0)]
    codec_recipe = CodecRecipe(minutes=1000, batch=2, seconds=0.32, warm_steps=5, rate=3e-3, steps=30)
    codec = train_codec(corpus, out, CODEC, codec_recipe)
    recipe = SemanticRecipe(minutes=1000, batch=2, seconds=1.6, target_width=16, components=20, fit_batches=2, steps=10)
    tokenizer = train_semantic(corpus, out, EARS, recipe)
    fit_clusters(tokenizer, embeddings(tokenizer, corpus, EARS.layer, 600), rounds=5)
    ears = ears_bundle(codec, tokenizer, out / "ears", specs)
    tokens = tokenize(ears.codec, ears.tokenizer, streams(corpus[0][0]), out / "tokens.safetensors")
    stage_recipe = StageRecipe(minutes=1000, batch=2, crop=1.6, steps=10)
    for spec in specs.values():
        train_stage(spec, tokens, tokens, out, stage_recipe, coarse_levels=CODEC.coarse_levels)
    weights = {name: out / f"{name}.safetensors" for name in specs}
    return assemble(ears, weights, "made", out / "bundle", card="made by a test\n"), tokens, out


def test_the_bundle_continues_a_prompt(made):
    model = AudioLM.load(made[2] / "bundle")
    assert model.parts.name == "made"
    assert dict(model.parts.sampling) == PAPER_SAMPLING
    sound = model.continuation(melody(1, 9), seconds=0.4, seed=1)
    assert sound.shape == (6400,)
    assert np.isfinite(sound).all()
    assert np.array_equal(sound, model.continuation(melody(1, 9), seconds=0.4, seed=1))
    assert not np.array_equal(sound, model.continuation(melody(1, 9), seconds=0.4, seed=2))


def test_each_step_left_its_weights_and_its_log(made):
    names = {path.name for path in made[2].iterdir()}
    parts = {"codec", "encoder", "semantic", "coarse", "fine"}
    assert {f"{part}.jsonl" for part in parts} | {f"{part}.safetensors" for part in parts} <= names
    for part in parts:
        rows = [json.loads(line) for line in (made[2] / f"{part}.jsonl").read_text().splitlines()]
        assert all(np.isfinite(list(row.values())).all() for row in rows)


def test_the_bundle_holds_the_trained_stages(made, specs):
    parts, _, out = made
    from safetensors.torch import load_file

    trained = load_file(out / "coarse.safetensors")
    for name, value in parts.stages["coarse"].state_dict().items():
        torch.testing.assert_close(value, trained[name], atol=0.02, rtol=0.02)  # fp16, or int8 where it is wide
    assert {name: stage.spec for name, stage in parts.stages.items()} == specs


def test_a_missing_stage_is_named(made, tmp_path):
    parts, _, out = made
    weights = {name: out / f"{name}.safetensors" for name in parts.stages} | {"fine": tmp_path / "no.safetensors"}
    with pytest.raises(InputError, match=r"no\.safetensors is not there"):
        assemble(parts, weights, "x", tmp_path / "bundle", card="")
    with pytest.raises(InputError, match="does not fit"):
        assemble(parts, weights | {"fine": out / "coarse.safetensors"}, "x", tmp_path / "bundle", card="")


def test_figures_of_the_card_are_in_range(made):
    parts, tokens, out = made
    rows = likelihoods(parts, tokens, tokens, dict.fromkeys(parts.stages, 1.6))
    assert set(rows) == {"semantic", "coarse", "fine"}
    assert set(rows["semantic"]) == {"nll", "unigram"}
    assert set(rows["coarse"]) == set(rows["fine"]) == {"nll", "unigram", "unconditioned"}
    assert all(0 < value < 6 for row in rows.values() for value in row.values())
    card = reconstruction(parts.codec, Corpus.open(out / "corpus"), levels=(2, 6))
    assert set(card["log_mel_distance"]) == {2, 6}
    assert len(card["perplexity"]) == CODEC.levels
    assert all(1 <= value <= 32 for value in card["perplexity"])


def test_the_sizes_that_ship_stay_as_they_are():
    specs = default_specs(1024)
    sizes = {n: (s.layers, s.width, s.heads, s.window, s.ahead, s.levels, s.pattern) for n, s in specs.items()}
    assert sizes == {
        "semantic": (4, 256, 4, 750, 0, 1, "depth"),
        "coarse": (4, 256, 4, 500, 2, 4, "depth"),
        "fine": (3, 256, 4, 150, 0, 8, "depth"),
    }
    depth = {n: (s.depth_layers, s.depth_width, s.depth_heads) for n, s in specs.items() if n != "semantic"}
    assert depth == {"coarse": (2, 192, 3), "fine": (2, 128, 2)}
    assert specs["semantic"].cardinality == specs["coarse"].cond_cardinality == 1024


def test_a_bundle_is_put_in_the_place_of_another_whole(tmp_path):
    draft, out = tmp_path / "draft", tmp_path / "new" / "out"
    draft.mkdir()
    for text in ("one", "two"):
        (draft / "config.json").write_text(text)
        publish(draft, out)
        assert (out / "config.json").read_text() == text
    assert sorted(path.name for path in out.parent.iterdir()) == ["out"]


def test_what_is_no_bundle_is_not_overwritten(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    for place in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(InputError, match="is there and is no bundle; give another --out"):
            check_out(place)
    check_out(tmp_path / "new")
    assert (tmp_path / "thesis.txt").read_text() == "precious"
