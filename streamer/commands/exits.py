"""From errors to exit codes, and to the one message that is said about them.

0: done. 2: what came from outside cannot be used (input, config, bundle, frames); nothing is left half-written.
1: any other failure. 130 and 143: ended by SIGINT or SIGTERM.
"""

from __future__ import annotations

import functools
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, NoReturn, ParamSpec

import typer

from streamer.errors import NodeError

P = ParamSpec("P")
INTERRUPTED: Final = 130
TERMINATED: Final = 143


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """A command that ends with an exit code and one message instead of a traceback.

    A reader that went away (`| head`) ends it quietly. An error that is not one of ours goes through: it is a bug, and
    its traceback is wanted.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (typer.Exit, typer.BadParameter):
            raise
        except KeyboardInterrupt as error:
            say("interrupted")
            raise typer.Exit(INTERRUPTED) from error
        except Exception as error:
            if any(isinstance(each, BrokenPipeError) for each in chain(error)):
                _silence_output()
                raise typer.Exit(0) from error
            code = getattr(error, "exit_code", None)
            if not isinstance(code, int):
                raise
            _explain(error, code)
            raise typer.Exit(code) from error

    return run


def say(text: str) -> None:
    """One line for whoever called, on standard error."""
    typer.echo(f"streamer: {text}", err=True)


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__


def message_of(error: BaseException) -> str:
    """What an error says; of a node's error without the name of the class behind it."""
    text = str(error)
    cause = error.__cause__
    if isinstance(error, NodeError) and cause is not None:
        text = text.replace(f"{type(cause).__name__}: ", "", 1)
    return text


def _explain(error: Exception, code: int) -> None:
    """The message; before it the traceback of a failure inside a node, for whoever wrote that node."""
    last = list(chain(error))[-1]
    if code != 2 and not hasattr(last, "exit_code"):
        traceback.print_exception(last)
    say(f"error: {message_of(error)}")


def _silence_output() -> None:
    """Let what is still buffered for standard output go nowhere, so that the interpreter can close it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


@contextmanager
def terminable() -> Iterator[None]:
    """Inside, SIGTERM ends the program as an exception does: everything is closed on the way out."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    _ = number, frame
    raise SystemExit(TERMINATED)
