"""The sockets of SockJS sessions, as the connection sees them (ChatKitty protocol notes, 2.9).

Over ``xhr_streaming`` and ``xhr`` a session lives in this process's memory between the client's requests, and dies when
no request has asked for its messages for a while.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from offhook.codes import CLOSINGS, CloseReason
from offhook.gateways.chatkitty.connection import Connection
from offhook.protocols import sockjs
from offhook.server.timers import Timer, TimerWheel
from offhook.server.websocket import Handler, Socket

DISCONNECT_AFTER = 5.0
"""Seconds without a receiving request after which a session is lost."""
CONGESTED = 64 * 1024
"""Bytes that wait for a client's next request, from which on no more is taken out of its session's history."""


class Frame(NamedTuple):
    """A SockJS frame for a client, and whether it is the last one."""

    data: bytes
    last: bool


class FramedSocket:
    """SockJS framing over a WebSocket: the socket's handler on one side, the connection's socket on the other."""

    __slots__ = ("_handler", "_limits", "_socket")

    def __init__(self, handler: Handler, limits: sockjs.Limits) -> None:
        self._handler = handler
        self._limits = limits
        self._socket: Socket | None = None

    def opened(self, socket: Socket) -> None:
        """See ``Handler``."""
        self._socket = socket
        socket.send(sockjs.OPEN)
        self._handler.opened(self)

    def received(self, data: bytes) -> None:
        """See ``Handler``."""
        if not data:
            return
        try:
            messages = sockjs.decode_messages(data, self._limits)
        except sockjs.SockJSError as error:
            self.close(CloseReason.TOO_LARGE if error.too_large else CloseReason.PROTOCOL_ERROR, error.message)
            return
        for message in messages:
            self._handler.received(message.encode("utf-8", "surrogatepass"))

    def alive(self, data: bytes) -> None:
        """See ``Handler``."""
        self._handler.alive(data)

    def closed(self, reason: CloseReason, detail: str) -> None:
        """See ``Handler``."""
        self._handler.closed(reason, detail)

    def send(self, *parts: bytes) -> None:
        """See ``Socket``."""
        if self._socket is not None:
            self._socket.send(sockjs.encode_messages([b"".join(parts).decode()]))

    def probe(self, data: bytes) -> None:
        """See ``Socket``."""
        if self._socket is not None:
            self._socket.probe(data)

    def close(self, reason: CloseReason, detail: str | None = None, code: int | None = None) -> None:
        """See ``Socket``."""
        if self._socket is not None:
            ending = CLOSINGS[reason]
            self._socket.send(sockjs.encode_close(code or ending.websocket, detail or ending.text))
            self._socket.close(reason, detail, code)

    def abort(self, reason: CloseReason) -> None:
        """See ``Socket``."""
        if self._socket is not None:
            self._socket.abort(reason)

    @property
    def congested(self) -> bool:
        """See ``Socket``."""
        return self._socket is not None and self._socket.congested

    def pause(self) -> None:
        """See ``Socket``."""
        if self._socket is not None:
            self._socket.pause()

    def resume(self) -> None:
        """See ``Socket``."""
        if self._socket is not None:
            self._socket.resume()


class XhrSession:
    """A session whose client comes by to fetch and to bring messages. Is the connection's socket."""

    def __init__(self, connection: Connection, timers: TimerWheel, max_waiting: int, gone: Callable[[], None]) -> None:
        self.connection = connection
        self.receiving = False
        self.size = 0
        self.ended: bytes | None = None
        self._handler: Handler = connection
        self._timers = timers
        self._max_waiting = max_waiting
        self._gone = gone
        self._waiting: deque[str] = deque()
        self._woken = asyncio.Event()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._closing: tuple[CloseReason, str] | None = None
        self._told = False
        self._done = False
        self._timer = Timer(self._on_timer)

    def open(self) -> None:
        """The first request is here."""
        self._timers.schedule(self._timer, DISCONNECT_AFTER)
        self._handler.opened(self)

    def send(self, *parts: bytes) -> None:
        """See ``Socket``."""
        if self._closing is not None:
            return
        text = b"".join(parts).decode()
        self.size += len(text)
        if self.size > self._max_waiting:
            self.abort(CloseReason.SLOW_CONSUMER)
            return
        self._waiting.append(text)
        self._woken.set()

    def probe(self, data: bytes) -> None:
        """See ``Socket``: requests have no pings."""

    def close(self, reason: CloseReason, detail: str | None = None, code: int | None = None) -> None:
        """See ``Socket``."""
        if self._closing is None:
            ending = CLOSINGS[reason]
            self._closing = reason, detail or ending.text
            self.ended = sockjs.encode_close(code or ending.websocket, detail or ending.text)
            self._flowing.set()
            self._woken.set()
            # The last frames wait for the client's next request, but not for ever.
            self._timers.schedule(self._timer, DISCONNECT_AFTER)

    def abort(self, reason: CloseReason) -> None:
        """See ``Socket``."""
        self.close(reason)
        self._finish()

    @property
    def congested(self) -> bool:
        """See ``Socket``."""
        return self.size > CONGESTED and self._closing is None

    def pause(self) -> None:
        """See ``Socket``: the requests that bring more are not answered meanwhile."""
        self._flowing.clear()

    def resume(self) -> None:
        """See ``Socket``."""
        self._flowing.set()

    async def received(self, messages: Sequence[str]) -> None:
        """The client brought messages."""
        for message in messages:
            await self._flowing.wait()
            if self._closing is None:
                self._handler.received(message.encode("utf-8", "surrogatepass"))

    def attach(self) -> bool:
        """A request has come to fetch messages. Returns False if another one does already."""
        if self.receiving:
            return False
        self.receiving = True
        self._timers.cancel(self._timer)
        return True

    def detach(self, patience: float | None = None) -> None:
        """That request is over.

        Args:
            patience: seconds within which the next one is to come; by default DISCONNECT_AFTER.
        """
        self.receiving = False
        if self._told:
            self._finish()
        elif not self._done:
            self._timers.schedule(self._timer, DISCONNECT_AFTER if patience is None else patience)

    async def fetch(self, wait: float) -> Frame | None:
        """The next frame for the client; None if there is none within so many seconds."""
        if not self._waiting and self.ended is None:
            self._woken.clear()
            try:
                async with asyncio.timeout(wait):
                    await self._woken.wait()
            except TimeoutError:
                return None
        if self._waiting:
            messages = list(self._waiting)
            self._waiting.clear()
            self.size = 0
            return Frame(sockjs.encode_messages(messages), last=False)
        if self.ended is None:
            return None
        self._told = True
        return Frame(self.ended, last=True)

    def lose(self, why: str) -> None:
        """The client is gone, or has missed something: it is to come back and resume."""
        if self._closing is None:
            self._closing = CloseReason.PEER_LOST, why
            self.ended = sockjs.encode_close(1006, "Connection lost")
        self._finish()

    def _on_timer(self) -> None:
        self.lose("no request in time")

    def _finish(self) -> None:
        if self._done or self._closing is None:
            return
        self._done = True
        self._timers.cancel(self._timer)
        self._gone()
        self._woken.set()
        self._handler.closed(*self._closing)
