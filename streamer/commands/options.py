"""Options that several commands have, and how their values are read."""

from __future__ import annotations

from typing import Annotated

import typer


def number(text: str) -> float:
    """A float; typer's own message does not say what came."""
    try:
        return float(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a number") from error


def whole(text: str) -> int:
    """An int, likewise."""
    try:
        return int(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a whole number") from error


Config = Annotated[str, typer.Argument(help="a YAML file, or the name of a shipped config such as continue_file")]
Bundle = Annotated[str | None, typer.Option(metavar="NAME_OR_PATH", help="the model, instead of the config's")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="any value of the config, e.g. nodes.coarse.temperature=0.7"),
]
Plugins = Annotated[str | None, typer.Option(metavar="DIR", help="folder, file or module with more node types")]
Host = Annotated[str | None, typer.Option(metavar="NAME", help="one machine's share: the nodes of this host")]
Input = Annotated[
    str | None,
    typer.Option(
        "--input",
        metavar="FILE",
        help="for the source named `input`, the only one with a `path`, or in place of the microphone",
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        metavar="FILE",
        help="for the sink named `output`, the only one with a `path`, or in place of the speaker",
    ),
]
Seconds = Annotated[float | None, typer.Option(parser=number, metavar="S", help="length of the continuation")]
PromptSeconds = Annotated[float | None, typer.Option(parser=number, metavar="S", help="use only so much of the prompt")]
Seed = Annotated[
    int | None, typer.Option(parser=whole, metavar="N", help="of the noise: same seed and prompt, same result")
]
Json = Annotated[bool, typer.Option("--json", help="one JSON object a line on standard output")]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress, logs and summary; errors are still said")]
