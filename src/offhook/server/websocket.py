"""WebSocket connections without ASGI: the protocol class behind uvicorn's ``ws=`` seam.

uvicorn reads the upgrade request, makes one :class:`WebSocketProtocol` for it and hands the transport over.
From then on bytes go straight from the transport to the gateway's :class:`Handler`, and from its
:class:`Socket` back, those of one tick together: no task, queue, event dictionary or timer handle per connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, cast

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from offhook.codes import CLOSINGS, CloseReason
from offhook.protocols.websocket import (
    Close,
    Event,
    HandshakeError,
    Message,
    Ping,
    Pong,
    ProtocolViolation,
    Receiver,
    UpgradeRequest,
    accept_response,
    encode_close,
    encode_ping,
    encode_pong,
    parse_request,
    reject_response,
    text_header,
)
from offhook.server.outbox import Outbox
from offhook.server.timers import Timer, TimerWheel

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

logger: FilteringBoundLogger = structlog.get_logger(__name__)

_TOO_BIG = 1009
_NEVER_SENT = frozenset({1005, 1006})


class Socket(Protocol):
    """One client connection as a gateway sees it. No method raises because the connection is gone."""

    def send(self, *parts: bytes) -> None:
        """Send one text message made of the concatenated parts, which must be valid UTF-8 together.

        A client that does not read fast enough is cut off with ``SLOW_CONSUMER``; its handler learns later.
        """

    def probe(self, data: bytes) -> None:
        """Send a ping with this payload, after all that was sent before.

        Its pong, see :meth:`Handler.alive`, tells that the peer has taken all of that. Where the transport has no
        pings, none comes.

        Args:
            data: up to 125 bytes, not empty: the server's own pings are.

        Raises:
            ValueError: there are more bytes, or none.
        """

    def close(self, reason: CloseReason, detail: str | None = None, code: int | None = None) -> None:
        """Send what is waiting, say goodbye with the reason's close code, and drop the connection.

        Args:
            reason: decides the close code.
            detail: the sentence for the peer; by default the reason's own. Cut at 123 bytes.
            code: another close code, where more is known than the reason tells.
        """

    def abort(self, reason: CloseReason) -> None:
        """Drop the connection at once; what is waiting to be sent is lost."""

    @property
    def congested(self) -> bool:
        """Whether much of what was sent has not been taken by the peer yet."""

    def pause(self) -> None:
        """Read no more from the peer until :meth:`resume`. What was read already may still be handed over."""

    def resume(self) -> None:
        """Read again."""


class Handler(Protocol):
    """What a gateway implements, one object per connection. Called in the event loop; must not block.

    Only one whose :meth:`opened` was called is told that the connection is :meth:`closed`. An exception closes
    the connection with ``INTERNAL`` and touches no other.
    """

    def opened(self, socket: Socket) -> None:
        """The connection is open. Called first, once."""

    def received(self, data: bytes) -> None:
        """One whole message came, text (valid UTF-8) or binary. Never called after a close or abort."""

    def alive(self, data: bytes) -> None:
        """A pong came, even while the connection closes.

        Args:
            data: its payload: of a probe, empty for the server's own pings, or anything, if nobody asked for it.
        """

    def closed(self, reason: CloseReason, detail: str) -> None:
        """The connection is gone. Called last, exactly once, however it ended.

        Args:
            reason: the first reason there was.
            detail: what more is known, such as the peer's close code; may come from the peer.
        """


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of the TCP connection: the client, or the proxy before it.

    Attributes:
        address: the IP address; empty for a Unix socket.
        port: the TCP port; 0 for a Unix socket.
        secure: whether the connection came in over TLS.
    """

    address: str
    port: int
    secure: bool


@dataclass(frozen=True, slots=True)
class Accepted:
    """The upgrade is granted.

    Attributes:
        handler: takes the connection over.
        subprotocol: one of those offered, or None.
    """

    handler: Handler
    subprotocol: str | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """The upgrade is refused.

    Attributes:
        status: the HTTP status.
        message: plain text for the body.
    """

    status: int
    message: str


Acceptor = Callable[[UpgradeRequest, Peer], Accepted | Rejected]
"""Decides on an upgrade, at once. What takes time (authentication) happens on the open connection."""


