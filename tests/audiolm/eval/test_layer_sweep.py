"""The layer sweep on a tiny model and on items whose sounds are known or damaged, and the command on our own set."""

import json
import shutil
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from audiolm.cli import app
from audiolm.commands.abx import own_items
from audiolm.errors import InputError
from audiolm.eval import layers as module
from audiolm.eval import spoken_items
from audiolm.eval.abx import Item, triphones
from audiolm.eval.items import Spoken, read_items
from audiolm.eval.layers import abx_plot, abx_section, codes, features, layer, layers_of, rates, sweep
from audiolm.eval.phones import Phone
from audiolm.eval.report import section_lines
from audiolm.tiny import tiny_parts

CYCLE = ("B", "AA", "T", "B", "IY", "T")


def said(seconds=3.9):
    """Phones of 0.13 s, the same in every clip."""
    return [Phone(CYCLE[i % 6], 0.13 * i, 0.13 * (i + 1)) for i in range(int(seconds / 0.13))]


def spoken_of(held):
    at = {name: i for i, name in enumerate(held.corpus.names)}
    items = triphones({name: said() for name in at}, lambda name: name.split("/")[0])
    return Spoken("held", items, lambda name: held.corpus.clip(at[name]), "Items of the test.")


def test_features_have_the_rates_that_are_declared_and_cover_the_sound(model, voices_held):
    sound = voices_held.corpus.clip(0)[: 16000 + 77]
    found, declared = features(model.parts, sound), rates(model.parts)
    assert set(found) == set(declared)
    for name, rate in declared.items():
        assert len(found[name]) / rate >= len(sound) / 16000
        assert len(found[name]) / rate <= len(sound) / 16000 + 0.04
    assert np.issubdtype(found["tokens"].dtype, np.integer)
    assert np.issubdtype(found[codes(1)].dtype, np.integer)


@torch.inference_mode()
def test_tokens_and_the_chosen_layer_are_the_tokenizers_own(model, voices_held):
    sound = voices_held.corpus.clip(0)[:16000]
    found, tokenizer = features(model.parts, sound), model.parts.tokenizer
    audio = torch.zeros(1, 16000 + model.parts.lookahead * model.parts.tick)
    audio[0, :16000] = torch.from_numpy(sound)
    np.testing.assert_array_equal(found["tokens"], tokenizer(audio)[0].numpy())
    np.testing.assert_allclose(found[layer(tokenizer.config.layer)], tokenizer.embed(audio)[0].numpy(), atol=1e-6)


def test_layers_that_a_bundle_leaves_out_are_not_measured():
    parts = tiny_parts()
    blocks = parts.tokenizer.encoder.blocks
    assert layers_of(parts) == len(blocks)
    for value in blocks[-1].parameters():
        value.data.zero_()
    assert layers_of(parts) == len(blocks) - 1
    assert layer(len(blocks)) not in rates(parts)
    assert layer(len(blocks)) not in features(parts, np.zeros(6400, np.float32))


def fake_features(parts, sound):
    """Of a constant sound: what knows its number, and what knows nothing."""
    number, rng = round(float(sound[0]) * 10), np.random.default_rng(len(sound))
    found = {}
    for name, rate in rates(parts).items():
        frames = max(1, int(len(sound) / 16000 * rate))
        if name in ("tokens", codes(1)):
            found[name] = np.full(frames, number if name == "tokens" else 0)
        else:
            good = name.startswith("layer") or name == "cluster centres"
            found[name] = np.eye(4)[np.full(frames, number)] if good else rng.standard_normal((frames, 4))
    return found


def constant(times=6):
    """Items of two speakers and three phones, a sound each that is the phone's number."""
    items, sounds = [], {}
    for s in range(2):
        for p in range(3):
            for k in range(times):
                clip = f"{s}-{p}-{k}"
                length = 8000 + 160 * (s * 100 + p * 10 + k)
                sounds[clip] = np.full(length, (p + 1) / 10, np.float32)
                items.append(Item(clip, f"s{s}", ("B", "T"), f"P{p}", 0.0, 0.45))
    return Spoken("known", items, sounds.__getitem__, "Items of the test.")


def test_what_knows_the_phone_errs_never_and_what_knows_nothing_half_the_time(model, monkeypatch):
    monkeypatch.setattr(module, "features", fake_features)
    found = sweep(model.parts, constant(20))
    for name in ("tokens", "cluster centres", layer(0)):
        assert [score.error for score in found.errors[name]] == [0, 0]
    assert [score.error for score in found.errors[codes(1)]] == [0.5, 0.5]
    for score in found.errors["MFCC"]:
        assert abs(score.error - 0.5) < 0.15


def test_kinds_and_cells_can_be_fewer(model, voices_held):
    found = sweep(model.parts, spoken_of(voices_held), cells=3, kinds=["MFCC", "tokens"])
    assert list(found.errors) == ["MFCC", "tokens"]
    assert [score.cases for score in found.errors["MFCC"]] == [3, 3]


