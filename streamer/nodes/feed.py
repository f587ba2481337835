"""What the sources and sinks of sound have in common: samples to tick frames, and which frames an output keeps.

Knows neither files nor pipes; `files` and `pcm` are built on it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import structlog

from audiolm import errors as audiolm_errors
from audiolm.ticks import SAMPLE_RATE, TICK, Samples, TickAssembler
from streamer.errors import InputError
from streamer.frame import AUDIO, HEARD, Frame
from streamer.node import Build, Mode, SessionInfo

__all__ = [
    "WHOLE_INPUT",
    "Rest",
    "TickFeed",
    "keeps",
    "logger",
    "prompt_limit",
    "rest_for",
    "say",
    "says_it_as_ours",
    "true_length",
]

Rest = Literal["auto", "drop", "pad"]
WHOLE_INPUT: frozenset[Mode] = frozenset({"reconstruct", "resynthesize"})  # modes whose output is as long as the input


@contextmanager
def says_it_as_ours() -> Iterator[None]:
    """Turn an `audiolm` InputError into the graph's own, which carries the exit code."""
    try:
        yield
    except audiolm_errors.InputError as error:
        raise InputError(str(error)) from error


def logger() -> Any:
    """The program's logger, else one on standard error. Never on standard output, which may carry sound."""
    plain = structlog.wrap_logger(structlog.PrintLogger(sys.stderr))
    return structlog.get_logger() if structlog.is_configured() else plain


def say(node: str, session: str, file: str, notes: Iterable[str]) -> None:
    """Log what was done to an input."""
    out = logger()
    for note in notes:
        out.info("input", node=node, session=session, file=file, note=note)


def rest_for(rest: Rest, mode: Mode) -> Literal["drop", "pad"]:
    """What happens to the last part of a tick: a prompt drops it, a sound that is kept whole pads it."""
    if rest != "auto":
        return rest
    return "pad" if mode in WHOLE_INPUT else "drop"


def prompt_limit(ctx: SessionInfo) -> int | None:
    """Samples of the prompt that are used; None: all.

    Raises:
        InputError: less than one tick.
    """
    if ctx.prompt_seconds is None:
        return None
    limit = round(ctx.prompt_seconds * SAMPLE_RATE)
    if limit < TICK:
        raise InputError(f"prompt_seconds is {ctx.prompt_seconds}; expected at least {TICK / SAMPLE_RATE} (one tick)")
    return limit


def keeps(frame: Frame, ctx: SessionInfo) -> bool:
    """Whether an output writes this frame: not the forced voice, and the prompt only when it is wanted."""
    if frame.meta.get("role") == "voice" or (frame.heard and ctx.mode == "resynthesize"):
        return False
    return not frame.heard or ctx.include_prompt or ctx.mode == "reconstruct"


def true_length(build: Build) -> dict[str, int]:
    """Session -> samples that came in, for outputs that end where the input did; shared by the ends of one graph."""
    found: dict[str, int] = build.shared.setdefault("true_length", {})
    return found


class TickFeed:
    """Turns samples in any chunking into audio frames of one tick each, flagged `HEARD`, ended by an empty `LAST`."""

    def __init__(self, ctx: SessionInfo, *, limit: int | None = None) -> None:
        """Start at position 0; `limit` is how many samples are taken at most after `voice`."""
        self.session = ctx.id
        self.limit = limit
        self.taken = 0
        self.position = 0
        self._seq = 0
        self._ticks = TickAssembler()

    @property
    def full(self) -> bool:
        """True when the limit is reached: what comes now is not taken."""
        return self.limit is not None and self.taken >= self.limit

    def push(self, samples: Samples) -> Iterator[Frame]:
        """Take samples at 16 kHz; give the frames that are whole now."""
        wanted = samples if self.limit is None else samples[: self.limit - self.taken]
        self.taken += len(wanted)
        for tick in self._ticks.push(wanted):
            yield self._frame(tick)

    def voice(self, samples: Samples) -> Iterator[Frame]:
        """Whole ticks of a voice that is only forced, marked `role: voice`; its last part tick is dropped."""
        for tick in samples[: len(samples) // TICK * TICK].reshape(-1, TICK):
            yield self._frame(tick, role="voice")

    def finish(self, rest: Literal["drop", "pad"]) -> Iterator[Frame]:
        """End the stream: the last part tick if it is padded, then the frame with `LAST`."""
        for tick in self._ticks.flush(rest):
            yield self._frame(tick)
        yield Frame.end(AUDIO, position=self.position, session=self.session, seq=self._seq, flags=HEARD)

    @property
    def held(self) -> int:
        """Samples that wait for the rest of their tick."""
        return self._ticks.held

    def _frame(self, tick: Samples, **meta: str) -> Frame:
        made = Frame.of(
            AUDIO,
            np.ascontiguousarray(tick),
            position=self.position,
            session=self.session,
            seq=self._seq,
            flags=HEARD,
            meta=meta,
        )
        self.position += TICK
        self._seq += 1
        return made
