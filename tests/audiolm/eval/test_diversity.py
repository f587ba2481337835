"""Diversity: copies have none, random tokens nearly all there is, and a model that listens lies between."""

import numpy as np
import pytest
from heard import CHORDS, notes, speech

from audiolm.eval.diversity import (
    AGAIN,
    GROUPS,
    PROMPTS,
    SEEDS,
    TRUTH,
    Look,
    Several,
    changes,
    compared,
    distances,
    diversity,
    goals,
    gram_distance,
    look,
)
from audiolm.eval.music import pitch_classes
from audiolm.eval.stats import gain
from audiolm.eval.timbre import timbre

RNG = np.random.default_rng(0)


def test_a_held_token_is_one():
    assert changes(np.array([3, 3, 3, 5, 5, 3])).tolist() == [3, 5, 3]
    assert changes(np.array([], np.int64)).tolist() == []


def test_copies_share_all_and_random_tokens_nearly_nothing():
    tokens, other = (RNG.integers(0, 512, 125) for _ in range(2))
    assert gram_distance(tokens, tokens, 1) == gram_distance(tokens, np.repeat(tokens, 3), 2) == 0
    assert gram_distance(tokens, other, 1) > 0.7
    assert gram_distance(tokens, other, 2) > 0.98
    assert gram_distance(np.zeros(50, int), np.ones(50, int), 1) == 1
    assert gram_distance(np.zeros(50, int), np.ones(50, int), 2) == 0  # neither has a pair


def test_half_in_common_is_a_half():
    a, b = np.array([1, 2, 3, 4]), np.array([1, 2, 5, 6])
    assert gram_distance(a, b, 1) == 0.5
    assert gram_distance(a, b, 2) == pytest.approx(2 / 3)  # one pair of three
    assert gram_distance(np.array([1, 2]), np.array([1, 2, 3, 4, 5, 6]), 1) == pytest.approx(0.5)  # 2 of 4


def played(chord, tokens, seed):
    sound = notes(chord, 2, seed=seed)
    return Look(sound, tokens, timbre(sound), pitch_classes(sound))


def several(listens, varies):
    """Four prompts, three seeds each; tokens and chord are the prompt's if it ``listens``, and vary by seed or not."""
    found = []
    for i in range(4):
        own = np.arange(60) + (100 * i if listens else 0)
        chord = CHORDS[i if listens else 0]
        made = [
            played(chord, np.where(RNG.random(60) < 0.5 * varies, RNG.integers(900, 999, 60), own), varies * k)
            for k in range(3)
        ]
        truth = played(CHORDS[i], np.arange(60) + 100 * i, 50 + i)
        found.append(Several(f"piece{i}", made, made[0], truth))
    return found


def judged(found):
    return [goal.met for goal in goals("x", found, {key: gain(by[PROMPTS], by[SEEDS]) for key, by in found.items()})]


def test_a_model_that_listens_and_varies_meets_every_goal():
    found = compared(several(listens=True, varies=True))
    assert all(by[AGAIN] == [0, 0, 0, 0] for by in found.values())
    assert 0.4 < np.mean(found["pairs"][SEEDS]) < 1
    assert min(found["tokens"][PROMPTS]) > max(found["tokens"][SEEDS])
    assert found["tokens"][TRUTH] == [1, 1, 1, 1]
    assert judged(found) == [True, True, True, True]


def test_a_model_that_always_says_the_same_has_no_diversity():
    found = compared(several(listens=True, varies=False))
    assert all(by[SEEDS] == pytest.approx([0, 0, 0, 0]) for by in found.values())
    assert judged(found) == [True, False, True, True]


def test_a_model_that_does_not_listen_gains_nothing():
    assert judged(compared(several(listens=False, varies=True)))[2:] == [False, False]


def test_a_seed_that_does_not_repeat_is_told():
    found = compared(several(listens=True, varies=True))
    found["samples"][AGAIN][2] = 0.01
    assert judged(found)[0] is False


def test_one_source_alone_has_no_others():
    found = compared(several(listens=True, varies=True)[:1])
    assert np.isnan(found["tokens"][PROMPTS][0])


def test_speech_has_no_pitch_classes_and_tokens_are_those_behind_the_prompt(model):
    sound = speech(3, 0)
    found = look(model.parts, sound[:32000], sound[32000:], "speech")
    assert found.pitch is None
    assert len(found.tokens) == 25
    assert set(distances(found, found).values()) == {0}


def test_the_section_of_a_tiny_model(model, music):
    told = []
    section = diversity(model, [music], count=2, seeds=2, heard=0.4, seconds=0.8, progress=told.append)
    rows = section.tables[0]["rows"]
    assert [row[0] for row in rows] == [*GROUPS, "other prompts less other seeds"]
    found = section.figures["music_dev"]["distance"]
    assert all(by[AGAIN].mean == 0 for by in found.values())
    assert found["samples"][SEEDS].mean > 0.9
    assert section.goals[0].met
    assert told[0] == "music_dev: prompt 1 of 2: seed 0"
    assert len(told) == 6
