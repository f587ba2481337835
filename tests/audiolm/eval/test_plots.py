"""Plots: small files, made of what was measured."""

import json

import numpy as np
import pytest
from heard import CHORDS, RATE, notes

from audiolm.errors import InputError
from audiolm.eval.clips import Prompt
from audiolm.eval.continuation import BARE, CODEC, MODEL, Continued
from audiolm.eval.plots import curves, drift_plot, mel_picture, plots, spectrograms
from audiolm.io import MARK, read_audio, read_metadata

pytest.importorskip("matplotlib")
MEASURES = ("semantic_entropy", "acoustic_entropy", "repeated", "loop", "silent", "level")


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size < 300_000


def test_a_picture_has_the_tone_at_its_band_and_few_columns():
    time = np.arange(8 * RATE) / RATE
    low, high = (mel_picture((0.1 * np.sin(2 * np.pi * f * time)).astype(np.float32)) for f in (200, 3000))
    assert low.shape[0] == 80
    assert 150 < low.shape[1] <= 300
    assert low.mean(1).argmax() < high.mean(1).argmax()
    assert low.max() < -10


def test_spectrograms_are_small_even_of_noise(tmp_path):
    noise = (np.random.default_rng(0).standard_normal(4 * RATE) * 0.1).astype(np.float32)
    each = Continued(Prompt(noise, noise, "x"), {MODEL: noise, CODEC: noise}, np.concatenate((noise, noise)))
    spectrograms([("noise", each)] * 4, tmp_path / "a.png")
    assert is_png(tmp_path / "a.png")


def test_equal_plots_are_equal_files(tmp_path):
    made, data = (dict.fromkeys(MEASURES, values) for values in ([1.0, 2.0], [0.5, 1.5, 1.0]))
    figures = {"x": {"made": made, "data": data}}
    for name in ("a.png", "b.png"):
        drift_plot(figures, tmp_path / name)
    assert is_png(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_curves_are_drawn_and_an_empty_log_is_told(tmp_path):
    log = tmp_path / "coarse.jsonl"
    log.write_text("".join(json.dumps({"step": i, "minutes": i / 10, "nll": 7 - i}) + "\n" for i in range(5)))
    curves([log], tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "empty.jsonl").write_text("no row\n")
    for bad in (tmp_path / "empty.jsonl", tmp_path / "no.jsonl"):
        with pytest.raises(InputError, match=r"holds no row of a training"):
            curves([log, bad], tmp_path / "b.png")


def test_the_section_names_the_files_it_made(model, music, tmp_path):
    section = plots(model, [music], tmp_path / "new", count=1, heard=0.4, seconds=0.4)
    assert section.plots == ["spectrograms.png"]
    assert is_png(tmp_path / "new" / "spectrograms.png")
    assert [(each["what"], each["generated"]) for each in section.sounds] == [
        ("recording", False),
        ("through the codec", False),
        (MODEL, True),
        (BARE, True),
    ]
    for each in section.sounds:
        path = tmp_path / "new" / each["file"]
        assert read_metadata(path).mark == (MARK if each["generated"] else "")
        assert len(read_audio(path)) == pytest.approx(0.8 * RATE, abs=RATE // 10)


def test_a_place_that_cannot_be_written_is_told(model, music, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="give another --out"):
        plots(model, [music], tmp_path / "file" / "out")
    sound = notes(CHORDS[0], 1)
    each = Continued(Prompt(sound, sound, "x"), {MODEL: sound, CODEC: sound}, np.concatenate((sound, sound)))
    with pytest.raises(InputError, match="cannot be written"):
        spectrograms([("x", each)], tmp_path / "nowhere" / "a.png")
