"""uvicorn's HTTP protocol, with what a server that faces the internet needs besides.

Limits on how many connections there are and how fast they come, on the size of a request's head, on the time
in which head and body arrive and on the time a client may take no part of a response.
"""

from __future__ import annotations

import asyncio
import urllib.parse
from typing import TYPE_CHECKING

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from offhook.server.admission import Refusal
from offhook.server.asgi import error_body
from offhook.server.exchange import MAX_DISCARD, Exchange
from offhook.server.gate import Gate
from offhook.server.proxies import FORWARDED_NAMES, Peer
from offhook.server.timers import Timer
from offhook.server.upgrades import Upgraded, is_plain_upgrade

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application
    from uvicorn.config import Config
    from uvicorn.server import ServerState

MAX_HEAD = 32 * 1024
"""Bytes of a request's line and headers, or of a chunked body's trailers."""
BODY_INTERVAL = 20.0
MIN_BODY_BYTES = 20 * 1024
"""Bytes of a body that have to come in each BODY_INTERVAL seconds."""
LINGER = 2.0
"""Seconds for which a refused client's bytes are thrown away before its connection is dropped: dropping it at once
resets it, and a reset can overtake the answer. After an early response, seconds without bytes."""
MAX_LINGERS = 10
"""Times LINGER that a client may go on with a body that was answered early."""
MAX_LINGERED = 32 * 1024 * 1024
"""Bytes that it may bring meanwhile."""
MAX_REFUSED = 256
"""Refused connections that are kept until they can be told why; further ones are dropped."""

FIRST_REQUEST = 1.0
"""Seconds that a new connection has for its request when the server stops: it may be on its way."""