def test_damaged_sounds_are_left_out_and_named(model, monkeypatch):
    monkeypatch.setattr(module, "features", fake_features)
    spoken = constant()

    def sound(clip):
        if clip == "0-0-0":
            raise InputError("0-0-0 is no sound")
        return spoken.sound(clip)[: 0 if clip == "0-1-0" else None]

    found = sweep(model.parts, replace(spoken, sound=sound, faults=("2 of 9 rows",)))
    assert found.faults[0] == "2 of 9 rows"
    assert found.faults[1].startswith("2 of 36 sounds cannot be used (0-0-0 is no sound; 0-1-0 has 0.00 s")
    assert [score.error for score in found.errors["tokens"]] == [0, 0]

    def nothing(clip):
        raise InputError(f"{clip} is no sound")

    with pytest.raises(InputError, match=r"no ABX case within and none across speakers.*36 of 36 sounds"):
        sweep(model.parts, replace(spoken, sound=nothing))
    monkeypatch.setattr(module, "LONGEST", 0.1)
    with pytest.raises(InputError, match="sounds of up to 0 s are heard"):
        sweep(model.parts, spoken)


def test_one_speaker_has_nothing_across(model, voices_held):
    spoken = spoken_of(voices_held)
    alone = [item for item in spoken.items if item.speaker == spoken.items[0].speaker]
    with pytest.raises(InputError, match=r"no ABX case across speakers, of .* items of 1 speakers"):
        sweep(model.parts, replace(spoken, items=alone))


def test_the_section_has_a_table_goals_notes_and_a_plot(model, voices_held, tmp_path):
    found = sweep(model.parts, spoken_of(voices_held), cells=6)

    def plot(figures):
        abx_plot(figures, tmp_path / "abx.png")
        return "abx.png"

    section = abx_section(model.parts, [found], plot)
    text = "\n".join(section_lines(section.as_dict()))
    chosen = layer(model.parts.tokenizer.config.layer)
    assert f"| {chosen} (of the tokens) | 25 |" in text
    assert len(section.goals) == 4
    assert section.plots == ["abx.png"]
    assert (tmp_path / "abx.png").read_bytes().startswith(b"\x89PNG")
    assert section.figures["held"]["chosen"] == chosen
    assert "6 cases within and 6 across speakers" in section.notes[0]
    made = abx_section(model.parts, [replace(found, spoken=replace(found.spoken, made=True))], lambda _: None)
    assert [goal.below for goal in made.goals] == [50, 50]


def test_fastabx_counts_the_same(model, voices_held):
    pytest.importorskip("fastabx")
    found = sweep(model.parts, spoken_of(voices_held), kinds=["MFCC", "tokens"], fastabx=True)
    for name, pair in found.errors.items():
        assert [score.error for score in pair] == pytest.approx(list(found.fast[name].values()), abs=2e-3)


def test_without_fastabx_the_error_says_so(model, voices_held):
    if find_spec("fastabx"):
        pytest.skip("fastabx is installed")
    with pytest.raises(InputError, match="pip install fastabx"):
        sweep(model.parts, spoken_of(voices_held), kinds=["tokens"], cells=3, fastabx=True)


# -- the command --


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    from audiolm.bundle import save_bundle

    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    save_bundle(tiny_parts(), folder, card="tiny")
    return str(folder)


def run(*arguments):
    return CliRunner().invoke(app, ["eval", "abx", *map(str, arguments)])


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_without_data_the_command_makes_its_own_items_once(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("audiolm.eval.spoken_items.VOICES", ("en-us", "en-us+f2"))
    monkeypatch.setattr("audiolm.eval.spoken_items.texts", lambda turn: ["Say bat again. Say bet again."])
    out = tmp_path / "out"
    done = run(bundle, "--out", out, "--cells", "20", "--write-items", tmp_path / "mine.item")
    assert done.exit_code == 0, done.output + repr(done.exception)
    report = json.loads((out / "report.json").read_text())["sections"]["abx"]
    assert set(report["figures"]) == {"espeak"}
    assert report["settings"]["cells"] == 20
    assert (out / report["plots"][0]).exists()
    assert len(read_items(tmp_path / "mine.item")[0]) == report["figures"]["espeak"]["items"]
    made = (out / "spoken-items-1" / "done").stat().st_mtime_ns
    assert run(bundle, "--out", out, "--cells", "10").exit_code == 0
    assert (out / "spoken-items-1" / "done").stat().st_mtime_ns == made
    again = run(bundle, "--out", tmp_path / "two", "--data", out / "spoken-items-1", "--cells", "10")
    assert again.exit_code == 0, again.output


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_the_set_appears_when_it_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("audiolm.eval.spoken_items.VOICES", ("en-us",))
    monkeypatch.setattr("audiolm.eval.spoken_items.texts", lambda turn: ["Say bat again."])
    speak = spoken_items.speak_items

    def another_is_first(folder, **options):
        speak(tmp_path / "spoken-items-1-2", **options)
        return speak(folder, **options)

    monkeypatch.setattr(spoken_items, "speak_items", another_is_first)
    spoken = own_items(tmp_path, 2)
    assert spoken.made
    assert [path.name for path in tmp_path.iterdir()] == ["spoken-items-1-2"]
    monkeypatch.setattr(spoken_items, "speak_items", speak)
    (tmp_path / "spoken-items-1" / "left").mkdir(parents=True)
    with pytest.raises(InputError, match="not whole"):
        own_items(tmp_path)


def test_options_that_need_each_other_say_so(bundle, tmp_path):
    for arguments, words in (
        (["--manifest", "a.csv"], "--corpus"),
        (["--items", "a.item"], "--data"),
        (["--data", str(tmp_path)], "no item file"),
    ):
        done = run(bundle, "--out", tmp_path / "out", *arguments)
        assert isinstance(done.exception, InputError)
        assert words in str(done.exception)
