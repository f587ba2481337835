"""One connection to a broker, over aiomqtt. The only module that knows it (and paho, on which that is built).

What the library does not do, and this does: a connection attempt that is given up leaves no socket behind; the inbox is
bounded and drops the oldest; dead peers are noticed within `keepalive`; why there is no connection is said in words.
A connection is used once: when it has broken, the next one is a new object.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, cast

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from streamer.nodes.mqtt.access import Access
from streamer.nodes.mqtt.outgoing import Letter
from streamer.settings import MqttSettings

__all__ = ["IN_FLIGHT", "Broken", "Connection", "Message", "opened", "why"]

Broken = aiomqtt.MqttError  # what everything here raises when there is no connection, or no longer one

CONNECT_TIMEOUT: Final = 5.0
IN_FLIGHT: Final = 16  # publishes at QoS 1 that wait for the broker's word
INBOX: Final = 4096  # messages that have come and are not given out yet
BATCH: Final = 64  # messages given out before others may run
LARGEST: Final = 4 << 20  # bytes of a packet that the broker may send us (MQTT 5 only)
REFUSED: Final = 0x80  # reason codes from here on are failures
UNSPECIFIED: Final = 0x80
BAD_USER: Final = frozenset({0x86, 0x87})
TIMED_OUT: Final = 0x8D
TAKEN_OVER: Final = 0x8E

_quiet = logging.getLogger("streamer.mqtt.library")
_quiet.setLevel(logging.CRITICAL)  # what it warns of is counted here, and would be a line for each message of a flood


@dataclass(frozen=True, slots=True)
class Message:
    """What came, or what is to be published."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    response_topic: str | None = None
    correlation: bytes | None = None


class _Inbox(asyncio.Queue[aiomqtt.Message]):
    """aiomqtt's queue, but full means that the oldest goes; its own would drop the newest and log each."""

    dropped = 0

    def put_nowait(self, item: aiomqtt.Message) -> None:
        if self.full():
            self.get_nowait()
            self.dropped += 1
        super().put_nowait(item)


