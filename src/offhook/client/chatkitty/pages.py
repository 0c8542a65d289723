"""Lists that come in pages (ChatKitty protocol notes, 7.1)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Generic, Protocol, TypeVar

from offhook.client.chatkitty.errors import ChatKittyBadAnswer, ChatKittyError, PageOutOfBoundsError
from offhook.client.chatkitty.resources import PageNumbers, PageResource, read
from offhook.client.chatkitty.results import Failed, TurnedPage

T = TypeVar("T")


class Ask(Protocol):
    """Asks a relay and returns its resource. Raises ChatKittyError."""

    async def __call__(self, destination: str, parameters: Mapping[str, str] | None = None, /) -> object:
        """Asks it."""


class Paginator(Generic[T]):
    """One page of a list, and the way to the others.

    Iterating over it gives the items of this page and of all that follow, which are fetched as they are needed; an
    error on the way is raised. What is added to or removed from the list meanwhile may be met twice or not at all.

    Args:
        ask: asks relays.
        shape: the type of the items.
        name: what the items are called in the page.
        parameters: sent with every request.
        resource: the page as it came.

    Raises:
        ChatKittyBadAnswer: it is no page of such items.
    """

    __slots__ = ("_ask", "_name", "_parameters", "_relays", "_shape", "items", "numbers")

    def __init__(self, ask: Ask, shape: type[T], name: str, parameters: Mapping[str, str], resource: object) -> None:
        page = read(resource, PageResource)
        if page.embedded and name not in page.embedded:
            raise ChatKittyBadAnswer(f"The server sent a page without {name}")
        self._ask = ask
        self._shape = shape
        self._name = name
        self._parameters = parameters
        self._relays = page.relays
        self.items: tuple[T, ...] = tuple(read(item, shape) for item in page.embedded.get(name, ()))
        """The items of this page."""
        self.numbers: PageNumbers = page.page
        """Where this page is in its list."""

    @classmethod
    async def first(
        cls, ask: Ask, relay: str, shape: type[T], name: str, parameters: Mapping[str, str]
    ) -> Paginator[T]:
        """Fetches the first page.

        Raises:
            ChatKittyError: it cannot be fetched.
        """
        return cls(ask, shape, name, parameters, await ask(relay, parameters))

    @property
    def has_next_page(self) -> bool:
        """Whether there is a page after this one."""
        return "next" in self._relays

    @property
    def has_prev_page(self) -> bool:
        """Whether there is a page before this one."""
        return "prev" in self._relays

    def next_page(self) -> Coroutine[object, object, TurnedPage[T] | Failed]:
        """Fetches the page after this one.

        Raises:
            PageOutOfBoundsError: there is none; raised by the call itself.
        """
        return self._turn("next")

    def prev_page(self) -> Coroutine[object, object, TurnedPage[T] | Failed]:
        """Fetches the page before this one.

        Raises:
            PageOutOfBoundsError: there is none; raised by the call itself.
        """
        return self._turn("prev")

    async def __aiter__(self) -> AsyncIterator[T]:
        page = self
        while True:
            for item in page.items:
                yield item
            if not page.has_next_page:
                return
            page = (await page.next_page()).unwrap().paginator

    def _turn(self, direction: str) -> Coroutine[object, object, TurnedPage[T] | Failed]:
        relay = self._relays.get(direction)
        if relay is None:
            raise PageOutOfBoundsError(f"There is no {direction} page")
        return self._fetch(relay)

    async def _fetch(self, relay: str) -> TurnedPage[T] | Failed:
        try:
            page = await self.first(self._ask, relay, self._shape, self._name, self._parameters)
        except ChatKittyError as error:
            return Failed(error)
        return TurnedPage(page.items, page)
