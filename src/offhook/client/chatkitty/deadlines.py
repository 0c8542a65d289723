"""The waits of one session: each is bounded, and all of them end at once with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from offhook.client.chatkitty.errors import ChatKittyTimedOut, SessionEndedError


class Deadlines:
    """Bounds waits."""

    __slots__ = ("_over", "_scopes")

    def __init__(self) -> None:
        self._scopes: set[asyncio.Timeout] = set()
        self._over: str | None = None

    @asynccontextmanager
    async def within(self, seconds: float) -> AsyncIterator[None]:
        """Bounds what is awaited in the ``async with`` statement.

        Raises:
            ChatKittyTimedOut: it took longer.
            SessionEndedError: the session ended meanwhile, or before. What was there in time is given all the same.
        """
        self.check()
        try:
            async with asyncio.timeout(seconds) as scope:
                self._scopes.add(scope)
                try:
                    yield
                finally:
                    self._scopes.discard(scope)
        except TimeoutError:
            if self._over is not None:
                raise SessionEndedError(self._over) from None
            raise ChatKittyTimedOut(f"No answer came within {seconds:g} s") from None

    def check(self) -> None:
        """Does nothing while the session lasts.

        Raises:
            SessionEndedError: it has ended.
        """
        if self._over is not None:
            raise SessionEndedError(self._over)

    def end(self, message: str) -> None:
        """Ends all waits, and those that would begin."""
        self._over = message
        now = asyncio.get_running_loop().time()
        for scope in self._scopes:
            if not scope.expired():
                scope.reschedule(now)
