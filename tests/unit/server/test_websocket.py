"""The WebSocket protocol class behind a real uvicorn: what its handlers see, and what its peers see."""

from __future__ import annotations

import asyncio
import gc
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

import pytest
import trustme
from tests.conformance.client import CLOSE, PING, PONG, TEXT, Client, Received, close_payload, frame
from tests.conformance.server import Loop, serve
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from offhook.codes import CLOSINGS, CloseReason
from offhook.protocols.websocket import UpgradeRequest
from offhook.server.websocket import (
    Accepted,
    Peer,
    Rejected,
    Socket,
    WebSocketProtocol,
    WebSocketSettings,
)

WAIT = 10.0
"""Seconds until a handler that is not called fails the test."""

Event = tuple[str, object]


class Recorder:
    """A handler that tells the test's thread what it is told, and does there what the test says."""

    def __init__(self) -> None:
        self.events: SimpleQueue[Event] = SimpleQueue()
        self.socket: Socket
        self.loop: asyncio.AbstractEventLoop
        self.gone = threading.Event()
        self.on_message: Callable[[bytes], None] = lambda data: None
        self.on_open: Callable[[Socket], None] = lambda socket: None
        self.on_alive: Callable[[], object] = lambda: None
        self.on_close: Callable[[], None] = lambda: None

    def opened(self, socket: Socket) -> None:
        self.socket, self.loop = socket, asyncio.get_running_loop()
        self.events.put(("opened", None))
        self.on_open(socket)

    def received(self, data: bytes) -> None:
        self.events.put(("received", data))
        self.on_message(data)

    def alive(self, data: bytes) -> None:
        self.events.put(("alive", data))
        self.on_alive()

    def closed(self, reason: CloseReason, detail: str) -> None:
        self.events.put(("closed", (reason, detail)))
        self.gone.set()
        self.on_close()

    def next(self) -> Event:
        """The next call."""
        return self.events.get(timeout=WAIT)

    def expect_closed(self, reason: CloseReason) -> str:
        """Assert that the connection is closed next and for this reason; return the detail."""
        name, value = self.next()
        assert name == "closed"
        assert isinstance(value, tuple)
        assert value[0] is reason
        return str(value[1])

    def run(self, action: Callable[[], object]) -> None:
        """Do something in the server's thread."""
        self.loop.call_soon_threadsafe(action)


@dataclass
class Server:
    """A running server. Each upgrade takes the next handler of ``handlers``."""

    handlers: SimpleQueue[Recorder] = field(default_factory=SimpleQueue)
    connections: set[WebSocketProtocol] = field(default_factory=set)
    requests: list[tuple[UpgradeRequest, Peer]] = field(default_factory=list)
    answer: Callable[[UpgradeRequest], Accepted | Rejected] | None = None
    port: int = 0

    def accept(self, request: UpgradeRequest, peer: Peer) -> Accepted | Rejected:
        self.requests.append((request, peer))
        if self.answer is not None:
            return self.answer(request)
        return Accepted(self.handlers.get_nowait(), next(iter(request.subprotocols), None))

    @contextmanager
    def connect(self, prepare: Callable[[Recorder], None] = lambda handler: None) -> Iterator[tuple[Client, Recorder]]:
        """An open connection and its handler, prepared before it opens."""
        handler = Recorder()
        prepare(handler)
        self.handlers.put(handler)
        with Client(self.port) as client:
            assert handler.next() == ("opened", None)
            yield client, handler
        assert handler.gone.wait(WAIT), "the handler was not told of the end"


@contextmanager
def running(loop: Loop, settings: WebSocketSettings) -> Iterator[Server]:
    server = Server()
    with serve(server.accept, settings, loop, server.connections) as server.port:
        yield server


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def loop(request: pytest.FixtureRequest) -> Loop:
    return "uvloop" if request.param == "uvloop" else "asyncio"


@pytest.fixture(scope="module")
def running_server(loop: Loop) -> Iterator[Server]:
    with running(loop, WebSocketSettings(max_message=1000, close_timeout=0.2)) as server:
        yield server


@pytest.fixture
def server(running_server: Server) -> Server:
    """A server without a past."""
    running_server.requests.clear()
    running_server.answer = None
    return running_server


