"""A server that speaks the page's protocol without a model: after a second of silence it gives back what it heard."""

import asyncio
import contextlib
import threading
from pathlib import Path

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocketDisconnect

from streamer.frame import ACOUSTIC, AUDIO, FINE, GENERATED, HEARD, SEMANTIC, TURN, Frame

STATIC = Path(__file__).parents[3] / "streamer" / "web" / "static"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self' ws:; "
    "media-src 'self' blob:; worker-src 'self' blob:; base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Permissions-Policy": "microphone=(self)",
    "Cache-Control": "no-cache",
}
TICK = 640
LOUD = 0.02
SILENCE = 25  # ticks
TAIL = 250  # heard ticks that are given back at most
FACTS = {
    "version": 1,
    "session": "page",
    "bundles": "piano,speech",
    "modes": "continue,duet,reconstruct",
    "codebook": 1024,
    "levels": 12,
    "coarse_levels": 4,
    "tick": TICK,
    "rate": 16000,
    "lookahead": 2,
}
STAGES = ("semantic", "coarse", "fine")
SAMPLING = {f"temperature_{stage}": 0.8 for stage in STAGES} | {f"top_k_{stage}": 0 for stage in STAGES}
FIGURES = {
    "level_db": -30.0,
    "speech": 0.5,
    "rtf": 0.42,
    "tick_p50": 17.0,
    "tick_p99": 24.0,
    "decision_to_sound_ms": 85.0,
    "dropped_in": 0,
    "dropped_out": 0,
    "sessions": 1,
    "limit": 4,
}


class Headers:
    """Adds the strict headers to every answer."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def with_headers(message):
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    *((k.lower().encode(), v.encode()) for k, v in HEADERS.items()),
                ]
            await send(message)

        await self.app(scope, receive, with_headers)


class Visit:
    """One page's session: it listens, and after a second of silence (or `trigger`) echoes what was loud."""

    def __init__(self, socket, server):
        self.socket, self.server = socket, server
        self.hello, self.commands, self.heard, self.seqs = {}, [], [], []
        self.resets = 0
        self.begin()

    def begin(self):
        self.tick, self.quiet, self.epoch, self.phrase, self.playing = 0, 0, 0, [], None

    async def send(self, kind, array=None, **values):
        await self.socket.send_bytes(Frame.of(kind, array, session="page", **values).pack())

    async def command(self, name, epoch=0, **values):
        frame = Frame.control(name, **values).replace(session="page", epoch=epoch)
        await self.socket.send_bytes(frame.pack())

    async def welcome(self, meta):
        given = {"bundle": "piano", "mode": "continue", "seed": 7} | {
            name: meta[name] for name in ("bundle", "mode", "seed") if name in meta
        }
        await self.command("welcome", **FACTS, **SAMPLING, **given)

    async def status(self):
        state = "listening" if self.playing is None else "continuing"
        await self.command("status", state=state, **self.server.figures)

    async def run(self):
        async for message in self.socket.iter_bytes():
            frame = Frame.unpack(message)
            if frame.kind == AUDIO:
                await self.hear(frame)
            else:
                await self.told(frame)

    async def told(self, frame):
        meta = dict(frame.meta)
        command = meta.pop("command")
        self.commands.append((command, meta))
        if command == "hello":
            self.hello = meta
            if self.server.refusal:
                await self.command("error", code=self.server.refusal[0], text="")
                await self.socket.close(self.server.refusal[1])
                return
            if self.server.token and meta.get("token") != self.server.token:
                await self.command("error", code="token", text="", wrong="token" in meta)
                await self.socket.close(4002)
                return
            await self.welcome(meta)
        elif command == "reset":
            self.resets += 1
            self.begin()
            await self.welcome(meta)
        elif command == "ping":
            await self.command("pong", at=meta["at"])
        elif command == "trigger":
            self.turn()
        elif command == "listen":
            await self.stop()

    async def hear(self, frame):
        samples = np.array(frame.array)
        self.heard.append(samples)
        self.seqs.append(frame.seq)
        assert frame.position % TICK == 0
        assert frame.position >= TICK * self.tick  # a page that cannot keep up leaves ticks out
        self.tick = frame.position // TICK
        assert frame.shape == (TICK,)
        loud = np.abs(samples).max() > LOUD * 32768
        if self.playing is not None:
            await (self.stop() if loud else self.play())
        else:
            await self.listen(samples, loud)
        self.tick += 1
        if self.tick % 5 == 0:
            await self.status()

    async def listen(self, samples, loud):
        self.quiet = 0 if loud else self.quiet + 1
        if loud or self.phrase:
            self.phrase = [*self.phrase, samples][-TAIL:]
        place = {"position": TICK * self.tick, "flags": HEARD}
        await self.send(ACOUSTIC, tokens(self.tick, (2, 12)), **place)
        await self.send(SEMANTIC, tokens(self.tick, (1,)), **place)
        if self.phrase and self.quiet >= SILENCE:
            self.turn()

    def turn(self):
        kept = self.phrase[: len(self.phrase) - self.quiet] or [np.zeros(TICK, np.int16)]
        self.playing, self.phrase, self.quiet = kept, [], 0

    async def play(self):
        place = {"position": TICK * self.tick, "flags": GENERATED, "epoch": self.epoch}
        if not self.playing:
            self.playing = None
            place["flags"] = GENERATED | TURN
            await self.send(AUDIO, np.zeros(0, np.int16), **place)
            await self.send(SEMANTIC, np.zeros(0, np.uint16), **place)
            await self.send(FINE, np.zeros((0, 0), np.uint16), **place)
            return
        await self.send(SEMANTIC, tokens(self.tick, (1,)), **place)
        await self.send(FINE, tokens(self.tick, (2, 12)), **place)
        await self.send(AUDIO, self.playing.pop(0), **place)

    async def stop(self):
        if self.playing is None:
            return
        self.playing, self.quiet = None, 0
        self.epoch += 1
        await self.command("interrupt", epoch=self.epoch)


def tokens(tick, shape):
    return np.random.default_rng(tick).integers(0, 1024, shape).astype(np.uint16)


class FakeServer:
    """The app on a free port, in a thread of its own. `visits` are all pages that came, the newest last."""

    def __init__(self):
        self.visits, self.refusal, self.token, self.figures = [], None, None, dict(FIGURES)
        routes = [
            Route("/", lambda request: FileResponse(STATIC / "index.html")),
            Mount("/static", StaticFiles(directory=STATIC)),
            Route("/favicon.ico", lambda request: Response(status_code=204)),
            WebSocketRoute("/ws", self.socket),
        ]
        config = uvicorn.Config(
            Headers(Starlette(routes=routes)), port=0, log_level="warning", ws="websockets-sansio", lifespan="off"
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self._run, name="fake server")

    def _run(self):
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(self.server.serve())
        self.loop.close()

    def start(self):
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive()
        port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/"

    def stop(self):
        self.server.should_exit = True
        self.thread.join(10)

    @property
    def visit(self):
        return self.visits[-1]

    def drop(self):
        """Cut the connection of the newest page without a word."""
        asyncio.run_coroutine_threadsafe(self.visit.socket.close(1012), self.loop).result(5)

    def do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(5)

    async def socket(self, socket):
        await socket.accept()
        visit = Visit(socket, self)
        self.visits.append(visit)
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await visit.run()
