"""One connection of a client that keeps to the protocol: STOMP frames over a WebSocket, with their bookkeeping."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

TIMEOUT = 15.0
ANSWER_TIMEOUT = 10.0
"""Seconds after which the server has forgotten a request."""
_ESCAPES = {"\\\\": "\\", "\\n": "\n", "\\r": "\r", "\\c": ":"}


class Lost(Exception):
    """The connection broke, or never came to be."""


class Refused(Exception):
    """The server answered with an error."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A STOMP frame."""

    command: str
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""

    def encode(self) -> str:
        """The frame as text. The headers used here hold nothing that must be escaped."""
        lines = "".join(f"{name}:{value}\n" for name, value in self.headers.items())
        return f"{self.command}\n{lines}\n{self.body}\0"

    @classmethod
    def decode(cls, text: str) -> Self:
        """The frame in a message of the server, which holds exactly one."""
        head, _, body = text.removesuffix("\0").partition("\n\n")
        command, *lines = head.split("\n")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers.setdefault(name, value if command == "CONNECTED" else _unescape(value))
        return cls(command, headers, body)

    def json(self) -> dict[str, object]:
        """The body, which is a JSON object."""
        value = json.loads(self.body)
        assert isinstance(value, dict)
        return value


@dataclass(slots=True)
class _Action:
    """A SEND that waits for its RECEIPT and for the event that answers it."""

    settled: asyncio.Future[Frame]
    receipt: bool = False
    answer: Frame | None = None