def expect_close(client: Client, code: int) -> str:
    """Assert that a close frame with this code and the end of the stream come next; return the reason."""
    received = client.receive()
    assert received is not None
    assert received.opcode == CLOSE
    assert int.from_bytes(received.payload[:2], "big") == code
    assert client.receive() is None
    return received.payload[2:].decode()


def test_a_conversation(server: Server) -> None:
    handler = Recorder()
    server.handlers.put(handler)
    offer = ("Sec-WebSocket-Protocol: v12.stomp, other", "Origin: https://a.example")
    with Client(server.port, "/rtm%20?api-key=k", offer) as client:
        assert client.response.startswith("HTTP/1.1 101 ")
        assert "Sec-WebSocket-Protocol: v12.stomp" in client.response
        assert handler.next() == ("opened", None)
        client.send(frame(TEXT, b"one") + frame(2, b"\xfftwo") + frame(PONG))
        assert [handler.next() for _ in range(3)] == [("received", b"one"), ("received", b"\xfftwo"), ("alive", b"")]
        handler.run(lambda: handler.socket.send(b"a", b"", b"b" * 200))
        handler.run(lambda: handler.socket.send())
        assert client.receive() == Received(TEXT, b"a" + b"b" * 200)
        assert client.receive() == Received(TEXT, b"")
        assert len(server.connections) == 1
        client.send(frame(CLOSE, close_payload(1001, b"bye")))
        assert expect_close(client, 1001) == ""
    assert handler.expect_closed(CloseReason.PEER_CLOSED) == "1001 bye"
    assert handler.events.empty()
    assert not server.connections
    request, peer = server.requests[0]
    assert (request.path, request.query, request.origin) == ("/rtm ", "api-key=k", "https://a.example")
    assert (peer.address, peer.secure) == ("127.0.0.1", False)


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("reason", [CloseReason.SUPERSEDED, CloseReason.DRAINING, CloseReason.ACCESS_DENIED])
def test_close_flushes_and_tells_the_reason(server: Server, reason: CloseReason, answered: bool) -> None:
    with server.connect() as (client, handler):

        def finish() -> None:
            handler.socket.send(b"last words")
            handler.socket.close(reason)
            handler.socket.close(CloseReason.INTERNAL)
            handler.socket.send(b"too late")

        handler.run(finish)
        assert client.receive() == Received(TEXT, b"last words")
        received = client.receive()
        assert received is not None
        assert int.from_bytes(received.payload[:2], "big") == CLOSINGS[reason].websocket
        assert received.payload[2:].decode() == CLOSINGS[reason].text
        if answered:
            client.send(frame(TEXT, b"crossed") + frame(CLOSE, close_payload(1000)))
            assert client.receive() is None
        assert handler.expect_closed(reason) == CLOSINGS[reason].text
    assert not server.connections


def test_close_with_a_detail_for_the_peer(server: Server) -> None:
    with server.connect() as (client, handler):
        handler.run(lambda: handler.socket.close(CloseReason.SESSION_ENDED, "€" * 100))
        received = client.receive()
        assert received == Received(CLOSE, close_payload(4507, "€".encode() * 41))
        client.send(frame(CLOSE, received.payload if received else b""))
        assert handler.expect_closed(CloseReason.SESSION_ENDED) == "€" * 100


def test_a_message_after_a_close_is_not_delivered(server: Server) -> None:
    def prepare(handler: Recorder) -> None:
        handler.on_message = lambda data: handler.socket.close(CloseReason.SUPERSEDED)

    with server.connect(prepare) as (client, handler):
        client.send(frame(TEXT, b"one") + frame(TEXT, b"two") + frame(CLOSE, close_payload(1000)))
        assert expect_close(client, 4006)
    assert handler.next() == ("received", b"one")
    handler.expect_closed(CloseReason.SUPERSEDED)


@pytest.mark.parametrize("reason", [CloseReason.OVERLOADED, CloseReason.PEER_LOST])
def test_abort_drops_at_once(server: Server, reason: CloseReason) -> None:
    with server.connect() as (client, handler):
        # A reason without a close code of its own cannot be told, so its close is an abort.
        close = handler.socket.abort if reason is CloseReason.OVERLOADED else handler.socket.close
        handler.run(lambda: close(reason))
        handler.expect_closed(reason)
        assert client.receive() is None


