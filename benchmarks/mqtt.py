"""Edges over a broker: what a hop adds to a frame, what a stream costs in bytes, how many streams one broker carries.

A real Mosquitto on loopback (`tests/mqtt/mosquitto.py`), started and ended here; two graphs in this process send a
frame every 40 ms through `mqtt_out` and `mqtt_in`. The peer of a hop is the library alone: the same bytes, published
and received by aiomqtt without anything of ours. `python -m benchmarks.mqtt`.
"""

import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import aiomqtt
import numpy as np
import numpy.typing as npt
import psutil

from benchmarks.common import Result, percentile, run
from streamer import Frame, Graph, Registry, Running, Session, SessionInfo, Settings, Sink, Source
from streamer.commands import logs
from streamer.registry import load_attribute
from streamer.settings import MqttSettings

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "mqtt"))

from mosquitto import PROGRAM, Broker  # type: ignore[import-not-found]  # noqa: E402 - a module of the tests

TICK: Final = 0.04
TOPIC: Final = "bench/peer"
SETTLE: Final = 0.2  # seconds at the beginning that do not count
LATE: Final = 0.04  # seconds after which a message of the load test counts as late: a tick
RNG: Final = np.random.default_rng(0)
KINDS: Final[dict[str, npt.NDArray[Any]]] = {  # kind -> one tick of it
    "acoustic": RNG.integers(0, 1024, (2, 12)),
    "semantic": RNG.integers(0, 1024, (1,)),
    "audio": RNG.uniform(-0.5, 0.5, 640).astype(np.float32),
}
Instants = list[float]


class BeatSettings(Settings):
    """How many frames."""

    count: int = 100
    kind: str = "acoustic"


class Beat(Source):
    """A frame every 40 ms; `sent` keeps when."""

    type_name = "beat"
    emits = tuple(KINDS)
    live = True
    Config = BeatSettings
    sent: ClassVar[Instants] = []

    async def frames(self, ctx: SessionInfo) -> AsyncIterator[Frame]:
        """The frames of one session."""
        kind, due = self.config.kind, time.perf_counter()
        for number in range(self.config.count):
            due += TICK
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            self.sent.append(time.perf_counter())
            yield Frame.of(kind, KINDS[kind], position=640 * number, session=ctx.id, seq=number, flags=1)
        for each in KINDS:
            yield Frame.end(each, position=640 * self.config.count, session=ctx.id)


class Ear(Sink):
    """Keeps when each frame came."""

    type_name = "ear"
    accepts = tuple(KINDS)
    optional = tuple(KINDS)
    live = True
    came: ClassVar[Instants] = []

    async def write(self, frame: Frame, ctx: SessionInfo, input: str) -> None:  # noqa: A002
        """Take the time."""
        _ = ctx, input
        if frame.payload:
            self.came.append(time.perf_counter())


def registry() -> Registry:
    """The built-in nodes, and these two."""
    made = Registry.with_builtins()
    made.add(Beat)
    made.add(Ear)
    return made


def graphs(port: int, kind: str, qos: int, count: int) -> tuple[Graph, Graph]:
    """The two ends of one edge."""
    mqtt = f"mqtt: {{host: 127.0.0.1, port: {port}, prefix: bench, verify: false, instance: "
    topic = f"topic: 'bench/edge/{kind}', qos: {qos}, policy: drop_oldest"
    beat = f"beat: {{type: beat, count: {count}, kind: {kind}}}"
    out = f"{mqtt}out}}\nnodes:\n  {beat}\n  to: {{type: mqtt_out, {topic}}}\n"
    into = f"{mqtt}in}}\nnodes:\n  from: {{type: mqtt_in, kind: {kind}, {topic}}}\n  ear: ear\nedges: [from -> ear]\n"
    return Graph.parse(out + f"edges: [beat -> to.{kind}]\n", registry()), Graph.parse(into, registry())


