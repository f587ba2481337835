"""What the two ends of a stream tell each other beside it: who is there, and how much has come. Small, strict JSON.

Pure: no connection. What comes from outside is checked here; anything else than expected is None.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Final

__all__ = ["Peer", "Receipt", "parse_json"]

MOST_JSON: Final = 1 << 16
MOST_TEXT: Final = 128


def parse_json(payload: bytes) -> dict[str, Any] | None:
    """A mapping from its JSON, or None: whatever the bytes are, nothing is raised."""
    if len(payload) > MOST_JSON:
        return None
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


@dataclass(frozen=True, slots=True)
class Receipt:
    """How much of a stream a reader has got.

    Attributes:
        session: random id of this reading; another one means that the reader began anew.
        boot: random id of the reader's process.
        run: what it reads, by the run id of the writer's frames; None: nothing yet.
        got: frames of that run handed to its graph; all before that number are no longer needed.
        again: what follows is missing here: send it again.
    """

    session: str
    boot: str
    run: str | None = None
    got: int = 0
    again: bool = False

    def dump(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def parse(cls, payload: bytes) -> Receipt | None:
        """From JSON; None when it is none."""
        found = parse_json(payload)
        if found is None:
            return None
        session, boot, run = (found.get(name) for name in ("session", "boot", "run"))
        got, again = found.get("got"), found.get("again", False)
        texts = all(isinstance(text, str) and 0 < len(text) <= MOST_TEXT for text in (session, boot))
        run_fits = run is None or (isinstance(run, str) and len(run) <= MOST_TEXT)
        if not texts or not run_fits or type(got) is not int or got < 0 or type(again) is not bool:
            return None
        return cls(str(session), str(boot), run, got, again)


@dataclass(frozen=True, slots=True)
class Peer:
    """What another instance says of itself. `boot`: random id of its process."""

    online: bool = False
    boot: str = ""

    @classmethod
    def parse(cls, payload: bytes) -> Peer:
        """From its status; what cannot be read counts as offline."""
        found = parse_json(payload) or {}
        state, boot = found.get("state"), found.get("boot")
        online = isinstance(state, str) and state != "offline"
        return cls(online, boot if isinstance(boot, str) else "")
