"""Probes on data whose answer is known."""

import math

import pytest
import torch

from audiolm.eval import probe
from audiolm.features import LogMel


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_chroma_names_the_note_whatever_the_octave():
    for key in (57, 69, 81, 64):  # A, A, A, E
        tone = 0.3 * torch.sin(2 * math.pi * 440 * 2 ** ((key - 69) / 12) * torch.arange(16000) / 16000)[None]
        row = probe.chroma(tone)[0, 12]
        assert int(row.argmax()) == (key - 69) % 12
        assert float(row.max()) > 0.8
    assert float(probe.chroma(torch.zeros(1, 6400)).abs().max()) == 0


def test_onsets_are_strong_where_a_tone_begins():
    sound = torch.zeros(1, 16000)
    sound[0, 8000:] = 0.3 * torch.sin(torch.arange(8000) * 0.3)
    strength = probe.onset_strength(LogMel()(sound))[0, :, 0]
    assert strength.shape == (25,)
    assert int(strength.argmax()) == 12
    assert float(strength[2:12].max()) == 0


def test_clusters_explain_what_they_are_made_of_and_nothing_else():
    labels = torch.arange(2000) % 7
    target = torch.nn.functional.one_hot(labels, 7).float()
    assert probe.explained_by_clusters(labels, target, labels[:500], target[:500]) > 0.99
    other = noise(2000, 3)
    assert abs(probe.explained_by_clusters(labels, other, labels[:500], other[:500])) < 0.05
    unseen = torch.full((10,), 9)  # a cluster never met guesses the mean
    guess = probe.explained_by_clusters(labels, target, unseen, target[:10])
    assert guess == pytest.approx(probe.r2(target[:10], target.mean(0).expand(10, 7)))


def test_linear_probes_find_linear_things():
    x, weights = noise(1000, 8), noise(8, 2, seed=1)
    assert probe.linear_r2(x[:800], x[:800] @ weights + 3, x[800:], x[800:] @ weights + 3) > 0.99
    assert probe.linear_r2(x[:800], noise(800, 2, seed=2), x[800:], noise(200, 2, seed=3)) < 0.05


def test_a_speaker_is_found_in_bags_that_differ_and_not_in_equal_ones():
    generator = torch.Generator().manual_seed(0)

    def rows(skew):
        bags, labels = [], []
        for speaker in range(4):
            share = torch.ones(64)
            share[speaker * 16 : speaker * 16 + 16] += skew
            for _ in range(20):
                drawn = torch.multinomial(share, 100, replacement=True, generator=generator)
                bags.append(probe.bags(drawn, 64))
                labels.append(speaker)
        return torch.stack(bags), torch.tensor(labels)

    for skew, low, high in ((2.0, 0.85, 1.0), (0.0, 0.0, 0.45)):
        x, labels = rows(skew)
        odd = torch.arange(80) % 2 == 1
        assert low <= probe.probe_accuracy(x[odd], labels[odd], x[~odd], labels[~odd]) <= high
    assert probe.bags(torch.zeros(5, 3, dtype=torch.int64), 4).tolist() == [1, 0, 0, 0] * 3


def test_usage_counts_repeats_and_entropy():
    even = probe.usage(torch.arange(64).repeat(4), 64)
    assert even["entropy"] == pytest.approx(math.log(64))
    assert even["perplexity"] == pytest.approx(64, rel=1e-5)
    assert even["repeats"] == 0
    assert probe.usage(torch.zeros(10, dtype=torch.int64), 64) == pytest.approx(
        {"entropy": 0, "perplexity": 1, "repeats": 1}
    )
