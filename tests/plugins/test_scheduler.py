"""Opening hours: what is open when, fades to the sample, silence, and who is told."""

import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from pydantic import ValidationError

sys.path.insert(0, str(Path(__file__).parent))
from desks import TICK, graph_of, playing, sound
from streamer_plugins._hours import days, spans
from streamer_plugins.scheduler import SchedulerNode, SchedulerSettings

from streamer import GENERATED, HEARD, Build, Frame, SessionInfo
from streamer.contract import check_node
from streamer.snapshot import dumps, loads

BERLIN = ZoneInfo("Europe/Berlin")
MUSEUM = {
    "zone": "Europe/Berlin",
    "hours": {"tue-fri": "10:00-18:00", "sat-sun": ["10:00-13:00", "14:00-20:00"], "fri": "20:00-02:00"},
    "dates": {"2026-12-24": "10:00-14:00", "2026-12-26": "closed"},
}


def node(**settings):
    return SchedulerNode(SchedulerSettings(**settings), Build("hours"))


class Clock:
    def __init__(self, at):
        self.at = at

    def __call__(self):
        return self.at


def at(text, zone=BERLIN):
    return datetime.fromisoformat(text).replace(tzinfo=zone)


NOON, NIGHT = at("2026-06-02 12:00"), at("2026-06-02 23:00")  # a Tuesday


@pytest.mark.parametrize(
    ("when", "is_open"),
    [
        ("2026-06-01 12:00", False),  # Monday
        ("2026-06-02 09:59:59", False),
        ("2026-06-02 10:00", True),
        ("2026-06-02 17:59:59", True),
        ("2026-06-02 18:00", False),
        ("2026-06-05 12:00", False),  # Friday: the later entry wins
        ("2026-06-05 20:00", True),
        ("2026-06-06 01:59", True),  # Saturday, still Friday's
        ("2026-06-06 02:00", False),
        ("2026-06-06 13:30", False),
        ("2026-06-07 19:00", True),
        ("2026-12-24 15:00", False),  # Thursday, by its date
        ("2026-12-26 12:00", False),  # Saturday, by its date
        ("2026-12-26 01:00", True),  # the night of Friday goes on
        ("2026-12-27 12:00", True),
    ],
)
def test_when_it_is_open(when, is_open):
    museum = node(**MUSEUM)
    assert museum.is_open(at(when)) is is_open
    assert museum.is_open(at(when).astimezone(UTC)) is is_open


def test_the_hours_are_those_of_the_clock_on_the_wall_all_year():
    museum = node(zone="Europe/Berlin", hours={"daily": "10:00-18:00"})
    for day, hour in (("2026-01-15", 9), ("2026-07-15", 8)):
        opens = datetime.fromisoformat(f"{day} {hour:02}:00").replace(tzinfo=UTC)
        assert museum.is_open(opens)
        assert not museum.is_open(opens - timedelta(seconds=1))
    night = node(zone="Europe/Berlin", hours={"sat": "22:00-03:30"})  # the hour from 2 to 3 does not exist that night
    assert night.is_open(datetime(2026, 3, 29, 1, 29, tzinfo=UTC))
    assert not night.is_open(datetime(2026, 3, 29, 1, 30, tzinfo=UTC))


def test_without_hours_it_is_always_open_and_dates_still_count():
    always = node(zone="UTC", dates={date(2026, 6, 2): "closed"})
    assert always.is_open(at("2026-06-01 03:00", UTC))
    assert not always.is_open(at("2026-06-02 03:00", UTC))
    assert node().is_open(NOON)