def test_a_socket_that_is_gone_ignores_its_handler(server: Server) -> None:
    with server.connect() as (_, handler):
        handler.run(lambda: handler.socket.abort(CloseReason.OVERLOADED))
        handler.expect_closed(CloseReason.OVERLOADED)
        done: SimpleQueue[str] = SimpleQueue()

        def use() -> None:
            handler.socket.send(b"x")
            handler.socket.pause()
            handler.socket.resume()
            handler.socket.close(CloseReason.INTERNAL)
            handler.socket.abort(CloseReason.INTERNAL)
            done.put("unharmed")

        handler.run(use)
        assert done.get(timeout=WAIT) == "unharmed"
    assert handler.events.empty()


@pytest.mark.parametrize("how", [Client.finish, Client.reset])
def test_a_peer_that_vanishes(server: Server, how: Callable[[Client], None]) -> None:
    with server.connect() as (client, handler):
        how(client)
        handler.expect_closed(CloseReason.PEER_LOST)
    assert not server.connections


@pytest.mark.parametrize(
    ("sent", "code", "reason"),
    [
        (frame(TEXT, b"x" * 1001), 1009, CloseReason.TOO_LARGE),
        (frame(TEXT, b"\xff"), 1007, CloseReason.PROTOCOL_ERROR),
        (frame(3), 1002, CloseReason.PROTOCOL_ERROR),
    ],
)
def test_a_violation_closes_after_what_came_before(server: Server, sent: bytes, code: int, reason: CloseReason) -> None:
    with server.connect() as (client, handler):
        client.send(frame(TEXT, b"fine") + sent + frame(TEXT, b"ignored"))
        assert expect_close(client, code)
    assert handler.next() == ("received", b"fine")
    assert handler.expect_closed(reason)


def fault(*_: object) -> None:
    raise RuntimeError("a defect of the handler")


@pytest.mark.parametrize("method", ["on_message", "on_open", "on_alive"])
def test_a_handler_that_raises_closes_only_its_own_connection(server: Server, method: str) -> None:
    with (
        server.connect() as (other, other_handler),
        server.connect(lambda handler: setattr(handler, method, fault)) as (
            client,
            handler,
        ),
    ):
        client.send(frame(TEXT, b"x") if method == "on_message" else frame(PONG))
        received = client.receive()
        assert received is not None
        assert received.payload[:2] == close_payload(1011)
        client.send(frame(CLOSE, close_payload(1011)))
        assert client.receive() is None
        while (event := handler.next())[0] != "closed":
            pass
        assert event == ("closed", (CloseReason.INTERNAL, CLOSINGS[CloseReason.INTERNAL].text))
        other.send(frame(TEXT, b"still here"))
        assert other_handler.next() == ("received", b"still here")


def test_a_handler_that_raises_when_closed_harms_nobody(server: Server) -> None:
    with server.connect(lambda handler: setattr(handler, "on_close", fault)) as (client, handler):
        client.finish()
        handler.expect_closed(CloseReason.PEER_LOST)
    with server.connect() as (client, handler):
        client.send(frame(TEXT, b"next"))
        assert handler.next() == ("received", b"next")


def test_refusals(server: Server) -> None:
    server.answer = lambda request: Rejected(503, "Draining")
    with Client(server.port) as client:
        assert client.response.startswith("HTTP/1.1 503 Service Unavailable\r\n")
    server.answer = fault  # type: ignore[assignment]
    with Client(server.port) as client:
        assert client.response.startswith("HTTP/1.1 500 ")
    server.answer = lambda request: Accepted(Recorder(), "never offered")
    with Client(server.port) as client:
        assert client.response.startswith("HTTP/1.1 500 ")
    with Client(server.port, headers=("Sec-WebSocket-Version: 8",)) as client:
        assert client.response.startswith("HTTP/1.1 400 ")
    assert not server.connections


