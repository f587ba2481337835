"""What a running program says on a broker, and the commands that it takes from there.

It says its status when something changes, its measurements every few seconds, and what it is once; it hands commands
to the run and answers them. What is said and what a command does, the run knows; the connection is the exchange's.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, Protocol, Self

import structlog

from streamer.errors import ConfigError, InputError, StreamerError
from streamer.nodes.mqtt.client import Message
from streamer.nodes.mqtt.discovery import config_topic, discovery, is_ours
from streamer.nodes.mqtt.exchange import Exchange, exchange_for
from streamer.topics import check_topic

__all__ = ["Station", "station_for"]

LOOK: Final = 0.1  # seconds between two looks at the status
AGAIN: Final = 30.0  # seconds after which it is said though nothing has changed
WAITING: Final = 32  # commands that wait at most; the oldest goes
PAUSE: Final = 0.01  # seconds from one command to the next: a flood holds nothing up
PAYLOAD: Final = 4096  # bytes of a command
RESPONSE: Final = 256  # bytes of a response topic, and of correlation data
ANSWERS: Final = "answer"  # below the prefix, answers go only to PREFIX/answer/...
EXPIRY: Final = 60.0  # seconds after which nobody waits for an answer any more
RETAINED: Final = 1.0  # seconds within which a broker has handed out what it retains
QUIET: Final = 10.0  # seconds between two lines of the log about the same thing
CONFIG_BYTES: Final = 1 << 17


class Run(Protocol):
    """The run, as the station sees it."""

    def status(self) -> dict[str, Any]:
        """What holds now."""

    def metrics(self) -> dict[str, Any]:
        """What is measured."""

    def description(self) -> dict[str, Any]:
        """What it is."""

    def do(self, name: str, payload: bytes) -> dict[str, Any]:
        """Obey a command, or raise InputError (with `concerns` False where it has nothing to do with this graph)."""


class Station:
    """The station of a program, as an async context.

    Args:
        exchange: the connection of the graph.
        run: what is told of, and commanded.

    Attributes:
        counts: `obeyed`; `refused` (not valid, or not now); `retained` (refused, since a broker would repeat it at each
            connect); `dropped` (too many at once); `passed` (for all, and nothing to do with this graph).
    """

    def __init__(self, exchange: Exchange, run: Run) -> None:
        self.exchange, self.run = exchange, run
        self.counts = dict.fromkeys(("obeyed", "refused", "retained", "dropped", "passed"), 0)
        self._queue: deque[tuple[str, Message]] = deque(maxlen=WAITING)
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._description: dict[str, Any] = {}
        self._config: bytes | None = None
        self._logged: dict[str, float] = {}
        self._last: dict[str, Any] = {}
        self._last_at = 0.0
        self._forget: Callable[[], None] = lambda: None

    async def __aenter__(self) -> Self:
        """Begin; returns at once, also without a broker.

        Commands are subscribed to before the connection is made: what the broker has kept for us comes right then.

        Raises:
            ConfigError: a password file or certificate is missing.
        """
        topics = self.exchange.topics
        self._description = self._describe()
        self._say()
        self._forget = self.exchange.on_connect(self._connected)
        await self.exchange.acquire()  # it connects in a task, which has not run yet
        if self.exchange.settings.control:
            for wanted in (topics.control("+"), topics.control_all("+")):
                self.exchange.client.subscribe(wanted, 1, self._take)
        works = {
            "status": self._tell(),
            "metrics": self._measure(),
            "commands": self._obey(),
            "discovery": self._find(),
            "rights": self._check_rights(),
        }
        self._tasks = [asyncio.create_task(work, name=f"station:{name}") for name, work in works.items()]
        for task in self._tasks:
            task.add_done_callback(_say_failed)
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Say how it ends, and let the connection go."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        self._forget()  # commands stay subscribed to: the broker keeps them for the next start
        self._say()
        await self.exchange.release()

    # -- what is said -------------------------------------------------------------------------------------------------

    def _describe(self) -> dict[str, Any]:
        found = self.run.description()
        if not self.exchange.settings.control:
            found["commands"] = {}
        return {"instance": self.exchange.topics.instance, "prefix": self.exchange.topics.prefix, **found}

    def _connected(self) -> None:
        """Say once more what the broker should keep: it may have forgotten it."""
        client, topics = self.exchange.client, self.exchange.topics
        client.publish(topics.description, _json(self._description), qos=1, retain=True, latest=True)
        if self._config is not None:
            client.publish(self._config_topic, self._config, qos=1, retain=True, latest=True)

    async def _tell(self) -> None:
        """Say the status when it changes, and now and then though it does not."""
        while True:
            await asyncio.sleep(LOOK)
            if self.run.status() != self._last or time.monotonic() - self._last_at >= AGAIN:
                self._say()

    def _say(self) -> None:
        self._last, self._last_at = self.run.status(), time.monotonic()
        self.exchange.say(**self._last, at=datetime.now(UTC).isoformat(timespec="milliseconds"))

    async def _measure(self) -> None:
        while True:
            await asyncio.sleep(self.exchange.settings.metrics_seconds)
            if self.exchange.client.connected:  # what was measured meanwhile is not worth sending later
                self.exchange.client.publish(self.exchange.topics.metrics, _json(self.metrics()), latest=True)

    def metrics(self) -> dict[str, Any]:
        """What the run measures, and how it goes with the broker."""
        client = self.exchange.client
        mqtt = {
            "lost": client.lost,
            "unmatched": client.unmatched,
            "dropped": client.dropped,
            "commands": dict(self.counts),
        }
        return {**self.run.metrics(), "reconnects": client.reconnects, "mqtt": mqtt}

    async def _check_rights(self) -> None:
        """Say it when what we publish is not let through; the run goes on, since it may play without being heard of."""
        try:
            await self.exchange.verify(self.exchange.topics.probe)
        except InputError as error:
            structlog.get_logger().error("mqtt", rights=str(error))

    # -- Home Assistant -----------------------------------------------------------------------------------------------

    @property
    def _config_topic(self) -> str:
        topics = self.exchange.topics
        return config_topic(self.exchange.settings.discovery_prefix, topics.prefix, topics.instance)

    async def _find(self) -> None:
        """Announce the program, or take back that an earlier start has announced it."""
        settings, topics, client = self.exchange.settings, self.exchange.topics, self.exchange.client
        before = await self._retained(self._config_topic)
        if settings.discovery:
            self._config = _json(
                discovery(
                    self._description,
                    prefix=topics.prefix,
                    instance=topics.instance,
                    status=topics.status,
                    metrics=topics.metrics,
                    every=settings.metrics_seconds,
                    control=topics.control if settings.control else None,
                    before=before,
                )
            )
        elif is_ours(before):
            self._config = b""
        if self._config is not None:
            client.publish(self._config_topic, self._config, qos=1, retain=True, latest=True)

    async def _retained(self, topic: str) -> dict[str, Any] | None:
        """The JSON mapping that the broker retains on a topic; None: nothing, or something else."""
        found: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def take(message: Message) -> None:
            if message.retain and not found.done():
                found.set_result(message.payload)

        subscription = self.exchange.client.subscribe(topic, 1, take)
        try:
            await subscription.granted.wait()
            async with asyncio.timeout(RETAINED):
                payload = await found
            made = json.loads(payload[:CONFIG_BYTES])
        except (TimeoutError, ValueError, RecursionError):
            return None
        finally:
            subscription.cancel()
        return made if isinstance(made, dict) else None

    # -- commands -----------------------------------------------------------------------------------------------------

    def _take(self, message: Message) -> None:
        """A command has come: let it wait for its turn."""
        name = self.exchange.topics.command(message.topic)
        if message.retain:
            self._count("retained", f"the retained message on {message.topic!r}; send commands without the retain flag")
        elif name is None:
            self._count("refused", f"a message on {message.topic!r}, which names no command")
        else:
            if len(self._queue) == WAITING:
                self._count("dropped", f"the oldest of {WAITING + 1} commands that waited; send fewer at a time")
            self._queue.append((name, message))
            self._news.set()

    async def _obey(self) -> None:
        """Do one command after another, with a pause between them."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._queue:
                self._answer(*self._queue.popleft())
                await asyncio.sleep(PAUSE)

    def _answer(self, name: str, message: Message) -> None:
        """Obey a command, and say so where an answer is wanted."""
        try:
            self._check(message)
            found = self.run.do(name, message.payload)
        except StreamerError as error:
            if getattr(error, "concerns", True) or message.topic == self.exchange.topics.control(name):
                self._count("refused", str(error), command=name)
                self._reply(name, message, {"ok": False, "error": str(error)})
            else:
                self.counts["passed"] += 1
            return
        self.counts["obeyed"] += 1
        self._log(f"obeyed {name}", obeyed=name)
        self._reply(name, message, {"ok": True, **found})
        self._say()

    def _check(self, message: Message) -> None:
        if len(message.payload) > PAYLOAD:
            raise InputError(f"{len(message.payload)} bytes came; a command has at most {PAYLOAD}")
        if message.response_topic is not None and not self._may_answer(message):
            raise InputError(
                f"the response topic {message.response_topic[:80]!r} cannot be used; expected at most {RESPONSE} bytes "
                f"without wildcards, and below {self.exchange.topics.prefix!r} only {self._answers}..."
            )

    @property
    def _answers(self) -> str:
        return f"{self.exchange.topics.prefix}/{ANSWERS}/"

    def _may_answer(self, message: Message) -> bool:
        """Whether an answer may go there: never to where programs speak, so that no command makes us speak for them."""
        topic, settings = message.response_topic or "", self.exchange.settings
        ours = [self.exchange.topics.prefix, settings.control_prefix, settings.discovery_prefix]
        try:
            check_topic(topic)
        except ConfigError:
            return False
        if len(topic.encode()) > RESPONSE or len(message.correlation or b"") > RESPONSE:
            return False
        if topic.startswith(self._answers):
            return True
        return not any(topic == each or topic.startswith(f"{each}/") for each in ours if each)

    def _reply(self, name: str, message: Message, found: Mapping[str, Any]) -> None:
        if message.response_topic is None or not self._may_answer(message):
            return
        self.exchange.client.publish(
            message.response_topic,
            _json({"instance": self.exchange.topics.instance, "command": name, **found}),
            qos=1,
            correlation=message.correlation,
            expiry=EXPIRY,
        )

    def _count(self, what: str, note: str, **values: Any) -> None:
        self.counts[what] += 1
        self._log(what, **{what: note}, **values)

    def _log(self, about: str, **values: Any) -> None:
        """One line, but not more often than every few seconds about the same thing: nobody floods the log."""
        now = time.monotonic()
        if now - self._logged.get(about, -QUIET) >= QUIET:
            self._logged[about] = now
            structlog.get_logger().info("control", **values)


def station_for(build: Any, run: Run) -> Station:
    """The station of a graph; `build` is that of any of its nodes."""
    return Station(exchange_for(build), run)


def _say_failed(task: asyncio.Task[None]) -> None:
    """A part of the station that fails is a fault of ours: it is said at once, and raised at the end."""
    if not task.cancelled() and task.exception() is not None:
        structlog.get_logger().error("station", part=task.get_name(), fault=repr(task.exception()))


def _json(found: Mapping[str, Any]) -> bytes:
    return json.dumps(found, allow_nan=False, separators=(",", ":")).encode()
