"""Tokenizing in parts: the same tokens as at once, and what is there is not made again."""

import pytest
import torch
from material import melody

from audiolm.errors import InputError
from audiolm.train import tokenizing
from audiolm.train.data import write_corpus
from audiolm.train.tokenizing import tokenize_corpus
from audiolm.train.tokens import Tokens, streams, tokenize


@pytest.fixture
def pieces(tmp_path):
    """A corpus of five loose clips, one of them too short for a token file."""
    clips = [(f"{i}", melody(2 + i % 2, i)) for i in range(4)] + [("short", melody(1, 9)[:9000])]
    return write_corpus(tmp_path / "corpus", clips)


def counted(monkeypatch, fail_at=None):
    """Count the parts that are made; the one that is to fail raises."""
    made = []

    def count(codec, tokenizer, sounds, out):
        made.append(out.name)
        if len(made) == fail_at:
            raise KeyboardInterrupt
        return tokenize(codec, tokenizer, sounds, out)

    monkeypatch.setattr(tokenizing, "tokenize", count)
    return made


def same(one, other):
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("acoustic", "semantic", "index"))


def test_parts_are_joined_to_what_it_is_at_once(tiny_model, pieces, tmp_path, monkeypatch):
    at_once = tokenize(tiny_model.codec, tiny_model.tokenizer, streams(pieces), tmp_path / "once.safetensors")
    made = counted(monkeypatch)
    tokens = tokenize_corpus(tiny_model, pieces, tmp_path / "t.safetensors", part_minutes=4 / 60)
    assert len(made) == 2
    assert same(tokens, at_once)
    assert same(Tokens.open(tmp_path / "t.safetensors"), at_once)
    assert not (tmp_path / "t.parts").exists()


def test_interrupted_it_goes_on(tiny_model, pieces, tmp_path, monkeypatch):
    out = tmp_path / "t.safetensors"
    counted(monkeypatch, fail_at=2)
    with pytest.raises(KeyboardInterrupt):
        tokenize_corpus(tiny_model, pieces, out, part_minutes=4 / 60)
    assert not out.exists()
    made = counted(monkeypatch)
    tokens = tokenize_corpus(tiny_model, pieces, out, part_minutes=4 / 60)
    assert made == ["0001.safetensors"]
    assert len(tokens.index) == 4
    made = counted(monkeypatch)
    tokenize_corpus(tiny_model, pieces, out, fresh=True, part_minutes=4 / 60)
    assert made == ["0000.safetensors", "0001.safetensors"]


def test_nothing_but_short_clips_is_refused(tiny_model, tmp_path):
    corpus = write_corpus(tmp_path / "corpus", [("short", melody(1, 9)[:9000])])
    with pytest.raises(InputError, match="every clip is shorter than a second"):
        tokenize_corpus(tiny_model, corpus, tmp_path / "t.safetensors")