class Connection:
    """One connection, used once; `opened` makes and ends it. Everything raises `Broken` when it breaks.

    Attributes:
        lost: messages that were pushed out of the full inbox.
    """

    def __init__(
        self, settings: MqttSettings, access: Access, *, client_id: str, will: Message | None, clean: bool
    ) -> None:
        self.patience = float(settings.keepalive)
        self._five = settings.protocol == "5"
        self._inbox = inbox = _Inbox(INBOX)
        self.library = aiomqtt.Client(
            settings.host,
            settings.port,
            username=access.username,
            password=access.password,
            logger=_quiet,
            identifier=client_id,
            queue_type=cast("type[asyncio.Queue[aiomqtt.Message]]", lambda maxsize: inbox),  # noqa: ARG005
            protocol=aiomqtt.ProtocolVersion.V5 if self._five else aiomqtt.ProtocolVersion.V311,
            will=aiomqtt.Will(will.topic, will.payload, will.qos, will.retain) if will else None,
            timeout=min(CONNECT_TIMEOUT, self.patience),
            keepalive=max(1, settings.keepalive // 2),  # paho notices after two of them
            max_inflight_messages=IN_FLIGHT,
            tls_context=access.tls,
            socket_options=_socket_options(settings.keepalive),
            **_session(settings, clean=clean),
        )
        self.library.pending_calls_threshold = 4 * IN_FLIGHT

    @property
    def lost(self) -> int:
        """Messages that were pushed out of the full inbox."""
        return self._inbox.dropped

    async def messages(self) -> AsyncIterator[Message]:
        """What comes, until the connection breaks. However much comes, others run as well."""
        async for first in self.library.messages:
            yield _message(first)
            for _ in range(min(BATCH, self._inbox.qsize())):
                yield _message(self._inbox.get_nowait())
            await asyncio.sleep(0)

    async def subscribe(self, topic_filter: str, qos: int) -> str | None:
        """Subscribe; gives why it is refused, or None."""
        codes = await self.library.subscribe(topic_filter, qos, timeout=self.patience)
        code = codes[0] if codes else 0
        value = code.value if isinstance(code, ReasonCode) else int(code)
        return str(code) if value >= REFUSED else None

    async def unsubscribe(self, topic_filter: str) -> None:
        """Get no more of it."""
        await self.library.unsubscribe(topic_filter, timeout=self.patience)

    async def publish(self, letter: Letter) -> None:
        """Publish; at QoS 1 it returns when the broker has confirmed it."""
        properties = _properties(letter) if self._five else None
        await self.library.publish(
            letter.topic, letter.payload, letter.qos, letter.retain, properties, timeout=self.patience
        )


@asynccontextmanager
async def opened(connection: Connection) -> AsyncIterator[None]:
    """Connect and disconnect; when cancelled on the way, nothing is left behind."""
    library = connection.library
    opening = asyncio.create_task(library.__aenter__())
    try:
        await asyncio.shield(opening)
    except asyncio.CancelledError:
        await _give_up(library, opening)
        raise
    except aiomqtt.MqttError:
        library._client.disconnect()  # noqa: SLF001 - a socket that never got its answer would stay open
        raise
    try:
        yield
    finally:
        await _leave(library)


async def _give_up(library: aiomqtt.Client, opening: asyncio.Task[Any]) -> None:
    """End an attempt. A thread that connects cannot be stopped and is waited for; a broker's answer is not."""
    connected = False
    while not opening.done():
        if connected:
            opening.cancel()
        connected = library._client.socket() is not None  # noqa: SLF001 - only it knows whether the thread is done
        await asyncio.wait([opening], timeout=0.05)
    if opening.cancelled() or opening.exception() is not None:
        library._client.disconnect()  # noqa: SLF001 - see `opened`
    else:
        await _leave(library)


async def _leave(library: aiomqtt.Client) -> None:
    """Say goodbye, where there is still somebody to say it to."""
    with suppress(aiomqtt.MqttError):
        await library.__aexit__(None, None, None)


def _session(settings: MqttSettings, *, clean: bool) -> dict[str, Any]:
    """What the broker keeps for us while we are away."""
    if settings.protocol != "5":
        return {"clean_session": clean}
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 0 if clean else settings.session_expiry
    properties.MaximumPacketSize = LARGEST
    return {"clean_start": clean, "properties": properties}


def _socket_options(keepalive: int) -> list[tuple[int, int, int]]:
    """No waiting for full packets, and the kernel gives up what nobody acknowledges."""
    made = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        made.append((socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, keepalive * 1000))
    return made


def _message(raw: aiomqtt.Message) -> Message:
    response = getattr(raw.properties, "ResponseTopic", None)
    correlation = getattr(raw.properties, "CorrelationData", None)
    payload = raw.payload if isinstance(raw.payload, bytes) else bytes(raw.payload)
    return Message(str(raw.topic), payload, raw.qos, raw.retain, response, correlation)


def _properties(letter: Letter) -> Properties | None:
    if letter.response_topic is None and letter.correlation is None and letter.expiry is None:
        return None
    made = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if letter.response_topic is not None:
        made.ResponseTopic = letter.response_topic
    if letter.correlation is not None:
        made.CorrelationData = letter.correlation
    if letter.expiry is not None:
        made.MessageExpiryInterval = max(1, round(letter.expiry))
    return made


def why(error: BaseException, where: str, access: Access) -> tuple[str, bool]:
    """Why there is no connection, in words, and whether it is hopeless to try the same again."""
    cause = error.__cause__ or error.__context__
    codes = [each.rc for each in (error, cause) if isinstance(each, aiomqtt.MqttCodeError)]
    value = codes[0].value if codes and isinstance(codes[0], ReasonCode) else None
    if value in BAD_USER:
        who = f"user {access.username!r}" if access.username else "a client without user and password"
        return f"the broker at {where} refuses {who}: {codes[0]}; check mqtt.username and the password", True
    if isinstance(cause, ssl.SSLError):
        return f"no TLS with {where}: {cause.reason or cause}; check mqtt.port, ca_file and the name", True
    if value == TAKEN_OVER:
        text = f"another program uses our identity at {where}; give each its own mqtt.client_id or instance"
    elif isinstance(cause, OSError) and not isinstance(cause, TimeoutError):
        text = f"no broker at {where}: {cause.strerror or cause}"
    elif value == TIMED_OUT:
        text = f"no answer from the broker at {where}"
    elif value is not None and value > UNSPECIFIED:
        text = f"the broker at {where} ended the connection: {codes[0]}"
    elif codes:
        text = f"the connection to the broker at {where} broke"
    else:
        plain = "does it speak TLS, or only MQTT 3.1.1 (mqtt.protocol)?"
        hint = plain if access.tls is None else "does it ask for a client certificate (mqtt.cert_file)?"
        text = f"no answer from the broker at {where}; {hint}"
    return text, False
