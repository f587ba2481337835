"""Messages of a page, read strictly; the server's tests send them through a socket."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer import Frame, InputError
from streamer.web.protocol import CODES, COMMANDS, MESSAGE_BYTES, Change, Closed, Hello, RefusedError, Wish, parse


def test_sound_is_a_frame():
    frame = Frame.of("audio", np.zeros(640, np.int16), position=640, flags=1)
    assert parse(frame.pack()) == ("audio", frame)
    assert len(frame.pack()) < MESSAGE_BYTES / 4


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_commands_have_values_of_their_own(command):
    values = {"version": 1} if command == "hello" else {}
    name, made = parse(Frame.control(command, **values).pack())
    assert name == command
    assert isinstance(made, COMMANDS[command])
    with pytest.raises(RefusedError, match=command):
        parse(Frame.control(command, **values, other=1).pack())


def test_whole_numbers_do_for_others():
    _, made = parse(Frame.control("hello", version=1, temperature=1, seconds=10, top_k=5).pack())
    assert made == Hello(version=1, temperature=1.0, seconds=10.0, top_k=5)
    assert made.sampling == {"temperature": 1.0, "top_k": 5}


@pytest.mark.parametrize(
    "values",
    [{"top_k": 1.5}, {"temperature": True}, {"seed": "1"}, {"seconds": 0.0}, {"seconds": 1e9}, {"bundle": "x" * 300},
     {"temperature": float("inf")}, {"detector": "ears"}, {"mode": None}],
)  # fmt: skip
def test_values_are_strict(values):
    with pytest.raises(RefusedError, match=next(iter(values))):
        parse(Frame.control("reset", **values).pack())


def test_a_change_tells_what_was_given():
    assert Change(temperature=None, node="fine").values == {"temperature": None, "node": "fine"}
    assert Change(top_k=3, node=None).values == {"top_k": 3}
    assert Wish().sampling == {}


@given(st.binary(max_size=200))
def test_nothing_else_is_raised(data):
    with pytest.raises(InputError):
        parse(data)


def test_each_reason_has_a_code_of_its_own():
    assert len(set(CODES.values())) == len(CODES)
    assert all(4000 <= code < 5000 for code in CODES.values())
    assert Closed("full", "no place", limit=1).frame.meta == {
        "command": "error", "code": "full", "text": "no place", "limit": 1,
    }  # fmt: skip


def test_the_document_names_everything():
    text = (Path(__file__).parents[2] / "docs" / "page.md").read_text()
    told = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    for command, values in COMMANDS.items():
        assert f"| `{command}` |" in told
        for name in values.model_fields if not issubclass(values, Wish) else ():
            assert f"`{name}`" in told
    for name in Wish.model_fields:
        assert f"`{name}`" in text
    for name, code in CODES.items():
        assert f"| {name} | {code} |" in told