@dataclass(frozen=True, slots=True)
class WebSocketSettings:
    """Limits of one connection. Sizes in bytes, times in seconds.

    A peer that is gone without a word is noticed ``max(ping_interval, ping_timeout) + ping_timeout`` after its
    last sign of life, at the latest.

    Attributes:
        max_message: the largest message taken; a larger one closes with ``TOO_LARGE``.
        max_write_buffer: unsent bytes at which a client is cut off as ``SLOW_CONSUMER``.
        high_water: unsent bytes from which a client counts as stalled.
        write_timeout: how long a client may stay stalled before it is cut off as ``SLOW_CONSUMER``.
        ping_interval: the silence after which a client is pinged; 0 is never.
        ping_timeout: the time a pinged client has to show any sign of life, else ``PING_TIMEOUT``.
        close_timeout: how long a close waits for the peer and for unsent bytes, before it drops all.
    """

    max_message: int = 1024 * 1024
    max_write_buffer: int = 1024 * 1024
    high_water: int = 64 * 1024
    write_timeout: float = 30.0
    ping_interval: float = 20.0
    ping_timeout: float = 20.0
    close_timeout: float = 5.0


@dataclass(frozen=True, slots=True)
class _Context:
    """What all connections share."""

    acceptor: Acceptor
    settings: WebSocketSettings
    timers: TimerWheel
    connections: set[WebSocketProtocol]
    outbox: Outbox


# The states of a connection, in their only order. Plain numbers: they are compared for every message.
_NEW: Final = 0
_OPEN: Final = 1
_CLOSING: Final = 2  # our close frame is out, the peer's is awaited
_DRAINING: Final = 3  # nothing more is read or sent but what is buffered; the peer is to drop the connection
_GONE: Final = 4

_NOT: Final = -1.0  # a time that has not come