async def hop(port: int, kind: str, qos: int, count: int) -> list[float]:
    """Seconds from a source to a sink on the other side, frame by frame, without the first ones."""
    Beat.sent.clear()
    Ear.came.clear()
    near, far = graphs(port, kind, qos, count)
    with near, far:
        async with Running(near) as sending, Running(far) as hearing:
            listener = Session(far)
            listening = asyncio.create_task(hearing.run(listener))
            await asyncio.sleep(1.0)
            await sending.run(Session(near))
            await asyncio.sleep(0.5)
            listener.stop()
            await listening
    if len(Ear.came) != len(Beat.sent):
        sys.stderr.write(f"mqtt: {len(Beat.sent) - len(Ear.came)} of {len(Beat.sent)} frames did not come\n")
    skip = min(5, count // 2)
    return [came - sent for sent, came in zip(Beat.sent, Ear.came, strict=False)][skip:]


async def peer(port: int, payload: bytes, qos: int, count: int) -> list[float]:
    """The same by the library alone."""
    times: list[float] = []
    async with aiomqtt.Client("127.0.0.1", port) as hearing, aiomqtt.Client("127.0.0.1", port) as sending:
        await hearing.subscribe(TOPIC, qos=qos)
        incoming = aiter(hearing.messages)
        for _ in range(count):
            begun = time.perf_counter()
            await sending.publish(TOPIC, payload, qos=qos)
            await anext(incoming)
            times.append(time.perf_counter() - begun)
            await asyncio.sleep(TICK / 4)
    return times[min(5, count // 2) :]


def hops(port: int, count: int) -> Iterator[Result]:
    """A hop for what travels most: acoustic tokens and sound."""
    for kind, qos in (("acoustic", 0), ("acoustic", 1), ("audio", 0)):
        ours = asyncio.run(hop(port, kind, qos, count))
        frame = Frame.of(kind, KINDS[kind], position=0, session="main.00000000")
        theirs = asyncio.run(peer(port, frame.pack(), qos, count))
        mine, other = 1000 * statistics.median(ours), 1000 * statistics.median(theirs)
        yield Result(
            f"mqtt.hop_{kind}_qos{qos}", mine, "ms", peer=other, peer_name="aiomqtt alone", ratio=mine / other,
            n=len(ours), more={"p99": 1000 * percentile(ours, 0.99), "peer_p99": 1000 * percentile(theirs, 0.99)},
        )  # fmt: skip


def sizes() -> Iterator[Result]:
    """Kilobits a second of each kind: payload, topic and the fixed parts of a PUBLISH at QoS 0."""
    f4 = KINDS["audio"]
    frames = {
        "acoustic_tokens": Frame.of("acoustic", KINDS["acoustic"], position=1 << 24, session="main.00000000", seq=9999),
        "semantic_tokens": Frame.of("semantic", KINDS["semantic"], position=1 << 24, session="main.00000000", seq=9999),
        "audio_16_bit": Frame.of("audio", (f4 * 32767).astype(np.int16), position=1 << 24, session="main.00000000"),
    }
    for name, frame in frames.items():
        payload, topic = len(frame.pack()), len("streamer/ears/stream/acoustic/acoustic")
        header = 1 + (1 if payload + topic < 120 else 2) + 2 + 1  # type, length, length of the topic, no properties
        whole = (payload + topic + header) / TICK
        yield Result(
            f"mqtt.rate_{name}", 8 * whole / 1000, "kbit/s",
            more={"bytes_a_message": payload + topic + header, "payload_of_it": len(frame.payload)},
        )  # fmt: skip


async def load(port: int, streams: int, seconds: float) -> list[float]:
    """So many streams of acoustic tokens at once, through one connection in and one out; seconds of each message."""
    client: Any = load_attribute("streamer.nodes.mqtt.client:Client")
    settings = MqttSettings(host="127.0.0.1", port=port)
    payload = Frame.of("acoustic", KINDS["acoustic"], position=0, session="main.00000000").pack()
    sending, hearing = (
        client(settings, client_id="bench-out", clean=True),
        client(settings, client_id="bench-in", clean=True),
    )
    sent: dict[bytes, float] = {}
    times: list[float] = []
    begun = time.perf_counter()

    def take(message: Any) -> None:
        due = sent.pop(message.payload[-8:], None)
        if due is not None and due - begun >= SETTLE:
            times.append(time.perf_counter() - due)

    hearing.subscribe("bench/load/#", 0, take)
    for each in (sending, hearing):
        await each.start()
        await each.wait_connected()
    outs = [sending.outgoing(f"bench/load/{n}", qos=0, capacity=8, policy="drop_oldest") for n in range(streams)]
    number, begun = 0, time.perf_counter()
    for tick in range(round((seconds + SETTLE) / TICK)):
        for index, out in enumerate(outs):
            due = begun + TICK * (tick + index / streams)
            if due - time.perf_counter() > 0.001:
                await asyncio.sleep(due - time.perf_counter())
            key = number.to_bytes(8, "big")
            sent[key] = due
            out.put_nowait(payload + key)
            number += 1
    await asyncio.sleep(0.5)
    lost = len(sent)
    for each in (sending, hearing):
        await each.stop()
    return [*times, *[float("inf")] * lost]


def carried(broker: Any, steps: Sequence[int], seconds: float) -> Result:
    """The most streams of which 99 of 100 messages come within a tick, and the broker's share of a core then."""
    process, best, seen = psutil.Process(broker.process.pid), 0, {}
    for streams in steps:
        before, begun = process.cpu_times(), time.perf_counter()
        times = asyncio.run(load(broker.port, streams, seconds))
        used, wall = process.cpu_times(), time.perf_counter() - begun
        busy = (used.user + used.system - before.user - before.system) / wall
        p99 = percentile(times, 0.99)
        seen[str(streams)] = {"p99_ms": 1000 * p99 if p99 < float("inf") else None, "broker_core": busy}
        if p99 > LATE:
            break
        best = streams
    return Result("mqtt.streams", float(best), "streams", n=len(seen), more=seen)


def results(tiny: bool) -> Iterator[Result]:
    """Everything; nothing where there is no Mosquitto."""
    if PROGRAM is None:
        sys.stderr.write("mqtt: needs mosquitto (Debian: apt-get install mosquitto); nothing is measured\n")
        return
    logs.configure(quiet=True)
    count, steps, seconds = (8, (2,), 0.4) if tiny else (500, (25, 50, 100, 200, 400, 800), 10.0)
    with tempfile.TemporaryDirectory() as folder:
        broker = Broker(Path(folder))
        with contextlib.closing(_Started(broker)):
            yield from hops(broker.port, count)
            yield carried(broker, steps, seconds)
    yield from sizes()


class _Started:
    """The broker, ended when this is closed."""

    def __init__(self, broker: Any) -> None:
        self.broker = broker
        broker.start()

    def close(self) -> None:
        """End it."""
        self.broker.stop()


if __name__ == "__main__":
    raise SystemExit(run(results))
