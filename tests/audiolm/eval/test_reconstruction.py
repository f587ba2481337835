"""Reconstruction: codecs whose loss is known, and the section on a tiny one."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from heard import RATE, notes

from audiolm.codec import CodecConfig, SoundStream
from audiolm.eval import reconstruction as section_of
from audiolm.eval.reconstruction import bit_rate, figures, levels_of, measure, perplexity, reconstruct, reconstruction


class Fake:
    """A codec of hop 640 that adds noise level by level and gives its sound `delay` samples late."""

    def __init__(self, delay=0, declared=None, books=None):
        self.config = SimpleNamespace(
            levels=3, cardinality=8, frame_rate=25, delay=delay if declared is None else declared
        )
        self.delay, self.books, self.sound = delay, books, None

    def encoder(self, audio):
        self.sound = audio
        frames = audio.shape[1] // 640
        codes = self.books(frames) if self.books else torch.zeros(frames, 3, dtype=torch.long)
        return codes[None]

    def decoder(self, codes):
        noise = torch.randn(self.sound.shape, generator=torch.Generator().manual_seed(0))
        made = self.sound + 0.1 * 0.3 ** codes.shape[-1] * noise
        return torch.nn.functional.pad(made, (self.delay, 0))[:, : self.sound.shape[1]]


@pytest.fixture(scope="module")
def tiny_codec(model):
    return model.parts.codec


def test_rates_and_levels():
    codec = SoundStream(CodecConfig(channels=2, residual_units=(0, 0, 0, 0), latent=4))
    assert [bit_rate(codec, n) for n in (4, 6, 12)] == [2000, 3000, 6000]
    assert levels_of(codec) == [4, 6, 8, 12]
    assert levels_of(Fake()) == [3]
    assert levels_of(Fake(), (1, 2, 9)) == [1, 2, 3]


@pytest.mark.parametrize(("delay", "declared"), [(0, 0), (560, 560), (560, 0), (17, 0)])
def test_a_delay_is_no_loss(delay, declared):
    codec, sounds = Fake(delay, declared), [notes((60, 64), 2, seed=k) for k in range(2)]
    made = [reconstruct(codec, sound, [3])[0] for sound in sounds]
    values, lag = measure(list(zip(sounds, made, strict=True)), ["si_sdr", "stft"], declared)
    assert lag == delay
    straight = [reconstruct(Fake(), sound, [3])[0] for sound in sounds]
    plain, _ = measure(list(zip(sounds, straight, strict=True)), ["si_sdr", "stft"])
    assert values["si_sdr"] == pytest.approx(plain["si_sdr"], abs=0.5)


def test_perplexity_is_the_number_of_codes_in_use(music):
    def books(frames):
        spread = torch.arange(frames) % 8
        return torch.stack([spread, spread % 2, torch.zeros_like(spread)], 1)

    assert perplexity(Fake(books=books), music.corpus, minutes=0.4) == pytest.approx([8, 2, 1], abs=0.05)


def test_more_levels_are_better_and_the_section_says_so(music, monkeypatch):
    monkeypatch.setattr(section_of, "LYRA", {"music": {}})
    monkeypatch.setattr(section_of, "GOALS", {"music": {}})
    wanted = ["si_sdr", "log_mel"]
    section = reconstruction(
        Fake(560), [music], clips=3, seconds=2.0, levels=(1, 2), opus_rates=(6000,), measures=wanted
    )
    systems = section.figures["music_dev"]["systems"]
    assert list(systems) == ["1 levels", "2 levels", "3 levels", "Opus 6"]
    ratios = [systems[f"{n} levels"]["si_sdr"].mean for n in (1, 2, 3)]
    assert ratios == sorted(ratios)
    assert [systems[f"{n} levels"]["lag"] for n in (1, 2, 3)] == [560] * 3
    assert section.figures["music_dev"]["perplexity"] == pytest.approx([1, 1, 1])
    assert [goal.met for goal in section.goals] == [False]
    assert len(section.tables[0]["rows"]) == 4
    assert any("560" in note for note in section.notes)


def test_a_crop_without_utterance_leaves_every_system():
    nan = float("nan")
    systems = {
        "a": {"values": {"pesq_wb": [1.0, nan, 3.0], "stoi": [0.1, 0.2, 0.3]}},
        "b": {"values": {"pesq_wb": [4.0, 2.0, 3.0], "stoi": [0.1, 0.2, 0.3]}},
    }
    assert section_of._without_utterance(systems) == 1
    assert np.isnan(systems["b"]["values"]["pesq_wb"][1])
    assert systems["b"]["values"]["stoi"] == [0.1, 0.2, 0.3]


def test_goals_stand_at_the_rates_that_have_them(voices_held):
    from audiolm.eval.stats import estimate

    names = {"6 levels": 3000.0, "8 levels": 4000.0, "12 levels": 6000.0, "Opus 6": 6000.0}
    systems = {name: {"rate": rate, "levels": 1} for name, rate in names.items()}
    del systems["Opus 6"]["levels"]
    found = {name: {"pesq_wb": estimate([2.8]), "stoi": estimate([0.9])} for name in systems}
    goals = section_of._rate_goals(voices_held, systems, found)
    assert [(goal.above, goal.met) for goal in goals] == [
        (2.25, True),
        (0.904, False),
        (2.77, True),
        (0.935, False),
        (3.0, False),
        (0.95, False),
    ]


def test_a_tiny_codec_gets_its_whole_section(model, voices_held):
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    section = reconstruction(model.parts.codec, [voices_held], clips=2, seconds=2.0, opus_rates=(12000,))
    systems = section.figures["speech_dev"]["systems"]
    assert set(systems) == {"4 levels", "6 levels", "Opus 12"}
    assert systems["Opus 12"]["pesq_wb"].mean > systems["6 levels"]["pesq_wb"].mean
    assert systems["Opus 12"]["log_mel"].mean < systems["6 levels"]["log_mel"].mean


def test_figures_that_need_no_library(tiny_codec, music):
    found = figures(tiny_codec, music.corpus, (2, 6), clips=2)
    assert set(found["log_mel_distance"]) == {2, 6}
    assert len(found["perplexity"]) == 6
    assert found["nats_possible"] == pytest.approx(np.log(32), abs=0.01)


def test_the_end_of_a_late_codec_is_there(tiny_codec):
    sound = notes((60,), 1)
    assert all(len(made) >= RATE + 960 for made in reconstruct(tiny_codec, sound, [2, 6]))
