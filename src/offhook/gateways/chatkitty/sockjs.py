"""SockJS: the same STOMP for clients without WebSocket (ChatKitty protocol notes, 2.9).

A SockJS session looks to the connection like any other socket. Over ``xhr_streaming`` and ``xhr`` it lives in this
process's memory between the client's requests, and dies when no request has asked for its messages for a while.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from offhook.codes import CLOSINGS, CloseReason
from offhook.errors import AccessDenied, NotFound, TooLarge, Unavailable
from offhook.gateways.chatkitty.connection import Connection
from offhook.protocols import sockjs
from offhook.server.cors import origin_allowed
from offhook.server.proxies import peer_of
from offhook.server.timers import Timer, TimerWheel
from offhook.server.websocket import Handler, Socket

DISCONNECT_AFTER = 5.0
"""Seconds without a receiving request after which a session is lost."""
HEARTBEAT_EVERY = 25.0
CONGESTED = 64 * 1024
"""Bytes that wait for a client's next request, from which on no more is taken out of its session's history."""
STREAM_BYTES = 128 * 1024
"""Bytes after which a stream ends and the client asks for a new one, so that it need not keep them all."""
_SCRIPT = "application/javascript; charset=UTF-8"
_NO_STORE = {"Cache-Control": "no-store, no-cache, no-transform, must-revalidate, max-age=0"}


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

    def attach(self) -> None:
        """A request has come to fetch messages."""
        self.receiving = True
        self._timers.cancel(self._timer)

    def detach(self) -> None:
        """That request is over."""
        self.receiving = False
        if self._told:
            self._finish()
        elif not self._done:
            self._timers.schedule(self._timer, DISCONNECT_AFTER)

    async def fetch(self) -> bytes:
        """The next frame for the client; a heart-beat if nothing else came in time."""
        if not self._waiting and self.ended is None:
            self._woken.clear()
            try:
                async with asyncio.timeout(HEARTBEAT_EVERY):
                    await self._woken.wait()
            except TimeoutError:
                return sockjs.HEARTBEAT
        if self._waiting:
            messages = list(self._waiting)
            self._waiting.clear()
            self.size = 0
            return sockjs.encode_messages(messages)
        self._told = self.ended is not None
        return self.ended or sockjs.HEARTBEAT

    def _on_timer(self) -> None:
        if self._closing is None:
            self._closing = CloseReason.PEER_LOST, "no request in time"
            self.ended = sockjs.encode_close(1006, "Connection lost")
        self._finish()

    def _finish(self) -> None:
        if self._done or self._closing is None:
            return
        self._done = True
        self._timers.cancel(self._timer)
        self._gone()
        self._woken.set()
        self._handler.closed(*self._closing)


class SockJS:
    """The SockJS end points of one server.

    Args:
        connect: makes the connection for a request.
        timers: the process's timer wheel.
        limits: of what clients bring.
        max_waiting: bytes that may wait for a client.
        max_sessions: sessions at once over requests.
        max_per_address: of them from one address.
        allowed_origins: origins of pages that may connect.
        websocket: whether to offer the WebSocket transport.
    """

    def __init__(
        self,
        connect: Callable[[Request], Connection],
        timers: TimerWheel,
        limits: sockjs.Limits,
        max_waiting: int,
        max_sessions: int,
        max_per_address: int,
        allowed_origins: Sequence[str],
        websocket: bool,
    ) -> None:
        self._connect = connect
        self._timers = timers
        self._limits = limits
        self._max_waiting = max_waiting
        self._max_sessions = max_sessions
        self._max_per_address = max_per_address
        self._allowed_origins = allowed_origins
        self._websocket = websocket
        self._by_address: Counter[str] = Counter()
        self._sessions: dict[str, XhrSession] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def routes(self) -> Sequence[Route]:
        """What to mount; to be served with credentialed CORS headers."""
        routes: list[Route] = []
        for base in ("/rtm", "/stompx"):
            routes += [
                Route(base, self.greet, methods=["GET"]),
                Route(f"{base}/info", self.info, methods=["GET"]),
                Route(base + "/{server}/{session}/xhr_streaming", self.stream, methods=["POST"]),
                Route(base + "/{server}/{session}/xhr", self.poll, methods=["POST"]),
                Route(base + "/{server}/{session}/xhr_send", self.take, methods=["POST"]),
            ]
        return routes

    async def greet(self, request: Request) -> Response:
        """Says that this is SockJS."""
        return PlainTextResponse("Welcome to SockJS!\n")

    async def info(self, request: Request) -> Response:
        """Says what transports there are."""
        body = sockjs.info(secrets.randbits(32), websocket=self._websocket)
        return Response(body, media_type="application/json; charset=UTF-8", headers=_NO_STORE)

    async def stream(self, request: Request) -> Response:
        """Sends frames in one long answer."""
        session, opened = self._session(request)
        lines = self._lines(session, opened)
        return StreamingResponse(lines, media_type=_SCRIPT, headers=_NO_STORE)

    async def _lines(self, session: XhrSession, opened: bool) -> AsyncIterator[bytes]:
        yield sockjs.XHR_STREAMING_PRELUDE
        if opened:
            yield sockjs.OPEN + b"\n"
        if session.receiving:
            yield _STILL_OPEN
            return
        session.attach()
        sent = 0
        try:
            while sent < STREAM_BYTES:
                frame = await session.fetch()
                sent += len(frame) + 1
                yield frame + b"\n"
                if frame is session.ended:
                    return
        finally:
            session.detach()

    async def poll(self, request: Request) -> Response:
        """Sends one frame."""
        session, opened = self._session(request)
        if opened:
            session.attach()
            session.detach()
            return Response(sockjs.OPEN + b"\n", media_type=_SCRIPT, headers=_NO_STORE)
        if session.receiving:
            return Response(_STILL_OPEN, media_type=_SCRIPT, headers=_NO_STORE)
        session.attach()
        try:
            frame = await session.fetch()
        finally:
            session.detach()
        return Response(frame + b"\n", media_type=_SCRIPT, headers=_NO_STORE)

    async def take(self, request: Request) -> Response:
        """Takes the messages that a client brings."""
        self._check_origin(request)
        session = self._sessions.get(request.path_params["session"])
        if session is None:
            raise NotFound("There is no such SockJS session")
        try:
            messages = sockjs.decode_messages(await request.body(), self._limits)
        except sockjs.SockJSError as error:
            if error.too_large:
                raise TooLarge(error.message, self._limits.max_body) from None
            return PlainTextResponse(error.message, status_code=500)
        await session.received(messages)
        return Response(status_code=204, headers={"Content-Type": "text/plain; charset=UTF-8"})

    def _session(self, request: Request) -> tuple[XhrSession, bool]:
        self._check_origin(request)
        name = request.path_params["session"]
        session = self._sessions.get(name)
        if session is not None:
            return session, False
        address = peer_of(request.scope).address
        if len(self._sessions) >= self._max_sessions or self._by_address[address] >= self._max_per_address:
            raise Unavailable("The server takes no more connections now")
        session = XhrSession(
            self._connect(request), self._timers, self._max_waiting, lambda: self._forget(name, address)
        )
        self._sessions[name] = session
        self._by_address[address] += 1
        session.open()
        return session, True

    def close_all(self) -> None:
        """Ends what is left of the sessions over requests, when the server stops."""
        for session in list(self._sessions.values()):
            session.abort(CloseReason.DRAINING)

    def _forget(self, name: str, address: str) -> None:
        self._sessions.pop(name, None)
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    def _check_origin(self, request: Request) -> None:
        if not origin_allowed(request.headers.get("origin"), self._allowed_origins):
            raise AccessDenied("Pages of this origin may not connect")


_STILL_OPEN = sockjs.encode_close(2010, "Another connection still open") + b"\n"
