"""The section on semantic tokens, on a tiny model and on tokens whose answer is known."""

import numpy as np
import pytest
import torch

from audiolm.eval import semantic as module
from audiolm.eval.abx import triphones
from audiolm.eval.phones import Phone
from audiolm.eval.report import section_lines
from audiolm.eval.semantic import Heard, hear, note_information, phone_errors, semantic, speaker_information

CYCLE = ("B", "AA", "T", "B", "IY", "T")


def said(seconds=3.9):
    """Phones of 0.13 s, the same in every clip."""
    return [Phone(CYCLE[i % 6], 0.13 * i, 0.13 * (i + 1)) for i in range(int(seconds / 0.13))]


def piece(who, token, coarse):
    return Heard(who, torch.zeros(1, 640), torch.full((98,), token), torch.full((98, 4), coarse))


def test_speakers_are_found_where_they_are():
    pieces = [piece(f"s{i % 4}", token=3, coarse=i % 4) for i in range(40)]
    found = speaker_information(pieces, 8, 8)
    assert found["coarse"] == 1.0
    assert found["semantic"] == found["chance"] == 0.25
    assert found["speakers"] == 4
    assert speaker_information(pieces[::4], 8, 8) == {}


@torch.inference_mode()
def test_features_of_all_kinds_are_held_against_each_other(model, voices_held):
    phones = {name: said() for name in voices_held.corpus.names}
    items = triphones(phones, lambda name: name.split("/")[0])
    found = phone_errors(model.parts, voices_held.corpus, items)
    assert list(found) == ["MFCC", "codec latents", "codec tokens, 4 levels", "embeddings", "tokens"]
    assert all(0 < error < 1 for pair in found.values() for error in pair)


@torch.inference_mode()
def test_notes_are_looked_for_in_both_kinds_of_tokens(model, music):
    pieces = list(hear(model.parts, music.corpus))
    assert len(pieces) == 8
    assert pieces[0].semantic.shape == (98,)
    assert pieces[0].coarse.shape[0] == 98
    found = note_information(model.parts, pieces)
    assert set(found) == {"semantic", "codec, level 1"}
    assert all(value < 1 for values in found.values() for value in values.values())


def test_the_section_has_tables_goals_and_figures(model, music, voices_held, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "align_corpus", lambda corpus, texts: {name: said() for name in texts})
    monkeypatch.setattr(module, "LEAST_PIECES", 2)
    manifest = tmp_path / "manifest.csv"
    rows = [f"{name},words,A" for name in voices_held.corpus.names]
    manifest.write_text("\n".join(["file,text,tier", *rows]))
    lines = []
    section = semantic(model.parts, [voices_held, music], manifest=manifest, where={"tier": "A"}, progress=lines.append)
    assert [goal.what.split(": ")[1] for goal in section.goals] == [
        "speaker in semantic tokens",
        "ABX error of embeddings within speakers",
        "ABX error of embeddings within speakers, against codec latents",
        "ABX error of embeddings across speakers",
        "ABX error of embeddings across speakers, against codec latents",
    ]
    speech, piano = section.figures["speech_dev"], section.figures["music_dev"]
    assert set(speech["abx"]["MFCC"]) == {"within", "across"}
    assert np.isfinite(piano["notes"]["semantic"]["chroma"])
    assert "ABX error of" in "\n".join(section_lines(section.as_dict()))
    assert lines == ["speech_dev: tokens", "speech_dev: phones", "music_dev: tokens"]


def test_without_a_manifest_there_are_no_phones(model, voices_held):
    section = semantic(model.parts, [voices_held])
    assert "abx" not in section.figures["speech_dev"]
    assert section.figures["speech_dev"]["usage"]["entropy"] == pytest.approx(
        np.log(section.figures["speech_dev"]["usage"]["perplexity"])
    )
