"""The folder of a live run: what is written whole, what is found half written, what is kept and for how long."""

import json
import os
import threading

import pytest
import structlog

from streamer import ConfigError
from streamer.commands import state as states
from streamer.commands.state import Kept, Run, State

ONE = Kept(b"\x00data" * 99, 1_700_000_000.5, {"program": "1"}, {"seed": 4}, {"mute": ("mute", {"on": True})})


@pytest.fixture(autouse=True)
def logged():
    with structlog.testing.capture_logs() as lines:
        yield lines


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_kept_comes_back(tmp_path):
    with State(tmp_path) as state:
        assert state.read() is None
        size = state.write(ONE)
        assert state.read() == ONE
        assert (tmp_path / "000001.state").stat().st_size == size
        assert ONE.when == "2023-11-14T22:13:20+00:00"


def test_the_last_two_are_kept_and_numbers_go_on(tmp_path):
    with State(tmp_path) as state:
        for second in range(5):
            state.write(Kept(b"x", float(second)))
    with State(tmp_path) as state:
        assert state.read().taken == 4.0
        state.write(Kept(b"y", 0.0))  # the clock is behind: the number counts
        assert state.read().data == b"y"
    assert names(tmp_path) == ["000005.state", "000006.state", "lock", "run.json"]


def test_only_its_owner_looks_into_it(tmp_path):
    folder = tmp_path / "a" / "b"
    with State(folder) as state:
        state.write(ONE)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:40],
        lambda data: b"",
        lambda data: b"\x00" * len(data),
        lambda data: data[:99] + bytes([data[99] ^ 1]) + data[100:],
        lambda data: data + b"more",
    ],
    ids=["one byte less", "the head only", "empty", "zeros", "a flipped bit", "more"],
)
def test_one_that_is_half_written_is_put_aside_and_the_one_before_is_taken(tmp_path, damage, logged):
    with State(tmp_path) as state:
        state.write(ONE)
        state.write(Kept(b"later", 2.0))
        path = tmp_path / "000002.state"
        path.write_bytes(damage(path.read_bytes()))
    with State(tmp_path) as state:
        assert state.cut_off
        assert state.read() == ONE
        state.write(Kept(b"last", 3.0))
        assert state.read().data == b"last"
    assert "aside-000002.state" in names(tmp_path)
    assert [line["put_aside"] for line in logged if "put_aside" in line] == ["000002.state"]


def test_no_more_than_two_are_left_aside(tmp_path):
    with State(tmp_path) as state:
        for _ in range(6):
            state.write(ONE)
            state.aside(None, "it does not fit")
        assert state.read() is None
    assert [name for name in names(tmp_path) if "state" in name] == ["aside-000005.state", "aside-000006.state"]


def test_a_file_of_another_form_with_a_right_sum(tmp_path, logged):
    import hashlib

    with State(tmp_path) as state:
        for number, body in enumerate((b"\x01", b"\x80", b"\x81\xa4data\xc7\x01\x05x", b"\xc1"), 1):
            whole = states.MAGIC + hashlib.sha256(body).digest() + body
            (tmp_path / f"{number:06d}.state").write_bytes(whole)
        assert state.read() is None
    assert all("of another form" in line["why"] for line in logged)
    assert len(logged) == 4


def test_how_the_run_before_ended(tmp_path):
    with State(tmp_path) as state:
        assert (state.before, state.cut_off) == (None, False)
        state.note(ended="SIGTERM", tries=2)
    with State(tmp_path) as state:
        assert (state.before, state.cut_off) == (Run("SIGTERM", 2, 0), False)
        assert state.run.ended is None
    with State(tmp_path) as state:
        assert state.cut_off
        assert state.run.tries == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"ended": null}', '{"ended": 1, "tries": "x", "valid_from": 0}'])
def test_a_note_that_cannot_be_read_counts_as_cut_off(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with State(tmp_path) as state:
        assert state.cut_off
        assert json.loads((tmp_path / "run.json").read_text()) == {"ended": None, "tries": 0, "valid_from": 0}


def test_snapshots_without_a_note_count_as_cut_off(tmp_path):
    with State(tmp_path) as state:
        state.write(ONE)
        (tmp_path / "run.json").unlink()
    with State(tmp_path) as state:
        assert state.cut_off


def test_what_a_reset_gave_up_is_not_read_again(tmp_path):
    with State(tmp_path) as state:
        state.write(ONE)
        state.forget()
        assert state.read() is None
    with State(tmp_path) as state:
        assert state.read() is None
        state.write(Kept(b"new", 5.0))
        assert state.read().data == b"new"


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    with State(tmp_path) as state:
        state.write(ONE)

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            state.write(Kept(b"more", 2.0))
        assert state.read() == ONE


def test_a_full_disk_does_not_keep_it_from_beginning(tmp_path, monkeypatch, logged):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with State(tmp_path):
        assert "No space left" in logged[0]["note"]


def test_a_folder_for_one_run(tmp_path):
    with State(tmp_path), pytest.raises(ConfigError, match="another run uses it; give each a folder of its own"):
        State(tmp_path)
    State(tmp_path).close()


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="give a folder that can be written"):
        State(tmp_path / "file")


def test_several_threads(tmp_path):
    with State(tmp_path) as state:
        threads = [threading.Thread(target=state.write, args=(Kept(b"x", float(n)),)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert state.read() is not None
    assert names(tmp_path) == ["000007.state", "000008.state", "lock", "run.json"]


def test_a_half_written_part_is_written_over(tmp_path):
    (tmp_path / "000001.state.part").write_bytes(b"half")
    with State(tmp_path) as state:
        assert state.read() is None
        state.write(ONE)
        assert state.read() == ONE
    assert not list(tmp_path.glob("*.part"))
