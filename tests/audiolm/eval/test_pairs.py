"""Pairs of ZeroSpeech 2021: the layout is read, known scorers get known figures, what is damaged is told."""

import csv
import itertools
import json

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from audiolm.bundle import save_bundle
from audiolm.cli import app
from audiolm.errors import InputError
from audiolm.eval.listened import listened
from audiolm.eval.pairs import (
    SBLIMP,
    SWUGGY,
    WAYS,
    Pair,
    Score,
    band,
    load,
    outcomes,
    pairs_section,
    score_files,
    submission,
)
from audiolm.tiny import tiny_parts

LEXICAL = ("id", "filename", "voice", "frequency", "word", "phones", "length", "correct")
SYNTACTIC = ("id", "filename", "voice", "type", "subtype", "transcription", "correct")
COUNTS = ("0", "3", "5", "50", "2000")
TYPES = ("agreement", "order")


def table(path, columns, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def words(root, pairs=10, voices=("A", "B")):
    """`lexical/dev/gold.csv` as the real one is: wrong words have no frequency, names have no suffix."""
    rows = []
    for i, voice in itertools.product(range(pairs), voices):
        shared = {"id": i, "voice": voice, "phones": "K AE T", "length": 3 + i % 2}
        rows.append({**shared, "filename": f"r{i}{voice}", "frequency": COUNTS[i % 5], "word": "cat", "correct": 1})
        rows.append({**shared, "filename": f"w{i}{voice}", "frequency": "", "word": "dat", "correct": 0})
    table(root / "lexical/dev/gold.csv", LEXICAL, rows)
    return rows


def sentences(root, pairs=10):
    """`syntactic/dev/gold.csv`; ids begin again in each subtype."""
    rows = []
    for kind, i in itertools.product(TYPES, range(pairs)):
        shared = {"id": i, "voice": "A", "type": kind, "subtype": f"{kind}_{i % 2}", "transcription": "x"}
        rows.append({**shared, "filename": f"r{kind}{i}", "correct": 1})
        rows.append({**shared, "filename": f"w{kind}{i}", "correct": 0})
    table(root / "syntactic/dev/gold.csv", SYNTACTIC, rows)
    return rows


def sounds(root, rows, folder="lexical", length=640 * 6):
    rng = np.random.default_rng(0)
    for row in rows:
        noise = 0.1 * rng.standard_normal(length + 640 * int(rng.integers(4)))
        soundfile.write(root / folder / "dev" / f"{row['filename']}.wav", noise, 16_000)


def scored(gold, value):
    return {name: Score(4 * value(name), 4) for name in gold.files}


def right(name):
    return -1.0 if name.startswith("r") else -2.0


def figures(gold, value):
    return pairs_section(gold, {"m": scored(gold, value)}, {}).figures


def test_words_are_read_with_their_bands_and_voices(tmp_path):
    words(tmp_path)
    gold = load(tmp_path, SWUGGY)
    assert len(gold.pairs) == 10
    assert gold.pairs[0].trials == (("r0A", "w0A"), ("r0B", "w0B"))
    assert [pair.group for pair in gold.pairs[:5]] == ["oov", "1-5", "6-20", "21-100", ">100"]
    assert len(gold.files) == 40
    assert gold.faults == ()


def test_sentences_are_read_by_phenomenon_though_ids_begin_again(tmp_path):
    sentences(tmp_path)
    gold = load(tmp_path, SBLIMP)
    assert len(gold.pairs) == 20
    assert {pair.group for pair in gold.pairs} == set(TYPES)
    assert all(len(pair.trials) == 1 for pair in gold.pairs)


@pytest.mark.parametrize(
    ("count", "name"), [("0", "oov"), ("1", "1-5"), ("4", "1-5"), ("5", "6-20"), ("19", "6-20"), ("100", ">100")]
)
def test_bands_are_cut_as_the_tool_cuts_them(count, name):
    assert band(count) == name


@pytest.mark.parametrize("count", ["", None, "often", "-1"])
def test_a_word_that_was_not_counted_has_a_band_of_its_own(count):
    assert band(count) == "not counted"


def test_a_perfect_scorer_has_all_right_and_a_perverse_one_none(tmp_path):
    words(tmp_path)
    gold = load(tmp_path, SWUGGY)
    assert figures(gold, right)["in vocabulary"]["mean"].mean == 100
    assert figures(gold, lambda name: -right(name))["all"]["sum"].mean == 0


def test_ties_count_half(tmp_path):
    words(tmp_path)
    found = figures(load(tmp_path, SWUGGY), lambda _: -1.0)
    assert found["all"]["mean"].mean == found["all"]["sum"].mean == found["all"]["shorter"].mean == 50


def test_a_random_scorer_is_at_chance(tmp_path):
    sentences(tmp_path, 500)
    rng = np.random.default_rng(0)
    found = figures(load(tmp_path, SBLIMP), lambda _: rng.random())["all"]["mean"]
    assert abs(found.mean - 50) < 5
    assert found.high - found.low < 8


def test_each_frequency_band_has_its_own_figure(tmp_path):
    words(tmp_path)
    gold = load(tmp_path, SWUGGY)
    known = {file for pair in gold.pairs if pair.group == ">100" for trial in pair.trials for file in trial}
    found = figures(gold, lambda name: right(name) if name in known else -1.0)
    by_band = {name: each.mean for name, each in found["by frequency"].items()}
    assert by_band == {"oov": 50, "1-5": 50, "6-20": 50, "21-100": 50, ">100": 100}
    assert found["in vocabulary"]["mean"].mean == 62.5  # the four bands without oov
    assert found["in vocabulary"]["mean"].n == 8
    assert found["all"]["mean"].mean == 60
    assert set(found["by length"]) == {"3", "4"}


def test_each_phenomenon_has_its_own_figure(tmp_path):
    sentences(tmp_path)
    found = figures(load(tmp_path, SBLIMP), lambda name: right(name) * (1 if "order" in name else -1))
    assert {name: each.mean for name, each in found["by phenomenon"].items()} == {"agreement": 0, "order": 100}
    assert found["by subtype"]["order: order_1"].n == 5
    assert found["all"]["mean"].mean == 50


def test_voices_are_averaged_before_pairs():
    one = Pair("", "", (("a", "b"), ("c", "d")))
    other = Pair("", "", (("a", "b"),))
    scores = {name: Score(value, 1) for name, value in zip("abcd", (-1.0, -2.0, -2.0, -1.0), strict=True)}
    assert outcomes([one, other], scores).tolist() == [0.5, 1.0]


def test_the_mean_forgives_length_and_the_sum_does_not():
    pair = Pair("", "", (("long", "short"),))
    scores = {"long": Score(-20.0, 20), "short": Score(-15.0, 10)}
    assert {way: float(outcomes([pair], scores, way)[0]) for way in WAYS} == {"mean": 1.0, "sum": 0.0, "shorter": 0.0}


def test_models_of_other_clusters_stand_beside_the_first(tmp_path):
    words(tmp_path)
    gold = load(tmp_path, SWUGGY)
    scores = {"first": scored(gold, lambda _: -1.0), "better": scored(gold, right)}
    section = pairs_section(gold, scores, {}, clusters={"first": 512, "better": 64})
    found = section.figures["by clusters"]
    assert list(found) == ["better", "first"]  # by k
    assert found["better"]["gain"].mean == 50
    assert found["first"]["gain"] is None


def test_a_few_pairs_are_drawn_alike_each_time(tmp_path):
    words(tmp_path)
    gold = load(tmp_path, SWUGGY)
    assert len(gold.some(4, 0).pairs) == 4
    assert gold.some(4, 0) == gold.some(4, 0) != gold.some(4, 1)
    assert gold.some(None, 0) is gold.some(100, 0) is gold


def test_rows_that_say_too_little_are_told(tmp_path):
    rows = words(tmp_path)
    rows[0]["correct"] = "yes"
    rows[5]["filename"] = ""
    rows += [{**rows[2], "id": 77}]
    table(tmp_path / "lexical/dev/gold.csv", LEXICAL, rows)
    gold = load(tmp_path, SWUGGY)
    assert len(gold.pairs) == 10  # each still has one voice
    assert any("2 rows without" in fault for fault in gold.faults)
    assert any("1 of 11 ids" in fault for fault in gold.faults)
    assert any("2 rows" in note for note in pairs_section(gold, {"m": scored(gold, right)}, {}).notes)


def test_short_rows_and_foreign_columns_do_no_harm(tmp_path):
    path = tmp_path / "syntactic/dev/gold.csv"
    path.parent.mkdir(parents=True)
    rows = "1,b,1\n1,a,0\n2,c,1,A,agreement,x,more,and more\n2,d,0,A,agreement,x\n\n3\n"
    path.write_text("id,filename,correct,voice,type,subtype\n" + rows, encoding="utf8")
    gold = load(tmp_path, SBLIMP)
    assert [pair.group for pair in gold.pairs] == ["not said", "agreement"]
    assert figures(gold, lambda name: -ord(name))["all"]["mean"].mean == 50


@pytest.mark.parametrize("task", [SWUGGY, SBLIMP])
def test_a_folder_without_a_table_says_what_is_missing(tmp_path, task):
    with pytest.raises(InputError, match=f"{task.folder}/dev/gold.csv"):
        load(tmp_path, task)


def test_a_table_without_a_column_says_which(tmp_path):
    table(tmp_path / "lexical/dev/gold.csv", LEXICAL[:-1], [])
    with pytest.raises(InputError, match="lacks the columns correct"):
        load(tmp_path, SWUGGY)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x01" * 9, b"id,filename"])
def test_a_file_that_is_no_table_is_refused(tmp_path, content):
    path = tmp_path / "syntactic/dev/gold.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"gold\.csv"):
        load(tmp_path, SBLIMP)


def test_a_table_without_pairs_is_refused(tmp_path):
    table(tmp_path / "lexical/dev/gold.csv", LEXICAL, [row for row in words(tmp_path) if row["correct"]])
    with pytest.raises(InputError, match="holds no pair"):
        load(tmp_path, SWUGGY)


def test_a_split_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected one of dev, test"):
        load(tmp_path, SWUGGY, "train")


def test_missing_and_damaged_sounds_are_told_and_the_rest_is_scored(tmp_path, model):
    sounds(tmp_path, words(tmp_path, 4, ("A",)))
    (tmp_path / "lexical/dev/r0A.wav").unlink()
    (tmp_path / "lexical/dev/w1A.wav").write_bytes(b"RIFF....")
    gold = load(tmp_path, SWUGGY)
    scores, faults = score_files(gold, {"m": lambda heard: listened(model.parts, heard)}, batch=3)
    assert set(faults) == {"r0A", "w1A"}
    section = pairs_section(gold, scores, faults)
    assert section.figures["pairs"] == 2
    assert any("2 sounds could not be read and 2 pairs were lost" in note for note in section.notes)


def test_no_sound_at_all_is_an_error(tmp_path, model):
    words(tmp_path, 2)
    gold = load(tmp_path, SWUGGY)
    scores, faults = score_files(gold, {"m": lambda heard: listened(model.parts, heard)})
    with pytest.raises(InputError, match="none of the 2 pairs"):
        pairs_section(gold, scores, faults)


def test_scores_are_written_as_the_tool_takes_them():
    assert submission({"aAbB": Score(-6.0, 2), "x/y.wav": Score(-1.0, 1)}) == "aAbB -3.000000\ny -1.000000\n"


def test_the_commands_write_their_sections(tmp_path, tiny_bundle):
    data, out = tmp_path / "zr2021", tmp_path / "out"
    sounds(data, words(data, 6))
    sounds(data, sentences(data, 3), "syntactic")
    other = save_bundle(tiny_parts(seed=1), tmp_path / "other", card="random weights, for tests")
    for name in ("swuggy", "sblimp"):
        command = ["eval", name, tiny_bundle, "--data", str(data), "--out", str(out), "--beside", str(other)]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
    sections = json.loads((out / "report.json").read_text())["sections"]
    assert list(sections) == ["swuggy", "sblimp"]
    assert sections["swuggy"]["figures"]["pairs"] == 6
    assert len(sections["sblimp"]["figures"]["by clusters"]) == 2
    assert "--data zr2021" in sections["swuggy"]["command"]
    assert len((out / "lexical/dev.txt").read_text().splitlines()) == 24
    assert len((out / "syntactic/dev.txt").read_text().splitlines()) == 12


def test_a_command_takes_so_many_pairs(tmp_path, tiny_bundle):
    sounds(tmp_path, words(tmp_path, 6))
    command = ["eval", "swuggy", tiny_bundle, "--data", str(tmp_path), "--pairs", "2", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "2 pairs, 8 sounds" in done.output
