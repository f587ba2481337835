"""The command `serve`: the page and its visitors' sessions, until a signal ends it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import typer
import uvicorn

from streamer.commands import logs
from streamer.commands.exits import say, terminable
from streamer.commands.load import registry_for
from streamer.errors import ConfigError
from streamer.web.app import create_app
from streamer.web.limits import Limits
from streamer.web.protocol import MESSAGE_BYTES
from streamer.web.rooms import SHIPPED, Rooms
from streamer.web.security import Access, is_loopback
from streamer.web.service import Service

TOKEN: Final = "STREAMER_TOKEN"  # noqa: S105 - the name of the variable
SEND_BUFFER: Final = 1 << 16  # bytes the system holds for one visitor: about a second, then the outbox drops
UNREAD_MS: Final = 20_000  # after which the system gives up a visitor that takes no bytes
BACKLOG: Final = 128
PROXIES: Final = "127.0.0.0/8,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"  # who may say where a visitor is
STAY: Final = 10.0  # minutes that a stranger may stay


@dataclass(frozen=True, slots=True)
class Serving:
    """What was asked for; `minutes` and `per_address` None: no limit on loopback, else a cautious one."""

    bundles: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    names: tuple[str, ...] = ()
    token: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    behind_proxy: bool = False
    limit: int = 2
    per_address: int | None = None
    minutes: float | None = None
    guidance: bool = False
    sets: tuple[str, ...] = ()
    plugins: str | None = None


def serve(asked: Serving, *, quiet: bool = False, as_json: bool = False) -> None:
    """Serve until a signal; visitors are told before it ends.

    Args:
        asked: what was asked for.
        quiet: only errors are said, beside the JSON of `as_json`.
        as_json: one JSON object on standard output when it listens.

    Raises:
        ConfigError: it would be open to others unprotected, the address cannot be used, or a bundle or config is wrong.
    """
    logs.configure(quiet=quiet)
    with terminable():
        service, access = make_service(asked), access_for(asked)
        check_tls(asked)
        with listening(asked.host, asked.port) as listener:
            url = address(asked, access, listener)
            server = Server(config_for(service, asked), service, lambda: announce(url, asked, quiet, as_json))
            asyncio.run(server.serve([listener]))
    if service.failed is not None:
        raise service.failed


def make_service(asked: Serving) -> Service:
    """Rooms, rules and limits; every config is checked with every bundle, nothing is loaded yet."""
    if asked.limit < 1 or (asked.per_address is not None and asked.per_address < 1):
        raise ConfigError("--limit and --per-address are numbers of visitors; give at least 1")
    if asked.minutes is not None and asked.minutes <= 0:
        raise ConfigError(f"--minutes {asked.minutes:g}; give more than 0, or leave it out")
    registry = registry_for(asked.plugins)
    bundles = asked.bundles or SHIPPED
    rooms = Rooms(bundles, asked.limit, guidance=asked.guidance, registry=registry, sets=asked.sets)
    return Service(rooms, access_for(asked), limits_for(asked))


def limits_for(asked: Serving) -> Limits:
    """Whoever is at this machine may stay as long as they like; strangers share."""
    minutes, per_address = asked.minutes, asked.per_address
    if asked.behind_proxy or not is_loopback(asked.host):
        minutes = STAY if minutes is None else minutes
        per_address = max(1, asked.limit - 1) if per_address is None else per_address
    return Limits(sessions=asked.limit, per_address=per_address, visit=None if minutes is None else minutes * 60)


def access_for(asked: Serving) -> Access:
    """The rules; the token may stand in the environment, where other users of the machine do not see it."""
    token = asked.token if asked.token is not None else os.environ.get(TOKEN)
    names = tuple(name.lower() for name in asked.names)
    return Access(asked.host, token or None, asked.certfile is not None, asked.behind_proxy, names)


def check_tls(asked: Serving) -> None:
    """Try the certificate before anything listens.

    Raises:
        ConfigError: only one of the files is given, or they cannot be used.
    """
    if asked.certfile is None and asked.keyfile is None:
        return
    if asked.certfile is None or asked.keyfile is None:
        raise ConfigError("TLS needs both --certfile and --keyfile")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(asked.certfile, asked.keyfile)
    except OSError as error:  # an SSLError is one too
        raise ConfigError(f"--certfile {asked.certfile}, --keyfile {asked.keyfile}: {error}; give PEM files") from error


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ConfigError: the port is taken, or the address is none of this machine's.
    """
    if not 0 <= port <= 65_535:  # the system would wrap it round
        raise ConfigError(f"port {port} is none; give --port 0 to 65535 (0: any free one)")
    made: socket.socket | None = None
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS)
        made.bind(where)
        made.listen(BACKLOG)
    except OSError as error:
        if made is not None:
            made.close()
        message = f"cannot listen on {host} port {port}: {error.strerror or error}"
        raise ConfigError(message + "; give another --port (0: any free one) or --host") from error
    return made


def address(asked: Serving, access: Access, listener: socket.socket) -> str:
    """Where the page is."""
    host = asked.names[0] if asked.names else asked.host
    if ":" in host:
        host = f"[{host}]"
    if asked.behind_proxy:
        return f"https://{host}/ (behind a proxy, which finds it at port {listener.getsockname()[1]})"
    return f"{'https' if access.secure else 'http'}://{host}:{listener.getsockname()[1]}/"


def announce(url: str, asked: Serving, quiet: bool, as_json: bool) -> None:
    """Say that it listens."""
    if as_json:
        typer.echo(json.dumps({"url": url, "bundles": list(asked.bundles or SHIPPED), "limit": asked.limit}))
        sys.stdout.flush()
    elif not quiet:
        say(f"the page is at {url}; stop with Ctrl+C")


def config_for(service: Service, asked: Serving) -> uvicorn.Config:
    """Uvicorn's settings: small messages, no compression, no word about itself, and no log of its own."""
    return uvicorn.Config(
        create_app(service),
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=asked.behind_proxy,
        forwarded_allow_ips=PROXIES,
        ws_max_size=MESSAGE_BYTES,
        ws_per_message_deflate=False,
        ws_ping_interval=10.0,
        ws_ping_timeout=20.0,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=1,
        ssl_certfile=asked.certfile,
        ssl_keyfile=asked.keyfile,
    )


class Server(uvicorn.Server):
    """uvicorn, which says when it listens, tells visitors before it ends, and ends when there is nothing to play."""

    def __init__(self, config: uvicorn.Config, service: Service, listens: Callable[[], None]) -> None:
        super().__init__(config)
        self.service, self.listens = service, listens

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self.listens()

    async def on_tick(self, counter: int) -> bool:
        """Whether it is time to end."""
        return await super().on_tick(counter) or self.service.failed is not None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Say bye first: uvicorn would close the sockets without a word."""
        await self.service.end()
        await super().shutdown(sockets)
