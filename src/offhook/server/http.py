"""uvicorn's HTTP protocol, with what a server that faces the internet needs besides.

Limits on how many connections there are and how fast they come, on the size of a request's head, on the time
in which head and body arrive and on the time a client may take no part of a response.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from offhook.server.admission import Admission, Refusal
from offhook.server.asgi import error_body
from offhook.server.metrics import Metrics
from offhook.server.proxies import FORWARDED_NAMES, Peer, TrustedProxies
from offhook.server.timers import Timer, TimerWheel

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

MAX_HEAD = 32 * 1024
"""Bytes of a request's line and headers, or of a chunked body's trailers."""
MAX_DISCARD = 1024 * 1024
"""Bytes of a body that are read for nothing after an early response, so that the client gets to see it."""
BODY_INTERVAL = 20.0
MIN_BODY_BYTES = 20 * 1024
"""Bytes of a body that have to come in each BODY_INTERVAL seconds."""
LINGER = 2.0
"""Seconds for which a refused client's bytes are thrown away before its connection is dropped: dropping it at once
resets it, and a reset can overtake the answer."""
MAX_REFUSED = 256
"""Refused connections that are kept until they can be told why; further ones are dropped."""

_IDLE, _HEAD, _BODY = range(3)
_REASONS = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}


@dataclass(slots=True)
class Gate:
    """What all connections share.

    Attributes:
        timers: the process's timer wheel.
        admission: who may connect.
        proxies: whom to believe who is behind a connection.
        metrics: where it is counted.
        head_timeout: seconds in which a request's head has to come.
        write_timeout: seconds in which a client may take nothing of what waits for it.
        refused: refused connections that wait for their answer.
    """

    timers: TimerWheel
    admission: Admission
    proxies: TrustedProxies
    metrics: Metrics
    head_timeout: float
    write_timeout: float
    refused: int = 0


class _HeadTooLarge(Exception):
    """Raised out of a parser's callback to stop the parser."""


