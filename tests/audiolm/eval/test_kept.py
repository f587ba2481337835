"""Table 1 on a tiny model: what each kind of tokens keeps, on pieces whose answer is known."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from audiolm.bundle import save_bundle
from audiolm.cli import app
from audiolm.errors import InputError
from audiolm.eval.abx import Item, triphones
from audiolm.eval.items import Spoken
from audiolm.eval.kept import (
    NOTHING,
    SEMANTIC,
    acoustic,
    as_held,
    kept,
    kept_of,
    kinds,
    rebuilt,
    sound_of,
    token_latents,
)
from audiolm.eval.phones import Phone
from audiolm.eval.report import section_lines
from audiolm.eval.semantic import Heard, hear
from audiolm.tiny import tiny_parts

CYCLE = ("B", "AA", "T", "B", "IY", "T")


def spoken_of(held, name="held"):
    at = {clip: i for i, clip in enumerate(held.corpus.names)}
    said = [Phone(CYCLE[i % 6], 0.13 * i, 0.13 * (i + 1)) for i in range(30)]
    items = triphones(dict.fromkeys(at, said), lambda clip: clip.split("/")[0])
    return Spoken(name, items, lambda clip: held.corpus.clip(at[clip]), "Items of the test.")


def test_speech_is_measured_by_phones_speaker_and_sound(model, voices_held):
    pytest.importorskip("pesq")
    section = kept(model.parts, [voices_held], [spoken_of(voices_held)], clips=2, cells=4)
    coarse, every = (acoustic(n) for n in list(kinds(model.parts).values())[1:])
    figures = section.figures[voices_held.name]
    assert set(figures["phones"]) == {SEMANTIC, coarse, every}
    assert set(figures["sound"]) == {SEMANTIC, coarse, every, NOTHING}
    assert set(figures["sound"][SEMANTIC]) == {"pesq_wb", "log_mel"}
    text = "\n".join(section_lines(section.as_dict()))
    assert "| tokens | bit/s | phones: ABX error within, % | phones: ABX error across, % | PESQ-WB" in text
    assert "phones of held. Items of the test." in text
    assert any("log-mel" in goal.what for goal in section.goals)


def test_music_is_measured_by_notes_and_sound(model, music):
    section = kept(model.parts, [music], clips=2)
    figures = section.figures[music.name]
    assert set(figures["notes"][SEMANTIC]) == {"chroma", "onsets"}
    assert set(figures["sound"][SEMANTIC]) == {"log_mel"}
    assert "phones" not in figures
    assert "| chroma (R2) | onsets (R2) | log-mel distance |" in "\n".join(section_lines(section.as_dict()))


@torch.inference_mode()
def test_a_token_that_stands_for_one_frame_gives_that_frame_back():
    parts = tiny_parts()
    levels, clusters = parts.codec.config.levels, parts.tokenizer.config.clusters
    books = torch.randint(parts.codec.config.cardinality, (clusters, 2 * levels), generator=torch.manual_seed(0))
    tokens = torch.arange(400) % clusters
    piece = Heard("one", torch.zeros(1, 400 * parts.tick), tokens, books[tokens])
    table = token_latents(parts, [piece] * 50)
    true = parts.codec.rvq.decode(books.reshape(clusters, 2, levels)).flatten(1)
    assert float((table - true).norm() / true.norm()) < 0.2
    rare = token_latents(parts, [replace(piece, semantic=0 * tokens)])
    torch.testing.assert_close(rare[1], rare[2])  # never seen: the mean of all


@torch.inference_mode()
def test_latents_become_the_sound_that_the_decoder_makes_of_their_codes():
    parts = tiny_parts()
    codes = torch.randint(parts.codec.config.cardinality, (1, 20, parts.codec.config.levels))
    latents = parts.codec.rvq.decode(codes).reshape(10, -1)
    made = sound_of(parts, latents)
    np.testing.assert_allclose(made[: 10 * parts.tick], parts.codec.decoder(codes)[0].numpy(), atol=1e-5)
    assert len(made) > 10 * parts.tick


def test_all_pieces_are_asked_once_at_most(model, music):
    pieces = list(hear(model.parts, music.corpus, levels=None))
    found = rebuilt(model.parts, pieces, ["log_mel"], 100)
    assert {each["log_mel"].n for each in found.values()} == {len(pieces) // 2}


def test_items_are_a_corpus_too_without_what_cannot_be_read():
    sounds = {"a": np.full(100, 0.5, np.float32), "b": np.full(50, -0.25, np.float32)}

    def sound(clip):
        if clip not in sounds:
            raise InputError(f"{clip} is no sound")
        return sounds[clip]

    items = [Item(clip, f"of {clip}", ("B", "T"), "AA", 0, 0.1) for clip in "abc"]
    held = as_held(Spoken("set", items, sound, ""))
    assert (held.name, held.kind, held.corpus.names) == ("set", "speech", ["a", "b"])
    np.testing.assert_allclose(held.corpus.clip(1), sounds["b"], atol=1e-4)
    assert held.corpus.folder(0) == "of a"
    with pytest.raises(InputError, match="none of the 1 sounds"):
        as_held(Spoken("set", items[2:], sound, ""))


def test_too_little_or_nothing_is_an_error(model, voices_held):
    with pytest.raises(InputError, match="no sound"):
        kept(model.parts, [])
    corpus = voices_held.corpus
    short = replace(voices_held, corpus=replace(corpus, index=corpus.index[:1], names=corpus.names[:1]))
    with pytest.raises(InputError, match="pieces of 4 s"):
        kept_of(model.parts, short)


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_the_command_needs_no_data(tmp_path, monkeypatch):
    pytest.importorskip("pesq")
    monkeypatch.setattr("audiolm.eval.spoken_items.VOICES", ("en-us", "en-us+f2"))
    monkeypatch.setattr(
        "audiolm.eval.spoken_items.texts", lambda turn: ["Say bat again. Say bet again. Say bit again."]
    )
    save_bundle(tiny_parts(), tmp_path / "tiny", card="tiny")
    options = ["--out", str(tmp_path / "out"), "--clips", "2", "--cells", "4"]
    monkeypatch.setattr("audiolm.eval.semantic.PIECE", 16000)
    done = CliRunner().invoke(app, ["eval", "kept", str(tmp_path / "tiny"), *options])
    assert done.exit_code == 0, done.output + repr(done.exception)
    section = json.loads((tmp_path / "out" / "report.json").read_text())["sections"]["kept"]
    assert set(section["figures"]) == {"espeak"}
    assert section["figures"]["espeak"]["phones"][SEMANTIC]["across"]["mean"] >= 0