class Connection:
    """A connection after CONNECTED. Use it as a context.

    Args:
        url: of the WebSocket.
        headers: of the CONNECT.
        heard: is told of every frame in either direction, with ``>`` or ``<``.
        on_event: is given every event of a topic, before it is acknowledged.

    Attributes:
        connected: the CONNECTED frame.
        gone: set once the connection is broken.
    """

    def __init__(
        self,
        url: str,
        headers: dict[str, str],
        heard: Callable[[str, Frame], None],
        on_event: Callable[[Frame], None],
    ) -> None:
        self._url = url
        self._headers = headers
        self._heard = heard
        self._on_event = on_event
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._relays: dict[str, asyncio.Future[Frame]] = {}
        self._actions: dict[str, _Action] = {}
        self._receipts: dict[str, asyncio.Future[Frame]] = {}
        self._numbers = itertools.count()
        self.connected = Frame("")
        self.gone = asyncio.Event()

    async def __aenter__(self) -> Self:
        try:
            self._socket = await connect(
                self._url, subprotocols=[Subprotocol("v12.stomp")], compression=None, ping_interval=None
            )
            await self._send(Frame("CONNECT", {**self._headers, "accept-version": "1.2", "heart-beat": "60000,10000"}))
            first = await self._next()
        except (OSError, ConnectionClosed, TimeoutError, EOFError) as error:
            await self.__aexit__(None, None, None)
            raise Lost(repr(error)) from None
        except Exception as error:  # the handshake of websockets fails in many ways when the server dies in it
            await self.__aexit__(None, None, None)
            if type(error).__module__.startswith("websockets"):
                raise Lost(repr(error)) from None
            raise
        if first.command != "CONNECTED":
            await self.__aexit__(None, None, None)
            raise Refused(first.body)
        self.connected = first
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The reader ends by this even if its cancellation is lost, as on 3.11 when a message comes in the same moment.
        if self._socket is not None:
            self._socket.transport.abort()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        self._break()

    async def relay(self, destination: str, **parameters: str) -> object:
        """Asks a relay. Returns its ``resource``. Raises Lost, Refused."""
        name = f"relay-{next(self._numbers)}"
        answer = await self._ask(
            self._relays, name, Frame("SUBSCRIBE", {**parameters, "id": name, "destination": destination})
        )
        return answer.json()["resource"]

    async def act(self, destination: str, receipt: str, body: dict[str, object]) -> Frame:
        """Acts, and waits for the RECEIPT and for the event that answers. Raises Lost, Refused."""
        action = self._actions[receipt] = _Action(asyncio.get_running_loop().create_future())
        headers = {"destination": destination, "content-type": "application/json;charset=UTF-8", "receipt": receipt}
        await self._send(Frame("SEND", headers, json.dumps(body)))
        return await asyncio.wait_for(action.settled, ANSWER_TIMEOUT)

    async def subscribe(self, name: str, destination: str, receipt: bool = True) -> None:
        """Subscribes to a topic, or without a receipt to the error queue. Does not wait."""
        extra = {"receipt": f"receipt-{name}", "ack": "client-individual"} if receipt else {}
        await self._send(Frame("SUBSCRIBE", {**extra, "id": name, "destination": destination}))

    async def disconnect(self) -> None:
        """Says goodbye and waits for the RECEIPT. Raises Lost."""
        await self._ask(self._receipts, "close-0", Frame("DISCONNECT", {"receipt": "close-0"}))

    async def _ask(self, waiting: dict[str, asyncio.Future[Frame]], name: str, frame: Frame) -> Frame:
        future = waiting[name] = asyncio.get_running_loop().create_future()
        await self._send(frame)
        return await asyncio.wait_for(future, ANSWER_TIMEOUT)

    async def _send(self, frame: Frame) -> None:
        if self.gone.is_set() or self._socket is None:
            raise Lost("the connection is gone")
        self._heard(">", frame)
        try:
            await self._socket.send(frame.encode())
        except ConnectionClosed as error:
            raise Lost(repr(error)) from None

    async def _next(self) -> Frame:
        assert self._socket is not None
        while True:
            text = await asyncio.wait_for(self._socket.recv(), TIMEOUT)
            assert isinstance(text, str), "the server sends text frames only"
            if text != "\n":
                frame = Frame.decode(text)
                self._heard("<", frame)
                return frame

    async def _read(self) -> None:
        try:
            while True:
                await self._take(await self._next())
        except (ConnectionClosed, TimeoutError, Lost):
            self._break()

    async def _take(self, frame: Frame) -> None:
        headers = frame.headers
        if frame.command == "RECEIPT":
            name = headers["receipt-id"]
            if (action := self._actions.get(name)) is not None:
                action.receipt = True
                self._settle(name, action)
            elif (waiting := self._receipts.pop(name, None)) is not None:
                waiting.set_result(frame)
        elif frame.command == "MESSAGE" and headers["subscription"] == "errors":
            self._reject(frame)
        elif frame.command == "MESSAGE" and (relay := self._relays.pop(headers["subscription"], None)) is not None:
            relay.set_result(frame)
        elif frame.command == "MESSAGE":
            self._on_event(frame)
            name = headers.get("receipt-id", "")
            if (action := self._actions.get(name)) is not None and action.answer is None:
                action.answer = frame
                self._settle(name, action)
            await self._send(Frame("ACK", {"id": headers["ack"], "subscription": headers["subscription"]}))

    def _settle(self, name: str, action: _Action) -> None:
        if action.receipt and action.answer is not None:
            del self._actions[name]
            if not action.settled.done():
                action.settled.set_result(action.answer)

    def _reject(self, frame: Frame) -> None:
        future = self._relays.pop(frame.headers.get("subscription-id", ""), None)
        if (action := self._actions.pop(frame.headers.get("receipt-id", ""), None)) is not None:
            future = action.settled
        if future is not None and not future.done():
            future.set_exception(Refused(frame.body))

    def _break(self) -> None:
        self.gone.set()
        for future in [*self._relays.values(), *self._receipts.values(), *(a.settled for a in self._actions.values())]:
            if not future.done():
                future.set_exception(Lost("the connection broke"))
                future.exception()  # it may be that nobody waits any more


def _unescape(value: str) -> str:
    out, at = "", 0
    while at < len(value):
        pair = value[at : at + 2]
        out += _ESCAPES.get(pair, value[at])
        at += 2 if pair in _ESCAPES else 1
    return out
