"""The virtual card itself: what is played is heard, an echo path couples its two sides, and it comes back."""

import numpy as np
import pytest
from card import RATE, RAW, samples_of, until
from recorded import heard_through


def test_what_is_played_is_heard_by_the_microphone(card, speech):
    heard = heard_through(card, speech, 0.95, "vmic")
    assert np.abs(heard).max() == pytest.approx(np.abs(samples_of(speech)).max(), rel=0.1)


def test_the_echo_path_couples_speaker_and_microphone_while_it_is_there(card):
    tone = (0.3 * np.sin(np.arange(RATE) * 2 * np.pi * 440 / RATE)).astype(np.float32)

    def heard():
        with card.recording("vmic") as tape:
            player = card._spawn("pacat", "--playback", *RAW, "-d", "speaker", raw)
            player.wait(20)
        return float(np.abs(tape.samples).max())

    raw = card.folder / "tone.raw"
    raw.write_bytes((tone * 32767).astype("<i2").tobytes())
    with card.echo(0.5):
        coupled = heard()
    assert 0.1 < coupled < 0.2
    assert heard() < 0.001


def test_it_vanishes_and_comes_back(card):
    card.kill()
    assert not card.up
    card.restart()
    assert until(lambda: card.up, "the card")
    with card.recording() as tape:
        tape.wait(lambda heard: len(heard) > RATE // 10, "the speaker to be recorded")
