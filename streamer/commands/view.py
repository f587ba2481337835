"""The terminal view of a live run: a screen from a status, ten times a second.

`render` is a pure function of the status (see `Follower.status`), so any graph that has such gauges can be shown; what
is not told is not shown. Knows no session; the thread that draws only reads what it was given last.
"""

from __future__ import annotations

import itertools
import math
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live as Screen
from rich.text import Text

from streamer.commands.controls import KEYS
from streamer.commands.keys import foreground

REFRESH: Final = 0.1
PATIENCE: Final = 0.5  # seconds to wait for a terminal that does not take what is written
LOG_LINES: Final = 100
SILENCE, LOUD, CLIPPING = -60.0, -12.0, -3.0  # dBFS
MOST_BUFFER: Final = 2.5  # targets that the bar of a buffer is long
TICK_MS: Final = 40.0
LABEL: Final = 13
PLAIN: Final = str.maketrans({"█": "#", "░": ".", "│": "|", "↑": "+", "↓": "-", "·": "-", "…": "~"})


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the screen; where there is no room the highest `rank` goes first."""

    rank: int
    text: Text


class View:
    """Draws the latest status on the terminal of standard error while it is open.

    It has a thread and a screen of its own, so that neither the event loop waits for a slow terminal nor the text
    before it is lost. While the process is in the background it draws nothing.

    Attributes:
        status: what to draw. log: lines to show below it; anybody may append.
    """

    def __init__(self) -> None:
        self.status: Mapping[str, Any] = {}
        self.log: deque[str] = deque(maxlen=LOG_LINES)
        self._console = Console(stderr=True)
        self._screen = Screen(
            console=self._console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        self._done, self._hold, self._left = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._show, name="view", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join(PATIENCE)

    def write(self, text: str) -> int:
        """Take a line of the log; so a view stands where a stream is wanted."""
        self.log.extend(line for line in text.splitlines() if line.strip())
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def pause(self) -> None:
        """Give the terminal back until `resume`."""
        self._left.clear()
        self._hold.set()
        self._left.wait(PATIENCE)

    def resume(self) -> None:
        """Draw again."""
        self._hold.clear()

    def _show(self) -> None:
        try:
            while not self._done.wait(REFRESH):
                if self._hold.is_set() or not foreground(sys.stderr.fileno()):
                    self._screen.stop()
                    self._left.set()
                else:
                    self._draw()
            self._screen.stop()
        except OSError:  # the terminal has gone away: there is nobody to show anything to
            return

    def _draw(self) -> None:
        self._screen.start()
        width, height = self._console.size
        ascii_only = self._console.options.ascii_only
        shown = render(self.status, width=width, height=height, log=tuple(self.log), ascii_only=ascii_only)
        self._screen.update(shown, refresh=True)


def can_show() -> bool:
    """Whether standard error is a terminal that can be drawn on."""
    return sys.stderr.isatty() and not Console(stderr=True).is_dumb_terminal


def render(
    status: Mapping[str, Any],
    *,
    width: int = 80,
    height: int = 24,
    log: Sequence[str] = (),
    ascii_only: bool = False,
) -> Group:
    """The screen of a status.

    Args:
        status: `Follower.status` and what the run and its keys add (config, mode, phase, muted, help, ...).
        width: of the terminal in cells; every line fits.
        height: of the terminal in lines; there are no more.
        log: the latest lines of the log, the newest last.
        ascii_only: use no character beyond ASCII.
    """
    width = max(width, 10)
    rows = [*_head(status, width)]
    rows += _help() if status.get("help") else [*_levels(status, width), *_figures(status), *_devices(status)]
    foot = [Row(4, _hints(width))] if status.get("keys") else []
    room = max(height - len(foot), 1)
    if height < 3:
        foot = []
    while len(rows) > room:
        rows.remove(max(rows, key=lambda row: row.rank))
    left = max(room - len(rows), 0)
    lines = [" ".join(line.split()) for line in log][-left:] if left else []
    blank = [Text("")] * (left - len(lines))
    texts = [*(row.text for row in rows), *blank, *(Text(line, "dim") for line in lines), *(row.text for row in foot)]
    return Group(*(_fit(text, width, ascii_only=ascii_only) for text in texts))


def _fit(text: Text, width: int, *, ascii_only: bool) -> Text:
    """One line that is no wider than the terminal."""
    made = text.copy()
    made.no_wrap = True
    made.overflow = "ellipsis"
    made.plain = "".join(each if each.isprintable() else " " for each in made.plain)  # a name may hold an escape
    if ascii_only:
        made.plain = made.plain.translate(PLAIN).encode("ascii", "replace").decode("ascii")
        made.overflow = "crop"
    made.truncate(width, overflow=made.overflow)
    return made


def _row(rank: int, label: str, *parts: str | tuple[str, str]) -> Row:
    name = label if len(label) < LABEL else label[: LABEL - 2] + "…"
    return Row(rank, Text.assemble((f"{name:<{LABEL}}", "dim"), *parts))


def _head(status: Mapping[str, Any], width: int) -> Iterator[Row]:
    """What runs, for how long, and what it does now."""
    name = " · ".join(str(status[key]) for key in ("config", "bundle") if status.get(key))
    clock = _clock(status.get("run_s", 0.0))
    title = Text(f"{name:<{max(width - len(clock) - 1, 0)}} ", "bold")
    title.truncate(max(width - len(clock), 0), overflow="ellipsis")
    yield Row(0, title.append(clock, "dim"))
    yield Row(1, _state(status))
    settings = [f"{key} {status[key]}" for key in ("mode", "seed") if status.get(key) is not None]
    seconds = status.get("seconds")
    settings.append("no end" if seconds is None else f"{seconds:g} s")
    yield _row(5, "settings", " · ".join(settings))
    if status.get("temperature"):
        yield _row(5, "temperature", " · ".join(f"{name} {value:g}" for name, value in status["temperature"].items()))
    if status.get("note"):
        yield Row(1, Text(str(status["note"]), "bold red"))
    if not status.get("help"):
        yield Row(9, Text(""))


def _state(status: Mapping[str, Any]) -> Text:
    phase, state = status.get("phase", "running"), status.get("state")
    if phase != "running" or state is None:
        text = Text({"waiting": "WAITING to begin anew", "starting": "starting"}.get(phase, phase), "bold")
    else:
        colour = "bold magenta" if state == "continuing" else "bold cyan"
        text = Text.assemble((state, colour), f" for {status.get('state_s', 0.0):.0f} s")
    if status.get("muted"):
        text.append("   MUTED", "bold yellow")
    if status.get("monitor"):
        text.append("   monitor on", "yellow")
    if status.get("turns") is not None:
        text.append(f"   turns {status['turns']}, {status.get('generated_s', 0.0):.0f} s generated", "dim")
    return text


def _levels(status: Mapping[str, Any], width: int) -> Iterator[Row]:
    """Bars: how loud each end is, whether there is speech, how full each buffer is."""
    gauges = status.get("gauges", {})
    size = max(min(width - LABEL - 16, 50), 4)
    for name, value in gauges.items():
        if name.endswith(".level_db"):
            level = SILENCE if value is None else float(value)
            colour = "red" if level > CLIPPING else "yellow" if level > LOUD else "green"
            said = " silence" if level <= SILENCE else f" {level:5.1f} dBFS"
            yield _row(2, _node(name), *_bar((level - SILENCE) / -SILENCE, size, colour), said)
    for name, value in gauges.items():
        if name.endswith(".speech") and value is not None:
            yield _row(6, "speech", *_bar(float(value), size, "cyan"), f" {float(value):5.2f}")
    for name, value in gauges.items():
        if name.endswith(".buffer_ms") and value is not None:
            target = status.get("targets_ms", {}).get(_node(name))
            yield _buffer(_node(name), float(value), target, size, needed=status.get("state") != "listening")


def _buffer(node: str, value: float, target: float | None, size: int, *, needed: bool) -> Row:
    """A buffer against its target, which is marked in the bar; red when it is low while sound is needed."""
    if target is None:
        return _row(3, f"{node} buf", f"{value:.0f} ms buffered")
    whole = MOST_BUFFER * target
    low = needed and value < target / 4
    bar = _bar(value / whole, size, "red" if low else "blue", mark=target / whole)
    return _row(3, f"{node} buf", *bar, f" {value:4.0f} of {target:.0f} ms")


def _bar(share: float, size: int, colour: str, mark: float | None = None) -> list[tuple[str, str]]:
    """A bar of `size` cells; `mark`: where a line stands, as a share of it."""
    full = round(min(max(share if math.isfinite(share) else 0.0, 0.0), 1.0) * size)
    cells = ["█"] * full + ["░"] * (size - full)
    styles = [colour] * full + ["dim"] * (size - full)
    if mark is not None:
        at = min(int(mark * size), size - 1)
        cells[at], styles[at] = "│", "bold"
    runs = itertools.groupby(zip(styles, cells, strict=True), key=lambda pair: pair[0])
    return [("".join(cell for _, cell in run), style) for style, run in runs]


def _figures(status: Mapping[str, Any]) -> Iterator[Row]:
    """Times, speed, and what was lost."""
    for index, (name, each) in enumerate(status.get("latency_ms", {}).items()):
        said = f"{_words(name)} {each['last']:.0f} ms (p50 {each['p50']:.0f})"
        yield _row(7 if index else 3, "" if index else "latency", said)
    speed = []
    rtf, tick = status.get("rtf"), status.get("tick_ms")
    if rtf is not None:
        speed.append((f"real-time factor {rtf:.2f}", "bold red" if rtf > 1 else ""))
    if tick:
        joint = " · " if speed else ""
        late = "" if tick["p99"] < 2 * TICK_MS else "yellow"
        speed.append((f"{joint}tick p50 {tick['p50']:.0f}, p99 {tick['p99']:.0f} of {TICK_MS:.0f} ms", late))
    if speed:
        yield _row(3, "speed", *speed)
    left_out = (status.get("load") or {}).get("left_out")
    if left_out:
        yield _row(2, "too slow", (f"leaves out {left_out}", "bold yellow"))
    yield _lost(status)
    drifts = {_node(name): value for name, value in status.get("gauges", {}).items() if name.endswith(".drift_ppm")}
    for node, value in drifts.items():
        if value is not None:
            yield _row(6, "drift", f"{value:+.0f} ppm ({node})")


def _lost(status: Mapping[str, Any]) -> Row:
    """Counters of what should not be, each in red once it is not nothing."""
    found: dict[str, int] = {"dropped frames": int(status.get("dropped", 0))}
    for name, number in status.get("counters", {}).items():
        what = name.rpartition(".")[2]
        if what in ("underruns", "lost_samples"):
            found[_words(what)] = found.get(_words(what), 0) + number
    if status.get("failed"):
        found["failed sessions"] = status["failed"]
    parts: list[str | tuple[str, str]] = []
    for name, number in found.items():
        parts += [" · "] if parts else []
        parts.append((f"{name} {number}", "red" if number else ""))
    return _row(3, "lost", *parts)


def _devices(status: Mapping[str, Any]) -> Iterator[Row]:
    """Which devices, and whether they are there; one that is not is the last thing to leave the screen."""
    for node, device in status.get("devices", {}).items():
        name = device["name"] or "device"
        if not device["connected"]:
            yield _row(1, node, (f"VANISHED {device['for_s']:.0f} s ago, waiting for it: {name}", "bold red"))
        elif device.get("was_away_s") is not None:
            yield _row(1, node, (f"back after {device['was_away_s']:.0f} s: {name}", "bold green"))
        else:
            yield _row(6, node, f"connected: {name}")


def _help() -> list[Row]:
    return [
        Row(2, Text.assemble((f"  {key.shown:<6}", "bold"), (f"{key.short:<9}", ""), (key.long, "dim"))) for key in KEYS
    ]


def _hints(width: int) -> Text:
    """The keys in one line, with their meanings where there is room."""
    said = Text()
    for key in KEYS:
        said.append(f"{key.shown}", "bold").append(f" {key.short}  ", "dim")
    if cell_len(said.plain) <= width:
        return said
    few = [key for key in KEYS if key.short not in ("seed", "hotter", "colder", "shorter", "longer")]
    said = Text()
    for key in few:
        said.append(f"{key.shown}", "bold").append(f" {key.short}  ", "dim")
    if cell_len(said.plain) <= width:
        return said
    return Text.assemble(("?", "bold"), (" keys  ", "dim"), ("q", "bold"), (" quit", "dim"))


def _node(gauge: str) -> str:
    return gauge.rpartition(".")[0]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
