"""Opus as a yardstick."""

import pytest
from heard import speech

from audiolm.errors import InputError
from audiolm.eval.distances import si_sdr
from audiolm.eval.opus import opus, packet_bytes

SPEECH = speech(4, 1)


def test_the_rate_is_about_the_one_that_was_asked_for_and_buys_quality():
    rows = [opus(SPEECH, rate) for rate in (6000, 12000, 64000)]
    assert all(len(made) == len(SPEECH) for made, _ in rows)
    rates = [rate for _, rate in rows]
    assert rates == sorted(rates)
    assert 3500 < rates[0] < 9000
    assert 8000 < rates[1] < 17000
    quality = [si_sdr(SPEECH, made) for made, _ in rows]
    assert quality == sorted(quality)


@pytest.mark.parametrize("rate", [0, 5999, 300_000])
def test_a_rate_that_opus_has_not_is_told(rate):
    with pytest.raises(InputError, match="expected 6000 to 256000"):
        opus(SPEECH, rate)


def page(*laces):
    return b"OggS" + bytes(22) + bytes([len(laces)]) + bytes(laces) + bytes(sum(laces))


def test_packets_are_counted_over_pages_and_without_headers():
    assert packet_bytes(page(19) + page(60) + page(10, 20, 255) + page(5, 30)) == 10 + 20 + 260 + 30
    assert packet_bytes(b"no ogg") == 0
