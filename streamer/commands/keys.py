"""Single keys from a terminal, on the event loop. Knows what keys are called, not what they do.

The terminal is in cbreak mode meanwhile (keys come at once and unseen; Ctrl-C and Ctrl-Z mean what they always mean)
and gets back what it had on every way out. A process in the background leaves the terminal alone.
"""

from __future__ import annotations

import asyncio
import os
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final, Self

ESCAPE: Final = "\x1b"
MOST_BYTES: Final = 256
LONGEST_SEQUENCE: Final = 16
NAMES: Final = {"A": "up", "B": "down", "C": "right", "D": "left"}


class Parser:
    """From bytes to names of keys: printable characters as they are, the arrows `up`, `down`, `left` and `right`."""

    def __init__(self) -> None:
        self._rest = ""

    def feed(self, data: bytes) -> list[str]:
        """The keys that are whole with these bytes; a sequence that was cut waits for its rest."""
        text, self._rest = self._rest + data.decode("utf-8", "replace"), ""
        return list(self._names(text))

    def _names(self, text: str) -> Iterator[str]:
        at = 0
        while at < len(text):
            if text[at] != ESCAPE:
                if text[at].isprintable():
                    yield text[at]
                at += 1
                continue
            end = _end_of_sequence(text, at)
            if end is None:
                self._rest = text[at:] if len(text) - at < LONGEST_SEQUENCE else ""
                return
            if text[at + 1 : at + 2] in "[O" and end - at == 3:
                yield from filter(None, [NAMES.get(text[end - 1])])
            at = end


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def _end_of_sequence(text: str, at: int) -> int | None:
    """Behind the last character of the escape sequence that begins at `at`; None when it is cut."""
    if at + 1 >= len(text):
        return None
    if text[at + 1] not in "[O":
        return at + 1  # Escape itself, or Alt with a key: the key counts
    for end in range(at + 2, len(text)):
        if "@" <= text[end] <= "~":
            return end + 1
    return None


def foreground(fd: int) -> bool:
    """Whether this process may use the terminal: it is in the foreground, or nobody controls jobs there."""
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return True


class Keys:
    """Calls `on_key(name)` for each key that is pressed, while it is open; does nothing where there is no terminal.

    Args:
        on_key: called on the event loop.
        fd: the terminal.
    """

    def __init__(self, on_key: Callable[[str], None], fd: int = 0) -> None:
        self.on_key, self.fd = on_key, fd
        self.active = False
        self._before: list[Any] = []
        self._parser = Parser()
        self._terminal = _is_terminal(fd)

    def __enter__(self) -> Self:
        self.resume()
        return self

    def __exit__(self, *exc: object) -> None:
        self.pause()

    def resume(self) -> None:
        """Take the terminal, unless it is taken or not ours now; call it again whenever that may have changed."""
        if not self._terminal or not foreground(self.fd):
            return
        with suppress(termios.error, OSError):  # it has gone away
            if not self.active:
                self._before = termios.tcgetattr(self.fd)
                asyncio.get_running_loop().add_reader(self.fd, self._read)
                self.active = True
            tty.setcbreak(self.fd, termios.TCSANOW)

    def pause(self) -> None:
        """Give the terminal back as it was."""
        if not self.active:
            return
        self.active = False
        asyncio.get_running_loop().remove_reader(self.fd)
        if foreground(self.fd):  # else the shell has set it as it likes it
            with suppress(termios.error, OSError):
                termios.tcsetattr(self.fd, termios.TCSANOW, self._before)

    def _read(self) -> None:
        if not foreground(self.fd):
            self.pause()  # reading would stop the process
            return
        data = b""
        with suppress(OSError):  # EIO: the terminal has gone away
            data = os.read(self.fd, MOST_BYTES)
        if not data:
            self._terminal = False
            self.pause()
        for name in self._parser.feed(data):
            self.on_key(name)
