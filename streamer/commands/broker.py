"""The command `broker`: a small MQTT broker on loopback, for a first try without installing one.

The broker is amqtt's; here are only the socket, the words about it, and its end. It speaks MQTT 3.1.1, asks for no
password and keeps nothing when it ends. Everything real goes through Mosquitto or another MQTT 5 broker.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog
import typer

from streamer.commands import logs
from streamer.commands.exits import INTERRUPTED, TERMINATED, say
from streamer.errors import ConfigError

HOST: Final = "127.0.0.1"
PROTOCOL: Final = "3.1.1"
CONNECTIONS: Final = 200  # clients at once
LISTENER: Final = "default"
CODES: Final = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}


def broker(port: int = 1883, *, quiet: bool = False, as_json: bool = False) -> None:
    """Serve until a signal.

    Args:
        port: where it listens, on loopback; 0: any free one.
        quiet: only errors are said.
        as_json: one JSON object on standard output when it listens.

    Raises:
        ConfigError: the port cannot be had, or amqtt is not installed. typer.Exit: a signal ended it.
    """
    logs.configure(quiet=quiet)
    ended_by = asyncio.run(_serve(port, lambda found: _announce(found, quiet=quiet, as_json=as_json)))
    raise typer.Exit(CODES[ended_by])


async def _serve(port: int, listens: Callable[[int], None]) -> signal.Signals:
    """Serve until a signal, and give it."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[signal.Signals] = loop.create_future()

    def end(number: signal.Signals) -> None:
        if not ended.done():
            ended.set_result(number)

    for number in CODES:
        loop.add_signal_handler(number, end, number)
    async with running(port) as found:
        listens(found)
        return await ended


@asynccontextmanager
async def running(port: int = 0) -> AsyncIterator[int]:
    """Inside, a broker listens on loopback; gives its port.

    Raises:
        ConfigError: the port cannot be had, or amqtt is not installed.
    """
    door = _Door(port)
    log, handler = logging.getLogger("amqtt"), _Forward(logging.WARNING)
    propagated = log.propagate
    log.addHandler(handler)
    log.propagate = False
    await door.broker.start()
    try:
        async with await _listening(door, port) as server:
            yield server.sockets[0].getsockname()[1]
    finally:
        await door.close()
        await door.broker.shutdown()
        log.removeHandler(handler)
        log.propagate = propagated


async def _listening(door: _Door, port: int) -> asyncio.Server:
    try:
        return await asyncio.start_server(door.open, HOST, port)
    except (OSError, OverflowError) as error:
        what = getattr(error, "strerror", None) or error
        message = f"cannot listen on {HOST} port {port}: {what}"
        raise ConfigError(f"{message}; give another --port (0: any free one)") from error


class _Door:
    """The broker, and the clients that came to it through a socket of ours: its own would not tell its port."""

    def __init__(self, port: int) -> None:
        try:
            from amqtt import adapters
            from amqtt.broker import Broker
        except ImportError as error:
            message = f"the embedded broker needs amqtt ({error}): pip install 'audiolm-streamer[broker]'"
            raise ConfigError(f"{message}, or start a Mosquitto") from error
        self.broker = Broker({
            "listeners": {LISTENER: {"type": "external", "bind": f"{HOST}:{port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        })  # fmt: skip
        self._adapters = adapters
        self._clients: set[asyncio.Task[None]] = set()

    def open(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Let a client in, if there is room."""
        if len(self._clients) >= CONNECTIONS:
            structlog.get_logger().warning("broker", note=f"{CONNECTIONS} clients are connected; one more is refused")
            writer.close()
            return
        task = asyncio.create_task(self._serve(reader, writer), name="broker client")
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        come, go = self._adapters.StreamReaderAdapter(reader), self._adapters.StreamWriterAdapter(writer)
        try:
            await self.broker.external_connected(come, go, LISTENER)
        except (OSError, EOFError) as error:  # it went away in the middle of something
            structlog.get_logger().warning("broker", note=f"a client went away: {error}")
        finally:
            writer.close()

    async def close(self) -> None:
        """Send every client away."""
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)


class _Forward(logging.Handler):
    """What amqtt warns of goes where the logs of this process go."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().warning("broker", note=record.getMessage())


def _announce(port: int, *, quiet: bool, as_json: bool) -> None:
    """Say where it listens, and what it is not."""
    if as_json:
        typer.echo(json.dumps({"host": HOST, "port": port, "protocol": PROTOCOL}))
        sys.stdout.flush()
    elif not quiet:
        say(f"a broker for a first try listens on {HOST} port {port}; stop it with Ctrl+C")
        say(f"it speaks MQTT {PROTOCOL}, asks for no password, and forgets everything when it ends; for anything real")
        say("use Mosquitto or another MQTT 5 broker, see docs/mqtt.md")
        say(f"to run with it: streamer run CONFIG --set mqtt.port={port} --set mqtt.protocol={PROTOCOL}")
