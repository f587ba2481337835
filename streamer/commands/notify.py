"""What a service manager is told: systemd's notifications, one datagram to the socket it names. No library is needed.

Without such a socket nothing is said. Knows no run; who says what is `attend`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Final

import structlog

SOCKET: Final = "NOTIFY_SOCKET"
PERIOD: Final = "WATCHDOG_USEC"
WATCHED: Final = "WATCHDOG_PID"
MOST: Final = 200  # characters of a status


class Notifier:
    """Says `READY=1` and the like.

    Args:
        environ: where the manager's socket and the watchdog's period stand; `os.environ` by default.

    Attributes:
        active: whether there is somebody to tell.
        period: seconds within which `WATCHDOG=1` is expected again and again; None: it is not.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        found = os.environ if environ is None else environ
        self._address = _address(found.get(SOCKET, ""))
        self.active = self._address is not None
        self.period = _period(found) if self.active else None
        self._lost = False

    def say(self, **fields: str | int) -> None:
        """One message, for instance `say(READY=1, STATUS="listening")`. Never waits and never fails: see the log."""
        if self._address is None:
            return
        text = "\n".join(f"{name}={_line(value)}" for name, value in fields.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
                to.settimeout(0)
                to.sendto(text.encode(), self._address)
            self._lost = False
        except OSError as error:
            if not self._lost:
                self._lost = True
                structlog.get_logger().warning("notify", note=f"the service manager is not told: {error.strerror}")


def _address(name: str) -> str | None:
    """The address of a socket; a leading `@` means the abstract namespace."""
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else None


def _period(environ: Mapping[str, str]) -> float | None:
    """Seconds, where they are meant for this process."""
    if environ.get(WATCHED, str(os.getpid())) != str(os.getpid()):
        return None
    given = environ.get(PERIOD, "")
    return int(given) / 1e6 if given.isdecimal() and int(given) > 0 else None


def _line(value: str | int) -> str:
    """One line: a message has a field on each."""
    return " ".join(str(value).split())[:MOST]