class HttpProtocol(HttpToolsProtocol):
    """One HTTP connection, until it ends or becomes a WebSocket."""

    def __init__(self, gate: Gate, listener: str, config: Config, state: ServerState) -> None:
        super().__init__(config=config, server_state=state, app_state={})
        self.access_log = False
        self._gate = gate
        self._listener = listener
        self._timer = Timer(self._on_time)
        self._phase = _IDLE
        self._requests = 0  # requests begun
        self._head = 0  # bytes of the head, or of the trailers
        self._fed = 0  # bytes read that the parser may still hold
        self._body = 0  # bytes of the body
        self._came = 0  # of them since the timer was armed
        self._discarded = 0
        self._refusal: Refusal | None = None
        self._address: str | None = None  # counted by admission
        self._upgraded = False
        self._lingering = False

    # connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Counts the connection, and remembers if it is one too many."""
        # What uvicorn does here, without the system calls for our own address, which nobody asks for.
        self.connections.add(self)
        self.transport = transport
        self.flow = FlowControl(transport)
        peer: object = transport.get_extra_info("peername")
        self.client = (str(peer[0]), int(peer[1])) if isinstance(peer, tuple) and len(peer) >= 2 else None
        self.scheme = "https" if self._listener == "https" else "http"
        gate = self._gate
        gate.timers.schedule(self._timer, gate.head_timeout)
        self._refusal = gate.admission.enter()
        if self._refusal is None:
            address = self.client[0] if self.client else ""
            if not gate.proxies.trusts(address):
                self._refusal = gate.admission.enter_from(address)
                if self._refusal is None:
                    self._address = address
                else:
                    gate.admission.leave()
        if self._refusal is not None:
            gate.metrics.refused.add(self._refusal.limit)
            gate.refused += 1
            if gate.refused > MAX_REFUSED:
                transport.abort()
            return
        gate.metrics.connections[self._listener] += 1
        gate.metrics.connections_total.add(self._listener)

    def connection_lost(self, exc: Exception | None) -> None:
        """Gives back what the connection had."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._gate.timers.release(self._timer)
        if self._refusal is not None:
            self._gate.refused -= 1
        else:
            leave(self._gate, self._listener, self._address)

    def data_received(self, data: bytes) -> None:
        """Feeds the parser, unless the connection is refused."""
        if self._lingering:
            return
        if self._refusal is not None:
            self._turn_away(self._refusal)
            return
        requests = self._requests
        if requests == 0 and self._address is not None and is_plain_upgrade(data):
            self._hand_over(data, self._address)
            return
        super().data_received(data)
        if self._upgraded or self._lingering or self.transport.is_closing():
            return
        if self._phase == _IDLE:
            if self.cycle is None or self.cycle.response_complete:
                # Empty lines before a request, which uvicorn takes for the end of idleness.
                self._await_head()
        elif requests == self._requests:
            self._fed += len(data)
            if self._fed > MAX_HEAD + 8 * self._body:  # a byte of body may come in a chunk of its own
                self._fail(431)

    def pause_writing(self) -> None:
        """The client has to take something within the time it has."""
        super().pause_writing()
        self._gate.timers.schedule(self._timer, self._gate.write_timeout)

    def resume_writing(self) -> None:
        """The client took something."""
        super().resume_writing()
        if self._phase == _IDLE:
            self._gate.timers.cancel(self._timer)

    # parser callbacks

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._requests += 1
        self._phase = _HEAD
        self._head = self._fed = self._body = self._discarded = 0
        self._await_head()

    def on_url(self, url: bytes) -> None:
        """A part of the request's target came."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header came."""
        self._count_head(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole, the body begins."""
        self._phase = _BODY
        self._head = self._came = 0
        self._gate.timers.schedule(self._timer, BODY_INTERVAL)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body came."""
        self._body += len(body)
        self._came += len(body)
        super().on_body(body)
        if self.cycle is not None and self.cycle.response_complete:
            self._discarded += len(body)
            if self._discarded > MAX_DISCARD:
                self.transport.close()

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._phase = _IDLE
        self._gate.timers.cancel(self._timer)
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """Hands the connection over to the WebSocket protocol, and stays behind for its end only."""
        gate, address = self._gate, self._address
        if self.scope["http_version"] != "1.1":
            self._fail(400)
            return
        if address is None:
            address = self._client_address()
            refusal = gate.admission.enter_from(address)
            if refusal is not None:
                gate.metrics.refused.add(refusal.limit)
                self._turn_away(refusal)
                return
        self._upgraded = True
        gate.timers.release(self._timer)
        super().handle_websocket_upgrade()
        # uvicorn's object and its parser refer to each other: they must not have to await the collector.
        self.parser = None  # type: ignore[assignment]
        inner = self.transport.get_protocol()
        if not isinstance(inner, asyncio.Protocol):
            raise TypeError("A WebSocket protocol is an asyncio.Protocol")
        self.transport.set_protocol(_Upgraded(inner, gate, self._listener, address))

    def _hand_over(self, head: bytes, address: str) -> None:
        """Does as ``handle_websocket_upgrade`` with a head that needs no second reading."""
        self._upgraded = True
        self._gate.timers.release(self._timer)
        self.connections.discard(self)
        self.parser = None  # type: ignore[assignment]
        make = self.ws_protocol_class
        if make is None:
            raise TypeError("There is no WebSocket protocol")
        inner = make(config=self.config, server_state=self.server_state, app_state=self.app_state)  # type: ignore[call-arg]
        inner.connection_made(self.transport)
        inner.data_received(head)
        self.transport.set_protocol(_Upgraded(inner, self._gate, self._listener, address))

    def send_400_response(self, msg: str) -> None:
        """What the parser refuses is answered in our own form."""
        self._fail(431 if self._head > MAX_HEAD else 400)

    def _unsupported_upgrade_warning(self) -> None:
        """Offers of other protocols may be ignored (RFC 9110 section 7.8); nobody needs to hear of it."""

    # ours

    def _await_head(self) -> None:
        if not self._timer.armed:
            self._gate.timers.schedule(self._timer, self._gate.head_timeout)

    def _count_head(self, size: int) -> None:
        self._head += size
        if self._head > MAX_HEAD:
            raise _HeadTooLarge

    def _client_address(self) -> str:
        address, port = self.client or ("", 0)
        headers: dict[str, str] = {}
        for name, value in self.headers:
            if name in FORWARDED_NAMES:
                key, text = name.decode("ascii"), value.decode("latin-1")
                headers[key] = f"{headers[key]},{text}" if key in headers else text
        return self._gate.proxies.resolve(Peer(address, port, False, ""), headers).address

    def _on_time(self) -> None:
        if self._lingering or self.transport.is_closing() or self.flow.write_paused:
            self.transport.abort()
        elif self._phase == _HEAD:
            self._fail(408)
        elif self._phase == _BODY and (self._came >= MIN_BODY_BYTES or self.flow.read_paused):
            self._came = 0
            self._gate.timers.schedule(self._timer, BODY_INTERVAL)
        else:
            self.transport.close()

    def _turn_away(self, refusal: Refusal) -> None:
        retry = b"retry-after: %d\r\n" % refusal.retry_after
        self._answer(503, b"Service Unavailable", "The server takes no more connections now", retry)

    def _fail(self, status: int) -> None:
        reason = _REASONS[status]
        self._answer(status, reason, reason.decode().capitalize(), b"")

    def _answer(self, status: int, reason: bytes, message: str, headers: bytes) -> None:
        """Answers in place of the application, if no other response is under way, and closes."""
        if self._lingering or self.transport.is_closing():
            return
        cycle = self.cycle
        idle = cycle is None or cycle.response_complete
        if idle or (self._phase == _BODY and not cycle.response_started and not self.pipeline):
            body = error_body("ServiceUnavailableError" if status == 503 else "ClientError", message)
            self.transport.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
                b"connection: close\r\n%s\r\n%s" % (status, reason, len(body), headers, body)
            )
        if idle and self.transport.can_write_eof():
            self._lingering = True
            self.transport.write_eof()
            self._gate.timers.schedule(self._timer, LINGER)
        else:
            self.transport.close()


