"""Log-mel features: what they measure, and that steps equal the whole."""

import math

import numpy as np
import torch
from contract import verify_contract
from sounds import sound

from audiolm.features import LogMel, LogPitch, mel_filters

MEL = LogMel()


def test_contract():
    pieces = [torch.from_numpy(np.stack([sound(8, s)[i * 640 : i * 640 + 640] for s in range(3)])) for i in range(8)]
    extremes = [torch.zeros(3, 640), torch.ones(3, 640), torch.full((3, 640), 1e-30)]
    verify_contract(MEL, pieces, extremes=extremes, atol=1e-5)


def test_silence_gives_the_floor():
    mel = MEL(torch.zeros(1, 640))
    assert mel.shape == (1, 4, 80)
    assert torch.allclose(mel, torch.full_like(mel, (math.log10(MEL.FLOOR) + 2) / 4))


def test_a_tone_lights_up_its_own_band():
    for hertz in (200, 1000, 5000):
        tone = torch.sin(2 * math.pi * hertz * torch.arange(6400) / 16000)[None]
        band = int(MEL(tone)[0, -1].argmax())
        centre = 2595 * math.log10(1 + hertz / 700)
        width = 2595 * math.log10(1 + 8000 / 700) / 81
        assert abs(band + 1 - centre / width) <= 1.5


def test_filters_are_triangles_that_cover_the_band():
    filters = mel_filters(400, 20, 16000)
    assert filters.shape == (201, 20)
    assert filters.min() >= 0
    assert 0.5 < filters.max() <= 1
    assert bool((filters.sum(0) > 0).all())
    middle = slice(10, 175)
    assert bool((filters.sum(1)[middle] > 0.9).all())  # neighbours add up to one


def test_nothing_is_looked_ahead():
    x = torch.from_numpy(sound(4))[None]
    changed = x.clone()
    changed[:, 1600:] = 0
    assert torch.equal(MEL(changed)[:, :10], MEL(x)[:, :10])


PITCH = LogPitch()


def test_contract_of_semitone_bands():
    pieces = [torch.from_numpy(np.stack([sound(12, s)[i * 640 : i * 640 + 640] for s in range(3)])) for i in range(12)]
    extremes = [torch.zeros(3, 640), torch.ones(3, 640), torch.full((3, 640), 1e-30)]
    verify_contract(PITCH, pieces, extremes=extremes, atol=1e-4)


def test_a_note_lights_up_its_own_semitone():
    for key in range(36, 104, 5):  # C2 to G7
        tone = torch.sin(2 * math.pi * 440 * 2 ** ((key - 69) / 12) * torch.arange(16000) / 16000)[None]
        bands = PITCH(tone)[0, -1]
        assert int(bands.argmax()) == key - 24
        far = torch.cat((bands[: max(0, key - 24 - 6)], bands[key - 24 + 7 :]))
        assert float(far.max()) < float(bands.max()) - 0.5


def test_semitones_are_told_apart_from_middle_c_up():
    for key in (60, 72, 90):
        tone = torch.sin(2 * math.pi * 440 * 2 ** ((key - 69) / 12) * torch.arange(16000) / 16000)[None]
        bands = PITCH(0.1 * tone)[0, -1]
        assert float(bands[key - 24] - bands[[key - 26, key - 22]].max()) > 0.15  # 6 dB two semitones away


def test_semitone_bands_look_at_nothing_ahead():
    x = torch.from_numpy(sound(12))[None]
    changed = x.clone()
    changed[:, 6 * 640 :] = 0
    assert torch.equal(PITCH(changed)[:, :6], PITCH(x)[:, :6])
