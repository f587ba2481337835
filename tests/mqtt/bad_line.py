"""A line to a broker that breaks: it hands bytes on both ways, and cuts all connections when it is told to."""

import asyncio
import contextlib
import socket
import struct


class BadLine:
    """`port` is where programs connect; `cuts` and `made` count."""

    def __init__(self, broker):
        self.broker, self.port, self.cuts, self.made = broker, 0, 0, 0
        self._open = set()
        self._server = None

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc):
        self._server.close()
        self.cut()

    def cut(self):
        """Reset every connection, as a router does that has lost its memory."""
        self.cuts += bool(self._open)
        for writer in list(self._open):
            sock = writer.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _serve(self, reader, writer):
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection("127.0.0.1", self.broker.port)
            self.made += 1
            self._open |= {writer, back}
            try:
                await asyncio.gather(self._hand_on(reader, back), self._hand_on(there, writer))
            finally:
                self._open -= {writer, back}
                back.close()
        writer.close()

    @staticmethod
    async def _hand_on(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(4096):
                writer.write(data)
                await writer.drain()
        writer.close()
