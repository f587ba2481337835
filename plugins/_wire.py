"""OSC on the wire, for the plugins that listen to it: datagrams to messages by python-osc, and a port to listen to.

Written for what strangers may send: a bundle that points back into itself, or nests without an end, is refused before
the library sees it. This module is no plugin of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from streamer import InputError, SessionInfo

BUNDLE = b"#bundle\0"
HEAD = len(BUNDLE) + 8  # the time tag behind it is passed over: what comes is done at once
DEPTH = 4  # bundles within bundles
KNOWN = frozenset(",ihfdsbrmtTFN[]")  # types of values that python-osc reads without a warning


def messages(data: bytes, depth: int = DEPTH) -> Iterator[tuple[str, list[Any]]]:
    """`(address, values)` of each message of a datagram, those of bundles in their order.

    Raises:
        ValueError: it is no OSC; the messages before the fault were given.
    """
    if not data.startswith(BUNDLE):
        yield _message(data)
        return
    at = HEAD
    while at < len(data):
        size = struct.unpack_from(">i", data, at)[0] if at + 4 <= len(data) else 0
        if not 0 < size <= len(data) - at - 4 or not depth:
            raise ValueError(f"an OSC bundle of {len(data)} bytes whose parts do not fit")
        yield from messages(data[at + 4 : at + 4 + size], depth - 1)
        at += 4 + size


def _message(data: bytes) -> tuple[str, list[Any]]:
    from pythonosc.osc_message import OscMessage, ParseError

    types = data[(data.find(b"\0") | 3) + 1 :].partition(b"\0")[0].decode("latin-1")  # behind the padded address
    if not data.startswith(b"/") or not set(types) <= KNOWN:
        raise ValueError(f"a datagram of {len(data)} bytes that is no OSC message")
    try:
        message = OscMessage(data)
    except (ParseError, ValueError, OverflowError) as error:
        raise ValueError(f"an OSC message that cannot be read: {error}") from error
    return message.address, message.params


class Listener(asyncio.DatagramProtocol):
    """Hands on each message that comes to a port; what is no message goes to `refuse`, in words."""

    def __init__(self, take: Callable[[str, list[Any]], None], refuse: Callable[[str], None]) -> None:
        self.take, self.refuse = take, refuse
        self.closed = asyncio.Event()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """One datagram."""
        _ = addr
        try:
            for address, values in messages(data):
                self.take(address, values)
        except ValueError as error:
            self.refuse(f"passed over: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """The port is free again."""
        _ = exc
        self.closed.set()


@contextlib.asynccontextmanager
async def listening(
    name: str, ctx: SessionInfo, *, bind: str, port: int,
    take: Callable[[str, list[Any]], None], refuse: Callable[[str], None],
) -> AsyncIterator[None]:  # fmt: skip
    """Listen to OSC for a while; the gauge `NAME.port` says where.

    Args:
        name: of the node.
        ctx: the session.
        bind: address of this machine.
        port: UDP port; 0: any that is free.
        take: is given each message, address and values.
        refuse: is told of each datagram that cannot be read.

    Raises:
        InputError: the port is taken, or the address is not of this machine.
    """
    loop = asyncio.get_running_loop()
    try:
        transport, listener = await loop.create_datagram_endpoint(
            lambda: Listener(take, refuse), local_addr=(bind, port)
        )
    except OSError as error:
        message = f"node {name!r} cannot listen to OSC on {bind}:{port}: {error.strerror or error}"
        raise InputError(f"{message}; choose another `port`, or an address of this machine as `bind`") from error
    try:
        ctx.metrics.gauge(f"{name}.port", float(transport.get_extra_info("sockname")[1]))
        yield
    finally:
        transport.close()
        await listener.closed.wait()
