"""Echo: the reference is bounded, the loudspeaker is kept out, who speaks over it comes through."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from streamer.errors import ConfigError, InputError
from streamer.node import Build
from streamer.nodes import echo
from streamer.nodes.echo import BLOCK, DELAY, EchoGate, EchoReference, make_canceller, reference

ASSETS = Path(__file__).parents[3] / "assets"
RATE = 16_000
KINDS = ["auto", "cancel", "gate", "off"]


def canceller(kind, given=None):
    """One of a kind; what needs a library that is not there is skipped."""
    if kind in {"auto", "cancel"}:
        pytest.importorskip("livekit.rtc")
    return make_canceller(kind, given or EchoReference())


def read(name):
    return soundfile.read(ASSETS / name)[0]


@pytest.fixture(scope="module")
def speech():
    return np.tile(read("prompt_speech.flac"), 3)


def room(far, delay_ms=60, gain_db=-8, noise_db=-70):
    """What a microphone hears of `far`: an echo with a tail, and a little noise."""
    rng = np.random.default_rng(0)
    tail = rng.standard_normal(2400) * np.exp(-np.arange(2400) / 500)
    tail[0] = 10.0
    heard = np.convolve(far, tail / np.linalg.norm(tail))[: len(far)] * 10 ** (gain_db / 20)
    delay = delay_ms * RATE // 1000
    heard = np.concatenate([np.zeros(delay), heard])[: len(far)]
    return heard + 10 ** (noise_db / 20) * rng.standard_normal(len(far))


def clean(kind, far, microphone, burst=1):
    """Run a canceller; the reference comes `burst` blocks at a time."""
    given = EchoReference()
    made, ours = [], canceller(kind, given)
    for i in range(len(microphone) // BLOCK):
        for j in range(i, i + burst) if i % burst == 0 else ():
            block = far[j * BLOCK : (j + 1) * BLOCK].astype(np.float32)
            if len(block) == BLOCK:
                given.push(block)
        made.append(ours.process(microphone[i * BLOCK : (i + 1) * BLOCK].astype(np.float32)))
    ours.close()
    assert given.dropped == 0 or kind == "off"
    return np.concatenate(made)


def level(sound):
    return 10 * np.log10(np.mean(np.square(sound)) + 1e-12)


@pytest.mark.parametrize(("kind", "least_db"), [("auto", 25), ("cancel", 20), ("gate", 25)])
@pytest.mark.parametrize("burst", [1, 4])
@pytest.mark.parametrize("delay_ms", [20, 120])
def test_the_loudspeaker_is_kept_out(speech, kind, least_db, burst, delay_ms):
    microphone = room(speech, delay_ms)
    made = clean(kind, speech, microphone, burst)
    settled = slice(4 * RATE, len(made))
    assert level(microphone[settled]) - level(made[settled]) > least_db


@pytest.mark.parametrize("kind", ["auto", "gate"])
def test_a_gate_lets_no_beginning_through(speech, kind):
    """A canceller takes a second to know its room; what it leaves until then must not pass for someone's speech."""
    microphone = room(speech)
    made = clean(kind, speech, microphone)
    assert level(made[RATE // 2 : 3 * RATE]) < level(microphone[RATE // 2 : 3 * RATE]) - 25


@pytest.mark.parametrize("kind", ["auto", "cancel", "gate"])
def test_who_speaks_over_it_comes_through(speech, kind):
    own = np.zeros(len(speech))
    own[8 * RATE : 10 * RATE] = 0.6 * read("prompt_piano.flac")[: 2 * RATE]
    echo_level = level(room(speech)[8 * RATE : 10 * RATE])
    own *= 10 ** ((echo_level + 6 - level(own[8 * RATE : 10 * RATE])) / 20)
    made = clean(kind, speech, room(speech) + own)
    during = made[8 * RATE + RATE // 2 : 10 * RATE]
    assert level(during) > level(own[8 * RATE + RATE // 2 : 10 * RATE]) - 8


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("playing", [False, True], ids=["no speaker", "silent speaker"])
def test_nothing_is_changed_while_the_loudspeaker_is_silent(kind, playing):
    own = read("prompt_piano.flac").astype(np.float32)[: 4 * RATE]
    made = clean(kind, np.zeros(len(own) if playing else 0), own)
    late = DELAY if kind in {"auto", "cancel"} else 0
    assert np.array_equal(made[late:], own[: len(own) - late])
    assert not made[:late].any()


@pytest.mark.parametrize("kind", ["auto", "cancel", "gate"])
def test_soon_after_the_playback_sound_passes_unchanged(speech, kind):
    far = np.concatenate([speech[: 4 * RATE], np.zeros(4 * RATE)])
    own = np.zeros(len(far))
    own[4 * RATE :] = read("prompt_piano.flac")[: 4 * RATE]
    microphone = (room(far) + own).astype(np.float32)
    made = clean(kind, far, microphone)
    late = DELAY if kind in {"auto", "cancel"} else 0
    after = slice(5 * RATE + late, None)
    assert np.array_equal(made[after], microphone[5 * RATE : len(microphone) - late])


@pytest.mark.parametrize("kind", ["auto", "cancel", "gate"])
def test_the_gain_moves_without_a_click(kind):
    """A steady tone on both sides, through every switch: no step is larger than the tone's own."""
    time = np.arange(6 * RATE) / RATE
    far = 0.2 * np.sin(2 * np.pi * 500 * time) * ((time > 2) & (time < 4))
    own = 0.05 * np.sin(2 * np.pi * 300 * time)
    made = clean(kind, far, 0.3 * np.roll(far, 800) + own)
    assert np.abs(np.diff(made)).max() < 3 * np.abs(np.diff(0.3 * far + own)).max()


@pytest.mark.parametrize("kind", ["gate", "auto"])
def test_a_louder_loudspeaker_is_learnt(speech, kind):
    microphone = room(speech, gain_db=-25)
    microphone[4 * RATE :] = room(speech, gain_db=-5)[4 * RATE :]
    made = clean(kind, speech, microphone)
    assert level(made[9 * RATE :]) < level(microphone[9 * RATE :]) - 20


def test_a_gate_learns_the_coupling(speech):
    given = EchoReference()
    gate = EchoGate(given)
    microphone = room(speech, gain_db=-20)
    for i in range(len(speech) // BLOCK):
        given.push(speech[i * BLOCK : (i + 1) * BLOCK].astype(np.float32))
        gate.process(microphone[i * BLOCK : (i + 1) * BLOCK].astype(np.float32))
    assert -32 < np.median(gate._gate.coupling) < -8


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_finite_does_not_stay(kind, speech):
    bad = room(speech)
    bad[1000] = np.nan
    bad[2000:2100] = np.inf
    far = speech.copy()
    far[3000] = np.nan
    made = clean(kind, far, bad)
    assert np.isfinite(made).all()
    assert made[4 * RATE :].any() or kind != "off"


@pytest.mark.parametrize("kind", KINDS)
def test_another_length_is_refused(kind):
    with pytest.raises(InputError, match=r"160 samples.*\[640\]"):
        canceller(kind).process(np.zeros(640, dtype=np.float32))


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_canceller_passes_what_comes(kind):
    ours = canceller(kind)
    ours.close()
    ours.close()
    blocks = np.random.default_rng(0).standard_normal((3, BLOCK)).astype(np.float32)
    made = np.concatenate([ours.process(each) for each in blocks])
    late = DELAY if kind in {"auto", "cancel"} else 0
    assert np.array_equal(made[late:], blocks.ravel()[: len(made) - late])


def block(value):
    return np.full(BLOCK, value, dtype=np.float32)


def test_a_reference_gives_in_order_what_came():
    given = EchoReference()
    for value in range(3):
        given.push(block(value))
    assert [each[0] for each in given.take()] == [0, 1, 2]
    assert given.take() == []


def test_a_reference_that_nobody_reads_stays_small():
    given = EchoReference(capacity=4)
    for value in range(10):
        given.push(block(value))
    assert given.dropped == 6
    assert [each[0] for each in given.take()] == [6, 7, 8, 9]


def test_a_reference_holds_between_two_threads():
    given, taken, done = EchoReference(capacity=100_000), [], threading.Event()

    def write():
        for value in range(5000):
            given.push(block(value))
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        taken += given.take()
    writer.join()
    taken += given.take()
    assert [each[0] for each in taken] == list(range(5000))


def test_speaker_and_microphone_of_a_graph_share_one():
    shared = {}
    assert reference(Build("mic", shared=shared)) is reference(Build("speaker", shared=shared))
    assert reference(Build("mic")) is not reference(Build("mic"))


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match=r"unknown kind of echo cancelling 'gatee'.*did you mean 'gate'"):
        make_canceller("gatee", EchoReference())


def test_without_the_library_auto_is_the_gate_and_says_so(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "livekit.rtc", None)
    assert isinstance(make_canceller("auto", EchoReference()), EchoGate)
    said = capsys.readouterr()
    assert "audiolm-streamer[aec]" in said.err
    assert said.out == ""
    with pytest.raises(ConfigError, match=r"livekit.*audiolm-streamer\[aec\].*echo: gate"):
        make_canceller("cancel", EchoReference())


def test_the_library_comes_late_is_silent_and_does_not_hold_up_the_end_of_the_program():
    pytest.importorskip("livekit.rtc")
    lines = (
        "import sys, numpy as np; from streamer.nodes.echo import *; assert 'livekit' not in sys.modules;"
        "kept = make_canceller('cancel', EchoReference()); kept.process(np.zeros(160, np.float32))"
    )
    done = subprocess.run([sys.executable, "-c", lines], timeout=100, check=True, capture_output=True)
    assert done.stdout == done.stderr == b""


def test_bands_of_noise_add_up_to_its_power():
    noise = np.random.default_rng(0).standard_normal((200, BLOCK))
    bands = echo._Bands()
    power = np.mean([np.sum(10 ** (bands.push(each) / 10)) for each in noise])
    assert power == pytest.approx(157 / 160, rel=0.05)  # all but the lowest three bins


@pytest.mark.parametrize("kind", ["auto", "gate"])
def test_a_noisy_room_does_not_hold_the_gate_open(speech, kind):
    made = clean(kind, speech, room(speech, noise_db=-45))
    closed = [not block.any() for block in made[2 * RATE :].reshape(-1, BLOCK)]
    assert np.mean(closed) > 0.9


@pytest.mark.parametrize("kind", ["auto", "gate"])
def test_soft_playback_is_playback(speech, kind):
    far = 0.005 * speech
    made = clean(kind, far, room(far, gain_db=0, noise_db=-90))
    assert np.mean([not block.any() for block in made[2 * RATE :].reshape(-1, BLOCK)]) > 0.8
