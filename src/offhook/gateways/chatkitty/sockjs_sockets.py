"""The sockets of SockJS sessions, as the connection sees them (ChatKitty protocol notes, 2.9).

Over ``xhr_streaming`` and ``xhr`` a session lives in this process's memory between the client's requests, and dies when
no request has asked for its messages for a while.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from offhook.codes import CLOSINGS, CloseReason
from offhook.gateways.chatkitty.connection import Connection
from offhook.protocols import sockjs
from offhook.server.timers import Timer, TimerWheel
from offhook.server.websocket import Handler, Socket

DISCONNECT_AFTER = 5.0
"""Seconds without a receiving request after which a session is lost."""
CONGESTED = 64 * 1024
"""Bytes that wait for a client's next request, from which on no more is taken out of its session's history."""

FRAME = 64 * 1024
"""Characters of messages in a frame, from which on what else waits is for the next one."""


class Frame(NamedTuple):
    """A SockJS frame for a client, and whether it is the last one."""

    data: bytes
    last: bool


class Session(Protocol):
    """A session over requests, here or at another node, as one of the client's requests sees it."""

    def attach(self, receiver: object, *, stays: bool = False) -> bool:
        """A request has come to fetch messages. Returns False if another one does already.

        Args:
            receiver: stands for the request.
            stays: whether it goes on after a frame.
        """

    @property
    def ending(self) -> bool:
        """Whether the request should end, for the client to ask again elsewhere."""

    async def leave(self) -> None:
        """The request is about to end as it should."""

    def detach(self, receiver: object) -> None:
        """The request is over."""

    async def fetch(self, wait: float) -> Frame | None:
        """The next frame for the client; None if there is none within so many seconds."""

    async def bring(self, body: bytes, messages: Sequence[str]) -> None:
        """The client brought messages.

        Args:
            body: as it came.
            messages: what is in it.
        """


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
        self._receiver: object = None
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

    async def bring(self, body: bytes, messages: Sequence[str]) -> None:
        """See ``Session``."""
        for message in messages:
            await self._flowing.wait()
            if self._closing is None:
                self._handler.received(message.encode("utf-8", "surrogatepass"))

    @property
    def receiving(self) -> bool:
        """Whether a request fetches messages."""
        return self._receiver is not None

    def attach(self, receiver: object, *, stays: bool = False) -> bool:
        """See ``Session``."""
        if self._receiver not in (None, receiver):
            return False
        self._receiver = receiver
        self._timers.cancel(self._timer)
        return True

    def detach(self, receiver: object, patience: float | None = None) -> None:
        """See ``Session``. The next request is to come within ``patience`` seconds, else within DISCONNECT_AFTER."""
        if self._receiver == receiver:
            self._receiver = None
            self._expect(DISCONNECT_AFTER if patience is None else patience)

    def expect(self, receiver: object, within: float) -> None:
        """A request still fetches messages, but is to be heard of again within so many seconds."""
        if self._receiver == receiver:
            self._expect(within)

    def _expect(self, within: float) -> None:
        if self._told:
            self._finish()
        elif not self._done:
            self._timers.schedule(self._timer, within)

    async def fetch(self, wait: float) -> Frame | None:
        """See ``Session``."""
        if not self._waiting and self.ended is None:
            self._woken.clear()
            try:
                async with asyncio.timeout(wait):
                    await self._woken.wait()
            except TimeoutError:
                return None
        if self._waiting:
            return Frame(sockjs.encode_messages(self._some()), last=False)
        if self.ended is None:
            return None
        self._told = True
        return Frame(self.ended, last=True)

    def _some(self) -> Sequence[str]:
        """Takes of what waits as much as makes a frame."""
        messages: list[str] = []
        size = 0
        while self._waiting and (not messages or size + len(self._waiting[0]) <= FRAME):
            messages.append(self._waiting.popleft())
            size += len(messages[-1])
        self.size -= size
        return messages

    @property
    def ending(self) -> bool:
        """See ``Session``: the client is sent away instead."""
        return False

    async def leave(self) -> None:
        """See ``Session``: ``detach`` does it all."""

    def wake(self) -> None:
        """Who waits in ``fetch`` is to wait no longer."""
        self._woken.set()

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
        self._flowing.set()
        self._handler.closed(*self._closing)
