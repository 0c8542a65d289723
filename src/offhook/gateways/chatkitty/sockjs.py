"""SockJS: the same STOMP for clients without WebSocket (ChatKitty protocol notes, 2.9).

A SockJS session looks to the connection like any other socket. Here are the end points; ``sockjs_sockets`` has the
sockets, and ``sockjs_nodes`` what several nodes need, since each request of a client may come to another one.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from offhook.codes import CloseReason
from offhook.errors import AccessDenied, NotFound, TooLarge, Unavailable
from offhook.gateways.chatkitty.connection import Connection
from offhook.gateways.chatkitty.sockjs_nodes import STILL_OPEN, Places
from offhook.gateways.chatkitty.sockjs_sockets import Frame, Session, XhrSession
from offhook.protocols import sockjs
from offhook.server.cors import origin_allowed
from offhook.server.proxies import peer_of
from offhook.server.timers import TimerWheel

HEARTBEAT_EVERY = 25.0
STREAM_BYTES = 128 * 1024
"""Bytes after which a stream ends and the client asks for a new one, so that it need not keep them all."""
STREAM_SECONDS = 3600.0
"""Seconds after which it does so at the latest."""
_SCRIPT = "application/javascript; charset=UTF-8"
_NO_STORE = {"Cache-Control": "no-store, no-cache, no-transform, must-revalidate, max-age=0"}


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
        places: where sessions live, if that is not always here.
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
        places: Places | None = None,
    ) -> None:
        self._connect = connect
        self._timers = timers
        self._limits = limits
        self._max_waiting = max_waiting
        self._max_sessions = max_sessions
        self._max_per_address = max_per_address
        self._allowed_origins = allowed_origins
        self._websocket = websocket
        self._places = places
        self._by_address: Counter[str] = Counter()
        self._opening = 0
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
        session, opened = await self._session(request)
        lines = self._lines(session, opened)
        return StreamingResponse(lines, media_type=_SCRIPT, headers=_NO_STORE)

    async def _lines(self, session: Session, opened: bool) -> AsyncIterator[bytes]:
        yield sockjs.XHR_STREAMING_PRELUDE
        if opened:
            yield sockjs.OPEN + b"\n"
        receiver = object()
        if not session.attach(receiver, stays=True):
            yield STILL_OPEN.data + b"\n"
            return
        sent, until = 0, time.monotonic() + STREAM_SECONDS
        try:
            while sent < STREAM_BYTES and time.monotonic() < until:
                frame = await session.fetch(HEARTBEAT_EVERY) or _HEARTBEAT
                sent += len(frame.data) + 1
                yield frame.data + b"\n"
                if frame.last:
                    return
                if session.ending:
                    break
            await session.leave()
        finally:
            session.detach(receiver)

    async def poll(self, request: Request) -> Response:
        """Sends one frame."""
        session, opened = await self._session(request)
        receiver = object()
        if not session.attach(receiver):
            return self._frame(STILL_OPEN.data)
        try:
            frame = Frame(sockjs.OPEN, last=False) if opened else await session.fetch(HEARTBEAT_EVERY)
            await session.leave()
        finally:
            session.detach(receiver)
        return self._frame((frame or _HEARTBEAT).data)

    def _frame(self, frame: bytes) -> Response:
        return Response(frame + b"\n", media_type=_SCRIPT, headers=_NO_STORE)

    async def take(self, request: Request) -> Response:
        """Takes the messages that a client brings."""
        self._check_origin(request)
        name = request.path_params["session"]
        session: Session | None = self._sessions.get(name)
        if session is None and self._places is not None:
            session = await self._places.find(name)
        if session is None:
            raise NotFound("There is no such SockJS session")
        body = await request.body()
        try:
            messages = sockjs.decode_messages(body, self._limits)
        except sockjs.SockJSError as error:
            if error.too_large:
                raise TooLarge(error.message, self._limits.max_body) from None
            return PlainTextResponse(error.message, status_code=500)
        await session.bring(body, messages)
        return Response(status_code=204, headers={"Content-Type": "text/plain; charset=UTF-8"})

    async def _session(self, request: Request) -> tuple[Session, bool]:
        """The session of a request, and whether it is new."""
        self._check_origin(request)
        name = request.path_params["session"]
        session = self._sessions.get(name)
        if session is None:
            return await self._open(name, request)
        if self._places is not None:
            self._places.used(name)
        return session, False

    async def _open(self, name: str, request: Request) -> tuple[Session, bool]:
        address = peer_of(request.scope).address
        if self._opening >= self._max_sessions or self._by_address[address] >= self._max_per_address:
            # Sessions elsewhere are counted there.
            if self._places is not None and (elsewhere := await self._places.find(name)) is not None:
                return elsewhere, False
            raise Unavailable("The server takes no more connections now")
        self._count(address, 1)
        session = None
        try:
            far = None if self._places is None else await self._places.claim(name)
            if far is not None:
                return far, False
            if (found := self._sessions.get(name)) is not None:
                return found, False  # Another request of the same client was faster.
            session = XhrSession(
                self._connect(request), self._timers, self._max_waiting, lambda: self._forget(name, address)
            )
        finally:
            if session is None:
                self._count(address, -1)
        self._sessions[name] = session
        if self._places is not None:
            self._places.settle(name, session)
        session.open()
        return session, True

    def drain(self) -> None:
        """Ends the requests for sessions at other nodes, when the server stops; those here are sent away."""
        if self._places is not None:
            self._places.drain()

    def close_all(self) -> None:
        """Ends what is left of the sessions over requests, when the server stops."""
        for session in list(self._sessions.values()):
            session.abort(CloseReason.DRAINING)

    def _forget(self, name: str, address: str) -> None:
        del self._sessions[name]
        if self._places is not None:
            self._places.forget(name)
        self._count(address, -1)

    def _count(self, address: str, more: int) -> None:
        self._opening += more
        self._by_address[address] += more
        if not self._by_address[address]:
            del self._by_address[address]

    def _check_origin(self, request: Request) -> None:
        if not origin_allowed(request.headers.get("origin"), self._allowed_origins):
            raise AccessDenied("Pages of this origin may not connect")


_HEARTBEAT = Frame(sockjs.HEARTBEAT, last=False)
