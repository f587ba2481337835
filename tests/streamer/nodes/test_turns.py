"""Whose turn it is: what is let in, what is dropped, when the model may go on, and who breaks in."""

import numpy as np
import pytest

from streamer import ConfigError, InputError
from streamer.frame import GENERATED, HEARD, TURN, Frame
from streamer.node import Build, SessionInfo
from streamer.nodes import turns
from streamer.nodes.detect import Heard
from streamer.nodes.turns import TurnsNode, TurnsSettings

TICK = 640
MS = {"hangover_ms": 120, "least_ms": 80, "pre_roll_ms": 80, "burst_ms": 80, "gate_ms": 40}


class Loud:
    """Active above a level."""

    def init_state(self):
        return {"ticks": 0}

    def step(self, tick, state):
        state["ticks"] += 1
        loud = bool(np.abs(tick).max() > 0.05)
        return Heard(active=loud, level_db=-20.0, score=float(loud), onset=False)

    def save(self, state):
        return dict(state)

    def load(self, saved):
        return dict(saved)


@pytest.fixture(autouse=True)
def loud(monkeypatch):
    monkeypatch.setattr(turns, "make_detector", lambda kind: Loud())


def made(**config):
    return TurnsNode(TurnsSettings(**(MS | config)), Build("turns"))


def info(**changes):
    return SessionInfo(**({"seconds": None} | changes))


def sound(pattern):
    """`x` sounds, `.` does not; every tick has a value of its own."""
    made = []
    for i, sign in enumerate(pattern):
        level = (0.1 if sign == "x" else 0.0) + i * 1e-4
        meta = {"gap": True} if sign == "-" else {}
        made.append(Frame.of("audio", np.full(TICK, level, np.float32), position=i * TICK, flags=HEARD, meta=meta))
    return made


def run(node, pattern, state=None, **session):
    """What came out for each tick that went in: `a3` audio of tick 3, `t` a tick, `|` a turn, `!` an interruption."""
    state = state or node.init_state(info(**session))
    return [text(node, frame, state) for frame in sound(pattern)], state


def text(node, frame, state):
    return " ".join(say(out) for out in node.step(frame, state, frame.kind))


def say(out):
    mark = "|" if out.turns else "$" if out.last else "!" if out.kind == "control" else ""
    if mark:
        return mark + {"audio": "a", "tick": "t", "control": str(out.epoch)}[out.kind]
    if out.kind == "tick":
        return "t"
    return "a" + str(round(float(out.array[0] % 0.1) * 1e4)) + ("*" if out.meta.get("role") == "aside" else "")


def test_silence_is_never_let_in_and_a_pause_ends_the_phrase():
    found, state = run(made(), "....xx..xx....")
    assert found[:4] == ["", "", "", ""]
    assert found[4] == "a2 a3 a4", "what came just before the onset belongs to it"
    assert found[5:8] == ["a5", "", ""]
    assert found[8] == "a6 a7 a8", "a short pause is let in as soon as it is known to be one"
    assert found[9:13] == ["a9", "", "", "|a t t"], "three ticks of silence end it; two ticks come at once"
    assert found[13] == "t"
    assert state.position == (8 + 3) * TICK
    assert state.info.metrics.gauges["turns.state"] == "continuing"
    assert {"decided_continue", "speech_ended"} <= set(state.info.metrics.marks)


