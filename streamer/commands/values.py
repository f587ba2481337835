"""Commands that come from elsewhere (MQTT, a plugin): which there are, what each takes, and how it is read.

A command has a name and a small payload, JSON or msgpack: a bare value, or a mapping with `value`. Nothing in it can
name a file, a module, a bundle or a topic. This module knows no transport and no run; what commands do is `remote`.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, cast

import msgpack
from pydantic import BeforeValidator, ConfigDict, Field, ValidationError

from streamer.commands.controls import COLDEST, HOTTEST
from streamer.errors import InputError, unknown
from streamer.node import Settings

PAYLOAD_BYTES: Final = 4096
TEXT: Final = 64  # characters of a text in a payload
LOUDEST: Final = 4.0
WORD: Final = re.compile(r"[A-Za-z_]{1,64}")
NAMES: Final = ("true", "false", "null", "NaN", "nan", "Infinity", "inf")  # words that are no text
WORDS: Final = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": f"a text of at most {TEXT} characters",
}
SWITCHES: Final = {"on": True, "off": False}


class RefusedError(InputError):
    """A command is not obeyed; the text says what came and what was expected.

    Attributes:
        concerns: False: nothing of this graph has to do with it, so that one which was meant for all is passed over.
    """

    def __init__(self, message: str, *, concerns: bool = True) -> None:
        super().__init__(message)
        self.concerns = concerns


# -- what a payload holds ---------------------------------------------------------------------------------------------


class _Values(Settings):
    """Values of a command, taken as they are: no text for a number, no number for a switch."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class Nothing(_Values):
    """A command without a value."""


class ModeValues(_Values):
    """A mode; which of them this graph can have is told by the run."""

    value: Annotated[str, Field(max_length=TEXT)]


class SeedValues(_Values):
    """A seed."""

    value: Annotated[int, Field(ge=0, le=2**63 - 1)]


class TemperatureValues(_Values):
    """A temperature of one stage or of all."""

    value: Annotated[float, Field(ge=COLDEST, le=HOTTEST)]
    node: Annotated[str, Field(max_length=TEXT)] | None = None


class TopKValues(_Values):
    """How many of the likeliest tokens one stage samples from, or all; 0: of all tokens, null: as the config has it."""

    value: Annotated[int, Field(ge=0, le=1024)] | None
    node: Annotated[str, Field(max_length=TEXT)] | None = None


class LengthValues(_Values):
    """Seconds; null: no end."""

    value: Annotated[float, Field(ge=0.04, le=86_400)] | None


class GainValues(_Values):
    """A factor."""

    value: Annotated[float, Field(ge=0, le=LOUDEST)]


def _switch(value: object) -> object:
    return SWITCHES.get(value.lower(), value) if isinstance(value, str) else value


class SwitchValues(_Values):
    """On or off: true or false, or one of these words."""

    value: Annotated[bool, BeforeValidator(_switch)]


