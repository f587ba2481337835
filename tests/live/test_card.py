"""The virtual card itself: what is played is heard, an echo path couples its two sides, and it comes back."""

import numpy as np
from card import RATE, samples_of, until


def likeness(heard, played):
    """The largest correlation of what was played with any stretch of what was heard; 1: the same."""
    size = 1 << (len(heard) + len(played)).bit_length()
    found = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(played, size)))
    start = int(np.argmax(found[: len(heard)]))
    piece = heard[start : start + len(played)]
    played = played[: len(piece)]
    return float(piece @ played / (np.linalg.norm(piece) * np.linalg.norm(played) + 1e-9))


def test_what_is_played_is_heard_by_the_microphone(card, speech):
    with card.recording("vmic") as tape:
        card.play(speech)
    assert likeness(tape.samples, samples_of(speech)) > 0.98


def test_the_echo_path_couples_speaker_and_microphone_while_it_is_there(card):
    tone = (0.3 * np.sin(np.arange(RATE) * 2 * np.pi * 440 / RATE)).astype(np.float32)

    def heard():
        with card.recording("vmic") as tape:
            player = card._spawn("pacat", "--playback", "--raw", "--format=s16le", "--rate=48000", "--channels=1",
                                 "-d", "speaker", raw)  # fmt: skip
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
