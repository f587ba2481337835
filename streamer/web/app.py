"""The ASGI application: the page and its files, the socket, the metrics and the health. Nothing else is served."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from streamer.web.security import Guard
from streamer.web.service import Service
from streamer.web.visitor import Visitor

PAGE: Final = "index.html"
FRESH: Final = {"cache-control": "no-store"}
TYPES: Final[Mapping[str, str]] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".wav": "audio/wav",
    ".woff2": "font/woff2",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the page, in memory."""

    data: bytes
    kind: str
    tag: str


def assets() -> dict[str, Asset]:
    """The files of the page by name: those of the package's folder that have a known type. A request only picks one."""
    made: dict[str, Asset] = {}
    for entry in sorted(resources.files("streamer.web").joinpath("static").iterdir(), key=lambda entry: entry.name):
        kind = TYPES.get("." + entry.name.rpartition(".")[2])
        if kind is not None and entry.is_file():
            data = entry.read_bytes()
            made[entry.name] = Asset(data, kind, f'"{hashlib.sha256(data).hexdigest()[:32]}"')
    return made


class Site:
    """The endpoints of one server."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.files = assets()

    async def page(self, request: Request) -> Response:
        """The page itself."""
        return self._give(request, PAGE)

    async def static(self, request: Request) -> Response:
        """One of its files."""
        return self._give(request, request.path_params["name"])

    def _give(self, request: Request, name: str) -> Response:
        found = self.files.get(name)
        if found is None:
            return PlainTextResponse("There is no such file.\n", 404)
        headers = {"cache-control": "no-cache", "etag": found.tag}
        if request.headers.get("if-none-match") == found.tag:
            return Response(status_code=304, headers=headers)
        return Response(found.data, headers=headers, media_type=found.kind)

    async def metrics(self, request: Request) -> Response:
        """Prometheus' text; where there is a token it is needed here too, since it tells how many come and when."""
        if not self.service.access.knows_token(_bearer(request)):
            return PlainTextResponse("Send the token as Authorization: Bearer.\n", 401, {"www-authenticate": "Bearer"})
        return Response(self.service.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8", headers=FRESH)

    async def health(self, request: Request) -> Response:
        """Ready, or why not."""
        _ = request
        found = self.service.health()
        return JSONResponse(found, 200 if found["ready"] else 503, FRESH)

    async def socket(self, websocket: WebSocket) -> None:
        """A visitor, from a page of our own."""
        service, host = self.service, websocket.headers.get("host", "")
        if not service.access.knows_origin(websocket.headers.get("origin"), host):
            service.meters.refused.labels("origin").inc()
            await websocket.send_denial_response(PlainTextResponse("Only this server's own page may do that.\n", 403))
            return
        await websocket.accept()
        await Visitor(websocket, service, websocket.client.host if websocket.client else "").visit()

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Load the first bundle; at the end say bye to everybody."""
        _ = app
        async with self.service.rooms:
            warming = asyncio.create_task(self.service.warm(), name="warm")
            yield
            await self.service.end()
            warming.cancel()
            await asyncio.wait({warming})


def create_app(service: Service) -> Starlette:
    """The application of a server."""
    site = Site(service)
    app = Starlette(
        routes=[
            Route("/", site.page),
            Route("/static/{name}", site.static),
            Route("/metrics", site.metrics),
            Route("/healthz", site.health),
            WebSocketRoute("/ws", site.socket),
        ],
        middleware=[Middleware(Guard, access=service.access)],
        lifespan=site.lifespan,
    )
    app.router.redirect_slashes = False  # a path is one of these, or nothing
    return app


def _bearer(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else None
