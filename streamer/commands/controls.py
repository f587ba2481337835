"""What each key does to a live run. Knows sessions and their commands; nothing of terminals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog

from streamer.commands.sessions import Live

STEP: Final = 0.05  # of the temperature
COLDEST, HOTTEST = 0.0, 2.0
LENGTHS: Final = (1.0, 2.0, 3.0, 5.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0, 300.0, None)  # None: no end


@dataclass(frozen=True, slots=True)
class Key:
    """One line of the help: the names of the keys as `Keys` gives them, how they are shown, what they do."""

    names: tuple[str, ...]
    shown: str
    short: str
    long: str


KEYS: Final = (
    Key((" ", "t"), "space", "go", "t too: end the prompt now and continue"),
    Key(("l",), "l", "listen", "stop continuing and listen"),
    Key(("m",), "m", "mute", "take the input as silence; again: hear it"),
    Key(("r",), "r", "reset", "forget everything and begin anew; devices stay open"),
    Key(("s",), "s", "seed", "begin anew with the next seed"),
    Key(("up", "+", "="), "↑", "hotter", f"+ too: temperature of every stage {STEP} up"),
    Key(("down", "-"), "↓", "colder", f"- too: temperature of every stage {STEP} down"),
    Key(("[",), "[", "shorter", "continuations, from 300 s down to 1 s"),
    Key(("]",), "]", "longer", "continuations, at last without an end"),
    Key(("o",), "o", "monitor", "play what is heard, too; again: not"),
    Key(("q",), "q", "quit", "finish what is being written, and end"),
    Key(("?", "h"), "?", "help", "this list; again: away with it"),
)


class Controls:
    """Turns keys into commands for the session that runs and, where they should last, for those after it.

    Attributes:
        muted, monitor: what holds now. seconds: length of a continuation. gain: of the speakers, as a factor.
        top_k: node -> how many tokens its stage samples from. help: whether the list of keys is wanted.
    """

    def __init__(self, live: Live) -> None:
        self.live = live
        settings = live.graph.plan.settings.values()
        self.help = False
        self.muted: bool = live.held("mute", "on", default=False)  # a run that goes on has been told before
        self.monitor: bool = live.held(
            "monitor", "on", default=any(getattr(each, "monitor", False) for each in settings)
        )
        self.seconds: float | None = live.held("length", "seconds", default=live.setting("seconds"))
        self.gain: float = live.held("gain", "value", default=1.0)
        self.top_k: dict[str, int | None] = {
            name: live.held(f"top_k of {name}", "top_k", default=getattr(each, "top_k", None))
            for name, each in _samplings(live)
        }
        self._own: dict[str, float] = {
            name: live.held(f"temperature of {name}", "temperature", default=float(each.temperature))
            for name, each in _samplings(live)
        }
        self._shift = 0.0
        actions: dict[str, Callable[[], object]] = {
            "go": lambda: self._command("trigger"),
            "listen": lambda: self._command("listen"),
            "mute": self._mute,
            "reset": live.anew,
            "seed": self._seed,
            "hotter": lambda: self._warm(STEP),
            "colder": lambda: self._warm(-STEP),
            "shorter": lambda: self._length(-1),
            "longer": lambda: self._length(1),
            "monitor": self._monitor,
            "quit": lambda: live.end("q"),
            "help": self._help,
        }
        self._actions = {name: actions[key.short] for key in KEYS for name in key.names}

    def press(self, name: str) -> None:
        """Do what a key means; one that means nothing does nothing."""
        action = self._actions.get(name)
        if action is not None:
            action()

    @property
    def temperatures(self) -> dict[str, float]:
        """Node -> temperature that its stage samples with."""
        return {name: round(own + self._shift, 4) for name, own in self._own.items()}

    def status(self) -> dict[str, Any]:
        """What the keys have set, as plain data."""
        return {
            "muted": self.muted,
            "monitor": self.monitor,
            "gain": self.gain,
            "seconds": self.seconds,
            "temperature": self.temperatures,
            "top_k": dict(self.top_k),
        }

    # -- what can be set, by a key or from elsewhere

    def mute(self, *, on: bool) -> None:
        """Take the input as silence, or hear it."""
        self.muted = on
        self.live.hold("mute", "mute", on=on)

    def play_input(self, *, on: bool) -> None:
        """Play what is heard, too, or not."""
        self.monitor = on
        self.live.hold("monitor", "monitor", on=on)

    def warm(self, temperature: float, node: str | None = None) -> None:
        """What a stage samples with, or all of them."""
        self._own = self.temperatures | {name: temperature for name in self._own if node in (None, name)}
        self._shift = 0.0
        self._hold_temperatures()

    def choose(self, top_k: int | None, node: str | None = None) -> None:
        """How many of the likeliest tokens a stage samples from, or all of them; None: as the config has it."""
        for name, each in _samplings(self.live):
            if node in (None, name):
                self.top_k[name] = getattr(each, "top_k", None) if top_k is None else top_k
                self.live.hold(f"top_k of {name}", "set", node=name, top_k=top_k)

    def last(self, seconds: float | None) -> None:
        """The length of a continuation; None: no end."""
        self.seconds = seconds
        self.live.hold("length", "length", seconds=seconds)

    def amplify(self, gain: float) -> None:
        """A factor of the speakers' volume."""
        self.gain = gain
        self.live.hold("gain", "gain", value=gain)

    # -- keys

    def _command(self, command: str) -> None:
        _log(command=command, sent=self.live.send(command))

    def _mute(self) -> None:
        self.mute(on=not self.muted)
        _log(mute=self.muted)

    def _monitor(self) -> None:
        self.play_input(on=not self.monitor)
        _log(monitor=self.monitor)

    def _help(self) -> None:
        self.help = not self.help

    def _seed(self) -> None:
        self.live.anew(seed=(int(self.live.setting("seed")) + 1) % 2**63)

    def _warm(self, step: float) -> None:
        """Move every stage by the same, as far as none leaves the range."""
        if not self._own:
            _log(note="no node of this graph samples; there is no temperature")
            return
        least, most = COLDEST - min(self._own.values()), HOTTEST - max(self._own.values())
        if least <= most:
            self._shift = round(min(most, max(least, self._shift + step)), 4)
        self._hold_temperatures()
        _log(**{f"temperature_{name}": value for name, value in self.temperatures.items()})

    def _hold_temperatures(self) -> None:
        for name, value in self.temperatures.items():
            self.live.hold(f"temperature of {name}", "set", node=name, temperature=value)

    def _length(self, by: int) -> None:
        fits = [each for each in LENGTHS if _longer(each, self.seconds) == by]
        if fits:
            self.last(fits[0] if by > 0 else fits[-1])
            _log(seconds=self.seconds)


def _longer(one: float | None, other: float | None) -> int:
    """1, 0 or -1: whether a length is longer than, the same as or shorter than another; None has no end."""
    a, b = (float("inf") if each is None else each for each in (one, other))
    return (a > b) - (a < b)


def _samplings(live: Live) -> list[tuple[str, Any]]:
    """How the stages of the graph sample by their settings; a stage is a node that has `sampling`."""
    found = ((name, getattr(node, "sampling", None)) for name, node in live.graph.nodes.items())
    return [(name, each) for name, each in found if each is not None]


def _log(**values: Any) -> None:
    structlog.get_logger().info("key", **values)
