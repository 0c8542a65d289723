"""One connection to a ChatKitty server: its socket, and its heart-beats (ChatKitty protocol notes, 2.1 and 2.5)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from offhook.client.chatkitty.stompx import Outcome, StompX
from offhook.client.errors import ConnectionLost
from offhook.client.tasks import Tasks
from offhook.client.transport import Socket, Transport
from offhook.protocols import stomp

SUBPROTOCOL = "v12.stomp"


class Link:
    """An open connection.

    Args:
        socket: its WebSocket.
        stompx: what understands what comes.
    """

    __slots__ = ("_heard_at", "_socket", "_stompx", "_tasks", "silent")

    def __init__(self, socket: Socket, stompx: StompX) -> None:
        self._socket = socket
        self._stompx = stompx
        self._tasks = Tasks()
        self._heard_at = 0.0
        self.silent = False
        """Whether it was given up because nothing came for too long."""

    @classmethod
    async def open(cls, transport: Transport, url: str, stompx: StompX) -> Link:
        """Opens one.

        Raises:
            ConnectionFailed: it could not be opened.
            TimedOut: it was not opened in time.
        """
        return cls(await transport.websocket(url, subprotocols=(SUBPROTOCOL,)), stompx)

    async def send(self, frames: Iterable[bytes]) -> None:
        """Sends frames in order, one WebSocket message each.

        Raises:
            ConnectionLost: the connection has ended.
        """
        for frame in frames:
            await self._socket.send(frame, text=True)

    async def receive(self) -> list[Outcome]:
        """Waits for the next message, and tells what it means; that may be nothing.

        Raises:
            ConnectionLost: the connection has ended.
        """
        try:
            message = await self._socket.receive_bytes()
        except ConnectionLost as lost:
            raise ConnectionLost(lost.close_code, "no heart-beat came" if self.silent else lost.reason) from None
        self._heard_at = asyncio.get_running_loop().time()
        return self._stompx.feed(message)

    def beat(self, agreed: stomp.HeartBeat) -> None:
        """Begins to send heart-beats and to expect signs of life, as negotiated."""
        self._heard_at = asyncio.get_running_loop().time()
        if agreed.expect_every_ms:
            self._tasks.start(self._send_beats(agreed.expect_every_ms / 1000), "heart-beats")
        if agreed.send_every_ms:
            self._tasks.start(self._watch(agreed.send_every_ms / 1000), "watch over heart-beats")

    async def close(self) -> None:
        """Closes it, in at most a few seconds; if this is cancelled, at once."""
        try:
            await self._tasks.close()
            await self._socket.close()
        except asyncio.CancelledError:
            await self.abort()
            raise

    async def abort(self) -> None:
        """Drops it without a word, and waits until nothing of it is left."""
        self._socket.abort()
        await self._tasks.close()
        await self._socket.close()

    async def _send_beats(self, interval: float) -> None:
        # Who reads the socket finds out that it is closed.
        with contextlib.suppress(ConnectionLost):
            while True:
                await asyncio.sleep(interval)
                await self._socket.send(stomp.HEART_BEAT.decode())

    async def _watch(self, interval: float) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await asyncio.sleep(interval)
            if loop.time() - began > 2 * interval:
                # This program itself slept: what came meanwhile is not read yet.
                self._heard_at = loop.time()
            elif loop.time() - self._heard_at > 2 * interval:
                self.silent = True
                self._socket.abort()
                return
