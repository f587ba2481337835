"""Tells the service manager how a live run goes: ready, what it does, that it is alive, that it ends.

It is said to be alive only while the event loop turns and every lane answers; a lane whose step hangs, or a loop that
is held, brings the manager to kill the program and start it again, and that goes on from its state.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from streamer.commands.notify import Notifier
from streamer.commands.sessions import Live

LOOK: Final = 1.0  # seconds between two looks, at most
LOOKS: Final = 4  # looks in a period of the watchdog
STARTING: Final = 60.0  # seconds that the manager gives a start that still says something


class Attendant:
    """Looks at a run now and then and says what there is to say. Knows what it said last, to say it once.

    Args:
        live: the run. notifier: whom to tell.
    """

    def __init__(self, live: Live, notifier: Notifier) -> None:
        self.live, self.notifier = live, notifier
        self.ready = self.ending = self.stuck = False
        self._said = ""
        self._asked: asyncio.Task[None] | None = None

    async def attend(self) -> None:
        """Look, again and again, until cancelled; returns at once when nobody listens."""
        period = self.notifier.period
        pause = LOOK if period is None else min(LOOK, period / LOOKS)
        try:
            while self.notifier.active:
                self.look()
                await asyncio.sleep(pause)
        finally:
            self._end()
            if self._asked is not None:
                self._asked.cancel()

    def look(self) -> None:
        """One look."""
        live, say = self.live, self.notifier.say
        if live.over is not None:
            self._end()
        if not self.ready and live.phase == "running":
            self.ready = True
            say(READY=1, STATUS=self.text)
        elif not self.ready:
            say(EXTEND_TIMEOUT_USEC=round(STARTING * 1e6))
        if self.text != self._said and not self.ending:
            self._said = self.text
            say(STATUS=self._said)
        if self.notifier.period is not None:
            self._watch()

    def _end(self) -> None:
        if not self.ending:
            self.ending = True
            self.notifier.say(STOPPING=1, STATUS=f"ending: {self.live.over or 'a failure'}")

    @property
    def text(self) -> str:
        """What it does, in one line."""
        live = self.live
        what = live.follower.state if live.phase == "running" else live.note
        session = f", session {live.follower.sessions}" if live.follower.sessions > 1 else ""
        return f"{live.phase}{'' if what is None else f': {what}'}{session} ({live.reason}, since {live.since})"

    def _watch(self) -> None:
        """Say that it is alive when the lanes have answered since the last look, and ask them again."""
        if self._asked is not None:
            if not self._asked.done():
                self._say_stuck()
                return
            self.stuck = False
            if not self._asked.cancelled() and self._asked.exception() is None:
                self.notifier.say(WATCHDOG=1)
        self._asked = asyncio.get_running_loop().create_task(self.live.answers(), name="lanes answer")

    def _say_stuck(self) -> None:
        if not self.stuck:
            self.stuck = True
            structlog.get_logger().warning("watchdog", note="a lane does not answer; if it stays so, this is killed")
