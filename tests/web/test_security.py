"""The rules of who may come, without a server."""

import pytest

from streamer import ConfigError
from streamer.web.security import Access, hostname, is_loopback, policy

TOKEN = "a long enough token"  # noqa: S105


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.0.0.9"])
def test_loopback_needs_nothing(host):
    assert is_loopback(host)
    assert not Access(host).secure


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "piano.example"])  # noqa: S104
def test_anything_else_needs_a_token_and_tls(host):
    with pytest.raises(ConfigError, match="STREAMER_TOKEN"):
        Access(host)
    with pytest.raises(ConfigError, match="TLS"):
        Access(host, TOKEN)
    assert Access(host, TOKEN, tls=True).secure
    assert Access(host, TOKEN, behind_proxy=True).secure


def test_a_proxy_lets_others_in_too():
    with pytest.raises(ConfigError, match="token"):
        Access(behind_proxy=True)
    with pytest.raises(ConfigError, match="--certfile"):
        Access(token=TOKEN, tls=True, behind_proxy=True)


def test_a_token_that_can_be_guessed_is_refused_and_not_repeated():
    with pytest.raises(ConfigError) as caught:
        Access(token="1234")  # noqa: S106
    assert "1234" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost", "localhost"),
        ("LocalHost:80", "localhost"),
        ("[::1]:8000", "::1"),
        ("a:99999", None),
        ("a:b", None),
        ("", None),
        ("a b", None),
        ("a;script-src *", None),
        ("user@localhost", None),
        ("[::1", None),
        ("x" * 300, None),
    ],
)
def test_host_headers_are_taken_apart(header, name):
    assert hostname(header) == name


def test_a_server_for_others_is_known_by_its_names_and_by_addresses():
    access = Access("0.0.0.0", TOKEN, tls=True, names=("piano.example",))  # noqa: S104
    for known in ("piano.example", "PIANO.example:8000", "192.168.1.5:8000", "[fe80::1]", "localhost"):
        assert access.knows_host(known), known
    for foreign in ("evil.example", "piano.example.evil.example", "[fe80::1%;script-src]"):
        assert not access.knows_host(foreign), foreign
    assert not Access().knows_host("192.168.1.5")


def test_only_our_own_page_may_open_a_socket():
    access = Access(names=("piano.example",))
    assert access.knows_origin(None, "localhost:8000")
    assert access.knows_origin("http://localhost:8000", "localhost:8000")
    for foreign in (
        "http://localhost:8001",
        "https://localhost:8000",
        "http://evil.example",
        "null",
        "",
        "http://[",
        "file://",
    ):
        assert not access.knows_origin(foreign, "localhost:8000"), foreign


def test_behind_a_proxy_the_origin_is_the_name_that_visitors_know():
    access = Access(token=TOKEN, behind_proxy=True, names=("piano.example",))
    assert access.knows_origin("https://piano.example", "127.0.0.1:8000")
    assert not access.knows_origin("http://piano.example", "127.0.0.1:8000")


def test_the_token():
    assert Access().knows_token(None)
    access = Access(token=TOKEN)
    assert access.knows_token(TOKEN)
    for wrong in (None, "", TOKEN + " ", TOKEN[:-1], "\ud800"):
        assert not access.knows_token(wrong)


def test_sockets_of_a_page_under_tls_are_too():
    assert "connect-src 'self' wss://piano.example" in policy("piano.example", secure=True)