class PingValues(_Values):
    """Anything small, which comes back."""

    value: float | Annotated[str, Field(max_length=TEXT)] | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Attributes:
        takes: its values. help: one line.
        needs: the command of a node without which this one has nothing to do with a graph; None: any graph takes it.
    """

    takes: type[_Values]
    help: str
    needs: str | None = None


COMMANDS: Final[Mapping[str, Command]] = {
    "mode": Command(ModeValues, "begin anew in this mode"),
    "trigger": Command(Nothing, "end the prompt now and continue", "trigger"),
    "listen": Command(Nothing, "stop continuing and listen", "listen"),
    "reset": Command(Nothing, "forget everything and begin anew"),
    "seed": Command(SeedValues, "begin anew with this seed"),
    "temperature": Command(TemperatureValues, "of all stages, or of the one named by `node`", "set"),
    "top_k": Command(TopKValues, "sample from the k likeliest tokens; 0: from all, null: as the config has it", "set"),
    "length": Command(LengthValues, "seconds of a continuation; null: no end", "length"),
    "gain": Command(GainValues, "factor of the speakers' volume", "gain"),
    "mute": Command(SwitchValues, "take the input as silence", "mute"),
    "monitor": Command(SwitchValues, "play what is heard, too", "monitor"),
    "ping": Command(PingValues, "answer with what is now; a value comes back"),
}


def parse(payload: bytes) -> dict[str, Any]:
    """The values of a payload by name: JSON, msgpack or one plain word; empty: none.

    Raises:
        RefusedError: too long, or none of these.
    """
    if len(payload) > PAYLOAD_BYTES:
        raise RefusedError(f"{len(payload)} bytes came; a command has at most {PAYLOAD_BYTES}")
    if not payload.strip():
        return {}
    found = _decoded(payload)
    if not isinstance(found, dict):
        return {"value": found}
    if not all(isinstance(name, str) for name in found):
        raise RefusedError("a mapping with a key that is no text came; expected names such as `value`")
    return cast(dict[str, Any], found)


def _decoded(payload: bytes) -> object:
    """What JSON or msgpack hold. What is all printable ASCII is never msgpack, where `!` would be the number 33."""
    try:
        text = payload.decode().strip()
        if WORD.fullmatch(text) and text not in NAMES:
            return text
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_once)
    except RefusedError:
        raise
    except (ValueError, RecursionError) as error:
        if payload.isascii() and text.isprintable():
            raise RefusedError(f"{reprlib.repr(text)} came; expected JSON or msgpack, such as 0.7") from error
    try:
        return msgpack.unpackb(payload, strict_map_key=False, max_ext_len=0, ext_hook=_refuse_ext)
    except RefusedError:
        raise
    except (ValueError, TypeError, RecursionError, BufferError, msgpack.exceptions.UnpackException) as error:
        raise RefusedError(f"{reprlib.repr(payload)} came; expected JSON or msgpack, such as 0.7") from error


def _refuse_constant(name: str) -> object:
    raise RefusedError(f"{name} came; expected a finite number")


def _refuse_ext(code: int, _: bytes) -> object:
    raise RefusedError(f"a msgpack extension ({code}) came; expected plain values")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise RefusedError("a name came twice in one mapping; give each once")
    return made


def read(name: str, payload: bytes) -> _Values:
    """The values of a command.

    Raises:
        RefusedError: no such command, or not its values.
    """
    if name not in COMMANDS:
        raise RefusedError(unknown("command", name[:TEXT], COMMANDS))
    values = parse(payload)
    takes = COMMANDS[name].takes
    try:
        return takes.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"][:1])[:TEXT]
        came = "nothing" if first["type"] == "missing" else reprlib.repr(values.get(where))
        if not takes.model_fields:
            raise RefusedError(f"{name}: {where} {came} came; it takes no value, send it empty") from error
        wanted = _expected(first, takes)
        raise RefusedError(f"{name}: {came} came as {where!r}; expected {wanted}") from error


def _expected(error: Mapping[str, Any], takes: type[_Values]) -> str:
    if error["type"] == "extra_forbidden":
        return f"only {' and '.join(takes.model_fields)}"
    if error["loc"][:1] == ("value",):
        return expected(takes)
    return str(error["msg"]).removeprefix("Input should be ")


def expected(takes: type[_Values]) -> str:
    """What `value` can be, in words."""
    found = schema(takes)
    what = WORDS.get(found.get("type", ""), f"a number or a text of at most {TEXT} characters")
    if "minimum" in found:
        what = f"{what} from {_short(found['minimum'])} to {_short(found['maximum'])}"
    return what + (", or null" if found.get("nullable") else "")


def _short(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


def schema(takes: type[_Values]) -> dict[str, Any]:
    """`value` as JSON Schema has it: type, minimum, maximum, and `nullable`; empty where there is none."""
    found = dict(takes.model_json_schema().get("properties", {}).get("value", {}))
    options = [each for each in found.pop("anyOf", []) if each.get("type") != "null"]
    if options:
        found |= {"nullable": True, **(options[0] if len(options) == 1 else {"anyOf": options})}
    found.pop("title", None)
    found.pop("default", None)
    return found
