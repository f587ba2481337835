"""Drift: loops, silence and entropy of streams that were made to have them."""

import numpy as np
import pytest

from audiolm.errors import InputError
from audiolm.eval.drift import (
    Minute,
    data_minutes,
    drift,
    drift_section,
    entropy,
    free_minutes,
    goals,
    look,
    loop_share,
    repeated_share,
    told_minutes,
)

RNG = np.random.default_rng(0)
RANDOM = RNG.integers(0, 500, 1500)


def test_entropy_is_known_for_even_tokens():
    assert entropy(np.arange(100) % 10) == pytest.approx(np.log(10))
    assert entropy(np.zeros(100)) == 0


def test_repeated_grams():
    assert repeated_share(RANDOM) == 0
    assert repeated_share(np.tile(RANDOM[:100], 10)) == pytest.approx(0.9, abs=0.01)
    assert repeated_share(np.zeros(1000)) > 0.99
    assert repeated_share(RANDOM[:5]) == 0


@pytest.mark.parametrize("period", [6, 50, 200])
def test_a_loop_is_found_at_any_period(period):
    assert loop_share(np.resize(RANDOM[:period], 1500)) == 1
    noisy = np.resize(RANDOM[:period], 1500)
    noisy = np.where(RNG.random(1500) < 0.1, RNG.integers(0, 500, 1500), noisy)
    assert 0.5 < loop_share(noisy) < 0.9


def test_held_notes_are_no_loop_but_a_stuck_token_is():
    assert loop_share(RANDOM) < 0.05
    assert loop_share(np.repeat(RANDOM[:300], 5)) < 0.1
    assert loop_share(np.zeros(1500)) == 1
    assert loop_share(np.repeat([3, 4], 750)) == 1


def test_a_minute_of_silence_is_one():
    found = look(np.zeros(640 * 50, np.float32), np.zeros(50), np.zeros(100))
    assert (found.silent, found.loop, found.semantic_entropy) == (1, 1, 0)
    loud = look(np.full(640 * 50, 0.1, np.float32), RANDOM[:50], RANDOM[:100])
    assert loud.silent == 0
    assert loud.level == pytest.approx(-20, abs=0.01)


def minute(entropy=4.0, loop=0.05, silent=0.02, acoustic=5.0):
    return Minute(entropy, acoustic, 0.0, loop, silent, -23.0)


@pytest.mark.parametrize(
    ("made", "met"),
    [
        ([minute(), minute(4.1)], [True, True, True, True]),
        ([minute(), minute(loop=0.6)], [False, True, True, True]),
        ([minute(), minute(silent=0.9)], [True, False, True, True]),
        ([minute(), minute(2.5)], [True, True, False, True]),
        ([minute(), minute(5.0)], [True, True, False, True]),
        ([minute(0.0), minute(0.0)], [True, True, False, True]),
        ([minute(), minute(acoustic=2.7), minute()], [True, True, True, False]),
    ],
)
def test_each_collapse_misses_its_goal(made, met):
    real = [minute(), minute(loop=0.1, silent=0.1, acoustic=4.5)]
    assert [goal.met for goal in goals("x", made, real)] == met


def test_free_running_is_measured_piece_by_piece_and_seeded(model):
    prompt = np.random.default_rng(1).standard_normal(6400).astype(np.float32) * 0.05
    first, again = (free_minutes(model, prompt, 2, seconds=0.8, seed=3) for _ in range(2))
    assert len(first) == 2
    assert first == again
    assert all(0 <= m.loop <= 1 and 0 <= m.silent <= 1 and m.acoustic_entropy >= 0 for m in first)
    assert free_minutes(model, None, 1, seconds=0.8, seed=3) != first[:1]


def test_data_is_cut_into_whole_pieces(model, voices_held):
    assert len(data_minutes(model.parts, voices_held.corpus, 4, seconds=2.0)) == 4
    with pytest.raises(InputError, match="pieces of 60 s"):
        data_minutes(model.parts, voices_held.corpus, 1)


def test_the_section_has_a_row_a_minute_and_the_data_below(model, music):
    section = drift(model, [music], minutes=2, heard=0.4, seconds=1.0)
    assert [row[0] for row in section.tables[0]["rows"]] == ["1", "2", "data, least", "data, mean", "data, most"]
    both = section.figures["music_dev"]
    assert len(both["made"]["loop"]) == 2
    assert len(both["data"]["loop"]) == 8
    assert len(section.goals) == 4


def columns(minutes):
    keys = ("semantic_entropy", "acoustic_entropy", "repeated", "loop", "silent", "level")
    return {key: [getattr(each, key) for each in minutes] for key in keys}


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (1, [1]),
        (5, [1, 2, 3, 4, 5]),
        (12, list(range(1, 13))),
        (60, [1, *range(5, 61, 5)]),
        (62, [1, *range(5, 61, 5), 62]),
        (120, [1, *range(10, 121, 10)]),
    ],
)
def test_a_long_run_has_a_readable_table(count, told):
    assert told_minutes(count) == told
    assert len(told_minutes(count)) <= 14


def test_an_hour_is_written_again_from_its_figures():
    made = [minute(4.0 + i / 50, loop=0.05 + 0.001 * (i % 7)) for i in range(60)]
    figures = {"x": {"made": columns(made), "data": columns([minute(), minute(5.0)])}}
    section = drift_section(figures)
    assert [row[0] for row in section.tables[0]["rows"]][-5:] == [
        "run, mean",
        "trend an hour",
        "data, least",
        "data, mean",
        "data, most",
    ]
    assert section.figures["x"]["trend"]["semantic_entropy"].mean == pytest.approx(1.2)
    trend = section.figures["x"]["trend"]["loop"]
    assert trend.low < 0 < trend.high
    assert {key: section.figures["x"][key] for key in ("made", "data")} == figures["x"]
    again = drift_section(section.as_dict()["figures"])
    assert again.tables == section.tables
    assert again.goals == section.goals


@pytest.mark.parametrize("bad", [{}, {"made": {}, "data": {}}, {"made": columns([]), "data": columns([])}])
def test_figures_of_something_else_are_told(bad):
    with pytest.raises(InputError, match="measure again"):
        drift_section({"x": bad})
