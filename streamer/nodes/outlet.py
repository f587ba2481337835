"""Where the frames of one stream of a node are numbered, and the roles that sound can have. Knows frames, no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy.typing as npt

from streamer.frame import GENERATED, HEARD, TICK, Frame
from streamer.node import SessionInfo

__all__ = ["ASIDE", "Outlet", "role_of"]

ASIDE: Final = (
    "aside"  # role of sound that keeps the ears' streams whole, while something else is generated in its place
)


def role_of(frame: Frame) -> dict[str, Any]:
    """The role of a frame as metadata for those that are made of it; empty when it has none."""
    role = frame.meta.get("role")
    return {} if role is None else {"role": role}


@dataclass
class Outlet:
    """Numbers the frames of one stream; they carry the highest epoch of what came in."""

    info: SessionInfo
    kind: str
    seq: int = 0
    epoch: int = 0

    def follow(self, frame: Frame) -> None:
        """Go on in the epoch of a frame that came in."""
        self.epoch = max(self.epoch, frame.epoch)

    def frame(self, array: npt.ArrayLike | None, position: int, *, generated: bool, **meta: str) -> Frame:
        """A frame that starts at `position` samples; ticks have no array."""
        made = Frame.of(
            self.kind, array, position=position, session=self.info.id, epoch=self.epoch, seq=self.seq,
            flags=GENERATED if generated else HEARD, meta=meta,
        )  # fmt: skip
        self.seq += 1
        return made

    def turn(self, position: int, *, generated: bool, **meta: int) -> Frame:
        """The end of a turn: the other side goes on at `position`."""
        flags = GENERATED if generated else HEARD
        made = Frame.turn(
            self.kind, position=position, session=self.info.id, epoch=self.epoch, seq=self.seq, flags=flags, meta=meta
        )
        self.seq += 1
        return made

    def end(self, position: int) -> Frame:
        """The end of the stream."""
        meta = {"empty": True} if self.kind == TICK else None
        made = Frame.end(self.kind, position=position, session=self.info.id, epoch=self.epoch, seq=self.seq, meta=meta)
        self.seq += 1
        return made