def test_a_probe_follows_what_was_sent_before_and_its_pong_comes_back(server: Server) -> None:
    with server.connect() as (client, handler):

        def act() -> None:
            handler.socket.send(b"before")
            handler.socket.probe(b"1")
            handler.socket.send(b"after")
            handler.socket.probe(b"x" * 125)

        handler.run(act)
        wanted = [(TEXT, b"before"), (PING, b"1"), (TEXT, b"after"), (PING, b"x" * 125)]
        for opcode, payload in wanted:
            assert client.receive() == Received(opcode, payload)
        client.send(frame(PONG, b"1") + frame(PONG, b"x" * 125) + frame(PONG, b"nobody asked"))
        assert [handler.next() for _ in range(3)] == [
            ("alive", b"1"),
            ("alive", b"x" * 125),
            ("alive", b"nobody asked"),
        ]
        handler.run(lambda: handler.socket.probe(b"alone"))
        assert client.receive() == Received(PING, b"alone")


def test_a_probe_of_a_wrong_size_is_the_callers_error(server: Server) -> None:
    with server.connect() as (client, handler):
        failed: SimpleQueue[object] = SimpleQueue()

        def act(data: bytes) -> None:
            try:
                handler.socket.probe(data)
            except ValueError:
                failed.put(len(data))

        for data in (b"", b"x" * 126):
            handler.run(lambda data=data: act(data))  # type: ignore[misc]
            assert failed.get(timeout=WAIT) == len(data)
        handler.run(lambda: handler.socket.send(b"unharmed"))
        assert client.receive() == Received(TEXT, b"unharmed")


def test_no_probe_follows_a_close(server: Server) -> None:
    with server.connect() as (client, handler):

        def act() -> None:
            handler.socket.close(CloseReason.DRAINING)
            handler.socket.probe(b"late")

        handler.run(act)
        received = client.receive()
        assert received is not None and received.opcode == CLOSE
        client.send(frame(PONG, b"of an earlier probe") + frame(CLOSE, received.payload))
        assert handler.next() == ("alive", b"of an earlier probe")
        assert client.receive() is None
        handler.expect_closed(CloseReason.DRAINING)
        handler.socket.probe(b"gone")


def test_reading_pauses_and_resumes(server: Server) -> None:
    with server.connect(lambda handler: setattr(handler, "on_open", lambda socket: socket.pause())) as (
        client,
        handler,
    ):
        client.send(frame(TEXT, b"waits"))
        with server.connect() as (other, other_handler):
            # The server has been through its loop since, and has read what it wanted to.
            other.send(frame(TEXT, b"passes"))
            assert other_handler.next() == ("received", b"passes")
        assert handler.events.empty()
        handler.run(handler.socket.resume)
        assert handler.next() == ("received", b"waits")


def test_the_end_of_a_paused_peer_is_seen(loop: Loop) -> None:
    def prepare(handler: Recorder) -> None:
        handler.on_message = lambda data: handler.socket.pause()

    settings = WebSocketSettings(close_timeout=3600)
    with running(loop, settings) as server, server.connect(prepare) as (client, handler):
        client.send(frame(TEXT, b"pauses") + frame(3))
        assert expect_close(client, 1002)
    assert handler.next() == ("received", b"pauses")
    assert handler.expect_closed(CloseReason.PROTOCOL_ERROR)


def test_a_slow_consumer_is_cut_off_at_the_buffer_limit_and_costs_only_itself(loop: Loop) -> None:
    settings = WebSocketSettings(max_write_buffer=300_000, high_water=10_000, write_timeout=3600)
    with running(loop, settings) as server, server.connect() as (_, slow), server.connect() as (client, handler):

        def flood() -> None:
            slow.socket.send(b"x" * 50_000)
            if slow.events.empty():
                slow.loop.call_soon(flood)

        slow.run(flood)
        slow.expect_closed(CloseReason.SLOW_CONSUMER)
        handler.run(lambda: handler.socket.send(b"unharmed"))
        assert client.receive() == Received(TEXT, b"unharmed")


def test_a_consumer_stalled_too_long_is_cut_off_below_the_buffer_limit(loop: Loop) -> None:
    settings = WebSocketSettings(max_write_buffer=1 << 30, high_water=10_000, write_timeout=0.2)
    with running(loop, settings) as server, server.connect() as (_, handler):
        handler.run(lambda: handler.socket.send(b"x" * (32 << 20)))
        handler.expect_closed(CloseReason.SLOW_CONSUMER)


