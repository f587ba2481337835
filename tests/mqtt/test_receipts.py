import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.nodes.mqtt.client import Message
from streamer.nodes.mqtt.common import Bases, Mailbox
from streamer.nodes.mqtt.receipts import Peer, Receipt, parse_json


def test_a_receipt_survives_the_way():
    made = Receipt("s", "b", "main.1234abcd", 17, again=True)
    assert Receipt.parse(made.dump()) == made
    assert json.loads(made.dump()) == {"session": "s", "boot": "b", "run": "main.1234abcd", "got": 17, "again": True}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '{"session": "s"}',
        '{"session": "", "boot": "b", "run": null, "got": 0}',
        '{"session": "s", "boot": "b", "run": null, "got": -1}',
        '{"session": "s", "boot": "b", "run": null, "got": true}',
        '{"session": "s", "boot": "b", "run": 3, "got": 0}',
        '{"session": "s", "boot": "b", "run": null, "got": 0, "again": "yes"}',
        '{"session": "' + "s" * 200 + '", "boot": "b", "run": null, "got": 0}',
        "[" * 100_000,
    ],
)
def test_what_is_no_receipt(text):
    assert Receipt.parse(text.encode()) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_something_or_none(data):
    assert parse_json(data) is None or isinstance(parse_json(data), dict)
    Receipt.parse(data)
    Peer.parse(data)


@pytest.mark.parametrize(
    ("text", "peer"),
    [
        ('{"state": "online", "boot": "x"}', Peer(online=True, boot="x")),
        ('{"state": "ready"}', Peer(online=True, boot="")),
        ('{"state": "offline", "boot": "x"}', Peer(online=False, boot="x")),
        ('{"state": 3, "boot": 4}', Peer()),
        ("", Peer()),
    ],
)
def test_what_a_status_says(text, peer):
    assert Peer.parse(text.encode()) == peer


def test_mail_is_kept_for_the_next_session_from_its_beginning():
    box, got = Mailbox("t", 1, keep=2), []
    for payload in (b"1", b"", b"2", b"3"):
        box.take(Message("t", payload))
    box.take(Message("t", b"old", retain=True))
    assert (box.dropped, box.stale, box.read) == (1, 1, False)
    assert box.join(got.append) == [b"1", b"2"]
    box.take(Message("t", b"4"))
    assert (got, box.read) == ([b"4"], True)
    box.leave(got.append)
    box.leave(got.append)


def test_live_mail_is_not_kept():
    box = Mailbox("t", 0, keep=0)
    box.take(Message("t", b"1"))
    assert (box.join(print), box.dropped) == ([], 0)


def test_streams_of_one_run_share_their_zero():
    bases = Bases()
    assert bases.base("mic.1", 64_000) == 64_000
    assert bases.base("mic.1", 63_360) == 64_000
    bases.reached = 6400
    assert bases.base("mic.2", 640) == 640 - 6400
    assert bases.command("mic.1", 64_640) == 640
    assert bases.command("mic.1", 10) == 0
    assert bases.command("unknown", 999) == 0


def test_a_run_from_its_start_has_the_sessions_clock():
    bases = Bases()
    bases.whole("mic.1")
    assert bases.command("mic.1", 6400) == bases.command("unknown", 6400) == 6400


def test_runs_are_forgotten():
    bases = Bases()
    for i in range(1000):
        bases.base(f"r{i}", 0)
    assert len(bases._bases) <= 32
