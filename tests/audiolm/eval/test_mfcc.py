"""MFCC as Kaldi makes them: sizes, levels, slopes."""

import math

import torch

from audiolm.eval.mfcc import deltas, mfcc


def tone(hertz, gain=0.3):
    return gain * torch.sin(2 * math.pi * hertz * torch.arange(8000) / 16000)


def buzz(gain=0.3):
    """Noise that repeats every 10 ms: all frames are equal and no band is empty."""
    return gain * torch.randn(160, generator=torch.Generator().manual_seed(0)).repeat(50)


def test_a_hundred_frames_a_second_of_39():
    assert mfcc(tone(500)).shape == (50, 39)


def test_level_changes_the_first_coefficient_alone():
    loud, soft = mfcc(buzz()), mfcc(buzz(0.03))
    inner = slice(5, 45)
    torch.testing.assert_close(loud[inner, 1:13], soft[inner, 1:13], atol=1e-2, rtol=0)
    expected = math.log(100) * 23**0.5  # of an orthonormal transform of 23 bands
    torch.testing.assert_close(loud[inner, 0] - soft[inner, 0], torch.full((40,), expected), atol=0.01, rtol=0)


def test_a_steady_sound_has_no_slope_and_a_line_has_its_own():
    assert float(mfcc(buzz())[10:40, 13:].abs().max()) < 1e-3
    line = torch.arange(20.0)[:, None] * 3
    torch.testing.assert_close(deltas(line)[2:-2], torch.full((16, 1), 3.0))


def test_different_sounds_differ():
    assert float((mfcc(tone(300))[20, :13] - mfcc(tone(2000))[20, :13]).norm()) > 10
    assert bool(mfcc(torch.zeros(3200)).isfinite().all())