def test_a_consumer_that_catches_up_is_kept(loop: Loop) -> None:
    settings = WebSocketSettings(
        max_write_buffer=1 << 30, high_water=10_000, write_timeout=1, ping_interval=0.3, ping_timeout=1
    )
    payload = b"x" * (8 << 20)
    with running(loop, settings) as server, server.connect() as (client, handler):
        handler.run(lambda: handler.socket.send(payload))
        received = client.receive()
        assert received is not None
        assert received.payload == payload
        for _ in range(2):  # the second ping comes later than the write time-out
            assert client.receive() == Received(PING, b"")
            client.send(frame(PONG))
            assert handler.next() == ("alive", b"")


def test_a_silent_peer_is_pinged_and_then_dropped(loop: Loop) -> None:
    settings = WebSocketSettings(ping_interval=0.1, ping_timeout=0.6)
    with running(loop, settings) as server, server.connect() as (client, handler):
        for answer in (frame(PONG), frame(TEXT, b"any sign of life will do")):
            assert client.receive() == Received(PING, b"")
            client.send(answer)
            assert handler.next()[0] in ("alive", "received")
        assert client.receive() == Received(PING, b"")
        handler.expect_closed(CloseReason.PING_TIMEOUT)
        assert client.receive() is None


def test_probes_keep_no_silent_peer(loop: Loop) -> None:
    settings = WebSocketSettings(ping_interval=0.1, ping_timeout=0.3)
    with running(loop, settings) as server, server.connect() as (_, handler):

        def probe() -> None:
            handler.socket.probe(b"again")
            if not handler.gone.is_set():
                handler.loop.call_later(0.05, probe)

        handler.run(probe)
        handler.expect_closed(CloseReason.PING_TIMEOUT)


def test_answered_probes_make_pings_needless(loop: Loop) -> None:
    settings = WebSocketSettings(ping_interval=0.5, ping_timeout=30)
    with running(loop, settings) as server, server.connect() as (client, handler):
        handler.on_alive = lambda: handler.loop.call_later(0.05, handler.socket.probe, b"again")
        handler.run(lambda: handler.socket.probe(b"again"))
        for _ in range(20):  # twice the interval
            assert client.receive() == Received(PING, b"again")
            client.send(frame(PONG, b"again"))
            assert handler.next() == ("alive", b"again")


def test_a_paused_reader_is_not_taken_for_a_silent_peer(loop: Loop) -> None:
    settings = WebSocketSettings(ping_interval=0.05, ping_timeout=0.05)
    with running(loop, settings) as server, server.connect() as (client, handler):
        handler.run(handler.socket.pause)
        with server.connect() as (_, other):
            other.expect_closed(CloseReason.PING_TIMEOUT)
        assert handler.events.empty()
        client.send(frame(TEXT, b"waits"))
        handler.run(handler.socket.resume)
        assert handler.next() == ("received", b"waits")


def alive(kind: type[object]) -> int:
    """How many objects of this class exist."""
    return sum(type(found) is kind for found in gc.get_objects())


def test_connections_leave_no_garbage_to_collect(server: Server) -> None:
    gc.collect()
    gc.disable()
    try:
        requests, connections = alive(HttpToolsProtocol), alive(WebSocketProtocol)
        for _ in range(5):
            with server.connect() as (client, handler):
                passed = threading.Event()
                handler.run(passed.set)  # the server's loop has left the upgrade behind
                assert passed.wait(WAIT)
                assert alive(HttpToolsProtocol) == requests
                client.send(frame(CLOSE, close_payload(1000)))
                expect_close(client, 1000)
            handler.expect_closed(CloseReason.PEER_CLOSED)
            gone = threading.Event()
            handler.run(gone.set)
            assert gone.wait(WAIT)
            del handler
        assert alive(WebSocketProtocol) == connections
    finally:
        gc.enable()


def test_tls(loop: Loop, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = tmp_path / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    server, handler = Server(), Recorder()
    server.handlers.put(handler)
    with (
        serve(server.accept, WebSocketSettings(max_message=1000), loop, server.connections, certificate) as port,
        Client(port, tls=context) as client,
    ):
        assert handler.next() == ("opened", None)
        client.send(frame(TEXT, b"over TLS"))
        assert handler.next() == ("received", b"over TLS")
        client.send(frame(3))
        assert expect_close(client, 1002)
    assert handler.expect_closed(CloseReason.PROTOCOL_ERROR)
    assert server.requests[0][1].secure
