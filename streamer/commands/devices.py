"""The command `devices`: which sound inputs and outputs there are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import typer

from streamer.errors import InputError
from streamer.registry import load_attribute

LISTER: Final = "streamer.nodes.host:list_devices"
NONE: Final = (
    "no sound device is here; plug one in, or start the sound server of this machine (PipeWire, PulseAudio). "
    "On Linux the user must be allowed to use it: often that is the group `audio`"
)


def devices(*, as_json: bool = False) -> None:
    """List inputs and outputs.

    Raises:
        InputError: there are none, or PyAudio is missing; says what to do.
    """
    lister: Any = load_attribute(LISTER)
    found = lister()
    if not found:
        raise InputError(NONE)
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found]))
    else:
        _show(found)


def _show(found: Sequence[Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title="sound devices", title_justify="left", caption="* the default", caption_justify="left")
    table.add_column("number", justify="right")
    table.add_column("name", overflow="fold")
    table.add_column("by")
    for name in ("inputs", "outputs", "rate", "latency in", "latency out"):
        table.add_column(name, justify="right")
    for each in found:
        cells = [
            str(each.index), each.name, each.api,
            _channels(each.inputs, default=each.default_input), _channels(each.outputs, default=each.default_output),
            f"{each.rate} Hz", _latency(each.inputs, each.input_latency_ms),
            _latency(each.outputs, each.output_latency_ms),
        ]  # fmt: skip
        table.add_row(*map(Text, cells))  # as they are: a name may look like markup
    Console().print(table)


def _channels(count: int, *, default: bool) -> str:
    return f"{'* ' if default else ''}{count}" if count else "-"


def _latency(channels: int, milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms" if channels else "-"
