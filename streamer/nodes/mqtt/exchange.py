"""What the nodes of one graph share of the broker: one connection, one status, the mail of each topic, who is there.

The connection lives as long as somebody holds the exchange (`acquire`, `release`). It knows topics, payloads and names
of sessions; frames are read and written by `source` and `sink`, commands by the station.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from streamer.errors import ConfigError, InputError
from streamer.node import Build, SessionInfo
from streamer.nodes.mqtt.client import Client, Message
from streamer.nodes.mqtt.common import Bases, Bell, Mailbox
from streamer.nodes.mqtt.receipts import Peer, Receipt
from streamer.settings import MqttSettings
from streamer.topics import Topics, as_segment

__all__ = ["Exchange", "check_broker", "exchange_for", "messages"]

SHARED: Final = "mqtt"  # its name in `Build.shared`
MOST_MESSAGES: Final = 256  # that wait for whoever iterates over `messages`
SESSIONS: Final = 64  # of which run ids and positions are kept
ECHO: Final = 3.0  # seconds in which an echo must come after the broker confirmed what was sent


def exchange_for(build: Build) -> Exchange:
    """The exchange of the graph that a node is built for, made at first use.

    Raises:
        ConfigError: the config has no section `mqtt`, or names that no topic can hold.
    """
    check_broker(build)
    found = build.shared.get(SHARED)
    if not isinstance(found, Exchange):
        found = build.shared[SHARED] = Exchange(build.mqtt, build.instance, build.base)
    return found


def check_broker(build: Build) -> None:
    """Whether the config says where the broker is.

    Raises:
        ConfigError: it does not.
    """
    if build.mqtt is None:
        message = f"node {build.name!r} needs a broker, and the config has no section `mqtt`"
        raise ConfigError(message + "; add `mqtt: {host: ADDRESS}` (`mqtt: {}` is one on this machine)", path="mqtt")


class Exchange:
    """The broker as one graph sees it; used by one event loop at a time.

    Args:
        settings: the `mqtt` section.
        instance: our name on the broker.
        base: folder that relative paths of the settings start from.

    Attributes:
        topics: the names of our topics. boot: random id of this process, in the status and in receipts.
        bell: rung when a connection stands, a receipt or a status has come.
        peers: instance -> what it last said of itself; of those that are watched.
    """

    def __init__(self, settings: MqttSettings, instance: str, base: str = ".") -> None:
        self.settings, self.base = settings, base
        self.topics = Topics(settings.prefix, instance, settings.control_prefix)
        self.boot = secrets.token_hex(8)
        self.bell = Bell()
        self.peers: dict[str, Peer] = {}
        self._receipts: dict[str, Receipt] = {}
        self._mail: dict[str, Mailbox] = {}
        self._client: Client | None = None
        self._holders = 0
        self._closing: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._status: dict[str, Any] = {"state": "online", "since": _now(), "boot": self.boot}
        self._notes: dict[str, str] = {}
        self._calls: list[Callable[[], None]] = []
        self._runs: dict[str, tuple[SessionInfo, str]] = {}
        self._bases: dict[str, tuple[SessionInfo, Bases]] = {}
        self._verified: set[str] = set()

    @property
    def client(self) -> Client:
        """The connection.

        Raises:
            RuntimeError: nobody holds the exchange now.
        """
        if self._client is None:
            raise RuntimeError("the exchange is not held; call `acquire` first")
        return self._client

    # -- life --

    async def acquire(self) -> None:
        """Hold the exchange; the first one begins to connect. Returns at once, also without a broker.

        Raises:
            ConfigError: a password file or certificate is missing.
        """
        async with self._lock:
            if self._client is None:
                await self._open()
            self._holders += 1

    async def release(self) -> None:
        """Hold it no longer; the last one says goodbye, so that the will is not sent, and disconnects.

        That is done even if the caller is cancelled, as it happens to a source whose session has ended.
        """
        self._holders -= 1
        if self._holders == 0:
            self._closing = asyncio.create_task(self._close(), name="mqtt:close")
            await asyncio.shield(self._closing)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[Client]:
        """Hold it for a block."""
        await self.acquire()
        try:
            yield self.client
        finally:
            await self.release()

    async def _open(self) -> None:
        topics, settings = self.topics, self.settings
        identity = settings.client_id or f"{as_segment(topics.prefix)}-{topics.instance}"
        will = Message(topics.status, _json({"state": "offline", "boot": self.boot}), 1, retain=True)
        client = Client(settings, client_id=identity, will=will, base=self.base)
        client.on_connect(self._connected)
        for box in self._mail.values():
            box.asked = client.subscribe(box.topic, box.qos, box.take)
        for instance in self.peers:
            self._subscribe_peer(client, instance)
        for topic in self._receipts:
            self._subscribe_receipt(client, topic)
        await client.start()
        self._client = client

    async def _close(self) -> None:
        async with self._lock:
            if self._holders or self._client is None:
                return
            client, self._client = self._client, None
            goodbye = self._status | {"state": "offline"}
            client.publish(self.topics.status, _json(goodbye), qos=1, retain=True, latest=True)
            await client.stop()

    def _connected(self) -> None:
        self._publish_status()
        for call in list(self._calls):
            call()
        self.bell.ring()

    def on_connect(self, call: Callable[[], None]) -> Callable[[], None]:
        """Have this called after each connect. Gives what takes that back."""
        self._calls.append(call)
        return lambda: self._calls.remove(call)

    # -- status --

    def say(self, **fields: Any) -> None:
        """Set fields of the retained status and publish it; None takes a field away.

        What is said last before the connection stands is what is seen first. `state`, `since`, `reason`, `phase`,
        `note` and any other plain values.
        """
        merged = {name: value for name, value in (self._status | fields).items() if value is not None}
        if merged != self._status:
            self._status = merged
            self._publish_status()

    def note(self, who: str, text: str | None) -> None:
        """What one node waits for, beside the others' in the status as `waiting`; None: nothing any more."""
        if text == self._notes.get(who):
            return
        if text is None:
            self._notes.pop(who, None)
        else:
            self._notes[who] = text
            structlog.get_logger().info("mqtt", node=who, note=text)
        self.say(waiting="; ".join(self._notes[name] for name in sorted(self._notes)) or None)

    def _publish_status(self) -> None:
        if self._client is not None:
            self._client.publish(self.topics.status, _json(self._status), qos=1, retain=True, latest=True)

    # -- what comes --

    def mailbox(self, topic: str, qos: int, *, keep: int = 0) -> Mailbox:
        """The mail of a topic, subscribed to as long as the exchange is held.

        Args:
            topic: where from.
            qos: 0 or 1.
            keep: messages that are kept while no session reads; 0: none.
        """
        if topic not in self._mail:
            box = self._mail[topic] = Mailbox(topic, qos, keep)
            if self._client is not None:
                box.asked = self._client.subscribe(topic, qos, box.take)
        return self._mail[topic]

    def watch(self, instance: str) -> None:
        """Keep `peers[instance]` up to date; `bell` tells of changes."""
        if instance not in self.peers:
            self.peers[instance] = Peer()
            if self._client is not None:
                self._subscribe_peer(self._client, instance)

    def _subscribe_peer(self, client: Client, instance: str) -> None:
        def take(message: Message) -> None:
            self.peers[instance] = Peer.parse(message.payload)
            self.bell.ring()

        client.subscribe(self.topics.of(instance).status, 1, take)

    def expect(self, topic: str) -> None:
        """Keep `receipt(topic)` up to date; `bell` tells of changes."""
        if topic not in self._receipts:
            self._receipts[topic] = _NOTHING
            if self._client is not None:
                self._subscribe_receipt(self._client, topic)

    def receipt(self, topic: str) -> Receipt | None:
        """The last receipt on a topic; None before there is one."""
        found = self._receipts.get(topic, _NOTHING)
        return None if found is _NOTHING else found

    def _subscribe_receipt(self, client: Client, topic: str) -> None:
        def take(message: Message) -> None:
            found = Receipt.parse(message.payload)
            if found is not None:
                self._receipts[topic] = found
                self.bell.ring()

        client.subscribe(topic, 1, take)

    # -- what the ends of one session share --

    def run_of(self, ctx: SessionInfo) -> str:
        """The run id of a session: fresh for each, the same in all streams that it writes."""
        if ctx.id not in self._runs or self._runs[ctx.id][0].metrics is not ctx.metrics:
            _bound(self._runs)
            self._runs[ctx.id] = (ctx, f"{as_segment(ctx.id)[:48]}.{secrets.token_hex(4)}")
        return self._runs[ctx.id][1]

    def bases_of(self, ctx: SessionInfo) -> Bases:
        """Where the streams that a session reads from now on have their zero; shared by all of them."""
        if ctx.id not in self._bases or self._bases[ctx.id][0].metrics is not ctx.metrics:
            _bound(self._bases)
            self._bases[ctx.id] = (ctx, Bases())
        return self._bases[ctx.id][1]

    # -- rights --

    async def verify(self, topic: str) -> None:
        """Check once by an empty message to ourselves that what we publish is let through; brokers do not tell.

        Waits for the connection. Does nothing when `mqtt.verify` is off or the topic was checked before.

        Raises:
            InputError: nothing came back, or the broker (or its certificate) does not let us in.
        """
        await self.client.wait_connected()
        while self.settings.verify and topic not in self._verified:
            before, echoed = self.client.reconnects, await self._echo(topic)
            if echoed:
                self._verified.add(topic)
            elif before == self.client.reconnects and self.client.connected:
                who = self.settings.username or "a client without a name"
                raise InputError(
                    f"what we publish to {topic!r} does not come back: the broker does not let {who} publish there, or "
                    "not read there; give both rights, or set mqtt.verify: false if reading is forbidden on purpose"
                )
            else:
                await self.client.wait_connected()

    async def _echo(self, topic: str) -> bool:
        came = asyncio.Event()
        client = self.client
        listening = client.subscribe(topic, 1, lambda message: came.set() if not message.payload else None)
        probe = client.outgoing(topic, qos=1, capacity=1, policy="block")
        try:
            async with asyncio.timeout(client.settings.keepalive + ECHO):
                await listening.granted.wait()
                if listening.refused is not None:
                    return False
                probe.put_nowait(b"")
                await probe.drained()
            async with asyncio.timeout(ECHO):
                await came.wait()
        except TimeoutError:
            return False
        finally:
            probe.close()
            listening.cancel()
        return True


