"""Fixtures of the server's tests: a real server on a free port of this loop, a client that speaks its protocol, and a
graph of fakes that answers at once."""

import asyncio
import contextlib

import httpx
import numpy as np
import pytest
import websockets

from streamer import Frame, Node, Registry
from streamer.commands.serve import Server, Serving, config_for, listening
from streamer.web.limits import Limits
from streamer.web.rooms import Rooms
from streamer.web.security import Access
from streamer.web.service import Service

TICK = 640
BROKEN = 12345  # a sample that the fake node cannot stand
FAKE = """
version: 1
session: {mode: continue, seconds: null}
nodes: {input: web_in, answer: answer, output: web_out}
edges:
  - {from: input -> answer, capacity: 2}
  - answer -> output
"""


class Answer(Node):
    """Gives what it hears as generated sound, upside down; `listen` raises the epoch and says so."""

    type_name = "answer"
    accepts = ("audio", "control")
    optional = ("control",)
    emits = ("audio", "control", "semantic")

    def init_state(self, info):
        return {"epoch": 0, "info": info, "muted": False}

    def step(self, frame, state, into):
        if frame.kind == "control":
            yield from self.obey(frame.meta, state)
        elif frame.last:
            yield Frame.end("audio", position=frame.position, like=frame, epoch=state["epoch"])
            yield Frame.end("semantic", position=frame.position, like=frame, epoch=state["epoch"])
        elif round(float(frame.array[0]) * 32768) == BROKEN:
            raise ValueError("what a sound")
        else:
            made = frame.array * np.float32(0 if state["muted"] else -1)
            yield Frame.of("audio", made, position=frame.position, like=frame, epoch=state["epoch"], flags=2)
            yield Frame.of("semantic", [state["info"].seed % 1024], position=frame.position, like=frame, flags=2)

    def obey(self, meta, state):
        if meta["command"] == "listen":
            state["epoch"] += 1
            state["info"].metrics.mark("decided_stop", again=True)
            yield Frame.control("interrupt").replace(session=state["info"].id, epoch=state["epoch"])
        elif meta["command"] == "trigger":
            state["info"].metrics.mark("decided_continue", again=True)
        elif meta["command"] == "mute":
            state["muted"] = meta["on"]


class Page:
    """What a browser does, without one."""

    def __init__(self, socket):
        self.socket = socket
        self.position = 0

    async def say(self, command, **values):
        await self.socket.send(Frame.control(command, **values).pack())

    async def hello(self, **values):
        """Say hello; gives the welcome."""
        await self.say("hello", **({"version": 1, "seed": 7} | values))
        return await self.until("welcome")

    async def sound(self, value, ticks=1, position=None):
        """Ticks of one sample value."""
        for _ in range(ticks):
            at = self.position if position is None else position
            self.position = at + TICK
            await self.tick(np.full(TICK, value, np.int16), at)

    async def tick(self, samples, position):
        await self.socket.send(Frame.of("audio", samples, position=position, flags=1).pack())

    async def read(self):
        return Frame.unpack(await self.socket.recv())

    async def until(self, what, **values):
        """The next frame of a kind, or control frame of a command, with these values."""
        while True:
            frame = await self.read()
            name = frame.meta.get("command") if frame.kind == "control" else frame.kind
            if name == what and all(frame.meta.get(key) == value for key, value in values.items()):
                return frame

    async def closed(self):
        """Read on to the end; gives the close code."""
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await self.socket.recv()
        return self.socket.close_code


class Running:
    """A server that runs in this loop."""

    def __init__(self, service, server, task, port):
        self.service, self.server, self.task, self.port = service, server, task, port
        self.url = f"http://127.0.0.1:{port}"
        self.open = []

    async def connect(self, name="127.0.0.1", **options):
        """A socket, closed with the server; `name` is what the client calls it."""
        if "sock" not in options:
            options |= {"host": "127.0.0.1", "port": self.port}
        socket = await websockets.connect(f"ws://{name}:{self.port}/ws", **options)
        self.open.append(socket)
        return Page(socket)

    async def get(self, path, **options):
        async with httpx.AsyncClient(base_url=self.url) as client:
            return await client.get(path, **options)

    async def metric(self, name):
        """The value of one line of the metrics."""
        lines = (await self.get("/metrics")).text.splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + " ")), 0.0)

    async def empty(self):
        """Until every visitor has gone."""
        while self.service.visitors:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.01)

    async def stop(self):
        self.server.should_exit = True
        await self.task
        for socket in self.open:
            await socket.close()


@pytest.fixture
def fake(tmp_path):
    """The path of a config of fakes."""
    path = tmp_path / "fake.yaml"
    path.write_text(FAKE)
    return str(path)


@pytest.fixture
def registry():
    made = Registry.with_builtins()
    made.add(Answer)
    return made


@pytest.fixture
async def serve(fake, registry, tiny_bundle):
    """`await serve(...)`: a server; the limits and the rest by keyword."""
    running = []

    async def start(access=None, bundles=(), choices=None, *, guidance=False, behind_proxy=False, **limits):
        choices = choices or {"continue": fake, "reconstruct": fake}
        limits = Limits(**limits)
        rooms = Rooms(bundles or (tiny_bundle,), limits.sessions, guidance=guidance, choices=choices, registry=registry)
        service = Service(rooms, access or Access(), limits)
        listener, listens = listening("127.0.0.1", 0), asyncio.Event()
        server = Server(config_for(service, Serving(behind_proxy=behind_proxy)), service, listens.set)
        task = asyncio.create_task(server.serve([listener]))
        running.append(Running(service, server, task, listener.getsockname()[1]))
        await listens.wait()
        await service.warmed.wait()
        return running[-1]

    yield start
    for server in running:
        await server.stop()
