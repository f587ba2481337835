"""Keeps Python's collector of cycles from holding up sound. Knows nothing of sessions and nodes."""

from __future__ import annotations

import gc

__all__ = ["keep"]


def keep() -> None:
    """Clean up, then take what is there now, libraries and models, as here to stay: it is never looked through again.

    A whole collection looks through every object, in one piece and with the interpreter's lock held: 200 000 objects,
    most of them torch's, took 60 to 110 ms, which is more than a loudspeaker's buffer holds. What is made afterwards is
    collected as before. Call it once everything is loaded.
    """
    gc.collect()
    gc.freeze()
