"""Overload: what is left out of a session's ticks when the machine is too slow, decided by how late they are.

A paced source says when each tick may be made, the last stage when it is made. Between the two lies a deadline, and a
ladder: each rung makes a tick cheaper than the one before. Two late ticks that do not catch up lead down, seconds with
time to spare lead up again, and where the way up was too early it is tried less often. Without a paced source there are
no deadlines, so nothing is ever left out. It knows no model: what a rung means is done by who asks it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from streamer.metrics import Metrics, Ring

TICK: Final = 0.04  # seconds that a tick may take from its permission, or from the end of the one before
LATE: Final = 0.05  # seconds behind the deadline that are worth acting on: less is taken by the buffers
FAR: Final = 0.12  # seconds behind at which every buffer is empty: what is more is not held against the next tick
BAD: Final = 2  # ticks in a row that must be late and not catch up
SETTLE: Final = 3  # ticks that were under way before a change could tell
ROOM: Final = 0.014  # seconds to spare that count as calm
CALM: Final = 100  # calm ticks that lead up: 4 s
RARELY: Final = 1500  # the same at most, after the way up was too early several times: a minute
MOST: Final = 1024  # ticks that may be under way; more means that nobody makes them
WORDS: Final = (
    "nothing", "half of the fine levels", "three quarters of the fine levels", "all fine levels but one",
    "the fine stage", "the fine stage and new sessions",
)  # fmt: skip
TOP: Final = len(WORDS) - 1
NO_FINE: Final = TOP - 1


class Load:
    """How late the ticks of one session are, and the rung that follows from it.

    `permit` is called by a paced source, `begin` and `place` by the stage that takes its ticks, `done` by the last
    stage; source and stages may be different threads. The first rung is 0, the last `TOP`.

    Args:
        metrics: gauge `load.rung`, and counters `load.late_ticks`, `load.ticks_at_N`, `load.tokens_left_out`; none of
            them before there is something to say.
        on: whether there are deadlines at all.
        clock: seconds, of any beginning.

    Attributes:
        rung: what is left out now, see `WORDS`.
        lateness: seconds behind the deadline, of each tick that had one; 0 for those in time.
    """

    def __init__(
        self, metrics: Metrics | None = None, *, on: bool = True, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.metrics, self.on = Metrics() if metrics is None else metrics, on
        self.rung = 0
        self.lateness = Ring()
        self._clock = clock
        self._given: dict[int, float] = {}  # by the source's position
        self._permits: dict[int, float] = {}  # by the stages' position
        self._floor = self._before = float("-inf")
        self._late = 0.0
        self._bad = self._rest = self._calm = 0
        self._wait, self._held, self._fell = CALM, RARELY, False

    # -- what others ask --------------------------------------------------------------------------------------------

    @property
    def words(self) -> str | None:
        """What is left out now; None: nothing."""
        return WORDS[self.rung] if self.rung else None

    @property
    def crowded(self) -> bool:
        """Whether nothing more can be left out: nobody else should come in."""
        return self.rung == TOP

    def levels(self, count: int) -> int:
        """How many of `count` fine levels are to be made; 0: the fine stage does not step."""
        return 0 if self.rung >= NO_FINE else 1 if self.rung == NO_FINE - 1 else -(-count // 2**self.rung)

    def report(self) -> dict[str, object]:
        """Plain data: `rung`, `left_out` (words), `ticks` at each rung, late ones, tokens, percentiles in ms."""
        counters, found = self.metrics.counters, self.lateness.percentiles()
        shed = [counters.get(f"load.ticks_at_{rung}", 0) for rung in range(1, TOP + 1)]
        return {
            "rung": self.rung,
            "left_out": self.words,
            "ticks": [max(0, self.lateness.count - sum(shed)), *shed],
            "late_ticks": counters.get("load.late_ticks", 0),
            "tokens_left_out": counters.get("load.tokens_left_out", 0),
            "lateness_ms": {name: round(found[name], 2) for name in ("p50", "p99", "max")},
        }

    # -- ticks ------------------------------------------------------------------------------------------------------

    def permit(self, position: int, *, behind: float = 0.0, placed: bool = False, paced: bool = True) -> None:
        """A tick may be made from now on, or since `behind` seconds.

        Args:
            position: of the tick, in samples of whoever gives it.
            behind: seconds by which it is given too late.
            placed: the stages count the same positions; else `place` says which theirs is.
            paced: whether it has to be in time for anybody; else nothing happens.
        """
        if self.on and paced:
            _keep(self._permits if placed else self._given, position, self._clock() - behind)

    def begin(self) -> None:
        """A turn begins: what was permitted before has had to wait for the end of what was heard."""
        self._floor, self._late, self._bad = self._clock(), 0.0, 0

    def place(self, given: int, position: int) -> None:
        """The tick that its source gave at `given` is the one at `position` of the stages."""
        since = self._given.pop(given, None)
        if since is not None:
            _keep(self._permits, position, since)

    def done(self, position: int, left_out: int = 0) -> None:
        """The tick at `position` is made, without `left_out` tokens. One that nobody has permitted has no deadline."""
        if left_out:
            self.metrics.count("load.tokens_left_out", left_out)
        since = self._permits.pop(position, None)
        if since is None:
            return
        now = self._clock()
        due = max(since, self._floor, self._before) + TICK
        self._before = max(min(due, now), now - FAR)
        self._count(now - due)
        self._judge(now - due)

    def _count(self, late: float) -> None:
        self.lateness.add(max(0.0, late))
        if late > 0:
            self.metrics.count("load.late_ticks")
        if self.rung:
            self.metrics.count(f"load.ticks_at_{self.rung}")

    # -- the ladder -------------------------------------------------------------------------------------------------

    def _judge(self, late: float) -> None:
        """Go down when it is late and does not get better, up when it has long been in time."""
        stuck = late > LATE and late > self._late * 15 / 16
        self._late = late
        self._held += 1
        if self._rest:
            self._rest -= 1
            return
        self._bad = self._bad + 1 if stuck else 0
        self._calm = self._calm + 1 if late <= -ROOM else max(0, self._calm - 4)
        if self._bad >= BAD and self.rung < TOP:
            self._down(2 if late > FAR + TICK else 1)  # two: it takes more than twice its time
        elif self.rung and self._calm >= self._wait:
            self._up()

    def _down(self, rungs: int) -> None:
        if self._held <= CALM:  # the way up was too early
            self._wait, self._fell = min(2 * self._wait, RARELY), True
        self._move(min(self.rung + rungs, TOP))

    def _up(self) -> None:
        self._wait = self._wait if self._fell else max(CALM, self._wait // 2)
        self._held, self._fell = 0, False
        self._move(self.rung - 1)

    def _move(self, rung: int) -> None:
        self.rung, self._rest, self._bad, self._calm = rung, SETTLE, 0, 0
        self.metrics.gauge("load.rung", rung)


def told(counters: Mapping[str, int]) -> str | None:
    """What was left out in all, in words, from the counters of one or more sessions; None: nothing."""
    ticks = {rung: counters.get(f"load.ticks_at_{rung}", 0) for rung in range(1, TOP + 1)}
    each = [f"{TICK * count:.1f} s without {WORDS[rung]}" for rung, count in ticks.items() if count]
    return f"the machine was too slow: {', '.join(each)}" if each else None


def _keep(table: dict[int, float], position: int, since: float) -> None:
    """Keep an instant; what nobody ever asks for does not grow."""
    if len(table) >= MOST:
        table.clear()
    table[position] = since
