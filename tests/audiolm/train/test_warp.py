"""Disguises of features: a warped tone lies where a tone of the other frequency lies; curves are smooth."""

import math

import torch

from audiolm.features import LogMel
from audiolm.train.warp import random_curves, warp_mel

MEL = LogMel()


def tone(hertz):
    return MEL(0.3 * torch.sin(2 * math.pi * hertz * torch.arange(6400) / 16000)[None])[:, 20:24]


def test_a_factor_of_one_changes_nothing():
    mel = tone(700)
    torch.testing.assert_close(warp_mel(mel, torch.ones(1)), mel, atol=1e-4, rtol=0)


def test_a_warped_tone_is_the_tone_of_the_other_frequency():
    for hertz, factor in ((600, 1.12), (2000, 0.88), (1500, 1.05)):
        warped, wanted = warp_mel(tone(hertz), torch.tensor([factor])), tone(hertz * factor)
        assert abs(int(warped[0, 0].argmax()) - int(wanted[0, 0].argmax())) <= 1
        assert float((warped - wanted).square().mean()) < 0.7 * float((tone(hertz) - wanted).square().mean())


def test_each_item_has_its_own_factor():
    both = torch.cat((tone(1000), tone(1000)))
    warped = warp_mel(both, torch.tensor([0.9, 1.1]))
    assert int(warped[0, 0].argmax()) < int(both[0, 0].argmax()) < int(warped[1, 0].argmax())
    torch.testing.assert_close(warped[1:], warp_mel(both[1:], torch.tensor([1.1])))


def test_curves_are_smooth_and_as_wide_as_asked():
    curves = random_curves(400, 80, 0.1, torch.Generator().manual_seed(0))
    assert curves.shape == (400, 80)
    assert 0.07 < float(curves.std()) < 0.11
    assert float(curves.diff(dim=1).abs().max()) < 0.05
    assert not random_curves(2, 80, 0.0, torch.Generator()).any()