# Names of letters, digits and hyphens only: no folded line and nothing hidden passes for one.
_PLAIN_HEAD = re.compile(rb"GET /[!-~]* HTTP/1\.1\r\n(?:[A-Za-z0-9-]+:[ -~]*\r\n)+\r\n")
_UPGRADE = re.compile(rb"\r\nconnection: *(?:keep-alive, *)?upgrade *\r\n")
_LONG_WAY = tuple(
    f"\r\n{name}".encode()
    for name in ("content-length", "transfer-encoding", "expect", "trailer", "te:", "http2-settings")
)


def is_plain_upgrade(data: bytes) -> bool:
    """Whether these bytes are the whole head of an upgrade to WebSocket, as every client writes it, and nothing else.

    Then the WebSocket layer, which checks the head anyhow, reads it at once: a sixth of what a new session costs is
    parsing the head, writing it out again and parsing that. Whatever is unusual goes the long way.
    """
    if len(data) > MAX_HEAD or _PLAIN_HEAD.fullmatch(data) is None:
        return False
    lower = data.lower()
    if lower.count(b"\r\nupgrade:") != 1 or b"\r\nupgrade: websocket\r\n" not in lower:
        return False
    if lower.count(b"\r\nconnection:") != 1 or _UPGRADE.search(lower) is None:
        return False
    return not any(name in lower for name in _LONG_WAY)


class _Upgraded(asyncio.Protocol):
    """Stands between transport and WebSocket protocol to learn of the end; data go straight to the latter."""

    __slots__ = ("_address", "_gate", "_inner", "_listener", "data_received")

    def __init__(self, inner: asyncio.Protocol, gate: Gate, listener: str, address: str) -> None:
        self._inner = inner
        self._gate = gate
        self._listener = listener
        self._address = address
        self.data_received = inner.data_received  # type: ignore[method-assign]

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        leave(self._gate, self._listener, self._address)
        self._inner.connection_lost(exc)
        del self.data_received, self._inner


def leave(gate: Gate, listener: str, address: str | None) -> None:
    """Gives back what a connection had."""
    gate.metrics.connections[listener] -= 1
    gate.admission.leave()
    if address is not None:
        gate.admission.leave_from(address)