async def messages(build: Build, topic_filter: str) -> AsyncIterator[tuple[str, bytes]]:
    """The messages that fit a filter, as `(topic, payload)`, for as long as they are asked for.

    It holds the exchange meanwhile. When the caller is slow the oldest of 256 go.

    Args:
        build: of the node that listens.
        topic_filter: an MQTT filter, for instance `house/+/light`.

    Raises:
        ConfigError: the config has no section `mqtt`, or the filter is none.
        InputError: the broker does not let us in, or not listen there.
    """
    exchange = exchange_for(build)
    waiting: deque[Message] = deque(maxlen=MOST_MESSAGES)
    bell = Bell()

    def take(message: Message) -> None:
        waiting.append(message)
        bell.ring()

    async with exchange.held() as client:
        listening = client.subscribe(topic_filter, 1, take)
        try:
            await client.wait_connected()
            await listening.granted.wait()
            if listening.refused is not None:
                raise InputError(listening.refused)
            while True:
                while waiting:
                    message = waiting.popleft()
                    yield message.topic, message.payload
                await bell.wait()
        finally:
            listening.cancel()


_NOTHING: Final = Receipt("-", "-")


def _bound(kept: dict[str, Any]) -> None:
    """Room for one more."""
    while len(kept) >= SESSIONS:
        kept.pop(next(iter(kept)))


def _json(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":"), default=str).encode()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
