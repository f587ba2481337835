"""The command `serve`, as a process: what it says, what it refuses, and how it ends; with the shipped configs."""

import asyncio
import json
import signal
import socket
import subprocess

import pytest
import websockets

from streamer import ConfigError, Frame
from streamer.commands.serve import Serving, access_for, limits_for, listening, make_service

TOKEN = "a long enough token"  # noqa: S105


@pytest.fixture
def started(program, tiny_bundle):
    """`started(*options)`: a server, and the address it said."""
    running = []

    def start(*options):
        process = program("serve", "--bundle", tiny_bundle, "--port", "0", "--json", *options, text=True)
        running.append(process)
        said = json.loads(process.stdout.readline())
        return process, said["url"]

    yield start
    for process in running:
        process.kill()
        process.communicate()


def socket_of(url):
    return url.replace("http", "ws", 1) + "ws"


async def open_visit(url, **hello):
    visit = await websockets.connect(socket_of(url))
    await visit.send(Frame.control("hello", version=1, **hello).pack())
    while True:
        frame = Frame.unpack(await visit.recv())
        assert frame.meta.get("command") != "error", frame.meta
        if frame.meta.get("command") == "welcome":
            return visit


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_visitors_are_told_and_it_ends_at_a_signal(started, number):
    process, url = await asyncio.to_thread(started)
    visit = await open_visit(url)
    process.send_signal(number)
    commands = [frame.meta["command"] async for frame in frames_of(visit) if frame.kind == "control"]
    assert commands[-1] == "bye"
    assert visit.close_code == 1001
    assert await asyncio.to_thread(process.wait, 20) == 128 + number
    assert "Traceback" not in process.stderr.read()


async def frames_of(visit):
    async for data in visit:
        yield Frame.unpack(data)


def test_a_busy_port_is_said(streamer, tiny_bundle):
    with listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        result = streamer("serve", "--bundle", tiny_bundle, "--port", port)
    assert result.code == 2
    assert f"port {port}" in result.err
    assert "--port" in result.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "--token"),  # noqa: S104
        (["--host", "0.0.0.0", "--token", TOKEN], "TLS"),  # noqa: S104
        (["--behind-proxy"], "--token"),
        (["--token", "short"], "at least 12"),
        (["--certfile", "nowhere.pem"], "both --certfile and --keyfile"),
        (["--certfile", "nowhere.pem", "--keyfile", "nowhere.pem"], "PEM"),
        (["--limit", "0"], "--limit"),
        (["--minutes", "-1"], "--minutes"),
        (["--bundle", "nowhere"], "nowhere"),
        (["--set", "nodes.nobody.x=1"], "nobody"),
        (["--host", "203.0.113.1", "--token", TOKEN, "--behind-proxy"], "cannot listen"),
        (["--port", "99999"], "port 99999"),
    ],
)
def test_what_cannot_be_is_said_before_anything_listens(streamer, monkeypatch, options, said):
    monkeypatch.delenv("STREAMER_TOKEN", raising=False)
    result = streamer("serve", *options)
    assert result.code == 2
    assert said in result.err
    assert TOKEN not in result.err


def test_a_damaged_bundle_ends_it(program, tiny_bundle, tmp_path):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(tiny_bundle, broken)
    (broken / "fine.safetensors").write_bytes(b"nothing")
    process = program("serve", "--bundle", broken, "--port", "0", "--quiet", text=True)
    try:
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 2
    assert "fine.safetensors" in err


def test_the_token_may_stand_in_the_environment(monkeypatch):
    monkeypatch.setenv("STREAMER_TOKEN", TOKEN)
    assert access_for(Serving()).token == TOKEN
    assert access_for(Serving(token="another one, longer")).token == "another one, longer"  # noqa: S105, S106
    monkeypatch.delenv("STREAMER_TOKEN")
    assert access_for(Serving()).token is None


def test_strangers_get_less_than_whoever_is_at_the_machine():
    home = limits_for(Serving(limit=3))
    assert (home.visit, home.per_address) == (None, None)
    away = limits_for(Serving(limit=3, host="0.0.0.0"))  # noqa: S104
    assert (away.visit, away.per_address) == (600, 2)
    asked = limits_for(Serving(behind_proxy=True, minutes=2, per_address=5))
    assert (asked.visit, asked.per_address) == (120, 5)


def test_two_bundles_may_be_served(tiny_bundle):
    service = make_service(Serving(bundles=(tiny_bundle, "piano"), guidance=True))
    assert list(service.rooms.bundles) == ["tiny", "piano"]
    with pytest.raises(ConfigError, match="same name"):
        make_service(Serving(bundles=("piano", tiny_bundle.replace("tiny", "piano"))))


def test_it_listens_on_any_address_of_this_machine():
    with listening("localhost", 0) as one:
        assert one.getsockname()[1] > 0
        assert one.family in (socket.AF_INET, socket.AF_INET6)


def test_certificates_are_used(started, tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
    ]
    try:
        subprocess.run(
            [*make, "-subj", "/CN=localhost", "-keyout", key, "-out", certificate], check=True, capture_output=True
        )
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    import httpx

    process, url = started("--certfile", certificate, "--keyfile", key)
    assert url.startswith("https://127.0.0.1:")
    answer = httpx.get(url, verify=False)  # noqa: S501 - made a moment ago
    assert answer.status_code == 200
    assert "wss://127.0.0.1" in answer.headers["content-security-policy"]
    assert process.poll() is None
