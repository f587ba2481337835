"""The ears: layer and clusters by sweep or as the preset says, and where phones come from."""

import json

import pytest

from audiolm.bundle import load_bundle, weights_of
from audiolm.errors import InputError
from audiolm.eval.phones import Phone, save_phones
from audiolm.tokenizer import SemanticTokenizer
from audiolm.train import ears
from audiolm.train.codec import trainable_codec
from audiolm.train.ears import find_phones, make_ears
from audiolm.train.loop import save_weights
from audiolm.train.presets import load


@pytest.fixture
def work(tmp_path):
    """A work folder with weights that were never trained."""
    preset = load("tiny")
    save_weights(tmp_path / "codec.safetensors", weights_of(trainable_codec(preset.codec.model)))
    save_weights(tmp_path / "encoder.safetensors", SemanticTokenizer(preset.semantic.model).encoder.state_dict())
    return tmp_path


def test_a_sweep_chooses_and_the_bundle_follows(work, corpus):
    preset = load("tiny", ["semantic.sweep={layers: [0, 2], clusters: [16, 8], ticks: 200}"])
    found = make_ears(preset, work, corpus, corpus)
    tried = {(row["layer"], row["clusters"]) for row in found["sweep"]}
    assert tried == {(0, 16), (2, 16), (found["layer"], 8)}
    parts = load_bundle(work / "ears")
    assert (parts.tokenizer.config.layer, parts.tokenizer.config.clusters) == (found["layer"], found["clusters"])
    assert parts.stages["semantic"].spec.cardinality == found["clusters"]
    kept = json.loads((work / "sweep.json").read_text())
    assert (kept["layer"], kept["clusters"], len(kept["rows"])) == (found["layer"], found["clusters"], 3)


def test_without_a_choice_there_is_no_sweep(work, corpus):
    (work / "sweep.png").touch()  # of an earlier try
    preset = load("tiny", ["semantic.sweep={layers: [], clusters: [], ticks: 200}"])
    assert make_ears(preset, work, corpus, corpus) == {"layer": 1, "clusters": 32, "sweep": []}
    assert load_bundle(work / "ears").tokenizer.config == preset.semantic.model
    assert not (work / "sweep.png").exists()


def test_weights_must_be_there(tmp_path, corpus):
    with pytest.raises(InputError, match=r"encoder\.safetensors is not there"):
        make_ears(load("tiny"), tmp_path, corpus, corpus)


def test_phones_come_from_a_file_or_from_the_manifests_texts(corpus, tmp_path, monkeypatch):
    phones = {corpus.names[0]: [Phone("AH", 0.1, 0.2)]}
    save_phones(tmp_path / "given.json", phones)
    assert find_phones(tmp_path / "given.json", tmp_path, corpus, tmp_path, align=False) == phones
    assert find_phones(None, tmp_path, corpus, tmp_path, align=False) is None
    asked = {}

    def align(sound, texts):
        asked.update(texts)
        return phones

    monkeypatch.setattr(ears, "align_corpus", align)
    (tmp_path / "manifest.csv").write_text(f"file,text\n{corpus.names[0]},hello there\nother.wav,nobody\n")
    assert find_phones(None, tmp_path, corpus, tmp_path, align=True) == phones
    assert asked == {corpus.names[0]: "hello there"}
    assert find_phones(tmp_path / "phones.json", tmp_path, corpus, tmp_path, align=False) == phones
    (tmp_path / "manifest.csv").write_text("file,text\nother.wav,nobody\n")
    with pytest.raises(InputError, match="has no texts of held-out clips"):
        find_phones(None, tmp_path, corpus, tmp_path, align=True)