class WebSocketProtocol(asyncio.Protocol):
    """One connection: the transport's protocol on one side, the handler's :class:`Socket` on the other.

    One timer serves all its time limits. It is not re-armed when bytes come: when it fires, it compares what
    is due with what happened since.
    """

    __slots__ = (
        "_context",
        "_detail",
        "_handler",
        "_heard",
        "_paused",
        "_pinged",
        "_reason",
        "_receiver",
        "_stalled",
        "_state",
        "_timer",
        "_transport",
        "_unsent",
    )

    def __init__(self, context: _Context) -> None:
        self._context = context
        self._transport: asyncio.Transport
        self._handler: Handler | None = None
        self._receiver: Receiver
        self._timer: Timer | None = None
        self._state = _NEW
        self._unsent: list[bytes] = []  # parts of the frames of this tick
        self._paused = False  # reading
        self._heard = _NOT  # when the peer last sent anything
        self._pinged = _NOT  # when the ping now unanswered was sent
        self._stalled = _NOT  # since when too much is unsent
        self._reason: CloseReason | None = None
        self._detail = ""

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """uvicorn hands the transport over."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Bytes came: first, from uvicorn, the whole head of the upgrade request, then the peer's frames."""
        if self._state == _NEW:
            self._shake_hands(data)
            return
        if self._state >= _DRAINING:
            return
        self._heard = self._context.timers.now
        violation: ProtocolViolation | None = None
        try:
            events = self._receiver.feed(data)
        except ProtocolViolation as error:
            violation = error
            events = error.events
        handler = self._handler
        for event in events:
            if self._state >= _DRAINING or handler is None:
                return
            if type(event) is not Message:
                self._control(event, handler)
            elif self._state == _OPEN:
                try:
                    handler.received(event.data)
                except Exception:
                    self._handler_failed("received")
        if violation is not None and self._state < _DRAINING:
            self._fail(violation)

    def eof_received(self) -> bool | None:
        """The peer sends no more. The transport closes itself."""
        if self._state in (_OPEN, _CLOSING):
            self._end(CloseReason.PEER_LOST, "The connection ended without a close frame")
            self._drain()
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, by whomever."""
        self._state = _GONE
        context = self._context
        context.connections.discard(self)
        if self._timer is not None:
            context.timers.release(self._timer)
            self._timer = None
        handler, self._handler = self._handler, None
        if handler is None:
            return
        self._end(CloseReason.PEER_LOST, type(exc).__name__ if exc else "")
        try:
            handler.closed(self._reason or CloseReason.PEER_LOST, self._detail)
        except Exception:
            logger.exception("websocket handler failed", method="closed")

    def pause_writing(self) -> None:
        """More is unsent than the high-water mark."""
        if self._state == _OPEN:
            self._stalled = self._context.timers.now
            self._arm()

    def resume_writing(self) -> None:
        """The peer has caught up."""
        if self._stalled != _NOT:
            self._stalled = _NOT
            if self._pinged != _NOT:  # the ping may have waited behind the rest
                self._pinged = self._context.timers.now
            if self._state == _OPEN:
                self._arm()

    # The handler's side

    def send(self, *parts: bytes) -> None:
        """See :class:`Socket`."""
        if self._state != _OPEN:
            return
        unsent = self._unsent
        if not unsent:
            self._context.outbox.add(self)
        unsent.append(text_header(len(parts[0]) if len(parts) == 1 else sum(map(len, parts))))
        unsent += parts

    def probe(self, data: bytes) -> None:
        """See :class:`Socket`."""
        if not data:
            raise ValueError("A probe has a payload")
        ping = encode_ping(data)
        if self._state != _OPEN:
            return
        if not self._unsent:
            self._context.outbox.add(self)
        self._unsent.append(ping)

    def close(self, reason: CloseReason, detail: str | None = None, code: int | None = None) -> None:
        """See :class:`Socket`."""
        if self._state != _OPEN:
            return
        ending = CLOSINGS[reason]
        if ending.websocket in _NEVER_SENT:
            self.abort(reason)
            return
        self._end(reason, detail or ending.text)
        self._state = _CLOSING
        self._write(encode_close(code or ending.websocket, self._detail))
        self.resume()
        self._arm_close()

    def abort(self, reason: CloseReason) -> None:
        """See :class:`Socket`."""
        if self._state == _NEW or self._state == _GONE:
            return
        self._end(reason, CLOSINGS[reason].text)
        self._state = _GONE
        self._transport.abort()

    @property
    def congested(self) -> bool:
        """See :class:`Socket`."""
        return self._stalled != _NOT and self._state == _OPEN

    def pause(self) -> None:
        """See :class:`Socket`."""
        if self._state == _OPEN and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """See :class:`Socket`."""
        if self._paused and self._state < _DRAINING:
            self._paused = False
            self._heard = self._context.timers.now  # its silence meanwhile was our doing
            self._transport.resume_reading()

    # Between the two

    def _shake_hands(self, raw: bytes) -> None:
        """Answer the upgrade request."""
        transport, context = self._transport, self._context
        before = transport.get_protocol()
        if isinstance(before, HttpToolsProtocol):
            # It and its parser refer to each other: 5 KB that would wait for the cyclic collector. uvicorn parts
            # them when the connection is lost, which it does not learn any more.
            before.parser = None  # type: ignore[assignment]
        # uvicorn does so only after this call, too late for the flow control of what is written in it.
        transport.set_protocol(self)
        try:
            request = parse_request(raw)
            answer = context.acceptor(request, _peer(transport))
            if isinstance(answer, Rejected):
                self._refuse(answer.status, answer.message)
                return
            response = accept_response(request, answer.subprotocol)
        except HandshakeError as error:
            self._refuse(error.status, error.message, error.headers)
            return
        except Exception:
            logger.exception("websocket acceptor failed")
            self._refuse(500, "The server failed")
            return
        settings = context.settings
        self._receiver = Receiver(settings.max_message)
        self._handler = answer.handler
        self._heard = context.timers.now
        self._timer = Timer(self._on_time)
        self._state = _OPEN
        context.connections.add(self)
        transport.set_write_buffer_limits(high=settings.high_water)
        transport.write(response)
        self._arm()
        try:
            answer.handler.opened(self)
        except Exception:
            self._handler_failed("opened")

    def _refuse(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        self._state = _DRAINING
        self._transport.write(reject_response(status, message, headers))
        self._transport.close()

    def _control(self, event: Event, handler: Handler) -> None:
        """Handle a ping, pong or close frame."""
        if isinstance(event, Ping):
            if self._state == _OPEN:
                self._write(encode_pong(event.data))
        elif isinstance(event, Pong):
            try:
                handler.alive(event.data)
            except Exception:
                self._handler_failed("alive")
        elif isinstance(event, Close):
            if self._state == _OPEN:
                self._end(CloseReason.PEER_CLOSED, f"{event.code} {event.reason}".rstrip())
                self._write(encode_close(event.code))
            self._drain()

    def _fail(self, violation: ProtocolViolation) -> None:
        """The peer broke the protocol: say so, and listen no more."""
        too_big = violation.close_code == _TOO_BIG
        self._end(CloseReason.TOO_LARGE if too_big else CloseReason.PROTOCOL_ERROR, violation.reason)
        if self._state == _OPEN:
            self._write(encode_close(violation.close_code, violation.reason))
        self._drain()

    def _handler_failed(self, method: str) -> None:
        logger.exception("websocket handler failed", method=method)
        self.close(CloseReason.INTERNAL)

    def _end(self, reason: CloseReason, detail: str) -> None:
        """Remember why the connection ends, unless something ended it before."""
        if self._reason is None:
            self._reason, self._detail = reason, detail

    def _drain(self) -> None:
        """Send what is buffered and let the peer drop the connection.

        Dropping it ourselves while bytes from the peer are unread would reset it, and a reset can overtake
        our close frame. TLS knows no half-closed connections.
        """
        self.flush()
        self.resume()  # else the peer's end of the stream would not be seen
        self._state = _DRAINING
        self._arm_close()
        if not self._transport.can_write_eof():
            self._transport.close()
            return
        try:
            self._transport.write_eof()
        except OSError:  # the peer has reset the connection already
            self._transport.abort()

    def flush(self) -> None:
        """Hand what was sent in this tick to the transport, all at once."""
        unsent = self._unsent
        if unsent:
            data = b"".join(unsent)
            unsent.clear()
            if self._state != _GONE:
                self._transport.write(data)
                if self._stalled != _NOT:
                    self._check_buffer()

    def _write(self, frame: bytes) -> None:
        """Send a control frame, after what was sent before it."""
        self._unsent.append(frame)
        self.flush()

    def _check_buffer(self) -> None:
        """Cut a stalled client off if too much is unsent."""
        if self._transport.get_write_buffer_size() > self._context.settings.max_write_buffer:
            self.abort(CloseReason.SLOW_CONSUMER)

    def _arm(self) -> None:
        """Arm the timer of an open connection for what is due first."""
        settings, timers = self._context.settings, self._context.timers
        if self._stalled != _NOT:
            due = self._stalled + settings.write_timeout
        elif self._pinged != _NOT:
            due = self._pinged + settings.ping_timeout
        elif settings.ping_interval:
            due = self._heard + settings.ping_interval
        else:
            return
        if self._timer is not None:
            timers.schedule(self._timer, max(due - timers.now, 0.0))

    def _arm_close(self) -> None:
        if self._timer is not None:
            self._context.timers.schedule(self._timer, self._context.settings.close_timeout)

    def _on_time(self) -> None:
        """The timer fired: see what is due. While bytes are stuck on either side, silence proves nothing."""
        if self._state != _OPEN:
            self._state = _GONE
            self._transport.abort()
            return
        settings, now = self._context.settings, self._context.timers.now
        if self._paused:
            self._heard = now
        if self._heard >= self._pinged:
            self._pinged = _NOT
        if self._stalled != _NOT:
            if now - self._stalled >= settings.write_timeout:
                self.abort(CloseReason.SLOW_CONSUMER)
                return
        elif self._pinged != _NOT:
            if now - self._pinged >= settings.ping_timeout:
                self.abort(CloseReason.PING_TIMEOUT)
                return
        elif settings.ping_interval and now - self._heard >= settings.ping_interval:
            self._pinged = now
            self._write(encode_ping())
        self._arm()


def protocol_factory(
    acceptor: Acceptor,
    settings: WebSocketSettings,
    timers: TimerWheel,
    connections: set[WebSocketProtocol],
) -> Callable[..., WebSocketProtocol]:
    """What to give uvicorn as ``ws``.

    Args:
        acceptor: decides on each upgrade.
        settings: limits of each connection.
        timers: the process's timer wheel.
        connections: holds every open connection, kept up to date; to be closed by who stops the server,
            because uvicorn itself does not know them.

    Returns:
        A callable that makes one protocol per upgrade. uvicorn's keyword arguments are of no use to it.
    """
    context = _Context(acceptor, settings, timers, connections, Outbox())

    def make(**_: object) -> WebSocketProtocol:
        return WebSocketProtocol(context)

    return make


def _peer(transport: asyncio.Transport) -> Peer:
    name: object = transport.get_extra_info("peername")
    secure = transport.get_extra_info("sslcontext") is not None
    if isinstance(name, tuple) and len(name) >= 2:
        return Peer(str(name[0]), int(name[1]), secure)
    return Peer("", 0, secure)
