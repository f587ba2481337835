"""Presets: those that ship, files of one's own, and budgets of minutes."""

import pytest
import torch

from audiolm.errors import ConfigError
from audiolm.parts import STAGES, Parts
from audiolm.train.presets import load, shipped


def test_four_ship():
    assert sorted(shipped()) == ["default", "music", "paper", "tiny"]
    for name, path in shipped().items():
        preset = load(name)
        assert preset.name == name == path.stem
        assert preset.about
        assert path.read_text().startswith("# ")


def test_the_default_has_the_sizes_that_run_live():
    preset = load("default")
    specs = {name: preset.spec(name) for name in STAGES}
    sizes = {n: (s.layers, s.width, s.heads, s.window / s.rate, s.ahead, s.levels) for n, s in specs.items()}
    assert sizes == {"semantic": (4, 256, 4, 30, 0, 1), "coarse": (4, 256, 4, 10, 2, 4), "fine": (3, 256, 4, 3, 0, 8)}
    assert {name: preset.plan(name).recipe.crop for name in STAGES} == {"semantic": 60, "coarse": 20, "fine": 6}


def test_the_paper_has_the_papers_sizes():
    preset = load("paper")
    codec, ears = preset.codec.model, preset.semantic.model
    assert (codec.channels, codec.strides, codec.levels, codec.cardinality) == (32, (2, 4, 5, 8), 12, 1024)
    assert (codec.coarse_levels, codec.frame_rate) == (4, 50)
    assert (ears.layers, ears.layer, ears.width, ears.clusters) == (24, 7, 1024, 1024)
    for name, window in (("semantic", 30), ("coarse", 10), ("fine", 3)):
        spec = preset.spec(name)
        assert (spec.layers, spec.heads, spec.width, spec.feed_forward * spec.width) == (12, 16, 1024, 4096)
        assert (spec.window / spec.rate, spec.pattern) == (window, "flat")
    assert preset.export.sampling.coarse.temperature == 0.8


def test_the_stages_of_a_preset_fit_its_ears():
    from audiolm.codec import SoundStream
    from audiolm.stage import Stage
    from audiolm.tokenizer import SemanticTokenizer

    preset = load("tiny")
    stages = {name: Stage(preset.spec(name)) for name in STAGES}
    Parts(SoundStream(preset.codec.model), SemanticTokenizer(preset.semantic.model), stages)
    assert preset.spec("coarse", 77).cond_cardinality == preset.spec("semantic", 77).cardinality == 77


def test_a_file_of_ones_own_changes_what_it_names(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: tiny\ncodec: {recipe: {rate: 1e-4}}\n")
    mine, tiny = load(path, ["stages.fine.recipe.batch=7"]), load("tiny")
    assert (mine.name, mine.codec.recipe.rate, mine.stages.fine.recipe.batch) == ("mine", 1e-4, 7)
    assert mine.codec.model == tiny.codec.model
    assert mine.codec.recipe.steps == tiny.codec.recipe.steps
    path.write_text("base: giant\n")
    with pytest.raises(ConfigError, match="base is 'giant'; expected one of default, music, paper, tiny"):
        load(path)


@pytest.mark.parametrize(
    ("name", "sets", "message"),
    [
        (
            "tinny",
            [],
            r"there is no preset 'tinny'; shipped ones: default, music, paper, tiny; .*did you mean 'tiny'\?",
        ),
        ("tiny", ["codec.recipe.bach=3"], r"preset 'tiny': unknown key codec\.recipe\.bach; known: .*mean batch\?"),
        ("tiny", ["codec.model.levels=1"], r"preset 'tiny': codec\.model: codec: levels is 1"),
        ("tiny", ["stages.coarse.model.width=33"], r"stage 'coarse': width 33 does not split"),
        ("tiny", ["stages.fine.model.ahead=2"], r"stages\.fine\.model\.ahead must be 0"),
        ("tiny", ["export.dtypes.codec=int4"], r"export\.dtypes\.codec is 'int4' \(text\); expected one of fp16, int8"),
        ("tiny", ["export.sampling.fine.temperature=-1"], r"export\.sampling\.fine: temperature must be"),
        ("tiny", ["prepare.dev_share=0.9"], r"dev_share is 0\.9"),
    ],
)
def test_what_is_wrong_is_told(name, sets, message):
    with pytest.raises(ConfigError, match=message):
        load(name, sets)


def test_minutes_are_divided_as_in_the_preset():
    preset = load("default")
    less = preset.within(45)
    assert sum(less.minutes.values()) == pytest.approx(45)
    shares = {name: minutes / sum(preset.minutes.values()) for name, minutes in preset.minutes.items()}
    assert less.minutes == pytest.approx({name: 45 * share for name, share in shares.items()})
    assert less.codec.model == preset.codec.model
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="minutes must be a positive number"):
            preset.within(wrong)


def test_the_papers_models_are_large():
    """12 blocks of width 1024 are 151 M weights a stage; w2v-BERT XL has about 0.6 B."""
    from audiolm.stage import Stage
    from audiolm.tokenizer import SemanticTokenizer

    preset = load("paper")
    with torch.device("meta"):  # sizes without memory
        stages = {name: Stage(preset.spec(name)) for name in STAGES}
        encoder = SemanticTokenizer(preset.semantic.model).encoder
    counts = {name: sum(weight.numel() for weight in stage.parameters()) for name, stage in stages.items()}
    assert all(150e6 < count < 180e6 for count in counts.values())
    assert 550e6 < sum(weight.numel() for weight in encoder.parameters()) < 620e6
