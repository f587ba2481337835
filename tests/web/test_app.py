"""What the server gives over HTTP: the page, its files, the metrics, the health; and nothing else."""

import asyncio
import json
import threading

import httpx
import pytest
from starlette.applications import Starlette

from streamer import ConfigError
from streamer.web.app import assets, create_app
from streamer.web.rooms import Rooms
from streamer.web.security import Access
from streamer.web.service import Service

TOKEN = "a long enough token"  # noqa: S105
STRICT = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "cross-origin-resource-policy": "same-origin",
}


async def test_the_page_is_served_with_strict_headers(serve):
    server = await serve()
    answer = await server.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert STRICT.items() <= dict(answer.headers).items()
    assert answer.headers["permissions-policy"].startswith("microphone=(self)")
    assert "server" not in answer.headers
    rules = dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == "'self'"
    assert rules["connect-src"] == f"'self' ws://127.0.0.1:{server.port}"
    assert rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert "unsafe" not in answer.headers["content-security-policy"]


async def test_every_file_of_the_page_is_served_once(serve):
    server = await serve()
    for name, asset in assets().items():
        answer = await server.get(f"/static/{name}")
        assert (answer.status_code, answer.content) == (200, asset.data), name
        assert answer.headers["content-type"] == asset.kind
        again = await server.get(f"/static/{name}", headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static/%2fetc%2fpasswd",
        "/static//etc/passwd",
        "/static/..\\app.py",
        "/static/",
        "/static",
        "/static/index.html/",
        "/static/index.html%00",
        "/configs/page.yaml",
        "/ws",
        "/docs",
    ],
)
async def test_nothing_else_is_served(serve, path):
    server = await serve()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())  # as it is written
    answer = await reader.read()
    writer.close()
    head = answer.decode("latin-1").lower()
    assert head.startswith("http/1.1 404")
    assert "content-security-policy: default-src 'none'" in head
    assert "root:" not in head
    assert "import" not in head


async def test_only_reading_is_allowed(serve):
    server = await serve()
    async with httpx.AsyncClient(base_url=server.url) as client:
        for path in ("/", "/static/index.html", "/metrics", "/healthz"):
            assert (await client.post(path)).status_code == 405
            assert (await client.head(path)).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "[::1", "a b", ""]
)
async def test_a_foreign_host_is_refused(serve, host):
    answer = await (await serve()).get("/", headers={"host": host})
    assert answer.status_code in (400, 421)
    assert "<html" not in answer.text.lower()


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "[::1]:8000", "127.0.0.1"])
async def test_loopback_may_be_called_by_any_of_its_names(serve, host):
    answer = await (await serve()).get("/", headers={"host": host})
    assert answer.status_code == 200
    assert f"ws://{host}" in answer.headers["content-security-policy"]


async def test_metrics_are_prometheus_text(serve):
    server = await serve(sessions=3)
    page = await server.connect()
    await page.hello()
    await page.sound(1, ticks=4)
    for _ in range(4):
        await page.until("audio")
    await page.say("report", underruns=2, buffer_ms=80, latency_ms=31.5)
    await page.say("bye")
    await page.closed()
    answer = await server.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    for name, expected in {
        "streamer_visitor_limit": 3,
        "streamer_visitors": 0,
        "streamer_ready": 1,
        "streamer_visits_total": 1,
        "streamer_sessions_started_total": 1,
        "streamer_ticks_total": 4,
        "streamer_generated_seconds_total": 0.16,
        "streamer_page_underruns_total": 2,
        "streamer_page_buffer_seconds_count": 1,
    }.items():
        assert await server.metric(name) == pytest.approx(expected), name
    assert await server.metric('streamer_step_seconds_count{node="answer"}') >= 4


async def test_labels_cannot_be_made_by_visitors(serve):
    server = await serve()
    for name in ("one", "two"):
        page = await server.connect()
        await page.say("hello", version=1, bundle=f"{name}-bundle")
        await page.closed()
    text = (await server.get("/metrics")).text
    assert "-bundle" not in text


async def test_with_a_token_the_metrics_need_it_and_the_health_does_not(serve):
    server = await serve(Access(token=TOKEN))
    assert (await server.get("/metrics")).status_code == 401
    assert (await server.get("/metrics", headers={"authorization": "Bearer wrong"})).status_code == 401
    assert (await server.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"})).status_code == 200
    assert (await server.get(f"/metrics?token={TOKEN}")).status_code == 401
    assert (await server.get("/healthz")).status_code == 200


async def test_health_says_ready_and_who_is_here(serve):
    server = await serve(sessions=1)
    answer = await server.get("/healthz")
    assert answer.status_code == 200
    assert answer.json() == {
        "ready": True, "why": None, "sessions": 0, "limit": 1, "full": False, "left_out": None, "crowded": False,
        "loaded": ["tiny"],
    }  # fmt: skip
    await (await server.connect()).hello()
    assert (await server.get("/healthz")).json()["full"] is True


def client_of(service):
    app: Starlette = create_app(service)
    return app, httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8000")


async def test_health_says_that_a_model_is_being_loaded_or_cannot_be(fake, registry, tiny_bundle, monkeypatch):
    service = Service(Rooms((tiny_bundle,), choices={"continue": fake}, registry=registry))
    app, client = client_of(service)
    go_on = threading.Event()

    def build(_):
        go_on.wait()
        raise ConfigError("the disk is /full")

    monkeypatch.setattr("streamer.graph.Graph.build", build)
    async with app.router.lifespan_context(app), client:
        answer = await client.get("/healthz")
        assert answer.status_code == 503
        assert answer.json()["why"] == "the bundle 'tiny' is being loaded"
        go_on.set()
        await service.warmed.wait()
        answer = await client.get("/healthz")
        assert answer.status_code == 503
        assert "cannot be loaded" in answer.json()["why"]
        assert "/full" not in answer.text
        assert json.loads(answer.text)["ready"] is False


async def test_health_says_that_the_server_ends(fake, registry, tiny_bundle):
    service = Service(Rooms((tiny_bundle,), choices={"continue": fake}, registry=registry))
    _, client = client_of(service)
    await service.end()
    async with client:
        assert (await client.get("/healthz")).json()["why"] == "the server is ending"
