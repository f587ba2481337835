"""The speaker: what it plays, how it waits or skips, how it stops, and what it says of itself. The device is a fake."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from streamer import Graph, InputError, NodeError, Session, run
from streamer.errors import GraphError
from streamer.frame import AUDIO, GENERATED, HEARD, TURN, Frame
from streamer.metrics import Metrics
from streamer.node import Build, SessionInfo, Source
from streamer.nodes import speaker as module
from streamer.nodes.jitter import FADE
from streamer.nodes.pump import BLOCK, RAMP
from streamer.nodes.ring import Ring
from streamer.nodes.speaker import SpeakerSettings, SpeakerSink
from streamer.registry import Registry

TICK = 640


def tone(count, start=0, frequency=300.0, level=0.5):
    return (level * np.sin(2 * np.pi * frequency * (start + np.arange(count)) / 16000)).astype(np.float32)


class Playout:
    """Stands for the host's: a thread takes whatever is there, faster than a device would."""

    def __init__(self, wanted):
        self.wanted = wanted
        self.rate, self.channels, self.latency, self.name = 16_000, 1, 0.0, "a fake"
        self.ring = Ring(32_000)
        self.connected, self.expecting, self.underruns = True, False, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._play)
        self._thread.start()

    def _play(self):
        while not self._stop.wait(0.001):
            if self.connected:
                self.ring.clear()

    def close(self):
        self._stop.set()
        self._thread.join()


class Host:
    """Stands for the host of the process."""

    opened: list[Playout]

    def __init__(self):
        self.opened = []

    def shared(self):
        return self

    def playout(self, wanted):
        self.opened.append(Playout(wanted))
        return self.opened[-1]


class Reference:
    """Stands for the echo canceller's: keeps what was handed to the device, at 16 kHz."""

    def __init__(self):
        self.blocks = []
        self.sounding = threading.Event()

    def push(self, block):
        self.blocks.append(block)
        if block.any():
            self.sounding.set()

    @property
    def sound(self):
        """What was played, without the silence round it."""
        sound = np.concatenate([np.zeros(1, np.float32), *self.blocks])
        there = np.flatnonzero(sound)
        return sound[there[0] : there[-1] + 1] if len(there) else sound[:0]


@pytest.fixture
def host(monkeypatch):
    made = Host()
    monkeypatch.setattr(module, "Host", made)
    return made


@pytest.fixture
def played(monkeypatch):
    made = Reference()
    monkeypatch.setattr(module, "reference", lambda build: made)
    return made


@pytest.fixture
def make(host, played):
    """`make(live=..., **settings)`: a speaker; all are shut down, and their threads have ended."""
    made = []

    def build(*, live=False, **settings):
        made.append(SpeakerSink(SpeakerSettings(**settings), Build("speaker", live=live)))
        return made[-1]

    yield build
    for sink in made:
        sink.shutdown()
        assert sink.pump._thread is None or not sink.pump._thread.is_alive()
        assert not sink.playout._thread.is_alive()


def session(name="main", **fields):
    return SessionInfo(id=name, metrics=Metrics(), **fields)


def audio(sound, flags=GENERATED, **fields):
    return Frame.of(AUDIO, sound, position=0, flags=flags, **fields)


async def play(sink, ctx, sound, flags=GENERATED, **fields):
    for at in range(0, len(sound), TICK):
        await sink.write(audio(sound[at : at + TICK], flags, **fields), ctx, "audio")


async def until(sink, condition):
    """Wait for what only the pump's thread does; looks whenever it has moved."""
    await sink._until(sink._voice, condition)


async def test_plays_every_generated_sample_once(make, played, heartbeat):
    sink, ctx = make(), session()
    sound = np.random.default_rng(0).uniform(0.1, 0.5, 40 * TICK).astype(np.float32)
    await play(sink, ctx, sound)
    await sink.write(Frame.end(AUDIO, position=len(sound), flags=GENERATED), ctx, "audio")
    await sink.finish(ctx)
    got = played.sound
    assert len(got) == len(sound) + FADE
    assert np.array_equal(got[FADE : len(sound)], sound[FADE:])
    counters = ctx.metrics.counters
    assert counters["speaker.lost_samples"] == 0
    assert ctx.metrics.gauges["speaker.device"] == "a fake"
    assert ctx.metrics.gauges["speaker.connected"] is True


HEARD_IS_PLAYED = [  # monitor, mode, role
    (False, "continue", None, False),
    (True, "continue", None, True),
    (False, "reconstruct", None, True),
    (True, "resynthesize", None, False),
    (True, "continue", "voice", False),
    (False, "reconstruct", "voice", False),
    (True, "continue", "aside", False),
]


