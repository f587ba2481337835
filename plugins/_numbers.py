"""Numbers from the world: how one is read out of a message, and how it is followed smoothly.

Knows no transport and no frame. This module is no plugin of its own.
"""

from __future__ import annotations

import json
import math
from typing import Any

from ._steer import finite

MOST_BYTES = 65_536
WORDS = {"on": 1.0, "off": 0.0, "open": 1.0, "closed": 0.0, "true": 1.0, "false": 0.0}


class Follower:
    """Follows a number with a time constant, and says when there is something to tell. Has no clock of its own."""

    def __init__(self, smooth: float, dead_band: float, span: float) -> None:
        """Nothing is known yet.

        Args:
            smooth: time constant in seconds; 0: at once.
            dead_band: share of `span` below which a change is not told.
            span: how far the number moves at most.
        """
        self.smooth, self.dead = smooth, dead_band * span
        self.near = max(self.dead / 10, span * 1e-4)  # what is left of the way then is taken at once
        self.wanted: float | None = None
        self.now: float | None = None
        self.told: float | None = None
        self._at = 0.0

    @property
    def settled(self) -> bool:
        """There is no way left to go."""
        return self.now == self.wanted

    def want(self, value: float, at: float) -> None:
        """Where to go from the instant `at` on, in seconds."""
        if self.settled:
            self._at = at
        self.wanted = value

    def step(self, at: float) -> float | None:
        """Go on to an instant; gives the number if it is to be told. The first one is taken as it is."""
        if self.wanted is None:
            return None
        gone, self._at = at - self._at, at
        if self.now is None or self.smooth == 0:
            self.now = self.wanted
        self.now += (self.wanted - self.now) * -math.expm1(-gone / (self.smooth or 1))
        if abs(self.wanted - self.now) <= self.near:
            self.now = self.wanted
        if self.told is not None and abs(self.now - self.told) <= self.dead:
            return None
        self.told = self.now
        return self.now


def number_in(payload: bytes, path: str) -> float:
    """The number in a message: JSON, or a plain number or switch (`on`, `off`, `open`, `closed`).

    Args:
        payload: the message.
        path: names and numbers with dots between, within the JSON; empty: the whole.

    Raises:
        ValueError: there is none, or it is not finite.
    """
    if len(payload) > MOST_BYTES:
        raise ValueError(f"{len(payload)} bytes; expected a number, or at most {MOST_BYTES} bytes of JSON")
    text = payload.decode("utf-8", "replace").strip()
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        found = text
    for part in path.split(".") if path else ():
        if isinstance(found, list) and part.isdecimal() and int(part) < len(found):
            found = found[int(part)]
        elif isinstance(found, dict) and part in found:
            found = found[part]
        else:
            raise ValueError(f"nothing at {part!r} of the path {path!r}")
    number = WORDS.get(found.strip().lower(), _parsed(found)) if isinstance(found, str) else finite(found)
    if number is None:
        raise ValueError(f"{str(found)[:40]!r} is no number")
    return number


def _parsed(text: str) -> float | None:
    try:
        return finite(float(text))
    except ValueError:
        return None
