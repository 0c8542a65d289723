"""Time that passes at once, servers that do what they are told, and clients that are played with both."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import pytest

from offhook import kandy
from offhook.client.errors import ConnectionLost
from offhook.client.transport import Answer, Socket, Transport
from offhook.protocols.kandy import answers, uc
from offhook.protocols.kandy.json_text import encode

ALICE, BOB = "alice@example.com", "bob@example.com"
LINK: dict[str, object] = {
    "authentication": {"server": {"base": "rest.example"}},
    "subscription": {"websocket": {"server": "ws.example"}},
}
UC: dict[str, object] = {
    "authentication": {"subscription": {"server": "rest.example"}, "websocket": {"server": "ws.example"}}
}
CONFIGS = pytest.mark.parametrize("config", [LINK, UC], ids=["link", "uc"])


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes at once when nothing else happens."""

    def __init__(self) -> None:
        super().__init__()
        self._skipped = 0.0

    def time(self) -> float:
        return super().time() + self._skipped

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled  # type: ignore[attr-defined]
        # Those that were cancelled are taken out later.
        moments = [handle.when() for handle in scheduled if not handle.cancelled()]
        if not ready and moments:
            self._skipped += max(0.0, min(moments) - self.time())
        super()._run_once()  # type: ignore[misc]


class Wire(Socket):
    """A socket that a server closes at a moment.

    Args:
        said: takes what clients say, and when.
        code: of the close.
        until: when, on the event loop's clock.

    Attributes:
        closed: whether the client closed it.
        closing: seconds that closing takes.
    """

    __slots__ = ("_code", "_heard", "_said", "_until", "closed", "closing")

    def __init__(self, said: list[tuple[float, str | bytes]], code: int, until: float) -> None:
        self._said, self._code, self._until = said, code, until
        self._heard: asyncio.Queue[str | bytes] = asyncio.Queue()
        self.closed = False
        self.closing = 0.0

    def tell(self, message: str | bytes) -> None:
        """Has the client hear a message."""
        self._heard.put_nowait(message)

    async def send(self, message: str | bytes, *, text: bool | None = None) -> None:
        self._said.append((asyncio.get_running_loop().time(), message))

    async def receive(self) -> str | bytes:
        try:
            async with asyncio.timeout_at(self._until) as limit:
                return await self._heard.get()
        except TimeoutError:
            # Not the client's own limit.
            if limit.expired():
                raise ConnectionLost(self._code) from None
            raise

    async def close(self, code: int = 1000) -> None:
        try:
            await asyncio.sleep(self.closing)
        finally:
            self.closed = True


class Platform(Transport):
    """A server whose answers are scripted; it answers whatever is not with success.

    Requests go by their method, and those of UC's own resources by the last word of the resource, such as
    ``mk_token`` or ``send``.

    Attributes:
        script: request → answers yet to be given, as HTTP status, headers and body.
        held: request → what its answers wait for.
        asked: the requests, as when and which.
        sockets: those that were opened.
    """

    def __init__(self) -> None:
        super().__init__()
        self.script: dict[str, list[tuple[int, dict[str, str], bytes]]] = {}
        self.held: dict[str, asyncio.Event] = {}
        self.asked: list[tuple[float, str]] = []
        self.sockets: list[Wire] = []
        self._news = asyncio.Event()

    async def request(self, method: str, url: str, **_: object) -> Answer:
        path = urlsplit(url).path.split("/")
        name = path[3] if path[1] == "v2.0" else method
        self.asked.append((asyncio.get_running_loop().time(), name))
        self._news.set()
        await asyncio.sleep(0)
        if name in self.held:
            await self.held[name].wait()
        if waiting := self.script.get(name):
            return Answer(*waiting.pop(0))
        if name in ("mk_token", "refresh_token"):
            return Answer(200, {}, uc.tokens("access", "refresh", 3600))
        if name == "send":
            return Answer(200, {}, uc.sent("m-1"))
        if name == "DELETE":
            return Answer(200, {}, answers.done("subscribeResponse"))
        body = answers.subscribed(subscription="/s/1", channel="/websocket/1", expires=3600, services=["IM"])
        return Answer(200, {}, body)

    async def websocket(self, url: str, **_: object) -> Socket:
        socket = Wire([], 1000, asyncio.get_running_loop().time() + 10_000_000)
        self.sockets.append(socket)
        return socket

    @property
    def methods(self) -> list[str]:
        """Which requests there were."""
        return [name for _, name in self.asked]

    async def was_asked(self, name: str, times: int = 1) -> None:
        """Waits for a request."""
        while self.methods.count(name) < times:
            self._news.clear()
            await self._news.wait()

    def gaps(self) -> list[float]:
        """Seconds between the requests."""
        times = [at for at, _ in self.asked]
        return [after - before for before, after in itertools.pairwise(times)]


def refusal(
    status: int, code: int, retry_after: str = "", retry_after_ms: int = 0
) -> tuple[int, dict[str, str], bytes]:
    """A refused request.

    Args:
        status: of HTTP.
        code: the number in the body.
        retry_after: the header.
        retry_after_ms: the member of the body.
    """
    content: dict[str, object] = {"statusCode": code, "reason": "Because"}
    if retry_after_ms:
        content["retryAfter"] = retry_after_ms
    return status, {"retry-after": retry_after} if retry_after else {}, encode({"subscribeResponse": content})


def play(
    config: dict[str, object],
    act: Callable[[Platform, kandy.Client], Awaitable[None]],
    reconnect: kandy.Reconnect | None = None,
) -> list[kandy.Event]:
    """Has a client do something with a scripted server; what it told. Nothing fails in the background or is left."""
    told: list[kandy.Event] = []
    complaints: list[object] = []

    async def whole() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        platform = Platform()
        async with (
            asyncio.timeout(10_000),
            kandy.create(config, transport=platform, reconnect=reconnect) as client,
        ):
            for name in kandy.EVENTS:
                client.on(name, told.append)
            await act(platform, client)
        # Those that ended in this very moment are gone after a turn.
        await asyncio.sleep(0)
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
        assert all(socket.closed for socket in platform.sockets)

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(whole())
    assert complaints == []
    return told


async def sign_in(client: kandy.Client) -> None:
    """Connects in the way of its product."""
    if client.config.product == "uc":
        await client.connect(username=ALICE, password="secret")
    else:
        client.set_credentials(username=ALICE, password="secret")
        await client.services.subscribe(["IM"])


async def sign_out(client: kandy.Client) -> None:
    """Disconnects in the way of its product."""
    await (client.disconnect() if client.config.product == "uc" else client.services.unsubscribe())