@pytest.mark.parametrize("case", HEARD_IS_PLAYED)
async def test_what_is_heard_is_played_only_where_it_is_wanted(make, played, case):
    monitor, mode, role, expected = case
    sink, ctx = make(monitor=monitor), session(mode=mode)
    await play(sink, ctx, tone(4 * TICK) + 0.6, flags=HEARD, meta={"role": role} if role else {})
    await sink.finish(ctx)
    assert bool(len(played.sound)) == expected


async def test_monitor_is_switched_while_it_runs(make, played):
    sink, ctx = make(), session()
    for on, level in ((True, 0.25), (False, 0.5)):
        await sink.write(Frame.control("monitor", on=on), ctx, "control")
        await play(sink, ctx, np.full(2 * TICK, level, np.float32), flags=HEARD)
    await sink.finish(ctx)
    assert played.sound.max() == 0.25


async def test_int16_is_scaled_and_what_is_not_finite_is_silence(make, played):
    sink, ctx = make(), session()
    await sink.write(audio(np.full(1600, 16384, np.int16)), ctx, "audio")
    bad = np.full(1600, 0.5, np.float32)
    bad[700:703] = [np.nan, np.inf, -np.inf]
    await sink.write(audio(bad), ctx, "audio")
    await sink.finish(ctx)
    assert np.array_equal(played.sound[FADE:2300], np.full(2300 - FADE, 0.5, np.float32))
    assert not played.sound[2300:2303].any()
    assert np.isfinite(played.sound).all()
    assert ctx.metrics.counters["speaker.not_finite"] == 3


async def test_another_rate_is_refused(make):
    with pytest.raises(InputError, match="takes sound at 16000 Hz, 48000 Hz came"):
        await make().write(audio(tone(480), rate=48_000), session(), "audio")


async def test_the_volume_is_a_gain_in_db(make, played):
    sink, ctx = make(volume_db=-20), session()
    await play(sink, ctx, np.full(4 * TICK, 0.5, np.float32))
    await sink.finish(ctx)
    assert played.sound.max() == pytest.approx(0.05)


async def test_a_command_changes_the_gain_without_a_click(make, played):
    sink, ctx = make(volume_db=-20), session()
    await play(sink, ctx, np.ones(10 * TICK, np.float32))
    await sink.write(Frame.control("gain", value=3.0), ctx, "control")
    await play(sink, ctx, np.ones(40 * TICK, np.float32))
    await sink.write(Frame.control("gain", value=0), ctx, "control")
    await play(sink, ctx, np.ones(40 * TICK, np.float32))
    await sink.finish(ctx)
    assert played.sound.max() == pytest.approx(0.3)
    steps = np.abs(np.diff(played.sound[FADE:-FADE]))
    assert steps.max() <= 1.01 * RAMP / BLOCK


async def test_a_gain_that_is_none_changes_nothing_and_each_session_begins_without(make, played):
    sink, first, second = make(), session("first"), session("second")
    await sink.write(Frame.control("gain", value=0.5), first, "control")
    for bad in (-0.1, 4.1, "2", None, True):
        await sink.write(Frame.control("gain", value=bad), first, "control")
    assert sink.pump.gain == 0.5
    assert first.metrics.counters["speaker.refused_controls"] == 5
    await sink.abort(first)
    await play(sink, second, np.full(10 * TICK, 0.5, np.float32))
    assert sink.pump.gain == 1
    await sink.finish(second)


async def test_without_a_live_source_the_device_is_the_clock(make, played, heartbeat):
    sink, ctx, levels = make(most_ms=200), session(mode="dream"), []
    sound = np.random.default_rng(0).uniform(0.1, 0.5, 100 * TICK).astype(np.float32)
    for at in range(0, len(sound), TICK):
        await sink.write(audio(sound[at : at + TICK]), ctx, "audio")
        levels.append(sink.buffer.level)
    assert max(levels) <= 3200
    await sink.finish(ctx)
    assert len(played.sound) == len(sound) + FADE
    assert (sink.buffer.lost, sink.buffer.underruns) == (0, 0)


async def test_one_large_frame_is_played_whole_without_a_live_source(make, played):
    sink, ctx = make(most_ms=120), session()
    sound = np.random.default_rng(0).uniform(0.1, 0.5, 16_000).astype(np.float32)
    await sink.write(audio(sound), ctx, "audio")
    await sink.finish(ctx)
    assert np.array_equal(played.sound[FADE:16_000], sound[FADE:])


async def test_with_a_live_source_it_never_waits_and_skips_what_piles_up(make, host):
    sink, ctx = make(live=True), session()
    host.opened[0].connected = False  # nothing is taken faster than the clock
    with pytest.raises(StopIteration):  # it returns without a single suspension
        play(sink, ctx, tone(100 * TICK)).send(None)
    assert sink.buffer.level <= 6400
    assert sink.buffer.lost > 0
    await until(sink, lambda: ctx.metrics.counters.get("speaker.lost_samples", 0) > 0)