def test_positions_are_of_the_stages_clock_without_the_silence():
    node = made()
    state = node.init_state(info())
    frames = [out for frame in sound("..xx....xxx") for out in node.step(frame, state, "audio")]
    audio = [out.position // TICK for out in frames if out.kind == "audio" and out.payload]
    ticks = [out.position // TICK for out in frames if out.kind == "tick" and out.samples]
    assert audio == [0, 1, 2, 3, 7, 8, 9, 10]
    assert ticks == [4, 5, 6]
    ends = [(out.kind, out.position // TICK, out.flags) for out in frames if out.turns]
    assert ends == [("audio", 4, HEARD | TURN), ("tick", 7, GENERATED | TURN)]
    assert [out.seq for out in frames if out.kind == "audio"] == list(range(9))


def test_new_sound_breaks_in_at_once_and_raises_the_epoch():
    found, state = run(made(), "xx......xx")
    assert found[4] == "|a t t"
    assert found[7] == "t"
    assert found[8] == "!1 |t a6 a7 a8", "with what came before it"
    assert found[9] == "a9"
    assert (state.epoch, state.audio.epoch, state.continuing) == (1, 1, False)
    assert state.info.metrics.counters == {"turns.continued": 1, "turns.interrupted": 1}


def test_it_takes_as_much_sound_to_break_in_as_was_set():
    found, _ = run(made(barge_in_ms=120), "xx.....x.xxx")
    assert found[7] == "t"
    assert [each[:2] for each in found[9:]] == ["t", "t", "!1"]
    assert not any("!" in each for each in run(made(barge_in=False), "xx....xxxx")[0])


def test_a_click_is_no_prompt():
    found, state = run(made(), "x.....xx...")
    assert found[:6] == ["a0", "", "", "", "", ""]
    assert found[6] == "a4 a5 a6"
    assert found[10] == "|a t t"
    assert state.info.metrics.counters["turns.too_short"] == 1


def test_what_breaks_in_and_is_no_phrase_is_passed_over_and_the_model_goes_on():
    found, state = run(made(), "xx......x.......")
    assert found[8] == "!1 |t a6 a7 a8"
    assert found[9:12] == ["", "", "|a t t"]
    assert found[12] == "t"
    assert state.info.metrics.counters["turns.too_short"] == 1
    node = made()
    _, state = run(node, "xx......")
    text(node, Frame.control("listen"), state)
    assert run(node, "x.......", state)[0][4:] == ["", "", "", ""], "who asked it to listen is listened to"


def test_a_fixed_length_ends_a_prompt_and_going_on_playing_is_no_interruption():
    found, state = run(made(), "xxxxxxx.xx", prompt_seconds=0.12)
    assert found[:6] == ["a0", "a1", "a2 |a t t", "t", "t", "t"]
    assert found[8].startswith("!1"), "but what begins anew is"
    assert state.let_in == 3


def test_a_continuation_is_as_long_as_the_session_says_and_then_it_listens():
    found, state = run(made(), "xx......xx...", seconds=0.16)
    assert found[4:8] == ["|a t t", "t", "t |t", ""]
    assert found[8] == "a6 a7 a8"
    assert found[12] == "|a t t"
    assert "turns.interrupted" not in state.info.metrics.counters
    shortest, _ = run(made(seconds=0.04), "xx...")
    assert shortest[4] == "|a t |t"


def test_without_a_detector_everything_is_let_in_until_a_command():
    node = made(detector="none")
    found, state = run(node, "....")
    assert found == ["a0", "a1", "a2", "a3"]
    assert text(node, Frame.control("trigger"), state) == "|a t t"
    assert text(node, Frame.control("trigger"), state) == ""
    assert run(node, "..", state)[0] == ["t", "t"]
    assert text(node, Frame.control("listen"), state) == "!1 |t"
    assert text(node, Frame.control("listen"), state) == ""
    assert run(node, ".", state)[0] == ["a0"]


def test_an_interruption_by_the_session_keeps_to_its_epoch():
    node = made(detector="none")
    _, state = run(node, ".")
    text(node, Frame.control("trigger"), state)
    assert text(node, Frame.control("interrupt").replace(epoch=7), state) == "!7 |t"
    assert text(node, Frame.control("dance"), state) == ""


def test_what_is_muted_counts_as_silence():
    node = made()
    _, state = run(node, "xx")
    text(node, Frame.control("mute", on=True), state)
    assert run(node, "xxx", state)[0] == ["", "", "|a t t"]
    text(node, Frame.control("mute", on=False), state)
    assert run(node, "..x", state)[0][2].startswith("!1")


def test_the_length_can_be_changed_while_it_plays():
    node = made()
    _, state = run(node, "xx...")
    text(node, Frame.control("length", seconds=0.12), state)
    assert run(node, ".", state)[0] == ["t |t"]
    text(node, Frame.control("length", seconds=-1.0), state)
    assert state.info.metrics.counters["turns.refused_controls"] == 1
    text(node, Frame.control("length", seconds=None), state)
    assert state.limit is None


def test_while_the_microphone_is_away_nothing_ends_and_the_model_goes_on():
    found, state = run(made(), "xx-------.")
    assert found[2:] == [""] * 8, "a gap is no pause"
    run(made(), "..", state)
    assert state.continuing
    assert run(made(), "--", state)[0] == ["t", "t"]


def test_a_duet_decides_tick_by_tick_and_drops_nothing():
    found, state = run(made(), "..xx....x..", mode="duet")
    assert found[:4] == ["", "", "a2", "a3"]
    assert found[4] == "a4", "the gate's hang-over"
    assert found[5] == "a5* |a t", "the ears hear it all the same, before the turn ends"
    assert found[6:8] == ["a6* t", "a7* t"]
    assert found[8:] == ["|t a8", "a9", "a10* |a t"]
    assert state.position == 9 * TICK
    assert state.epoch == 0


@pytest.mark.parametrize("mode", ["reconstruct", "resynthesize"])
def test_modes_that_follow_their_input_let_everything_in(mode):
    assert run(made(), "..x..", mode=mode)[0] == ["a0", "a1", "a2", "a3", "a4"]


def test_a_voice_goes_through_with_its_role():
    node = made()
    state = node.init_state(info(mode="resynthesize"))
    out = list(node.step(sound(".")[0].replace(meta={"role": "voice"}), state, "audio"))
    assert out[0].meta == {"role": "voice"}


@pytest.mark.parametrize(("pattern", "ends"), [("xx", "$a $t"), ("xx....", "|t $a $t"), ("", "$a $t")])
def test_the_end_ends_both_streams(pattern, ends):
    node = made()
    _, state = run(node, pattern)
    assert text(node, Frame.end("audio", position=0), state) == ends


@pytest.mark.parametrize(
    ("pattern", "seconds", "ends"),
    [
        ("xx", 0.16, "|a t t t t |t $a $t"),
        ("xx.", 0.16, "|a t t t t |t $a $t"),
        ("xx...", 0.16, "t t |t $a $t"),
        ("xx......", 0.16, "$a $t"),
        ("xx......x", 0.16, "|a t t t t |t $a $t"),
        ("xx", 0.04, "|a t |t $a $t"),
        ("..", 0.16, "$a $t"),
    ],
)
def test_behind_a_file_the_model_has_its_turn_out(pattern, seconds, ends):
    node = made()
    _, state = run(node, pattern, seconds=seconds)
    assert text(node, Frame.end("audio", position=0), state) == ends
    assert not state.continuing


def test_what_goes_on_behind_a_file_waits_for_room_tick_by_tick():
    node = made()
    _, state = run(node, "xx", seconds=3600.0)
    frames = node.step(Frame.end("audio", position=0), state, "audio")
    assert [say(next(frames)) for _ in range(3)] == ["|a", "t", "t"]
    assert state.made == 1, "nothing is made before it is asked for"


@pytest.mark.parametrize("mode", ["duet", "reconstruct"])
def test_modes_without_turns_end_with_their_file(mode):
    node = made()
    _, state = run(node, "xx..", mode=mode, seconds=1.0)
    assert text(node, Frame.end("audio", position=0), state).endswith("$a $t")
    assert state.made == 0


def test_a_microphone_that_ends_ends_the_turn():
    node = TurnsNode(TurnsSettings(**MS), Build("turns", live=True))
    _, state = run(node, "xx....", seconds=1.0)
    assert text(node, Frame.end("audio", position=0), state) == "|t $a $t"


def test_a_file_in_which_nothing_is_heard_is_said(capsys):
    node = made()
    _, state = run(node, "...", seconds=1.0)
    text(node, Frame.end("audio", position=0), state)
    assert "no phrase in the input" in capsys.readouterr().err


def test_any_chunking_gives_the_same():
    whole = np.concatenate([frame.array for frame in sound("..xx....xx.xx....")])
    rng = np.random.default_rng(1)
    node, texts = made(), []
    for pieces in ([whole], np.split(whole, np.sort(rng.integers(0, len(whole), 40)))):
        state, at, found = node.init_state(info()), 0, []
        for piece in pieces:
            found.append(text(node, Frame.of("audio", piece, position=at, flags=HEARD), state))
            at += len(piece)
        texts.append(" ".join(filter(None, found)))
    assert texts[0] == texts[1] == " ".join(filter(None, run(node, "..xx....xx.xx....")[0]))


@pytest.mark.parametrize("at", range(13))
def test_saved_and_loaded_it_goes_on_as_if_nothing_had_been(at):
    node, pattern = made(), ".xx...xx.x..."
    frames, state = sound(pattern), node.init_state(info())
    found = [text(node, frame, state) for frame in frames[:at]]
    again = node.load(node.save(state), info())
    found += [text(node, frame, again) for frame in frames[at:]]
    assert found == run(node, pattern)[0]


def test_what_cannot_be_is_refused(loud):
    with pytest.raises(ConfigError, match="hears nothing"):
        made().init_state(info(mode="dream"))
    node = made()
    with pytest.raises(InputError, match="48000 Hz came"):
        list(
            node.step(
                Frame.of("audio", np.zeros(9, np.float32), position=0, rate=48000), node.init_state(info()), "audio"
            )
        )


def test_a_session_may_ask_for_another_detector(monkeypatch):
    asked = []
    monkeypatch.setattr(turns, "make_detector", lambda kind: asked.append(kind) or Loud())
    node = made(detector="auto")
    node.init_state(info(extra={"detector": "speech"}))
    node.init_state(info(extra={"detector": "speech"}))
    assert asked == ["music", "speech"]
    assert node.init_state(info(extra={"detector": "none"})).detector is None
