"""A real uvicorn server on loopback whose WebSockets echo, in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import uvicorn
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope

from offhook.codes import CloseReason
from offhook.protocols.websocket import (
    Event,
    Message,
    ProtocolViolation,
    Receiver,
    UpgradeRequest,
    encode_binary,
)
from offhook.server.timers import TimerWheel
from offhook.server.websocket import (
    Accepted,
    Acceptor,
    Peer,
    Socket,
    WebSocketProtocol,
    WebSocketSettings,
    protocol_factory,
)

Loop = Literal["asyncio", "uvloop"]


class _KindKeeper(Receiver):
    """A receiver that remembers which messages were text: handlers are not told, but an echo must know."""

    __slots__ = ("texts",)

    def __init__(self, max_message: int) -> None:
        super().__init__(max_message)
        self.texts: deque[bool] = deque()

    def feed(self, data: bytes) -> list[Event]:
        try:
            events = super().feed(data)
        except ProtocolViolation as violation:
            self._keep(violation.events)
            raise
        self._keep(events)
        return events

    def _keep(self, events: list[Event]) -> None:
        self.texts.extend(event.text for event in events if isinstance(event, Message))


class Echo:
    """A handler that sends every message back as what it was."""

    def __init__(self, max_message: int) -> None:
        self._receiver = _KindKeeper(max_message)
        self._socket: WebSocketProtocol

    def opened(self, socket: Socket) -> None:
        assert isinstance(socket, WebSocketProtocol)
        self._socket = socket
        socket._receiver = self._receiver

    def received(self, data: bytes) -> None:
        if self._receiver.texts.popleft():
            self._socket.send(data)
        else:
            self._socket._transport.write(encode_binary(data))

    def alive(self, data: bytes) -> None:
        pass

    def closed(self, reason: CloseReason, detail: str) -> None:
        pass


@contextmanager
def serve(
    acceptor: Acceptor,
    settings: WebSocketSettings,
    loop: Loop = "uvloop",
    connections: set[WebSocketProtocol] | None = None,
    certificate: Path | None = None,
) -> Iterator[int]:
    """Run uvicorn with our WebSocket protocol.

    Args:
        acceptor: decides on each upgrade.
        settings: limits of each connection.
        loop: the event loop to run on.
        connections: will hold the open connections.
        certificate: a PEM file with key and certificate, to serve TLS.

    Yields:
        The port on 127.0.0.1.
    """
    timers = TimerWheel(tick=0.02)

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        assert scope["type"] == "lifespan"
        await receive()
        timers.start(asyncio.get_running_loop())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        timers.stop()
        await send({"type": "lifespan.shutdown.complete"})

    factory = protocol_factory(acceptor, settings, timers, set() if connections is None else connections)
    config = uvicorn.Config(
        app,
        ws=factory,  # type: ignore[arg-type]  # any callable will do
        http="httptools",
        loop=loop,
        lifespan="on",
        log_level="critical",
        access_log=False,
        ssl_certfile=certificate,
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="echo server")
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(timeout=20)
            assert not thread.is_alive(), "the server did not stop"


@contextmanager
def serve_echo(max_message: int, loop: Loop = "uvloop") -> Iterator[int]:
    """Run an echo server; yields its port."""
    # An echo's answer may wait as a whole, behind the answer before it.
    settings = WebSocketSettings(max_message=max_message, max_write_buffer=4 * max_message)

    def accept(_: UpgradeRequest, __: Peer) -> Accepted:
        return Accepted(Echo(max_message))

    with serve(accept, settings, loop) as port:
        yield port