async def test_an_interruption_fades_out_and_older_sound_stays_out(make, played):
    sink, ctx = make(live=True), session()
    await play(sink, ctx, tone(8 * TICK))
    await until(sink, lambda: sink.buffer.begun)
    ctx.metrics.mark("decided_stop")
    await sink.write(Frame.control("interrupt").replace(epoch=1), ctx, "control")
    assert (sink.buffer.level, sink.buffer.playing) == (0, False)
    await play(sink, ctx, tone(4 * TICK))
    assert sink.buffer.level == 0
    await until(sink, lambda: not sink.buffer.sounding)
    sound = np.concatenate([played.sound, [0.0]])
    assert np.abs(np.diff(sound)).max() < 0.5 * 2 * np.pi * 300 / 16000 + 0.02
    await until(sink, lambda: "stop_to_silence" in ctx.metrics.latencies)
    assert ctx.metrics.latencies["stop_to_silence"].count == 1
    await play(sink, ctx, np.full(4 * TICK, 0.25, np.float32), epoch=1)
    await until(sink, lambda: sink.buffer.begun == 2)


async def test_an_interruption_of_silence_is_not_measured(make):
    sink, ctx = make(live=True), session()
    ctx.metrics.mark("decided_stop")
    await sink.write(Frame.control("interrupt").replace(epoch=1), ctx, "control")
    await play(sink, ctx, tone(4 * TICK), epoch=1)
    await sink.finish(ctx)
    assert "stop_to_silence" not in ctx.metrics.latencies


async def test_the_end_of_a_turn_lets_a_short_one_sound(make, played):
    sink, ctx = make(live=True), session()
    await sink.write(audio(np.full(320, 0.5, np.float32)), ctx, "audio")
    await sink.write(Frame.turn(AUDIO, position=320, flags=GENERATED), ctx, "audio")
    await until(sink, lambda: sink.buffer.begun and not sink.buffer.sounding)
    assert len(played.sound) == 320 + FADE
    assert sink.buffer.underruns == 0


@pytest.mark.parametrize("flags", [HEARD | TURN, GENERATED | TURN])
async def test_the_end_of_a_turn_that_is_not_played_ends_nothing(make, flags):
    sink, ctx = make(live=True), session()
    await sink.write(Frame.control("interrupt").replace(epoch=2), ctx, "control")
    await sink.write(audio(np.full(320, 0.5, np.float32), epoch=2), ctx, "audio")
    await sink.write(Frame.of(AUDIO, position=0, flags=flags, epoch=1), ctx, "audio")
    assert not sink.buffer.ready


async def test_latencies_are_measured_from_the_marks_once_a_turn(make):
    sink, ctx = make(live=True), session()
    for turn in (1, 2):
        ctx.metrics.mark("speech_ended", again=True)
        ctx.metrics.mark("decided_continue", again=True)
        for _ in range(2):  # the second part comes after an underrun, in the same turn
            await play(sink, ctx, tone(4 * TICK))
            await until(sink, lambda: not (sink.buffer.sounding or sink.buffer.level))
        await sink.write(Frame.turn(AUDIO, position=320, flags=GENERATED), ctx, "audio")
        for name in ("decision_to_sound", "speech_end_to_sound"):
            await until(sink, lambda name=name, turn=turn: ctx.metrics.latencies[name].count == turn)
    ring = ctx.metrics.latencies["decision_to_sound"]
    assert all(0 < value < 5 for value in ring.values)
    assert ctx.metrics.counters["speaker.underruns"] >= 2


async def test_a_second_session_is_refused_and_the_first_goes_on(make, played):
    sink, first, second = make(), session("first"), session("second")
    await play(sink, first, np.full(4 * TICK, 0.5, np.float32))
    with pytest.raises(InputError, match="plays session 'first', and session 'second' came too"):
        await play(sink, second, tone(TICK))
    await sink.abort(second)
    await play(sink, first, np.full(4 * TICK, 0.5, np.float32))
    await sink.finish(first)
    assert len(played.sound) == 8 * TICK + FADE


async def test_sessions_come_and_go_on_one_device(make, played, host):
    sink = make()
    for name, count in (("first", 3), ("second", 5)):
        ctx = session(name)
        await play(sink, ctx, np.full(count * TICK, 0.5, np.float32), epoch=count)
        await sink.finish(ctx)
        assert sink.buffer.put_samples == count * TICK
        assert len(played.sound) == count * TICK + FADE
        played.blocks.clear()
    assert len(host.opened) == 1


async def test_a_session_that_goes_on_after_a_pause_takes_over(make):
    sink = make()
    await play(sink, session("main"), tone(TICK))
    again = session("main")
    await play(sink, again, tone(4 * TICK))
    await sink.finish(again)
    assert sink.buffer.put_samples == 4 * TICK


