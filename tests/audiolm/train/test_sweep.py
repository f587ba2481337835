"""The sweep over layers and clusters: what it measures, what it chooses, what it leaves behind."""

import json

import numpy as np
import pytest
import torch

from audiolm.errors import InputError
from audiolm.eval.phones import Phone
from audiolm.tokenizer import SemanticTokenizer, TokenizerConfig
from audiolm.train.data import write_corpus
from audiolm.train.sweep import Held, Row, Sweep, bigram_gain, sweep

CONFIG = TokenizerConfig(mels=20, layers=2, layer=1, width=32, heads=2, window=25, kernel=5, components=8, clusters=16)
FORMANTS = {"AA": (800, 1200), "IY": (300, 2300), "B": (200, 600), "T": (3000, 4500)}


def word(names, speaker, rng):
    """Vowels and consonants as pairs of tones, 120 ms each, between pauses."""
    parts, phones, at = [np.zeros(4800)], [Phone("SIL", 0, 0.3)], 0.3
    for name in names:
        t = np.arange(1920) / 16000
        parts.append(sum(0.2 * np.sin(2 * np.pi * f * speaker * t + rng.uniform(0, 6)) for f in FORMANTS[name]))
        phones.append(Phone(name, at, at + 0.12))
        at += 0.12
    return np.concatenate([*parts, np.zeros(32000)]).astype(np.float32), phones


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    rng, clips, phones = np.random.default_rng(0), [], {}
    for speaker, factor in (("one", 1.0), ("two", 1.15)):
        for k in range(3):
            for vowel in ("AA", "IY"):
                name = f"{speaker}/{vowel}{k}"
                sound, phones[name] = word(["B", vowel, "T"], factor, rng)
                clips.append((name, sound + 0.001 * rng.standard_normal(len(sound)).astype(np.float32)))
    return write_corpus(tmp_path_factory.mktemp("spoken"), clips), phones


def tokenizer():
    torch.manual_seed(0)
    return SemanticTokenizer(CONFIG).eval()


def test_speech_with_phones_is_chosen_by_abx(spoken, tmp_path):
    corpus, phones = spoken
    ears = tokenizer()
    found = sweep(ears, corpus, Held.of(corpus, phones=phones), layers=(0, 1, 2), clusters=(16, 32), ticks=800)
    assert len(found.rows) == 4
    assert all(0 <= row.embeddings_within <= 1 and 0 <= row.tokens_across <= 1 for row in found.rows)
    best = min(found.rows, key=lambda row: row.embeddings_within + row.embeddings_across)
    assert found.layer == best.layer == ears.config.layer
    assert found.clusters == ears.config.clusters == len(ears.centroids)
    assert ears(torch.zeros(1, 6400)).max() < found.clusters
    found.save(tmp_path)
    assert json.loads((tmp_path / "sweep.json").read_text())["layer"] == found.layer
    table = (tmp_path / "sweep.md").read_text()
    assert f"| **{found.layer}** | **{found.clusters}** |" in table
    assert "chroma" not in table


def test_equal_sweeps_are_equal(spoken):
    corpus, phones = spoken
    a, b = (sweep(tokenizer(), corpus, Held.of(corpus, phones=phones), (0, 1), ticks=400) for _ in range(2))
    assert a.rows == b.rows


def test_music_is_chosen_by_chroma_and_onsets(spoken):
    corpus, _ = spoken
    found = sweep(tokenizer(), corpus, Held.of(corpus, music=True), (0, 1), ticks=400)
    best = max(found.rows, key=lambda row: row.chroma + row.onsets)
    assert found.layer == best.layer
    assert found.rows[0].embeddings_within is None
    other = sweep(tokenizer(), corpus, Held.of(corpus), (0, 1), ticks=400)
    assert other.layer == max(other.rows, key=lambda row: row.ahead).layer


def test_the_plot_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    rows = [Row(layer, size, chroma=0.1 * layer, onsets=0.2, gain=1.0) for layer in (0, 1) for size in (8, 16)]
    Sweep(rows, 1, 16).plot(tmp_path / "sweep.svg")
    assert "<svg" in (tmp_path / "sweep.svg").read_text()


def test_a_bigram_gains_what_the_order_holds():
    cycle = torch.arange(4000) % 8
    assert bigram_gain(cycle, cycle, 8) > 0.9 * np.log(8)
    noise = torch.randint(8, (20000,), generator=torch.Generator().manual_seed(0))
    assert abs(bigram_gain(noise[:10000], noise[10000:], 8)) < 0.01


def test_what_cannot_be_swept_is_refused(spoken):
    corpus, phones = spoken
    with pytest.raises(InputError, match=r"layers \[3\]: expected 0 to 2"):
        sweep(tokenizer(), corpus, Held.of(corpus), (3,), ticks=400)
    with pytest.raises(InputError, match="make no ABX case"):
        Held.of(corpus, phones={"one/AA0": phones["one/AA0"]})