_IDLE, _HEAD, _BODY = range(3)
_REASONS = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}


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
        self._timed = _IDLE  # the request and phase for which the timer was seen to
        self._announced = 0  # bytes of the body as its head has it
        self._answering: Exchange | None = None
        self._head = 0  # bytes of the head, or of the trailers
        self._fed = 0  # bytes read that the parser may still hold
        self._body = 0  # bytes of the body
        self._came = 0  # of them since the timer was armed
        self._discarded = 0
        self._refusal: Refusal | None = None
        self._address: str | None = None  # counted by admission
        self._upgraded = False
        self._lingering = False
        self._lingers = 0  # times that it may go on
        self._last = False  # whether the next request is the last one

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
        if gate.stopping:
            self.shutdown()

    def shutdown(self) -> None:
        """The server stops: answers what is under way, and what a new connection asks at once, and closes."""
        if self._phase == _IDLE and self._requests == 0 and self._refusal is None:
            self._last = True
            self._gate.timers.schedule(self._timer, FIRST_REQUEST)
        elif self._phase == _HEAD:
            self._last = True
        else:
            super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """Gives back what the connection had."""
        super().connection_lost(exc)
        self._gate.timers.release(self._timer)
        if self._refusal is not None:
            self._gate.refused -= 1
        else:
            self._gate.leave(self._listener, self._address)

    def data_received(self, data: bytes) -> None:
        """Feeds the parser, unless the connection is refused."""
        if self._lingering:
            self._came += len(data)
            self._discarded += len(data)
            if self._lingers and self._discarded > MAX_LINGERED:
                self.transport.abort()
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
        stage = 3 * self._requests + self._phase
        if stage != self._timed:
            self._timed = stage
            self._time_phase()
        elif self._phase == _IDLE:
            self._hurry()
        if self._phase != _IDLE and requests == self._requests:
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
            self._await_request()

    # parser callbacks

    # They only note what came: whole requests come at once, and need no timer.

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._requests += 1
        self._phase = _HEAD
        self._head = self._fed = self._body = self._discarded = self._announced = 0

    def on_url(self, url: bytes) -> None:
        """A part of the request's target came."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header came."""
        self._head = head = self._head + len(name) + len(value)
        if head > MAX_HEAD:
            raise _HeadTooLarge
        name = name.lower()
        if name == b"content-length":
            self._announced = int(value)
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is whole, the body begins, and the application with it."""
        self._phase = _BODY
        self._head = self._came = 0
        parser, scope = self.parser, self.scope
        version = parser.get_http_version()
        scope["method"] = parser.get_method().decode("ascii")
        if version != "1.1":
            scope["http_version"] = version
        if self._lingering or (parser.should_upgrade() and self._should_upgrade()):
            return
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        scope["path"] = urllib.parse.unquote(path) if "%" in path else path
        scope["raw_path"] = url.path
        scope["query_string"] = url.query or b""
        before = self.cycle
        self.cycle = exchange = Exchange(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and not self._last and parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        exchange.announced = self._announced
        if before is None or before.response_complete:
            self._start_asgi_task(exchange, self.app)
        else:  # pipelined
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))

    def on_body(self, body: bytes) -> None:
        """A part of the body came."""
        self._body += len(body)
        self._came += len(body)
        super().on_body(body)
        if self.cycle is not None and self.cycle.response_complete:
            self._discarded += len(body)
            if self._discarded > MAX_DISCARD:
                self._end_early()

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._phase = _IDLE
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The application's response is out: the connection goes on, or ends."""
        self.server_state.total_requests += 1
        exchange = self._answering
        if self.transport.is_closing() or self._lingering:
            return
        if exchange is not None and not exchange.keep_alive:
            if exchange is self.cycle and self._phase == _BODY:
                self._end_early()
            else:
                self.transport.close()
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._await_request()

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
        self.transport.set_protocol(Upgraded(inner, gate, self._listener, address))

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
        self.transport.set_protocol(Upgraded(inner, self._gate, self._listener, address))

    def send_400_response(self, msg: str) -> None:
        """What the parser refuses is answered in our own form."""
        self._fail(431 if self._head > MAX_HEAD else 400)

    def _unsupported_upgrade_warning(self) -> None:
        """Offers of other protocols may be ignored (RFC 9110 section 7.8); nobody needs to hear of it."""

    # ours

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if isinstance(cycle, Exchange):
            self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _time_phase(self) -> None:
        """Sets the timer for what has to come next."""
        timers = self._gate.timers
        if self._phase == _BODY:
            timers.schedule(self._timer, BODY_INTERVAL)
        elif self._phase == _IDLE:
            timers.cancel(self._timer)
            self._await_request()
        elif not self._timer.armed or (self._requests > 1 and not self.flow.write_paused):
            # For the first head it runs since the connection came.
            timers.schedule(self._timer, self._gate.head_timeout)

    def _await_request(self) -> None:
        """Nothing is under way: the next request has to begin in time."""
        idle = self._phase == _IDLE and (self.cycle is None or self.cycle.response_complete)
        if idle and not self.flow.write_paused:
            self._gate.timers.schedule(self._timer, self.timeout_keep_alive)

    def _hurry(self) -> None:
        """Empty lines came where a request should begin: it has to follow as if they were a part of it."""
        timers, limit = self._gate.timers, self._gate.head_timeout
        idle = self.cycle is None or self.cycle.response_complete
        if idle and not self.flow.write_paused and self._timer.due > timers.now + limit:
            timers.schedule(self._timer, limit)

    def _end_early(self) -> None:
        """Ends the connection after a response that came before its request's end.

        Closed at once it would be reset by the bytes that are still to come, and the client might never see the
        response. So they are thrown away, within limits.
        """
        if self._lingering or self.transport.is_closing():
            return
        self._lingering = True
        self._lingers = MAX_LINGERS
        self._came = 0
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._gate.timers.schedule(self._timer, LINGER)

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
        if self._lingers > 1 and (self._came or self.flow.write_paused):
            self._came = 0
            self._lingers -= 1
            self._gate.timers.schedule(self._timer, LINGER)
        elif self._lingering or self.transport.is_closing() or self.flow.write_paused:
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
