"""The way to a broker that heals itself: subscriptions and what waits to be published outlive every connection.

It knows topics and bytes; nothing of frames, sessions or what a payload means, and the library only by `connection`.
A publish that is under way when the connection breaks ends at once and is sent again, not after its timeout.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Literal

import structlog

from streamer.errors import InputError, first_of
from streamer.nodes.mqtt.access import Access, access_for
from streamer.nodes.mqtt.connection import IN_FLIGHT, Broken, Connection, Message, opened, why
from streamer.nodes.mqtt.outgoing import Letter, Outgoing
from streamer.settings import MqttSettings
from streamer.topics import check_topic, matches

__all__ = ["Client", "Message", "Subscription"]

FIRST_PAUSE: Final = 0.1  # seconds before the second attempt; doubled each time
LONGEST_PAUSE: Final = 5.0
PROVEN: Final = 5.0  # seconds after which a connection counts as a good one
POST: Final = 1024  # messages of `publish` that wait at most
ORDERS: Final = 1024  # subscriptions that wait to be asked for
LIVE_AGE: Final = 0.4  # seconds after which a message at QoS 0 is not worth sending any more
TWINS: Final = 3  # connections in a row that broke soon: two programs take one identity from each other
FAULTS: Final = 16
BROKEN_PATIENCE: Final = 0.5  # seconds that the end waits for a connection that has broken


class Subscription:
    """One subscription, renewed at every connect. `refused` says why the broker does not grant it, or is None."""

    def __init__(self, client: Client, topic_filter: str, qos: int, take: Callable[[Message], None]) -> None:
        self.topic_filter, self.qos, self.take = topic_filter, qos, take
        self.refused: str | None = None
        self.granted = asyncio.Event()  # the broker has answered, on this connection
        self._client = client

    def cancel(self) -> None:
        """Get no more of it."""
        self._client.forget(self)


class Client:
    """One connection that heals itself; one event loop.

    Args:
        settings: the `mqtt` section of a config.
        client_id: who we are for the broker; one program each, kept for life, so that the broker keeps our messages.
        will: what the broker publishes when we vanish.
        clean: the broker forgets us when we are gone, and keeps nothing for us.
        base: folder that relative paths of the settings start from.

    Attributes:
        connected: subscriptions are in place and messages flow.
        reconnects: connections after the first. error: why there is no connection, in words; None when there is one.
        unmatched: messages that no subscription wanted. lost: messages that were pushed out of the full inbox.
        faults: the last errors that a taker raised; each is logged, and none ends the connection.
    """

    def __init__(
        self,
        settings: MqttSettings,
        *,
        client_id: str,
        will: Message | None = None,
        clean: bool = False,
        base: str = ".",
    ) -> None:
        self.settings, self.client_id, self.will, self.clean, self.base = settings, client_id, will, clean, base
        self.connected = False
        self.reconnects = self.unmatched = self.lost = 0
        self.error: str | None = None
        self.faults: deque[Exception] = deque(maxlen=FAULTS)
        self._access = Access()
        self._where = f"{settings.host}:{settings.port}"
        self._subscriptions: list[Subscription] = []
        self._orders: deque[Callable[[Connection], Awaitable[None]]] = deque(maxlen=ORDERS)
        self._calls: list[Callable[[], None]] = []
        self._wake = asyncio.Event()
        self._news = asyncio.Event()
        self._post = Outgoing("", qos=1, capacity=POST, policy="drop_oldest", wake=self._wake.set)
        self._outs: deque[Outgoing] = deque([self._post])  # as many as there are streams
        self._task: asyncio.Task[None] | None = None
        self._proven = False  # we were connected at least once
        self._refusal: str | None = None
        self._brief = 0

    # -- life --

    async def start(self) -> None:
        """Begin to connect; returns at once.

        Raises:
            ConfigError: a password file or certificate is missing or unusable.
        """
        self._access = await asyncio.to_thread(access_for, self.settings, self.base)
        self._task = asyncio.create_task(self._keep(), name=f"mqtt:{self.client_id}")

    async def stop(self, *, patience: float = 2.0) -> None:
        """Send what waits, for at most `patience` seconds, then say goodbye: a clean end fires no will."""
        task, self._task = self._task, None
        if task is None:
            return
        try:
            if self._proven:  # a line that has just broken may be there again soon: last words wait for it
                with suppress(TimeoutError):
                    async with asyncio.timeout(patience if self.connected else min(patience, BROKEN_PATIENCE)):
                        for out in list(self._outs):
                            await out.drained()
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def wait_connected(self) -> None:
        """Wait for the connection.

        Raises:
            InputError: we were never connected, and the broker (or its certificate) leaves no hope: it says what to do.
        """
        while not self.connected:
            if self._refusal is not None:
                raise InputError(self._refusal)
            await self._news.wait()

    def on_connect(self, call: Callable[[], None]) -> None:
        """Have this called after each connect, when the subscriptions are in place."""
        self._calls.append(call)

    # -- what comes and goes --

    def subscribe(self, topic_filter: str, qos: int, take: Callable[[Message], None]) -> Subscription:
        """Have `take` called with each message; it must not wait. Renewed at each connect, retained ones come again.

        Raises:
            ConfigError: not a topic filter.
        """
        made = Subscription(self, check_topic(topic_filter, pattern=True), qos, take)
        self._subscriptions.append(made)
        if self.connected:
            self._order(lambda link: self._ask(link, made))
        return made

    def forget(self, subscription: Subscription) -> None:
        """Take a subscription back; the broker is told when it was the last one of its filter."""
        if subscription not in self._subscriptions:
            return
        self._subscriptions.remove(subscription)
        wanted = subscription.topic_filter
        if self.connected and all(other.topic_filter != wanted for other in self._subscriptions):
            self._order(lambda link: link.unsubscribe(wanted))

    def publish(
        self,
        topic: str,
        payload: bytes | str,
        *,
        qos: int = 0,
        retain: bool = False,
        latest: bool = False,
        response_topic: str | None = None,
        correlation: bytes | None = None,
        expiry: float | None = None,
    ) -> None:
        """Put a message into the outbox; never waits, and works without a connection.

        Args:
            topic: where to.
            payload: what; text goes as UTF-8.
            qos: 0 or 1.
            retain: the broker keeps it for those who come later.
            latest: it takes the place of what still waits for the same topic.
            response_topic: where an answer is wanted (MQTT 5).
            correlation: what marks the answer (MQTT 5).
            expiry: seconds after which the broker may drop it (MQTT 5).

        Raises:
            ConfigError: not a topic.
        """
        data = payload.encode() if isinstance(payload, str) else payload
        letter = Letter(check_topic(topic), data, qos, retain, response_topic, correlation, expiry)
        self._post.put_letter(letter, latest=latest)

    def outgoing(
        self,
        topic: str,
        *,
        qos: int,
        capacity: int,
        policy: Literal["block", "drop_oldest"],
        most_age: float | None = None,
        expiry: float | None = None,
    ) -> Outgoing:
        """An outbox of its own for a stream of messages on one topic; close it when the stream ends.

        At QoS 0 `most_age` is 0.4 s unless given: what comes later than that is no longer live.

        Raises:
            ConfigError: not a topic.
        """
        age = LIVE_AGE if most_age is None and qos == 0 else most_age
        made = Outgoing(
            check_topic(topic), qos=qos, capacity=capacity, policy=policy, most_age=age, expiry=expiry,
            wake=self._wake.set,
        )  # fmt: skip
        self._outs.append(made)
        return made

    @property
    def dropped(self) -> int:
        """Messages of `publish` that found no room."""
        return self._post.dropped

    # -- the connection --

    async def _keep(self) -> None:
        """Connect, and connect again, until cancelled."""
        pause = FIRST_PAUSE
        while True:
            begun = time.monotonic()
            try:
                await self._once()
            except* Broken as group:
                brief = self.connected and time.monotonic() - begun < PROVEN
                self._brief = self._brief + 1 if brief else 0
                self._explain(first_of(group))
            finally:
                self.connected = False
                self._recall()
            self._tell()
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # a group that breaks while it is cancelled forgets the latter
                raise asyncio.CancelledError
            pause = FIRST_PAUSE if time.monotonic() - begun > PROVEN else pause
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - so that not all come back at once
            pause = min(LONGEST_PAUSE, pause * 2)

    def _recall(self) -> None:
        """What was under way goes again; outboxes of streams that are over go where nothing is left in them."""
        now = time.monotonic()
        for out in list(self._outs):
            out.recall()
            out.expire(now)
            if out.over:
                self._outs.remove(out)

    async def _once(self) -> None:
        """One connection, until it breaks.

        Raises:
            Broken, alone or in a group: it could not be made, or broke.
        """
        link = Connection(self.settings, self._access, client_id=self.client_id, will=self.will, clean=self.clean)
        async with opened(link), asyncio.TaskGroup() as group:
            group.create_task(self._read(link), name="mqtt:read")
            asked: set[Subscription] = set()
            while new := [each for each in self._subscriptions if each not in asked]:
                asked.update(new)  # more may be wanted while these are asked for
                await asyncio.gather(*(self._ask(link, each) for each in new))
            self._begin()
            await self._write(link, group)

    def _begin(self) -> None:
        """The connection stands."""
        self.reconnects += self._proven
        self._proven, self._refusal = True, None
        self.connected, self.error = True, None
        self._orders.clear()  # what was ordered before is part of what was just asked for
        structlog.get_logger().info("mqtt", connected=self._where, identity=self.client_id)
        self._tell()
        for call in self._calls:
            call()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _explain(self, error: BaseException) -> None:
        """Say why there is no connection; once for the same reason."""
        text, hopeless = why(error, self._where, self._access)
        if self._brief >= TWINS:
            text += f"; that happens again and again: does another program use the identity {self.client_id!r}?"
        if text != self.error:
            structlog.get_logger().warning("mqtt", lost=text)
        self.error = text
        if hopeless and not self._proven:
            self._refusal = text

    async def _read(self, link: Connection) -> None:
        """Give out what comes; ends with an error when the connection breaks."""
        try:
            async for message in link.messages():
                self._give(message)
        finally:
            self.lost += link.lost

    def _give(self, message: Message) -> None:
        takers = [each for each in self._subscriptions if matches(each.topic_filter, message.topic)]
        self.unmatched += not takers
        for each in takers:
            try:
                each.take(message)
            except Exception as error:  # noqa: BLE001 - kept and logged: what one message does to a taker ends nothing
                self.faults.append(error)
                structlog.get_logger().error("mqtt", topic=message.topic, fault=f"{type(error).__name__}: {error}")

    def _order(self, order: Callable[[Connection], Awaitable[None]]) -> None:
        self._orders.append(order)
        self._wake.set()

    async def _ask(self, link: Connection, wanted: Subscription) -> None:
        """Subscribe; a refusal is kept and logged."""
        wanted.granted.clear()
        answer = await link.subscribe(wanted.topic_filter, wanted.qos)
        refused = f"the broker refuses to give us {wanted.topic_filter!r}: {answer}" if answer else None
        if refused and refused != wanted.refused:
            structlog.get_logger().error("mqtt", subscription=refused)
        wanted.refused = refused
        wanted.granted.set()

    async def _write(self, link: Connection, group: asyncio.TaskGroup) -> None:
        """Publish what waits, outbox after outbox; at QoS 1 several at once, in order."""
        slots = asyncio.Semaphore(IN_FLIGHT)
        while True:
            while self._orders:
                group.create_task(_obey(self._orders.popleft(), link), name="mqtt:order")
            await slots.acquire()
            found = self._next()
            if found is None:
                slots.release()
                await self._wake.wait()
                self._wake.clear()
                continue
            out, letter = found
            if letter.qos:
                group.create_task(_send(link, out, letter, slots), name="mqtt:send")
            else:
                await _send(link, out, letter, slots)

    def _next(self) -> tuple[Outgoing, Letter] | None:
        """The next message, taking turns among the outboxes."""
        now = time.monotonic()
        for _ in range(len(self._outs)):
            out = self._outs[0]
            letter = out.take(now)
            if letter is None and out.over:
                self._outs.popleft()
                continue
            self._outs.rotate(-1)
            if letter is not None:
                return out, letter
        return None


async def _obey(order: Callable[[Connection], Awaitable[None]], link: Connection) -> None:
    await order(link)


async def _send(link: Connection, out: Outgoing, letter: Letter, slots: asyncio.Semaphore) -> None:
    await link.publish(letter)
    out.done(letter)
    slots.release()
