"""What a live run shows and takes while it goes: the screen and its keys, or status lines, or nothing.

Knows how to stop and go on with the shell's job control; what keys mean is in `controls`, what is drawn in `view`.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, Self, TextIO

from streamer.commands import logs
from streamer.commands.controls import Controls
from streamer.commands.keys import Keys
from streamer.commands.sessions import Live

if TYPE_CHECKING:
    from streamer.commands.view import View

LOOK: Final = 0.1  # seconds between two looks at what is going on
LOOKS: Final = 10  # from one status line to the next


class Front:
    """The side of a live run that people or services see; open it inside the event loop.

    Args:
        live: the run.
        interactive: take keys where standard input is a terminal, draw where standard error is one.
        say: called with the status about once a second.
    """

    def __init__(
        self, live: Live, *, interactive: bool, say: Callable[[Mapping[str, Any]], None] | None = None
    ) -> None:
        self.live, self.say = live, say
        self.controls = Controls(live)
        self.keys = Keys(self.controls.press) if interactive else None
        self.view = _view() if interactive else None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        if self.view is not None:
            self._stack.callback(logs.configure)
            self._stack.enter_context(self.view)
            logs.configure(into=self.view)
        if self.keys is not None:
            self._stack.enter_context(self.keys)
            self._handle(signal.SIGTSTP, self._suspend)
            self._handle(signal.SIGCONT, self._resume)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _handle(self, number: signal.Signals, action: Callable[[], None]) -> None:
        if signal.getsignal(number) is signal.SIG_IGN:
            return
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(number, action)
        self._stack.callback(loop.remove_signal_handler, number)

    def _suspend(self) -> None:
        """Ctrl-Z: give the terminal back, then stop as any program does."""
        if self.keys is not None:
            self.keys.pause()
        if self.view is not None:
            self.view.pause()
        os.kill(os.getpid(), signal.SIGSTOP)

    def _resume(self) -> None:
        if self.keys is not None:
            self.keys.resume()
        if self.view is not None:
            self.view.resume()

    def status(self) -> dict[str, Any]:
        """What is true now, as plain data."""
        live, loaded = self.live, self.live.graph.plan.loaded
        return {
            "event": "status",
            "config": loaded.file,
            "bundle": loaded.config.bundle,
            "phase": live.phase,
            "note": live.note,
            "reason": live.reason,
            "since": live.since,
            "snapshot": live.keeper.status(),
            **{name: live.setting(name) for name in ("mode", "seed")},
            **live.follower.status(),
            **self.controls.status(),
            "failed": live.failed,
        }

    async def keep_looking(self) -> None:
        """Look ten times a second, draw as often, say it once a second; until cancelled.

        Raises:
            OSError: nobody takes what is said.
        """
        count = 0
        while True:
            self.live.follower.look()
            if self.view is not None:
                taken = self.keys is not None and self.keys.active
                self.view.status = self.status() | {"help": self.controls.help, "keys": taken}
            if count % LOOKS == 0:
                self._each_second()
            count += 1
            await asyncio.sleep(LOOK)

    def _each_second(self) -> None:
        if self.keys is not None:
            self.keys.resume()  # the process may be in the foreground again
        if self.say is not None and takes(sys.stdout):
            self.say(self.status())


def takes(stream: TextIO) -> bool:
    """Whether a line can be written without waiting: a reader that has gone to sleep must not hold the sound up."""
    try:
        return bool(select.select([], [stream.fileno()], [], 0)[1])
    except (OSError, ValueError):  # not a file of the system
        return True


def _view() -> View | None:
    from streamer.commands.view import View, can_show

    return View() if can_show() else None