async def test_a_session_that_never_played_ends_at_once(make):
    sink = make()
    await sink.finish(session())
    await sink.abort(session())


async def test_an_abort_fades_out_and_makes_room(make, played):
    sink, ctx = make(live=True), session("first")
    await play(sink, ctx, tone(8 * TICK))
    await until(sink, lambda: sink.buffer.begun)
    await sink.abort(ctx)
    assert (sink.buffer.level, sink.buffer.playing) == (0, False)
    other = session("second")
    await play(sink, other, tone(4 * TICK))
    await sink.finish(other)
    assert "speaker.underruns" in other.metrics.counters


async def test_a_device_that_is_away_never_holds_anything_up(make, host, heartbeat):
    sink, ctx = make(), session()
    host.opened[0].connected = False
    await play(sink, ctx, tone(20 * TICK))
    await sink.finish(ctx)
    assert ctx.metrics.counters["speaker.lost_samples"] == 20 * TICK
    assert ctx.metrics.gauges["speaker.connected"] is False


async def test_a_thread_that_fails_is_an_error_of_the_session(make, monkeypatch):
    sink, ctx = make(), session()
    monkeypatch.setattr(sink.pump, "given", lambda block: (_ for _ in ()).throw(OSError("no more")))
    with pytest.raises(GraphError, match="speaker 'speaker' stopped: OSError: no more"):
        await play(sink, ctx, tone(100 * TICK))
    with pytest.raises(GraphError, match="no more"):
        await sink.finish(ctx)
    await sink.abort(ctx)
    with pytest.raises(GraphError, match="no more"):
        await play(sink, session("next"), tone(TICK))


def test_settings_that_cannot_work_say_why():
    with pytest.raises(ValueError, match="expected most_ms at least 40 more"):
        SpeakerSettings(prime_ms=400)
    for bad in ({"volume_db": 3}, {"rate": 1}, {"channels": 0}, {"device": 1.5}):
        with pytest.raises(ValueError, match="validation error"):
            SpeakerSettings(**bad)


def test_what_is_asked_of_the_device_reaches_the_host(make, host):
    make(device="USB", rate=44_100, channels=2)
    wanted = host.opened[0].wanted
    assert (wanted.device, wanted.rate, wanted.channels) == ("USB", 44_100, 2)


TEXT = """
nodes:
  input: {{type: file, path: {path}}}
  speaker: speaker
edges: [input -> speaker.audio]
"""


@pytest.fixture
def prompt(tmp_path):
    import soundfile

    path = tmp_path / "prompt.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(0.1, 0.5, 50 * TICK), 16000, subtype="FLOAT")
    return path


async def test_a_file_through_a_whole_graph(prompt, host, played):
    import soundfile

    with Graph.parse(TEXT.format(path=prompt), overrides=["session.mode=reconstruct"]) as graph:
        await run(graph)
        await run(graph, Session(graph, "second"))
    sound = soundfile.read(prompt, dtype="float32")[0]
    whole = np.concatenate(played.blocks)
    turns = np.flatnonzero(np.diff(np.concatenate([[0], whole != 0, [0]]).astype(int)) == 1)
    assert len(turns) == 2
    for start in turns:
        np.testing.assert_array_equal(whole[start + FADE : start + len(sound)], sound[FADE:])


async def test_a_cancelled_run_leaves_no_thread(prompt, host, played):
    with Graph.parse(TEXT.format(path=prompt), overrides=["session.mode=reconstruct"]) as graph:
        task = asyncio.create_task(run(graph))
        assert await asyncio.to_thread(played.sounding.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        thread = graph.sinks["speaker"].pump._thread
    assert not thread.is_alive()


async def test_two_sessions_at_once_are_refused(prompt, host, played):
    with (
        Graph.parse(TEXT.format(path=prompt), overrides=["session.mode=reconstruct"], slots=2) as graph,
        pytest.raises(NodeError, match="one session at a time"),
    ):
        await run(graph, [Session(graph, "a"), Session(graph, "b")])


class Live(Source):
    type_name = "live"
    emits = (AUDIO,)
    live = True

    async def frames(self, ctx):
        yield Frame.end(AUDIO, position=0, session=ctx.id)


@pytest.mark.parametrize("live", [True, False])
def test_it_is_told_whether_a_live_source_is_the_clock(live):
    registry = Registry.with_builtins()
    registry.add(Live)
    source = "live" if live else "{type: file, path: x.wav}"
    text = f"{{nodes: {{input: {source}, speaker: speaker}}, edges: [input -> speaker.audio]}}"
    graph = Graph.parse(text, registry)
    assert [graph.plan.builds[name].live for name in ("input", "speaker")] == [live, live]