def test_days_and_hours_as_people_write_them():
    assert days("mon") == [0]
    assert days("Fri-mon") == [4, 5, 6, 0]
    assert days("daily") == list(range(7))
    assert spans("0:00-24:00") == ((0, 1440),)
    assert spans(["9:30 - 12:00", "22:00-22:00"]) == ((570, 720), (1320, 2760))
    assert spans("closed") == spans([]) == ()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"zone": "Europe/Atlantis"}, "unknown time zone 'Europe/Atlantis'"),
        ({"zone": "../etc/passwd"}, "unknown time zone"),
        ({"hours": {"monday": "closed"}}, "day 'monday': expected mon"),
        ({"hours": {"mon-": "10-12"}}, "hours '10-12'"),
        ({"hours": {"mon": "10:00-25:00"}}, "hours '10:00-25:00'"),
        ({"hours": {"mon": "10:60-12:00"}}, "hours '10:60-12:00'"),
        ({"dates": {"2026-02-30": "closed"}}, "date"),
        ({"dates": {"2026-02-28": "shut"}}, "hours 'shut'"),
        ({"fade_in": -1}, "greater than or equal to 0"),
    ],
)
def test_settings_that_cannot_be(given, said):
    with pytest.raises(ValidationError, match=said):
        SchedulerSettings(**given)


def start(clock, **settings):
    scheduler = node(**({"zone": "Europe/Berlin", "hours": {"daily": "10:00-18:00"}} | settings))
    return scheduler, scheduler.init_state(SessionInfo(extra={"clock": clock}))


def test_while_open_every_frame_goes_through_as_it_is():
    scheduler, state = start(Clock(NOON))
    frames = [
        sound(0), sound(1, flags=GENERATED, meta={"role": "voice"}),
        Frame.turn("audio", position=2 * TICK, flags=HEARD), Frame.end("audio", position=2 * TICK),
    ]  # fmt: skip
    assert [out for frame in frames for out in scheduler.step(frame, state, "audio")] == frames
    assert state.info.metrics.gauges["hours.open"] is True


def test_outside_it_is_silent_to_the_bit_whatever_comes_and_says_so_once():
    scheduler, state = start(Clock(NIGHT))
    broken = Frame.of("audio", np.full(TICK, np.nan, np.float32), position=TICK, flags=HEARD)
    whole = Frame.of("audio", np.full(TICK, 999, np.int16), position=2 * TICK)
    first, mute, second, third, last = [
        out for frame in (sound(0), broken, whole, Frame.end("audio", position=3 * TICK))
        for out in scheduler.step(frame, state, "audio")
    ]  # fmt: skip
    assert mute.meta == {"command": "mute", "on": True}
    assert mute.session == "main"
    for frame, before in ((first, sound(0)), (second, broken), (third, whole)):
        assert frame == before.replace(payload=bytes(len(before.payload)))
    assert last.last
    assert state.info.metrics.gauges["hours.open"] is False


@pytest.mark.parametrize("size", [TICK, 1, 1000])
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_fades_are_straight_lines_whatever_the_chunking(size, dtype):
    clock = Clock(NOON)
    scheduler, state = start(clock, fade_out=0.1, fade_in=0.2)
    level = 1.0 if dtype is np.float32 else 20_000
    made, said, at_ = [], [], 0

    def play(count):
        nonlocal at_
        for start_ in range(0, count, size):
            frame = Frame.of("audio", np.full(min(size, count - start_), level, dtype), position=at_)
            at_ += frame.samples
            for out in scheduler.step(frame, state, "audio"):
                if out.kind == "audio":
                    made.append(out.array / level)
                    assert out.dtype == frame.dtype
                else:
                    said.append((len(np.concatenate(made)) if made else 0, out.meta["on"]))

    play(1000)
    clock.at = NIGHT
    play(3000)
    clock.at = NOON
    play(5000)
    line = np.clip(np.concatenate([
        np.ones(1000), 1 - np.arange(1, 3001) / 1600, np.arange(1, 5001) / 3200,
    ]), 0, 1)  # fmt: skip
    np.testing.assert_allclose(np.concatenate(made), line, atol=5e-5)
    assert [on for _, on in said] == [True, False]
    assert 2600 <= said[0][0] < 2600 + size
    assert made[-1][-1] == 1.0
    assert said[1][0] == 4000


