"""Engines beside the reference: a copy agrees fully, noise is seen, and the command writes its section."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from audiolm.cli import app
from audiolm.compute.eager import TorchCompute
from audiolm.eval.engines import Crop, compare_ears, compare_stage, crops_of, engines, nats
from audiolm.eval.likelihood import held_tokens, stage_rows
from audiolm.stage import StageSpec
from audiolm.tiny import tiny_parts

SPEC = StageSpec("semantic", 0, 25, 1, 4)


def rows(n=50, seed=0):
    rng = np.random.default_rng(seed)
    crop = Crop(rng.integers(0, 4, (n, 1)), None, 0)
    return crop, rng.standard_normal((n, 1, 4)).astype(np.float32)


def test_equal_logits_are_equal():
    crop, logits = rows()
    found = compare_stage(SPEC, [crop], [logits], [logits])
    assert found["logits"] == 0
    assert found["argmax"] == 100
    assert found["nats"] == found["reference"]


def test_logits_that_differ_are_seen():
    crop, logits = rows()
    found = compare_stage(SPEC, [crop], [logits], [-logits])
    assert found["logits"] > 1
    assert found["argmax"] < 50


def test_nats_of_a_uniform_model_are_the_logarithm_of_its_choices():
    crop, logits = rows()
    assert nats(SPEC, crop, np.zeros_like(logits)) == pytest.approx(np.log(4))


def test_nats_of_the_reference_are_those_of_the_likelihood(model, music):
    """The same crops, teacher-forced by another way, have the likelihood that the report has."""
    held = held_tokens(model.parts, music.corpus, 1)
    for name in ("semantic", "coarse", "fine"):
        crop = crops_of(model.parts, name, held, 1)[0]
        logits = TorchCompute(model.parts).teach(name, crop.tokens, crop.cond)
        known = stage_rows(model.parts, name, held, None, crops=1)["nll"].mean()
        assert nats(model.parts.stages[name].spec, crop, logits) == pytest.approx(float(known), rel=1e-4)


def test_the_reference_beside_itself_hears_the_same(model, music):
    sound = music.corpus.clip(0)[: 640 * 10]
    found = compare_ears(model.parts, TorchCompute(model.parts), [sound])
    assert found == {"codes": 100.0, "tokens": 100.0, "mel": 0.0}


@pytest.mark.parametrize("pattern", ["depth", "delay"])
def test_the_section_holds_every_engine_and_goal(pattern, music):
    parts = tiny_parts(pattern=pattern)
    held = held_tokens(parts, music.corpus, 1)
    sounds = [music.corpus.clip(0)[: 640 * 10]]
    section = engines(parts, {"music": (held, sounds)}, ["torch", "torch-int8"], crops=1)
    assert set(section.figures["music"]) == {"torch", "torch-int8"}
    assert section.figures["music"]["torch"]["fine"]["more"].mean == 0
    assert len(section.goals) == 2 * 4
    assert all(goal.met for goal in section.goals if "torch:" in goal.what or "torch," in goal.what)


def test_the_command_writes_its_section(music_folder, tmp_path, tiny_bundle):
    command = ["eval", "engines", str(tiny_bundle), "--data", str(music_folder), "--names", "onnx", "--crops", "1"]
    done = CliRunner().invoke(app, [*command, "--sounds", "1", "--token-minutes", "0.2", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    figures = json.loads((tmp_path / "report.json").read_text())["sections"]["engines"]["figures"]
    assert figures["music_dev"]["onnx"]["coarse"]["logits"] < 1e-4


def test_export_writes_graphs_that_can_be_loaded(tmp_path, tiny_bundle):
    import onnxruntime

    done = CliRunner().invoke(app, ["export", str(tiny_bundle), "--precision", "int8", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    names = sorted(path.stem for path in tmp_path.iterdir())
    assert {"encoder-fp32", "tokenizer-fp32", "semantic-temporal-int8", "fine-row4-int8"} <= set(names)
    for path in tmp_path.iterdir():
        assert onnxruntime.InferenceSession(str(path)).get_outputs()


def test_export_refuses_another_precision(tiny_bundle):
    done = CliRunner().invoke(app, ["export", str(tiny_bundle), "--precision", "int4"])
    assert done.exit_code
    assert "expected one of fp32, int8" in str(done.exception)
