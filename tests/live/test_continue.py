"""`streamer run mic_continue` on the virtual card: a phrase, its continuation, and who breaks in."""

import numpy as np
import pytest
from card import RATE, samples_of
from recorded import clicks

QUIET = 1e-4  # the card gives zeros where nothing plays


def phrase(path, seconds=2.0):
    """The beginning of a sound, from where it sounds, cut off within 10 ms."""
    sound = samples_of(path)
    made = sound[np.argmax(np.abs(sound) > 0.02) :][: round(seconds * RATE)].copy()
    made[-480:] *= np.linspace(1, 0, 480, dtype=np.float32)
    return made


def is_quiet(sound):
    """Whether nothing sounds in half a second or more."""
    return len(sound) >= RATE // 2 and np.abs(sound).max() < QUIET


def spans(sound, gap=0.3):
    """`(begin, end)` in seconds of each stretch of sound; shorter pauses than `gap` do not part it."""
    at = np.flatnonzero(np.abs(sound) > QUIET) / RATE
    cuts = np.flatnonzero(np.diff(at) > gap)
    return list(zip(at[np.r_[0, cuts + 1]], at[np.r_[cuts, len(at) - 1]], strict=True)) if len(at) else []


@pytest.fixture
def going(service, tiny_bundle):
    """The program, listening; `going(*settings)`. A small model, so that a busy machine keeps up."""

    def start(*settings, bundle=tiny_bundle):
        made = service("run", "mic_continue", "--bundle", bundle, "--set", "nodes.turns.detector=music", *settings)
        made.until(lambda status: status["state"] == "listening" and status["gauges"].get("mic.connected"), "it to run")
        return made

    return start


def turns(count):
    return lambda status: status["counters"].get("turns.continued", 0) >= count


def test_a_phrase_is_continued_for_as_long_as_was_asked(going, card, piano):
    program = going("--seconds", "2", "--set", "nodes.mic.echo=off")
    with card.recording() as tape:
        card.play(phrase(piano))
        program.until(turns(1), "the continuation")
        program.until(lambda status: status["state"] == "listening" and status["generated_s"] >= 2, "its end")
        tape.wait(lambda heard: is_quiet(heard[-RATE // 2 :]) and np.abs(heard).max(initial=0) > QUIET, "silence")
        heard = tape.samples
    _, summary = program.stop()
    counters = summary["counters"]
    broken = counters["speaker.underruns"] + counters["speaker.late_blocks"]
    found = spans(heard)
    assert len(found) <= 1 + broken
    assert sum(end - begin for begin, end in found) == pytest.approx(2, abs=0.5 + 0.5 * broken)
    if not broken:  # else the machine was too busy to play it whole
        assert clicks(heard) == 0
    assert (summary["turns"], counters["turns.continued"], summary["generated_s"]) == (1, 1, pytest.approx(2, abs=0.1))
    assert summary["heard_s"] == pytest.approx(2, abs=0.6), "the silence around the phrase was not let in"
    assert {"decision_to_sound", "speech_end_to_sound"} <= set(summary["latency_ms"])


def test_new_sound_breaks_in_and_is_continued_in_its_turn(going, card, piano):
    program = going("--set", "session.seconds=null", "--set", "nodes.mic.echo=off")
    card.play(phrase(piano))
    program.until(turns(1), "the continuation")
    program.until(lambda status: status["generated_s"] > 1, "some of it")
    with card.recording() as tape:
        tape.wait(lambda heard: np.abs(heard).max(initial=0) > QUIET, "the continuation to sound")
        player = card.play(phrase(piano, 3.0), wait=False)
        program.until(lambda status: status["counters"].get("turns.interrupted", 0), "it to yield")
        begin = len(tape.samples)
        tape.wait(lambda heard: is_quiet(heard[begin:][-RATE // 2 :]), "silence while the person plays")
        player.wait(30)
        program.until(turns(2), "the second continuation")
        rest = len(tape.samples)
        tape.wait(lambda heard: np.abs(heard[rest:]).max(initial=0) > QUIET, "it to sound again")
    _, summary = program.stop()
    assert "stop_to_silence" in summary["latency_ms"]
    assert summary["counters"]["turns.interrupted"] >= 1


def test_through_open_speakers_it_does_not_answer_itself(going, card, piano):
    program = going("--set", "session.seconds=null")
    with card.echo(volume=0.3, latency_ms=30):
        card.play(phrase(piano, 3.0))
        program.until(turns(1), "the continuation")
        program.until(lambda status: status["generated_s"] > 8, "eight seconds of it")
        interrupted = program.status["counters"].get("turns.interrupted", 0)
    assert interrupted <= 1  # while the canceller learns the path


def test_the_microphone_goes_and_comes_back_and_the_session_lives_on(going, card, piano):
    program = going("--set", "session.seconds=null", "--set", "nodes.mic.echo=off")
    card.play(phrase(piano))
    program.until(turns(1), "the continuation")
    card.kill()
    program.until(lambda status: status["gauges"]["mic.connected"] is False, "the loss to be said")
    before = program.status["generated_s"]
    program.until(lambda status: status["generated_s"] > before + 0.5, "it to go on all the same")
    card.restart()
    program.until(
        lambda status: status["gauges"]["mic.connected"] and status["gauges"]["speaker.connected"], "both back"
    )
    with card.recording() as tape:
        tape.wait(lambda heard: np.abs(heard).max(initial=0) > QUIET, "the continuation on the new device")
    status = program.status
    assert (status["session"], status["turns"]) == (1, 1)
    assert program.stop()[0] == 130
