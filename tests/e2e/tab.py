"""A page of a browser with a vendor's script on it, as the tests see it: what it did and what went over its network."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar
from urllib.parse import urlsplit

import msgspec
from tests.e2e.sdk import PATIENCE, Port
from tests.e2e.values import Event, SocketChange

T = TypeVar("T")

UNIMPORTANT = ("warning: ", "error: Failed to load resource", "error: Access to ", "error: WebSocket connection to ")
"""Beginnings of what a console shows but a script did not complain of: the browser's own words about the network."""

REPROBE = 0.5
"""Seconds after which a page is asked again though it reported nothing."""


class Request(msgspec.Struct, frozen=True):
    """A request of the page. Preflights are the browser's own and not among them."""

    number: int
    method: str
    url: str
    headers: dict[str, str]
    body: str | None = None

    @property
    def path(self) -> str:
        """The path as the page wrote it, without the query."""
        return urlsplit(self.url).path

    @property
    def query(self) -> str:
        return urlsplit(self.url).query


class Answer(msgspec.Struct, frozen=True):
    """What the server answered to the request with the same number."""

    number: int
    status: int
    headers: dict[str, str]
    body: str

    def json(self) -> dict[str, object]:
        """The body, which must be a JSON object."""
        return msgspec.json.decode(self.body, type=dict[str, object])


class Frame(msgspec.Struct, frozen=True):
    """A WebSocket message of the connection with this number; the text is None if it was binary."""

    number: int
    direction: Literal["sent", "received"]
    text: str | None


class WebSocket(msgspec.Struct, frozen=True):
    """A WebSocket that the page began to open."""

    number: int
    url: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its answer, None while there is none or if the network failed."""

    request: Request
    answer: Answer | None

    def __str__(self) -> str:
        answer = "no answer" if self.answer is None else f"{self.answer.status} {self.answer.body}"
        return f"{self.request.method} {self.request.url} {self.request.body or ''} -> {answer}"


class Tab:
    """One page in a browser context of its own.

    Args:
        port: the way to the driver.
        name: the driver's name of the page.
    """

    def __init__(self, port: Port, name: str) -> None:
        self._port = port
        self._name = name
        self._changed = asyncio.Event()
        self.events: list[Event] = []

    def __repr__(self) -> str:
        return f"<{self._name}>"

    @property
    def mark(self) -> int:
        """The number of events so far, to look only at later ones."""
        return len(self.events)

    def report(self, event: Event) -> None:
        """Takes what the page reported."""
        self.events.append(event)
        self._changed.set()

    async def evaluate(self, source: str, *args: object, timeout: float = PATIENCE) -> object:
        """Calls a JavaScript function, given as source text, and returns its result.

        Raises:
            Thrown: it threw.
            TimeoutError: its promise is still pending.
        """
        return await self._call("evaluate", source, *args, timeout=timeout)

    async def click(self, selector: str) -> None:
        """Clicks an element as a user does, once it can be clicked."""
        await self._call("click", selector)

    async def text(self, selector: str) -> str:
        """The text of an element."""
        return str(await self._call("text", selector))

    async def offline(self, flag: bool) -> None:
        """Tells the browser that its network is gone, or back. Open WebSockets may go on."""
        await self._call("offline", flag)

    async def reload(self) -> None:
        """What a user does with F5."""
        await self._port.request(self._name, "reload")

    async def kill(self) -> None:
        """The page is gone without a word."""
        await self._port.request(self._name, "kill")

    async def _call(self, command: str, *args: object, timeout: float = PATIENCE) -> object:
        async with asyncio.timeout(timeout):
            return await self._port.request(self._name, "call", command=command, args=args)

    def values(self, kind: str, shape: type[T], since: int = 0) -> Iterator[T]:
        """What was reported under this kind from the event numbered ``since`` on, in order."""
        return (msgspec.convert(event.value, shape) for event in self.events[since:] if event.kind == kind)

    def exchanges(self, part: str = "", since: int = 0) -> list[Exchange]:
        """Requests whose ``METHOD path`` contains this, in order, with what came of them."""
        answers = {answer.number: answer for answer in self.values("response", Answer)}
        requests = (r for r in self.values("request", Request, since) if part in f"{r.method} {r.path}")
        return [Exchange(request, answers.get(request.number)) for request in requests]

    def frames(self, direction: Literal["sent", "received"], since: int = 0) -> list[str | None]:
        """The WebSocket messages of the page, in order."""
        return [frame.text for frame in self.values("frame", Frame, since) if frame.direction == direction]

    def websockets(self, since: int = 0) -> list[WebSocket]:
        """The WebSockets that the page began to open, in order."""
        return list(self.values("websocket", WebSocket, since))

    def sockets(self, since: int = 0) -> list[str]:
        """What became of the page's WebSockets, in order."""
        return [change.state for change in self.values("socket", SocketChange, since)]

    def close_codes(self, since: int = 0) -> list[int]:
        """The close codes of the WebSockets that are closed, in order, as the page saw them."""
        changes = self.values("socket", SocketChange, since)
        return [change.code for change in changes if change.code is not None]

    def complaints(self) -> list[str]:
        """What went wrong in the page's scripts: uncaught errors, and what they wrote to the console as an error."""
        told = (str(event.value) for event in self.events if event.kind == "console")
        return [text for text in told if not text.startswith(UNIMPORTANT)]

    async def until(self, condition: Callable[[], bool], what: str, timeout: float = PATIENCE) -> None:
        """Waits until a condition on the events holds.

        Raises:
            AssertionError: it did not in time; the message tells all that happened.
        """
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{self} waited in vain for {what}; it saw:\n{self.story()}") from None

    async def eventually(
        self,
        probe: Callable[[], Awaitable[T]],
        accept: Callable[[T], bool],
        what: str,
        timeout: float = PATIENCE,
    ) -> T:
        """Asks again after each event until the answer is the right one, and returns it.

        Raises:
            AssertionError: it was not in time; the message tells the last answer and all that happened.
        """
        found: T | None = None
        try:
            async with asyncio.timeout(timeout):
                while True:
                    self._changed.clear()
                    found = await probe()
                    if accept(found):
                        return found
                    # An SDK may tell of a change a little before its getters show it.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(REPROBE):
                            await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{self} waited in vain for {what}, had {found}; it saw:\n{self.story()}") from None

    async def quiet(self, seconds: float, *kinds: str) -> None:
        """Asserts that nothing of these kinds is reported for a while."""
        since = self.mark

        def heard() -> list[Event]:
            return [event for event in self.events[since:] if event.kind in kinds]

        try:
            async with asyncio.timeout(seconds):
                while not heard():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return
        raise AssertionError(f"{self} should have seen no {kinds}:\n{self.story(since)}")

    async def answered(self, part: str, number: int = 1, since: int = 0, timeout: float = PATIENCE) -> Exchange:
        """Waits for the answer to the ``number``-th request whose ``METHOD path`` contains this."""

        def complete() -> bool:
            found = self.exchanges(part, since)
            return len(found) >= number and found[number - 1].answer is not None

        await self.until(complete, f"answer {number} to {part}", timeout)
        return self.exchanges(part, since)[number - 1]

    def story(self, since: int = 0) -> str:
        """All that happened, one line each, for a failure's message."""
        lines = []
        for event in self.events[since:]:
            value = msgspec.json.encode(event.value).decode()
            lines.append(f"  {event.kind} {value if len(value) < 1500 else value[:1500] + '…'}")
        return "\n".join(lines)