def test_it_turns_round_in_the_middle_of_a_fade_and_then_says_nothing():
    clock = Clock(NOON)
    scheduler, state = start(clock, fade_out=0.08, fade_in=0.04)
    out = list(scheduler.step(sound(0, 1.0), state, "audio"))
    clock.at = NIGHT
    out += scheduler.step(sound(1, 1.0), state, "audio")
    clock.at = NOON
    out += scheduler.step(sound(2, 1.0), state, "audio")
    assert [frame.kind for frame in out] == ["audio"] * 3
    assert out[1].array[-1] == pytest.approx(0.5)
    assert out[2].array[0] == pytest.approx(0.5 + 1 / 640)
    assert out[2].array[-1] == 1.0


def test_without_fades_it_opens_and_closes_at_once():
    clock = Clock(NIGHT)
    scheduler, state = start(clock, fade_out=0, fade_in=0)
    list(scheduler.step(sound(0, 1.0), state, "audio"))
    clock.at = NOON
    mute, open_ = scheduler.step(sound(1, 1.0), state, "audio")
    assert mute.meta == {"command": "mute", "on": False}
    assert (open_.array == 1.0).all()
    clock.at = NIGHT
    closed, mute = scheduler.step(sound(2, 1.0), state, "audio")
    assert (closed.array == 0.0).all()
    assert mute.meta["on"] is True


def test_a_snapshot_in_the_middle_of_a_fade_goes_on_there():
    clock = Clock(NOON)
    scheduler, state = start(clock, fade_out=0.1)
    list(scheduler.step(sound(0, 1.0), state, "audio"))
    clock.at = NIGHT
    list(scheduler.step(sound(1, 1.0), state, "audio"))
    saved = loads(dumps({"state": scheduler.save(state)}))["state"]
    other = scheduler.load(saved, SessionInfo(extra={"clock": clock}))
    for number in range(2, 5):
        assert list(scheduler.step(sound(number, 1.0), other, "audio")) == list(
            scheduler.step(sound(number, 1.0), state, "audio")
        )
    assert other.muted
    fresh = scheduler.load(loads(dumps(scheduler.save(scheduler.init_state(SessionInfo())))), SessionInfo())
    assert fresh.done is None


@pytest.mark.parametrize("hours", [{}, {"daily": "closed"}, {"daily": "00:00-24:00"}])
def test_it_keeps_the_contract_of_nodes(hours):
    assert check_node(SchedulerNode, {"hours": hours}) == []


async def test_in_a_graph_whoever_is_connected_is_muted():
    nodes = """
  hours:
    type: scheduler
    zone: Europe/Berlin
    hours: {mon-fri: 10:00-18:00, sat: [10:00-13:00, 20:00-02:00]}
    dates: {"2026-12-24": closed}
    fade_out: 0
  other: heard_by
"""
    clock = Clock(NOON)
    with graph_of(nodes, ", script -> hours, hours -> other.audio, hours -> other.control") as graph:
        assert graph.nodes["hours"].config.dates == {date(2026, 12, 24): "closed"}
        async with playing(graph, clock=clock) as play:
            play.script.put_nowait(sound(0))
            await play.until(lambda: play.metrics.gauges.get("hours.open"))
            for moment, on in ((NIGHT, True), (NOON, False), (at("2026-12-24 12:00"), True)):
                clock.at = moment
                play.script.put_nowait(sound(1))
                assert await play.took() == [("mute", {"on": on})]


def test_it_goes_by_the_wall_clock_where_none_is_given():
    scheduler = node(hours={"daily": "00:00-24:00"})
    frame = sound(0)
    assert list(scheduler.step(frame, scheduler.init_state(SessionInfo()), "audio")) == [frame]
    closed = node(hours={"daily": "closed"})
    silent, mute = closed.step(frame, closed.init_state(SessionInfo()), "audio")
    assert not silent.array.any()
    assert mute.meta["on"] is True
