"""`scheduler`: opening hours on the way of the sound: fades at both ends, silence outside, `mute` for whoever asks.

    nodes:
      hours:
        type: scheduler
        zone: Europe/Berlin
        hours: {tue-fri: 10:00-18:00, sat-sun: [10:00-13:00, "14:00-02:00"]}
        dates: {"2026-12-24": 10:00-14:00, "2026-12-25": closed}
        fade_in: 5
        fade_out: 20
    edges:
      - mic -> hours -> turns        # its sound, and its control goes along

It reads the wall clock, so a recorded session repeats only at the same hours; a program can give another clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from pydantic import Field, model_validator

from streamer import Build, Frame, Node, SessionInfo, Settings

from ._hours import DAY, Spans, days, spans


class SchedulerSettings(Settings):
    """When it is open. A later entry of `hours` wins over an earlier one, a date over a day."""

    zone: str | None = Field(default=None, description="time zone, for instance Europe/Berlin; default: the machine's")
    hours: dict[str, str | list[str]] = Field(
        default={}, description="`mon`, `mon-fri` or `daily` -> 10:00-18:00, a list, or closed; default: always open"
    )
    dates: dict[date, str | list[str]] = Field(default={}, description="the same for single days, 2026-12-24")
    fade_in: float = Field(default=2.0, ge=0, le=3600, description="seconds from the opening to full sound")
    fade_out: float = Field(default=2.0, ge=0, le=3600, description="seconds from the closing to silence")

    @model_validator(mode="after")
    def _readable(self) -> SchedulerSettings:
        self.place(), self.week()
        for text in self.dates.values():
            spans(text)
        return self

    def place(self) -> ZoneInfo | None:
        """The time zone; None: the machine's."""
        try:
            return None if self.zone is None else ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            message = f"unknown time zone {self.zone!r}; expected a name such as Europe/Berlin"
            raise ValueError(f"{message} (a machine without time zones needs: pip install tzdata)") from error

    def week(self) -> list[Spans]:
        """When it is open, from Monday to Sunday."""
        made: list[Spans] = [() if self.hours else ((0, DAY),)] * 7
        for name, text in self.hours.items():
            for day in days(name):
                made[day] = spans(text)
        return made


def now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


@dataclass
class SchedulerState:
    """One session. The gain is `done / length`: whole numbers, so that no chunking of the sound changes a sample.

    `done`: samples of the fade that count, None before the first sound. `length`: samples of that fade. `muted`: what
    was last said to the others.
    """

    info: SessionInfo
    clock: Callable[[], datetime]
    done: int | None = None
    length: int = 1
    muted: bool = False


class SchedulerNode(Node):
    """Lets sound through while it is open. Says `mute` (`on`: bool) when silence is reached, and when it opens again.

    A session that begins while it is open begins at full sound. `clock` among the extra values of a session (a function
    that gives a datetime with a zone) takes the place of the wall clock. Gauge: `open`.
    """

    type_name = "scheduler"
    accepts = ("audio",)
    emits = ("audio", "control")
    Config = SchedulerSettings
    config: SchedulerSettings

    def __init__(self, config: SchedulerSettings, build: Build) -> None:
        """Work out the hours."""
        super().__init__(config, build)
        self._zone, self._week = config.place(), config.week()
        self._dates = {day: spans(text) for day, text in config.dates.items()}

    def is_open(self, at: datetime) -> bool:
        """Whether it is open at an instant."""
        local = at.astimezone(self._zone)
        minute, today = local.hour * 60 + local.minute, local.date()
        yesterday = today - timedelta(days=1)
        return any(start <= minute < end for start, end in self._spans(today)) or any(
            start <= minute + DAY < end for start, end in self._spans(yesterday)
        )

    def _spans(self, day: date) -> Spans:
        return self._dates.get(day, self._week[day.weekday()])

    def init_state(self, info: SessionInfo) -> SchedulerState:
        """Nothing has come yet."""
        return SchedulerState(info, info.extra.get("clock") or now)

    def step(self, frame: Frame, state: SchedulerState, input: str) -> Iterable[Frame]:  # noqa: A002
        """One frame of sound."""
        _ = input
        is_open = self.is_open(state.clock())
        state.info.metrics.gauge(f"{self.name}.open", is_open)
        if state.done is None:
            state.done = int(is_open)
        if is_open and state.muted:
            yield self._mute(state, on=False)
        yield self._faded(frame, state, is_open=is_open) if frame.payload else frame
        if not is_open and not state.muted and state.done == 0:
            yield self._mute(state, on=True)

    def _mute(self, state: SchedulerState, *, on: bool) -> Frame:
        state.muted = on
        return Frame.control("mute", on=on).replace(session=state.info.id)

    def _faded(self, frame: Frame, state: SchedulerState, *, is_open: bool) -> Frame:
        """The frame with the gain that goes up or down, sample by sample."""
        seconds = self.config.fade_in if is_open else self.config.fade_out
        length = max(1, round(seconds * frame.rate))
        done = round((state.done or 0) * length / state.length)
        state.done, state.length = done, length
        if done == (length if is_open else 0):
            return frame if is_open else frame.replace(payload=bytes(len(frame.payload)))
        way = np.arange(1, frame.shape[0] + 1)
        counts = np.clip(done + way if is_open else done - way, 0, length)
        state.done = int(counts[-1])
        line = counts / length
        sound: Any = frame.array * line
        made = np.rint(sound) if frame.dtype == "i2" else sound
        return frame.replace(payload=made.astype("<" + frame.dtype).tobytes())

    def save(self, state: SchedulerState) -> dict[str, Any]:
        """Where the fade stands, and what was said."""
        return {"done": state.done, "length": state.length, "muted": state.muted}

    def load(self, saved: dict[str, Any], info: SessionInfo) -> SchedulerState:
        """The state again."""
        done = None if saved["done"] is None else int(saved["done"])
        return replace(self.init_state(info), done=done, length=int(saved["length"]), muted=bool(saved["muted"]))
