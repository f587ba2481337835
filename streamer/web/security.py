"""Who may talk to the server: where it listens, a request's Host and Origin, the token, and the headers of answers.

It knows requests as ASGI scopes and nothing of sessions.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamer.errors import ConfigError

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
LEAST_TOKEN: Final = 12  # characters; below that it can be guessed
HOST: Final = re.compile(r"[A-Za-z0-9._:\[\]-]{1,256}")  # it stands in the policy: no space, no semicolon
FIXED: Final[Mapping[str, str]] = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "permissions-policy": "microphone=(self), camera=(), geolocation=(), payment=(), usb=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True)
class Access:
    """The rules of one server.

    Args:
        host: the address it listens on.
        token: what a visitor must know; None: nothing.
        tls: the server ends TLS itself.
        behind_proxy: TLS is ended in front of it, by a proxy on this machine or network.
        names: further names under which visitors reach it.

    Raises:
        ConfigError: it would be open to others without a token or without TLS.
    """

    host: str = "127.0.0.1"
    token: str | None = None
    tls: bool = False
    behind_proxy: bool = False
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.token is not None and len(self.token) < LEAST_TOKEN:
            length = len(self.token)
            raise ConfigError(f"the token has {length} characters; give at least {LEAST_TOKEN}, such as a random text")
        if self.tls and self.behind_proxy:
            raise ConfigError("--behind-proxy says that TLS is ended in front; leave it or --certfile out")
        if is_loopback(self.host) and not self.behind_proxy:
            return
        where = f"--host {self.host}" if not is_loopback(self.host) else "--behind-proxy"
        if self.token is None:
            raise ConfigError(f"{where} lets others in: set --token or STREAMER_TOKEN, or keep to --host 127.0.0.1")
        if not (self.tls or self.behind_proxy):
            message = (
                f"{where} lets others in: browsers give no microphone to a page without TLS, and the token could be "
            )
            raise ConfigError(
                message + "read on the way; give --certfile and --keyfile, or --behind-proxy where TLS ends"
            )

    @property
    def secure(self) -> bool:
        """Whether visitors reach it through TLS."""
        return self.tls or self.behind_proxy

    def knows_host(self, header: str) -> bool:
        """Whether the Host header names this server: a page of another name that points here (DNS rebinding) does not.

        An address that is no name cannot be rebound, so a server for others takes any.
        """
        name = hostname(header)
        if name is None:
            return False
        if name in LOOPBACK or name in self.names or name == self.host.lower():
            return True
        return not is_loopback(self.host) and _address(name) is not None

    def knows_origin(self, origin: str | None, header: str) -> bool:
        """Whether a socket may be opened by a page of this origin: only by our own. Programs send none, and may.

        Args:
            origin: the Origin header; None when there is none.
            header: the Host header.
        """
        if origin is None:
            return True
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        if parts.scheme != ("https" if self.secure else "http"):
            return False
        return parts.netloc.lower() == header.lower() or (parts.hostname or "") in self.names

    def knows_token(self, given: str | None) -> bool:
        """Whether the visitor knows the token; takes the same time whatever came."""
        if self.token is None:
            return True
        return hmac.compare_digest(_digest(given or ""), _digest(self.token))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def hostname(header: str) -> str | None:
    """The name in a Host header, in small letters, without the port and brackets; None when it is not one."""
    if not HOST.fullmatch(header):
        return None
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port
    except ValueError:
        return None
    return parts.hostname


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server on that address."""
    found = _address(host)
    return host.lower() == "localhost" if found is None else found.is_loopback


def policy(header: str, *, secure: bool) -> str:
    """The Content-Security-Policy of a page under this Host: everything from here, nothing inline."""
    socket = f"{'wss' if secure else 'ws'}://{header}"
    rules = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": f"'self' {socket}",
        "media-src": "'self' blob:",
        "worker-src": "'self' blob:",
        "manifest-src": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def header_of(scope: Scope, name: str) -> str | None:
    """A request header as text; None when it is not there, or twice."""
    wanted = name.encode()
    found = [value for key, value in scope["headers"] if key == wanted]
    return found[0].decode("latin-1") if len(found) == 1 else None


class Guard:
    """Refuses requests under a foreign Host and puts the headers on every answer. Pure ASGI: it serves sockets too."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or socket."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        host = header_of(scope, "host") or ""
        known = self.access.knows_host(host)
        headers = [*FIXED.items()]
        if known:
            headers.append(("content-security-policy", policy(host, secure=self.access.secure)))

        async def with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                _add(message, headers)
            await send(message)

        if known:
            await self.app(scope, receive, with_headers)
        else:
            text = "This server is not known under that name. Open it by its own, or start it with --name NAME.\n"
            await PlainTextResponse(text, 421)(scope, receive, with_headers)


def _add(message: dict[str, Any] | Message, headers: Iterable[tuple[str, str]]) -> None:
    made = list(message.get("headers", ()))
    have = {name.lower() for name, _ in made}
    made += [(name.encode(), value.encode()) for name, value in headers if name.encode() not in have]
    message["headers"] = made
